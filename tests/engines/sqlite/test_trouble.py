"""Trouble with the file: full, locked, read-only, damaged, foreign, newer, gone. A clear error, nothing half written,
and the engine goes on by itself when the trouble is over."""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from lastcall.engines.sqlite import SqliteEngine, _database
from lastcall.engines.sqlite._schema import VERSION
from lastcall.exceptions import EngineUnavailable, SchemaTooNew
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, NewJob, WorkerRow
from lastcall.jobs._state import JobStatus

from .support import Program, inside, is_sound, opened, query

pytestmark = pytest.mark.loops("asyncio")

JOB = NewJob("a", "work", "[]")
TASKS = {("work", ""): None}
WORKER = WorkerRow("w", "host", 1, None, None, None, 15.0, 10, None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are waited for as ever, but not for as long."""
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.05)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- full ---


async def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The file reaches its limit while many submit at once: who was answered is there, who was refused is not."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await inside(engine, lambda store: store.execute("PRAGMA max_page_count = 100"))
        jobs = [JOB._replace(id=f"{n}", args=json.dumps("x" * 3000)) for n in range(200)]
        answers = await asyncio.gather(*(engine.submit([job]) for job in jobs), return_exceptions=True)
        refused = [job.id for job, answer in zip(jobs, answers, strict=True) if isinstance(answer, Exception)]
        for answer in answers:
            if isinstance(answer, Exception):
                assert isinstance(answer, EngineUnavailable) and "free some space" in str(answer)
        assert refused and len(refused) < 200
        there = {row.id for row in await engine.get([job.id for job in jobs])}
        assert there == {job.id for job in jobs} - set(refused)
        await inside(engine, lambda store: store.execute("PRAGMA max_page_count = 1000000"))
        await engine.submit([JOB])
    assert is_sound(path)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["tmpfs", "file size limit"])
async def test_a_full_disk(tmp_path: Path, how: str) -> None:
    """A disk of 2 MiB (or a limit on the size of files) ends in the middle of commits of 10 submits: whoever was
    answered is there and nobody else, reading works, and with room again the engine goes on, also after a restart."""
    wrapper: tuple[str, ...] = ()
    if how == "tmpfs":
        wrapper = ("unshare", "-rm")
        if shutil.which("unshare") is None or subprocess.run([*wrapper, "true"]).returncode != 0:
            # No mounts for us on this machine: the other way to fill a disk must do, twice.
            wrapper, how = (), "file size limit"
    folder = tmp_path / "disk"
    folder.mkdir()
    with Program("fill", folder / "jobs.db", how, wrapper=wrapper) as program:
        program.expect("open")
        told = program.line()
        assert "free some space" in told or "I/O error" in told, told
        program.expect("[true, 0]")  # quiet, although somebody listens, and without hints
        program.expect("[true, true]")
        program.expect("True")
        program.expect("True")
        program.end()


# --- locked ---


@pytest.mark.usefixtures("impatient")
async def test_a_locked_file(tmp_path: Path) -> None:
    """Somebody's shell holds the write lock: every caller hears of it, once, and reading goes on."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
        with closing(sqlite3.connect(path, isolation_level=None)) as shell:
            shell.execute("BEGIN EXCLUSIVE")
            calls = [engine.submit([JOB._replace(id=f"{n}")]) for n in range(50)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for answer in answers:
                assert isinstance(answer, EngineUnavailable) and "write lock" in str(answer)
                assert str(path) in str(answer)
            assert len(set(map(id, answers))) == 50  # an error of its own for each
            assert len(await engine.get(["a"])) == 1
            shell.execute("ROLLBACK")
        await engine.submit([JOB._replace(id="later")])
        assert query(path, "SELECT id FROM lastcall_job ORDER BY n") == [("a",), ("later",)]


@pytest.mark.usefixtures("impatient")
async def test_opening_a_locked_new_file(tmp_path: Path) -> None:
    """The file has no schema yet, and somebody holds it: a clear error, and opening works when it is over."""
    path = tmp_path / "jobs.db"
    engine = SqliteEngine(str(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EngineUnavailable, match="lock"):
            await engine.open()
        shell.execute("ROLLBACK")
    await engine.open()
    await engine.close()


# --- not to be written ---


async def test_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    """Another user's file: it opens or not, as SQLite can, but a write is refused with what to check."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
        path.chmod(0o444)
        with Program("use_unwritable", path) as program:
            program.expect("open")
            program.expect("1")
            assert "cannot be written to; check the permissions" in program.line()
            program.end()
    before = contents(tmp_path)
    tmp_path.chmod(0o555)
    try:
        with Program("use_unwritable", path) as program:
            told = program.line()
            assert "permissions" in told or "cannot be opened" in told, told
            program.end()
    finally:
        tmp_path.chmod(0o755)
    assert contents(tmp_path) == before


async def test_no_folder(tmp_path: Path) -> None:
    """The folder of the file does not exist, or the path is a folder: said so, and none is made."""
    with pytest.raises(EngineUnavailable, match="no folder .*missing"):
        await SqliteEngine(str(tmp_path / "missing" / "jobs.db")).open()
    with pytest.raises(EngineUnavailable, match="is a folder"):
        await SqliteEngine(str(tmp_path)).open()
    assert list(tmp_path.iterdir()) == []


# --- damaged, foreign, newer ---


async def test_a_damaged_page(tmp_path: Path) -> None:
    """A page of the jobs' table is overwritten: whoever needs it is told, everybody else goes on."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
    ((page, size),) = query(
        path,
        "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = 'lastcall_job'",
    )
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    async with opened(path) as engine:
        with pytest.raises(EngineUnavailable, match="damaged"):
            await engine.get(["a"])
        answers = await asyncio.gather(
            engine.submit([JOB._replace(id="b")]), engine.fire("nightly", 1.0, None), return_exceptions=True
        )
        assert isinstance(answers[0], EngineUnavailable) and "damaged" in str(answers[0])
        assert answers[1] is True


@pytest.mark.parametrize(
    "content",
    [b"these are my notes\n" * 100, b"x", b"SQLite format 3\0" + b"\xff" * 5000],
    ids=["text", "one byte", "a torn header"],
)
async def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    """Somebody names the wrong file: it is left as it is."""
    path = tmp_path / "jobs.db"
    path.write_bytes(content)
    engine = SqliteEngine(str(path))
    with pytest.raises(EngineUnavailable, match="not an SQLite database|damaged|cannot be"):
        await engine.open()
    await engine.close()
    assert contents(tmp_path) == {"jobs.db": content}


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("mark", [0, 0x12345678])
async def test_another_applications_database(tmp_path: Path, mode: str, mark: int) -> None:
    """A database with other tables, marked or not: refused, and nothing is changed, nor made beside it."""
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA journal_mode = {mode}")
        other.execute(f"PRAGMA application_id = {mark}")
        other.execute("CREATE TABLE job (id)")
        other.commit()
    before = contents(tmp_path)
    engine = SqliteEngine(str(path))
    with pytest.raises(EngineUnavailable, match="another application's database"):
        await engine.open()
    await engine.close()
    assert contents(tmp_path) == before


async def test_a_newer_schema(tmp_path: Path) -> None:
    """The file was written by a later version: refused at opening, and nothing is changed."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = contents(tmp_path)
    engine = SqliteEngine(str(path))
    with pytest.raises(SchemaTooNew, match=f"version {VERSION + 1} .* knows {VERSION}; upgrade"):
        await engine.open()
    await engine.close()
    assert contents(tmp_path) == before


async def test_a_newer_schema_in_the_log(tmp_path: Path) -> None:
    """The later version is at work right now, and its mark stands in the log only."""
    path = tmp_path / "jobs.db"
    async with opened(path):
        pass
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(SchemaTooNew):
            await SqliteEngine(str(path)).open()


# --- gone ---


async def test_a_deleted_file(tmp_path: Path) -> None:
    """The file is deleted under way: every call says so and none makes a new one; put back, it goes on."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
    saved = path.read_bytes()
    async with opened(path) as engine:
        await engine.get(["a"])
        path.unlink()
        for _ in range(2):
            with pytest.raises(EngineUnavailable, match=r"jobs\.db' is gone"):
                await engine.submit([JOB._replace(id="b")])
            with pytest.raises(EngineUnavailable, match=r"jobs\.db' is gone"):
                await engine.get(["a"])
        assert not path.exists()
        path.with_name("jobs.db-wal").unlink(missing_ok=True)
        path.write_bytes(saved)
        await engine.submit([JOB._replace(id="c")])
        assert [row.id for row in await engine.get(["a", "b", "c"])] == ["a", "c"]
    assert is_sound(path)


async def test_a_file_moved_away_and_back(tmp_path: Path) -> None:
    """The file is moved while jobs stand in its log only; back again, all are there."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])
        path.rename(tmp_path / "elsewhere.db")
        with pytest.raises(EngineUnavailable, match="is gone"):
            await engine.submit([JOB._replace(id="b")])
        (tmp_path / "elsewhere.db").rename(path)
        await engine.submit([JOB._replace(id="c")])
        assert [row.id for row in await engine.get(["a", "b", "c"])] == ["a", "c"]
    assert is_sound(path)


async def test_a_commit_into_a_deleted_file(tmp_path: Path) -> None:
    """The file is deleted while a transaction is under way, so SQLite commits into nowhere: the caller is told."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:

        def delete(store: object) -> None:
            store.execute("INSERT INTO lastcall_schedule VALUES ('x', 1)")  # type: ignore[attr-defined]
            path.unlink()

        with pytest.raises(EngineUnavailable, match="deleted, moved away or replaced"):
            await inside(engine, delete)


async def test_a_log_that_was_deleted(tmp_path: Path) -> None:
    """Somebody tidies the -wal file away: that is noticed, nothing more is written, and closing saves what it held."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([JOB])

        def delete(store: object) -> None:
            store.execute("INSERT INTO lastcall_schedule VALUES ('x', 1)")  # type: ignore[attr-defined]
            path.with_name("jobs.db-wal").unlink()

        with pytest.raises(EngineUnavailable, match="deleted, moved away or replaced"):
            await inside(engine, delete)
        for call in (engine.submit([JOB]), engine.get(["a"])):
            with pytest.raises(EngineUnavailable, match="Stop all processes"):
                await call
    assert query(path, "SELECT id, last_tick FROM lastcall_job, lastcall_schedule") == [("a", 1.0)]


async def test_a_replaced_file(tmp_path: Path) -> None:
    """Another file is put in its place: a good one is opened, with its own lanes; an empty or a foreign one refused."""
    path, other = tmp_path / "jobs.db", tmp_path / "other.db"
    async with opened(other) as engine:
        await engine.submit([NewJob("x", "rest", "[]"), JOB._replace(id="y")])
    async with opened(path) as engine:
        await engine.submit([JOB])
        os.replace(other, path)
        for call in (engine.submit([JOB]), engine.get(["a"])):
            with pytest.raises(EngineUnavailable, match="still the old one's log"):
                await call
        (tmp_path / "jobs.db-wal").unlink()
        (tmp_path / "jobs.db-shm").unlink()
        await engine.join(WORKER)
        claimed = (await engine.claim(ClaimRequest("w", 10, TASKS))).jobs
        assert [job.id for job in claimed] == ["y"]
        assert await engine.finish([AttemptEnd("y", 1, Completed("1"))]) == [JobStatus.COMPLETED]
        assert [row.id for row in await engine.get(["a", "x", "y"])] == ["x", "y"]

        other.write_bytes(b"")
        os.replace(other, path)
        (tmp_path / "jobs.db-wal").unlink()
        with pytest.raises(EngineUnavailable, match="empty file"):
            await engine.submit([JOB])
        assert path.read_bytes() == b""
        with closing(sqlite3.connect(other)) as foreign:
            foreign.execute("CREATE TABLE job (id)")
        os.replace(other, path)
        for call in (engine.submit([JOB]), engine.get(["a"])):
            with pytest.raises(EngineUnavailable, match="another application's"):
                await call


async def test_replaced_while_away(tmp_path: Path) -> None:
    """Closed, deleted, opened again: a new beginning is allowed, because somebody asked for it."""
    path = tmp_path / "jobs.db"
    engine = SqliteEngine(str(path))
    for _ in range(2):
        await engine.open()
        await engine.submit([JOB])
        await engine.close()
        path.unlink()
