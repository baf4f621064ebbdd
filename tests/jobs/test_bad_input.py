"""What cannot be gets an error that names it, and nothing is written. And `Jobs` that are not open, or elsewhere."""

import asyncio
import contextlib
import math
import sqlite3
import sys
import threading
import types
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from lastcall.exceptions import (
    BadArguments,
    BadDeclaration,
    EngineUnavailable,
    KeyConflict,
    LastcallError,
    NotInJob,
    SchemaTooNew,
    UnknownEngine,
    WrongLoop,
)
from lastcall.jobs import Jobs, JobStatus, current_context, current_step, open_engine
from tests.engines.model import ModelEngine
from tests.jobs.conftest import Store
from tests.jobs.running import PATIENCE_SECONDS, Faulty, eventually
from tests.support.loops import LoopFactory

NAN, INF = float("nan"), float("inf")


# --- engines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        ("", UnknownEngine, "no engine knows the URL ''"),
        ("jobs.db", UnknownEngine, "no engine knows the URL 'jobs.db'; it must begin with one of sqlite://"),
        ("redis://localhost/0", UnknownEngine, "'redis://localhost/0'; .* sqlite://, postgresql://"),
        ("sqlite:jobs.db", UnknownEngine, "'sqlite:jobs.db'"),
        ("sqlite:/jobs.db", UnknownEngine, "'sqlite:/jobs.db'"),
        ("SQLITE:///jobs.db", UnknownEngine, "'SQLITE:///jobs.db'"),
        ("sqlite+aiosqlite:///jobs.db", UnknownEngine, "aiosqlite"),
        ("://", UnknownEngine, "'://'"),
        ("sqlite://", BadDeclaration, "names no file"),
        ("sqlite:///", BadDeclaration, "names no file"),
        ("sqlite:///folder/", BadDeclaration, "names no file"),
        ("sqlite:///:memory:", BadDeclaration, "need a file to survive in"),
        ("sqlite:///a\x00b", BadDeclaration, "need a file"),
        ("sqlite://jobs.db", BadDeclaration, "names a host, 'jobs.db'"),
        ("sqlite://localhost/jobs.db", BadDeclaration, "names a host, 'localhost'"),
        ("sqlite:///jobs.db?sync=full", BadDeclaration, "unknown option 'sync'"),
        ("sqlite:///jobs.db?synchronous=", BadDeclaration, "synchronous must be full, normal or off, not ''"),
        ("sqlite:///jobs.db?synchronous=FULL", BadDeclaration, "not 'FULL'"),
        (Path("jobs.db"), UnknownEngine, "takes a URL or an engine"),
        (None, UnknownEngine, "takes a URL or an engine, not None"),
        (5, UnknownEngine, "not 5"),
        (b"sqlite:///jobs.db", UnknownEngine, "takes a URL or an engine"),
    ],
    ids=str,
)
def test_urls_that_lead_nowhere(
    url: Any, error: type[Exception], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error shows the URL and what is wrong with it; no file is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=told):
        Jobs(url)
    assert not list(tmp_path.iterdir())


def test_an_engine_whose_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install, and what was not found."""
    monkeypatch.setitem(sys.modules, "lastcall.engines.postgres", None)
    with pytest.raises(
        UnknownEngine, match=r"postgresql:// needs .*; install it with: pip install 'lastcall\[postgres\]'"
    ):
        open_engine("postgresql://localhost/jobs")


def test_an_engine_whose_driver_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is there, and the driver it imports is not."""
    broken = types.ModuleType("lastcall.engines.postgres")

    def from_url(url: str) -> None:
        raise ModuleNotFoundError("No module named 'asyncpg'", name="asyncpg")

    broken.from_url = from_url  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lastcall.engines.postgres", broken)
    with pytest.raises(
        UnknownEngine, match=r"needs asyncpg; install it with: pip install 'lastcall\[postgres\]'"
    ):
        open_engine("postgresql://localhost/jobs")


def make_newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 0x6C617374")
        connection.execute("PRAGMA user_version = 999")
        connection.execute("CREATE TABLE lastcall_job (id TEXT)")
        connection.commit()


def make_foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (id TEXT)")
        connection.commit()


