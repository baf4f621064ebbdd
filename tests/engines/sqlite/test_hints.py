"""Hints: hearing soon of what others have committed, with inotify and by polling alone; and not of one's own."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from lastcall.engines.sqlite import SqliteEngine, _hints
from lastcall.engines.sqlite._inotify import Inotify
from lastcall.engines.sqlite._lookout import Lookout
from lastcall.jobs._rows import ClaimRequest, NewJob

from .support import Program, opened, until

JOB = NewJob("a", "work", "[]")

both_ways = pytest.mark.parametrize("inotify", [True, False], ids=["inotify", "polling"])


class Listener:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.mark.slow
@both_ways
async def test_another_process(tmp_path: Path, inotify: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process submits five jobs, one after another: each is heard of, long before anybody would poll for it."""
    if inotify:
        monkeypatch.setattr(_hints, "POLL_SECONDS", 3600.0)
    async with opened(tmp_path / "jobs.db", _inotify=inotify) as engine:
        listener = Listener()
        engine.listen(listener)
        with Program("change", tmp_path / "jobs.db") as program:
            program.expect("open")
            for number in range(5):
                await asyncio.sleep(0)
                before = listener.calls
                program.tell(f"{number}")
                await until(lambda before=before: listener.calls > before, "the hint")
                program.expect(f"{number}")
                assert len(await engine.get([f"{number}"])) == 1
            program.tell("")
            await asyncio.to_thread(program.end)


@both_ways
async def test_another_engine_in_this_process(tmp_path: Path, inotify: bool) -> None:
    """A second engine object on the same file is somebody else."""
    path = tmp_path / "jobs.db"
    async with opened(path, _inotify=inotify) as engine, opened(path) as other:
        listener = Listener()
        engine.listen(listener)
        await other.submit([JOB])
        await until(lambda: listener.calls > 0, "the hint")


@both_ways
async def test_ones_own_commits_are_no_news(tmp_path: Path, inotify: bool) -> None:
    """The engine writes a lot itself, and nobody else does: nobody is told."""
    async with opened(tmp_path / "jobs.db", _inotify=inotify) as engine:
        listener = Listener()
        engine.listen(listener)
        for number in range(30):
            await engine.submit([JOB._replace(id=f"{number}")])
            await engine.claim(ClaimRequest("nobody", 10, {}))
        # As long as polling takes several times, and every look that follows a write.
        await asyncio.sleep(0.2)
        assert listener.calls == 0


async def test_nobody_listens_any_more(tmp_path: Path) -> None:
    """Listeners come and go, also before the opening and after the closing; only those that are there are told."""
    path = tmp_path / "jobs.db"
    engine = SqliteEngine(str(path), synchronous="off")
    early, late, gone = Listener(), Listener(), Listener()
    end_early = engine.listen(early)
    await engine.open()
    engine.listen(late)
    end_gone = engine.listen(gone)
    end_gone()
    end_gone()
    async with opened(path) as other:
        await other.submit([JOB])
        await until(lambda: early.calls > 0 and late.calls > 0, "both hints")
        end_early()
        before = early.calls, late.calls
        await other.submit([JOB._replace(id="b")])
        await until(lambda: late.calls > before[1], "the hint")
        assert (early.calls, gone.calls) == (before[0], 0)
    await engine.close()
    await engine.open()
    before_again = late.calls
    async with opened(path) as other:
        await other.submit([JOB._replace(id="c")])
        await until(lambda: late.calls > before_again, "the hint after opening again")
    await engine.close()


async def test_a_listener_that_raises(tmp_path: Path, loop_errors: list[dict[str, object]]) -> None:
    """One listener raises: the loop's handler hears of it, and the other listener is told as well."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine, opened(path) as other:

        def raises() -> None:
            raise ValueError("listener")

        listener = Listener()
        engine.listen(raises)
        engine.listen(listener)
        await other.submit([JOB])
        await until(lambda: listener.calls > 0, "the hint")
    assert loop_errors and all(isinstance(error["exception"], ValueError) for error in loop_errors)
    loop_errors.clear()


@both_ways
async def test_the_file_comes_back(tmp_path: Path, inotify: bool) -> None:
    """The file was moved away and another one put there: after that one's opening its commits are heard of."""
    path, second = tmp_path / "jobs.db", tmp_path / "second.db"
    async with opened(second) as other:
        await other.submit([JOB])
    async with opened(path, _inotify=inotify) as engine:
        listener = Listener()
        engine.listen(listener)
        path.rename(tmp_path / "away.db")
        for ending in ("-wal", "-shm"):
            path.with_name(f"jobs.db{ending}").unlink()
        second.rename(path)
        assert len(await engine.get(["a"])) == 1
        await engine.submit([JOB._replace(id="b")])
        await until(lambda: listener.calls > 0, "the hint that everything may be different")
        before = listener.calls
        async with opened(path) as other:
            await other.submit([JOB._replace(id="c")])
            await until(lambda: listener.calls > before, "the hint")


@pytest.mark.loops("asyncio")
async def test_no_inotify_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses another watch: polling takes over, often."""

    def refuse(self: Inotify, path: str) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Inotify, "watch", refuse)
    async with opened(tmp_path / "jobs.db") as engine, opened(tmp_path / "jobs.db") as other:
        listener = Listener()
        engine.listen(listener)
        assert engine._writer is not None
        assert engine._writer.lookout.poll_seconds == _hints.POLL_WITHOUT_INOTIFY_SECONDS
        await other.submit([JOB])
        await until(lambda: listener.calls > 0, "the hint")


@pytest.mark.loops("asyncio")
async def test_listening_costs_little(tmp_path: Path) -> None:
    """Listening with nothing going on: the process does next to nothing, with inotify and without."""
    async with opened(tmp_path / "a.db") as first, opened(tmp_path / "b.db", _inotify=False) as second:
        first.listen(Listener())
        second.listen(Listener())
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - cpu < 0.2 * (time.monotonic() - began)


def test_a_write_is_looked_at_again_until_its_commit_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to the log is seen before its commit is: after a nudge come more looks, so that a commit is seen late by
    a quarter of what it took at most; they are some dozens, then comes the usual polling."""
    now = 100.0
    monkeypatch.setattr("lastcall.engines.sqlite._lookout.time.monotonic", lambda: now)
    version = 1

    class Connection:
        def execute(self, statement: str) -> "Connection":
            return self

        def fetchone(self) -> tuple[int]:
            return (version,)

    lookout, connection = Lookout(), Connection()
    lookout.begin(connection)  # type: ignore[arg-type]
    assert lookout.wait_seconds() is None
    lookout.poll_seconds = 1.0
    lookout.nudge()
    looks = 0
    while True:
        assert not lookout.look(connection)  # type: ignore[arg-type]
        looks += 1
        pause = lookout.wait_seconds()
        assert pause is not None
        if pause == 1.0:
            break
        assert pause <= max(0.00025, (now - 100.0) / 4) + 1e-9
        now += pause
    assert looks < 50 and now < 106
    version = 2
    assert lookout.look(connection)  # type: ignore[arg-type]
    assert not lookout.look(connection)  # type: ignore[arg-type]