FILES: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "a newer version": (make_newer, SchemaTooNew, "upgrade lastcall"),
    "another program's": (make_foreign, EngineUnavailable, "another application's database"),
    "no database": (lambda path: path.write_bytes(b"x" * 5000), EngineUnavailable, "not an SQLite database"),
    "a folder": (lambda path: path.mkdir(), EngineUnavailable, "is a folder; name a file in it"),
}


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("kind", FILES)
async def test_a_file_that_is_not_ours(kind: str, tmp_path: Path) -> None:
    """The error names the file and says what to do, at the first use; the file stays as it is."""
    make, error, told = FILES[kind]
    path = tmp_path / "jobs.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    jobs = Jobs(f"sqlite:///{path}")

    @jobs.task
    async def work() -> None: ...

    for _ in range(2):
        with pytest.raises(error, match=told) as caught:
            await work.submit()
        assert "jobs.db" in str(caught.value)
        with pytest.raises(error, match=told):
            async with jobs:
                raise AssertionError
        with pytest.raises(error, match=told):
            async with jobs.worker():
                raise AssertionError
    assert not jobs._client.is_open
    await jobs.close()
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.loops("asyncio")
async def test_a_folder_that_comes_later(tmp_path: Path) -> None:
    """The store cannot be opened, and then it can: the next call succeeds, and nobody must make new `Jobs`."""
    jobs = Jobs(f"sqlite:///{tmp_path}/later/jobs.db")

    @jobs.task
    async def work() -> None: ...

    with pytest.raises(EngineUnavailable, match="there is no folder .*; create it first"):
        await work.submit()
    (tmp_path / "later").mkdir()
    async with jobs:
        job = await work.submit()
        assert await job.status() is JobStatus.QUEUED


# --- one submission ------------------------------------------------------------------------------------

OPTIONS: list[tuple[str, list[Any]]] = [
    ("key", ["", "a\nb", "\x00", "\udce9", 5, b"a", "x" * 201, "x" * 10**6]),
    ("delay", [-1, -0.001, NAN, INF, -INF, "5", True, 10**400]),
    ("at", [5, "2026-01-01", date(2026, 1, 1), NAN]),
    ("priority", [1.5, NAN, "5", True, -1_000_001, 10**30]),
    ("queue", ["", "\x00", 5, "\ud800", "x" * 201]),
    ("labels", ["a", 5, {"a": 5}, {5: "a"}, [("a", "b")]]),
    ("retries", [-1, 1.5, NAN, "5", True, 10**30]),
    ("timeout", [0, -1, NAN, INF, "5", True, 10**400]),
    ("retention", [-1, NAN, INF, "5", True, 10**400]),
]


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in OPTIONS for value in values],
    ids=lambda each: repr(each)[:20],
)
def test_impossible_options(option: str, value: Any) -> None:
    """The error names the task and the option, and is short whatever was given."""
    jobs = Jobs(ModelEngine())

    @jobs.task(name="analyse")
    async def work() -> None: ...

    with pytest.raises(BadDeclaration, match="options of 'analyse': .*") as caught:
        work.options(**{option: value})
    assert option.removesuffix("s") in str(caught.value) and len(str(caught.value)) < 1000


async def test_nothing_of_a_faulty_submission_is_written(jobs: Jobs, store: Store) -> None:
    """Each way to submit, each kind of fault: an error of ours that names the task, and an empty store."""

    class Opaque:
        pass

    @jobs.task(name="analyse")
    async def work(a: int, b: Any = None) -> None: ...

    faults: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}),
        (("x",), {}),
        ((1, 2, 3), {}),
        ((1,), {"c": 1}),
        ((1,), {"a": 1}),
        ((1, Opaque()), {}),
        ((1, "\ud800"), {}),
        ((1, {1: {Opaque()}}), {}),
        ((NAN,), {}),
        ((math.pi,), {}),
    ]
    async with jobs:
        for args, kwargs in faults:
            with pytest.raises(BadArguments, match="work"):
                await work.submit(*args, **kwargs)
            with pytest.raises(BadArguments, match="work"):
                work.call(*args, **kwargs)
            with pytest.raises(BadArguments, match="work"):
                await work.options(key="k", delay=5).submit(*args, **kwargs)
        for values in ({}, {"a": "x"}, {"a": 1, "c": 2}, None, [1], {"a": 1, "b": "\ud800"}):
            with pytest.raises(BadArguments, match="work"):
                await work.submit_json(values)
    assert await store.is_empty()


async def test_every_error_is_of_the_family(jobs: Jobs) -> None:
    """`except LastcallError` catches them all, and the builtin that one would expect catches them too."""

    @jobs.task(name="analyse")
    async def work(a: int) -> None: ...

    async with jobs:
        with pytest.raises(TypeError):
            await work.submit("x")  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            work.options(delay=-1)
        with pytest.raises(LookupError):
            await jobs.job("x").status()
        with pytest.raises(LookupError):
            jobs.task_named("x")
    for error in (BadArguments, BadDeclaration, KeyConflict, UnknownEngine, EngineUnavailable):
        assert issubclass(error, LastcallError)


@pytest.mark.loops("asyncio")
async def test_steps_outside_a_job() -> None:
    """The error says where steps and contexts exist."""
    with pytest.raises(NotInJob, match="there is no job here"):
        current_context()
    with pytest.raises(NotInJob, match="outside a step"):
        current_step()


# --- open, closed, elsewhere ---------------------------------------------------------------------------


async def test_jobs_open_at_the_first_use(store: Store) -> None:
    """Each verb opens the store by itself; many at once open it once."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)  # type: ignore[arg-type]

    @jobs.task
    async def work(a: int) -> None: ...

    first, found, overview = await asyncio.gather(work.submit(1), jobs.find(), jobs.overview())
    assert not overview.counts or overview.counts["default", JobStatus.QUEUED] == 1
    assert len(found) <= 1
    await asyncio.gather(*(work.submit(n) for n in range(10)), jobs.job(first.id).status())
    assert engine.calls.count("open") == 1
    await jobs.close()
    assert engine.calls.count("close") == 1
    assert len(await store.rows()) == 11


async def test_close_and_open_again(jobs: Jobs) -> None:
    """Closing twice, before opening, and at once is harmless; after it everything opens again."""

    @jobs.task
    async def work(a: int) -> int:
        return a

    await jobs.close()
    async with jobs:
        async with jobs:
            job = await work.submit(1)
    assert not jobs._client.is_open
    await asyncio.gather(jobs.close(), jobs.close())
    assert await job.status() is JobStatus.QUEUED
    assert jobs._client.is_open
    await asyncio.gather(jobs.close(), jobs.close(), jobs.close())
    assert not jobs._client.is_open
    async with jobs.worker():
        assert await job.result(timeout=PATIENCE_SECONDS) == 1


async def test_closing_while_it_opens(store: Store) -> None:
    """Somebody closes while the first use is still opening: it is closed afterwards, and not left open."""
    engine = Faulty(store.engine())
    engine.held["open"] = asyncio.Event()
    jobs = Jobs(engine)  # type: ignore[arg-type]
    opening = asyncio.ensure_future(jobs.open())
    await eventually(lambda: "open" in engine.calls)
    closing = asyncio.ensure_future(jobs.close())
    await asyncio.sleep(0)
    engine.held["open"].set()
    await closing
    await opening
    await jobs.close()
    assert not jobs._client.is_open and engine.calls.count("close") >= 1


async def test_using_while_it_closes(store: Store) -> None:
    """Somebody submits while the store is being closed: it is opened again after that, and both succeed."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)  # type: ignore[arg-type]

    @jobs.task
    async def work(a: int) -> None: ...

    await jobs.open()
    engine.held["close"] = asyncio.Event()
    closing = asyncio.ensure_future(jobs.close())
    await eventually(lambda: "close" in engine.calls)
    submitting = asyncio.ensure_future(work.submit(1))
    await asyncio.sleep(0)
    engine.held["close"].set()
    await closing
    job = await submitting
    assert await job.status() is JobStatus.QUEUED
    assert engine.calls.count("open") == 2
    del engine.held["close"]
    await jobs.close()


async def test_blocks_end_in_any_order(store: Store) -> None:
    """Two blocks and a worker use the same jobs and end in every order: none closes the store under another."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)  # type: ignore[arg-type]

    @jobs.task
    async def work(a: int) -> int:
        return a

    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        engine.calls.clear()
        stacks = [contextlib.AsyncExitStack() for _ in range(3)]
        for stack, block in zip(stacks, (jobs, jobs.worker(), jobs), strict=True):
            await stack.enter_async_context(block)
        for left in order:
            await jobs.close()
            assert await (await work.submit(1)).status() in JobStatus
            await stacks[left].aclose()
        assert (engine.calls.count("open"), engine.calls.count("close")) == (1, 1)


async def test_a_block_begins_while_the_store_closes(store: Store) -> None:
    """The last user has just left, and the next one comes in the same moment: it finds the store open."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)  # type: ignore[arg-type]

    @jobs.task
    async def work(a: int) -> int:
        return a

    for turns in range(6):
        async with jobs:
            pass
        await jobs.open()
        closing = asyncio.ensure_future(jobs.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        async with jobs:
            await closing
            assert jobs._client.is_open
            await work.submit(turns)
    assert len(await store.rows()) == 6


async def test_one_that_gives_up_opening(store: Store) -> None:
    """Two open at the same time, and the first is cancelled: the second has it open all the same."""
    engine = Faulty(store.engine())
    engine.held["open"] = asyncio.Event()
    jobs = Jobs(engine)  # type: ignore[arg-type]
    one, two = asyncio.ensure_future(jobs.open()), asyncio.ensure_future(jobs.open())
    await eventually(lambda: "open" in engine.calls)
    one.cancel()
    await asyncio.wait({one})
    engine.held["open"].set()
    await two
    assert one.cancelled() and engine.calls.count("open") == 1
    await jobs.close()


async def test_all_hear_that_it_cannot_be_opened(store: Store) -> None:
    """The store is away: everybody who wanted it is told; when it is back, the next one opens it."""
    engine = Faulty(store.engine())
    engine.away.add("open")
    jobs = Jobs(engine)  # type: ignore[arg-type]
    answers = await asyncio.gather(*(jobs.overview() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, EngineUnavailable) for answer in answers)
    engine.away.clear()
    assert (await jobs.overview()).counts == {}
    await jobs.close()


def test_a_script_with_several_loops(store: Store, loop_factory: LoopFactory) -> None:
    """`asyncio.run` again and again, and nobody closes anything: each run finds what the last one has submitted."""
    jobs = store.jobs()

    @jobs.task
    async def work(a: int) -> int:
        return a

    def run(main: Callable[[], Any]) -> Any:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main())

    async def submit() -> str:
        return (await work.submit(5)).id

    async def wait() -> Any:
        with contextlib.suppress(TimeoutError):
            await jobs.job(job_id).result(timeout=0.01)
        async with jobs.worker():
            return await jobs.job(job_id).result(timeout=PATIENCE_SECONDS)

    async def submit_and_close() -> str:
        async with jobs:
            return await submit()

    job_id = run(submit)
    assert run(lambda: jobs.job(job_id).status()) is JobStatus.QUEUED
    assert run(wait) == 5
    assert run(submit_and_close) != run(submit)
    run(jobs.close)
    assert not jobs._client.is_open
    assert len(asyncio.run(store.rows())) == 3


def test_jobs_on_two_loops_at_once(store: Store) -> None:
    """Another thread's loop uses jobs that are open here: the error says what to do, and nothing is written."""
    jobs = store.jobs()
    errors: list[BaseException] = []

    @jobs.task
    async def work(a: int) -> int:
        return a

    async def elsewhere() -> None:
        for verb in (
            lambda: work.submit(2),
            jobs.open,
            jobs.close,
            jobs.find,
            lambda: jobs.submit_many([work.call(2)]),
        ):
            try:
                await verb()
            except WrongLoop as error:
                errors.append(error)

    async def here() -> None:
        async with jobs:
            job = await work.submit(1)
            thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
            thread.start()
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
            assert await job.status() is JobStatus.QUEUED
            assert len(await store.rows()) == 1

    asyncio.run(here())
    assert len(errors) == 5 and all("another event loop" in str(error) for error in errors)


def test_datetimes_are_read_as_utc() -> None:
    """A naive moment is UTC, whatever zone this machine is in."""
    jobs = Jobs(ModelEngine())

    @jobs.task
    async def work() -> None: ...

    assert work.options(at=datetime(1970, 1, 2)).call().job.due_at == 86400.0
