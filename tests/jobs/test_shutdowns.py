"""The report of a shutdown outlives its process: the next one on the store reads it, and no store can spoil an end."""

import asyncio
import json
import logging
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lastcall import Kind, Outcome, Phase, ShutdownPlan, ShutdownReport, StopReason, TaskManager, TaskOutcome
from lastcall.engines.postgres import PostgresEngine
from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import BadArguments, BadDeclaration
from lastcall.jobs import Jobs, PastShutdown, _shutdowns, _worker
from lastcall.jobs._shutdowns import MAX_BYTES, STREAM, encode
from lastcall.streams._policy import JSON
from lastcall.streams._port import EntryRow, Write
from tests.engines.model import ModelEngine
from tests.engines.postgres.support import clear, empty_schema
from tests.jobs.running import Faulty
from tests.support.postgres import shared_url

pytestmark = pytest.mark.loops("asyncio")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other things takes nothing from a report."""
    monkeypatch.setattr(_shutdowns, "_PATIENCE_SECONDS", 30.0)
    monkeypatch.setattr(_worker, "TaskManager", partial(TaskManager, plan=ShutdownPlan(close=200)))


NAMES = ("shutdown.report_not_kept", "shutdown.report_unreadable")


def jobs_in(folder: Path) -> Jobs:
    return Jobs(SqliteEngine(str(folder / "jobs.db"), synchronous="off"))


async def left_in(folder: Path, limit: int = 20) -> list[PastShutdown]:
    """What another process finds there."""
    async with jobs_in(folder) as jobs:
        return await jobs.shutdowns(limit=limit)


def a_manager(name: str = "bar", drain: float = 0, cancel: float = 0, close: float = 200) -> TaskManager:
    return TaskManager(name=name, plan=ShutdownPlan(drain=drain, cancel=cancel, close=close))


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = [getattr(record, "event", None) for record in caplog.records]
    return [event for event in told if event in NAMES]


async def stubborn(release: asyncio.Event) -> None:
    """Swallows every cancel until it is released."""
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            pass


async def unclean(jobs: Jobs, manager: TaskManager) -> ShutdownReport:
    """A process that enters the store into its manager and leaves somebody behind; its final report."""
    release = asyncio.Event()
    async with manager:
        await manager.enter(jobs, name="jobs")
        left = manager.create_task(stubborn(release), name="the last guest")
        await asyncio.sleep(0)
    release.set()
    await asyncio.wait({left})
    assert manager.report is not None
    return manager.report


# --- what is left ---------------------------------------------------------------------------------------


async def test_the_next_process_reads_who_was_left(tmp_path: Path) -> None:
    """Somebody would not end. The one who comes later sees who, where it stood, and what was not over by then."""
    final = await unclean(jobs_in(tmp_path), a_manager())
    [past] = await left_in(tmp_path)
    report = past.report
    assert (past.worker_ids, past.is_complete, past.tasks_left_out, past.id) == ((), False, 0, 1)
    assert (report.name, report.reason, report.started_at) == ("bar", StopReason.SHUTDOWN, final.started_at)
    assert [(task.name, task.outcome) for task in report.tasks] == [("the last guest", Outcome.REFUSED)]
    assert "in stubborn" in " ".join(report.tasks[0].stack) and report.tasks == final.tasks
    assert [phase.phase for phase in report.phases] == [Phase.DRAIN, Phase.CANCEL]
    assert not report.clean and final.resources[0].outcome is Outcome.FINISHED
    assert report.started_at <= past.at and past.pid > 0 and past.host


async def test_on_postgresql() -> None:
    """The same in a database: two processes end, and a third one reads both reports."""
    with empty_schema() as schema:
        await clear(schema)
        for name in ("blue", "green"):
            await unclean(Jobs(PostgresEngine(shared_url(), schema=schema)), a_manager(name))
        async with Jobs(PostgresEngine(shared_url(), schema=schema)) as jobs:
            found = await jobs.shutdowns()
            assert await jobs.streams.find() == []
        await clear(schema)
    assert [past.report.name for past in found] == ["green", "blue"]
    assert [task.outcome for past in found for task in past.report.tasks] == [Outcome.REFUSED] * 2


async def script(jobs: Jobs) -> None:
    async with a_manager() as manager:
        await manager.enter(jobs, name="jobs")


async def batch(jobs: Jobs) -> None:
    async with a_manager() as manager:
        await manager.enter(jobs, name="jobs")
        async with jobs.worker():
            pass


async def batch_alone(jobs: Jobs) -> None:
    async with jobs.worker():
        pass


async def told_in_its_block(jobs: Jobs) -> None:
    async with jobs, a_manager() as manager, jobs.worker():
        manager.begin_shutdown()


async def told_in_a_task(jobs: Jobs) -> None:
    """As `lastcall worker` and a web process have it: somebody else has opened the store before."""

    async def work() -> None:
        async with jobs.worker():
            working.set()
            await asyncio.wait_for(stop.wait(), 20)

    working, stop = asyncio.Event(), asyncio.Event()
    async with a_manager(drain=20) as manager:
        await manager.enter(jobs, name="jobs")
        manager.create_task(work(), name="work")
        await working.wait()
        manager.begin_shutdown()
        stop.set()


async def told_by_its_own(jobs: Jobs) -> None:
    async with jobs.worker() as worker:
        worker.manager.begin_shutdown()


async def forced(jobs: Jobs) -> None:
    async with a_manager(drain=20, cancel=20) as manager:
        await manager.enter(jobs, name="jobs")
        manager.begin_shutdown()
        manager.force()


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (script, []),
        (batch, []),
        (batch_alone, []),
        (told_in_its_block, ["bar"]),
        (told_in_a_task, ["bar"]),
        (told_by_its_own, ["worker"]),
        (forced, ["bar"]),
    ],
)
async def test_which_shutdowns_are_worth_a_report(
    tmp_path: Path, process: Callable[[Jobs], Any], expected: list[str]
) -> None:
    """Scripts that end well leave none, however often they run; a worker that was told to stop leaves one, and one
    only, which names it."""
    jobs = jobs_in(tmp_path)
    await process(jobs)
    assert jobs.loop is None, "the store was left open"
    found = await left_in(tmp_path)
    assert [past.report.name for past in found] == expected
    assert [len(past.worker_ids) for past in found] == [int(process is not forced) for _ in expected]


async def test_a_manager_that_opens_again_leaves_another(tmp_path: Path) -> None:
    """A test client, a reload: each shutdown is one of its own, the newest is told first, and a limit is kept to."""
    manager, jobs = a_manager(), jobs_in(tmp_path)
    begins = [(await unclean(jobs, manager)).started_at for _ in range(3)]
    assert [past.report.started_at for past in await left_in(tmp_path)] == begins[::-1]
    assert [past.id for past in await left_in(tmp_path, limit=2)] == [3, 2]
    async with jobs_in(tmp_path) as others:
        with pytest.raises(BadDeclaration):
            await others.shutdowns(limit=0)


async def test_users_of_streams_neither_meet_nor_reach_it(tmp_path: Path) -> None:
    """The reports are a stream, with words that pages would hide: no list has it, and no handle of it can be made."""
    await unclean(jobs_in(tmp_path), a_manager())
    async with jobs_in(tmp_path) as jobs:
        await jobs.streams.create("mine")
        assert [info.name for info in await jobs.streams.find()] == ["mine"]
        for attempt in (jobs.streams.open, jobs.streams.create):
            with pytest.raises(BadArguments):
                await attempt(STREAM)  # type: ignore[misc]
        assert len(await jobs.shutdowns()) == 1


# --- stores with trouble --------------------------------------------------------------------------------


async def test_an_engine_that_has_no_room_for_it(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody's own engine without streams: nothing is left, nothing is said, nothing is found."""
    engine = ModelEngine(None)
    assert not (await unclean(Jobs(engine), a_manager())).clean
    async with Jobs(engine) as jobs:
        assert await jobs.shutdowns() == []
    assert events(caplog) == []


@pytest.mark.parametrize("trouble", ["locked", "gone", "full", "hangs", "no time"])
async def test_a_store_in_trouble_does_not_spoil_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Locked by a backup, deleted, full, not answering, or a plan without a second for it: the log says that it is not
    kept, and the store is closed as it would have been, so that the end is as clean as the work was."""
    if trouble in ("locked", "hangs"):
        monkeypatch.setattr(_shutdowns, "_PATIENCE_SECONDS", 0.3)
    faulty = Faulty(SqliteEngine(str(tmp_path / "jobs.db"), synchronous="off"))
    if trouble == "hangs":
        faulty.held["last_words"] = asyncio.Event()
    jobs: Jobs = Jobs(faulty)
    manager = a_manager(close=0 if trouble == "no time" else 200)
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        async with manager:
            await manager.enter(jobs, name="jobs")
            if trouble == "locked":
                other.execute(f"ATTACH '{tmp_path}/jobs.db' AS jobs")
                other.execute("BEGIN IMMEDIATE")
                other.execute("CREATE TABLE jobs.backup (x)")
            if trouble == "gone":
                (tmp_path / "jobs.db").unlink()
            manager.begin_shutdown()
            manager.force()
            with no_room_in(tmp_path) if trouble == "full" else nullcontext():
                await manager.shutdown()
    await jobs.close()  # where the plan left no time for it, it goes on behind
    report = manager.report
    assert report is not None
    if trouble != "no time":  # where nothing had the time to close
        assert [(one.name, one.outcome) for one in report.resources] == [("jobs", Outcome.FINISHED)]
        assert report.clean
    assert events(caplog) == ["shutdown.report_not_kept"]
    line = next(one for one in caplog.records if getattr(one, "event", "") == NAMES[0])
    told = {
        "full": "cannot be used",
        "locked": "write lock",
        "gone": "opened",
        "hangs": "did not answer",
        "no time": "no time",
    }
    said = line.getMessage()
    assert told[trouble] in said or (trouble == "locked" and told["hangs"] in said)
    assert line.levelno == logging.WARNING
    await asyncio.get_running_loop().run_in_executor(None, join_last_words)


@contextmanager
def no_room_in(folder: Path) -> Iterator[None]:
    """No file grows any more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "jobs.db-wal").stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def join_last_words() -> None:
    """The thread that was given up is still at its lock for a moment."""
    for thread in threading.enumerate():
        if thread.name == "lastcall-sqlite-last-words":
            thread.join(20)


# --- how much is kept -----------------------------------------------------------------------------------


def a_report(tasks: tuple[TaskOutcome, ...]) -> ShutdownReport:
    return ShutdownReport("bar", StopReason.SHUTDOWN, 1.0, 2.0, 30.0, (), {}, tasks)


def a_task(number: int, outcome: Outcome, **more: Any) -> TaskOutcome:
    return TaskOutcome(f"t-{number}", f"task {number}", Kind.TASK, None, False, outcome, 0.1, **more)


def test_of_a_huge_report_the_most_telling_tasks_are_kept() -> None:
    """Thousands of tasks, among them two that failed or would not end, with endless words: it fits, with them in it."""
    stack = tuple(f"line {n} " + "x" * 10_000 for n in range(1000))
    tasks = [a_task(n, Outcome.FINISHED) for n in range(3000)]
    tasks[1000] = a_task(1000, Outcome.REFUSED, stack=stack)
    tasks[2000] = a_task(2000, Outcome.FAILED, error="\N{GRINNING FACE}" * 100_000)._replace(
        name="n" * 100_000
    )
    entry = encode(a_report(tuple(tasks)), worker_ids=["w"], is_complete=False)
    left = json.loads(entry)
    kept = left["report"]["tasks"]
    assert len(entry) <= MAX_BYTES and {"t-1000", "t-2000"} <= {task["id"] for task in kept}
    assert [task["id"] for task in kept] == sorted((task["id"] for task in kept), key=lambda id: int(id[2:]))
    assert left["tasks_left_out"] == 3000 - len(kept) > 0 and len(kept) > 100
    refused = next(task for task in kept if task["id"] == "t-1000")
    assert refused["stack"][0] == "..." and refused["stack"][-1].startswith("line 999 ")


async def test_old_reports_make_room_for_new_ones(tmp_path: Path) -> None:
    """A hundred of the largest size: the newest are there, the oldest are gone, and the store has not grown by all."""
    entry = encode(
        a_report(tuple(a_task(n, Outcome.FAILED) for n in range(2000))), worker_ids=[], is_complete=True
    )
    write = Write(STREAM, [entry], JSON, False, None, None, 20 * len(entry), 3600.0)
    engine = SqliteEngine(str(tmp_path / "jobs.db"), synchronous="off")
    await engine.open()
    for _ in range(30):
        await engine.last_words(write, 10)
    await engine.close()
    found = await left_in(tmp_path, limit=1000)
    assert len(found) in (20, 21) and [past.id for past in found] == list(range(30, 30 - len(found), -1))
    assert [past.id for past in await left_in(tmp_path, limit=3)] == [30, 29, 28]


async def test_what_another_version_wrote_is_read_as_far_as_possible(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A rolling deploy, with members and words that this version does not know, and a row that somebody has damaged:
    what can be read is told, what cannot is left out, and the log says so."""
    newer = json.loads(encode(a_report((a_task(1, Outcome.FAILED),)), worker_ids=["w"], is_complete=True))
    newer |= {"cloud": "nine"}
    newer["report"] |= {"mood": "good"}
    newer["report"]["tasks"][0] |= {"colour": "red"}
    unknown = json.loads(json.dumps(newer))
    unknown["report"]["tasks"][0]["outcome"] = "evaporated"
    rows = [newer, unknown, {"host": 1}, [], "text", 7]
    engine = SqliteEngine(str(tmp_path / "jobs.db"), synchronous="off")
    await engine.open()
    await engine.last_words(
        Write(STREAM, [json.dumps(row).encode() for row in rows], JSON, False, None, None, None, None), 10
    )
    await engine.close()
    [past] = await left_in(tmp_path)
    assert (past.id, past.worker_ids) == (1, ("w",)) and past.report.tasks[0].name == "task 1"
    assert events(caplog) == ["shutdown.report_unreadable"] * 5


async def test_a_report_that_is_trimmed_while_it_is_read(tmp_path: Path) -> None:
    """Between the two looks of a reader the oldest go: it looks again, and shows what there is."""
    await unclean(jobs_in(tmp_path), a_manager())
    async with jobs_in(tmp_path) as jobs:
        store: Any = jobs.engine.streams  # type: ignore[attr-defined]
        find = store.find

        async def find_and_lose(name: str) -> Any:
            page = await find(name)
            store.find = find
            again = EntryRow(0, 0, 0, 0.0, encode(a_report(()), worker_ids=[], is_complete=True)).data
            write = Write(STREAM, [again], JSON, False, None, None, 1, None)
            await jobs.engine.last_words(write, 10)  # type: ignore[attr-defined]
            return page

        store.find = find_and_lose
        assert [past.id for past in await jobs.shutdowns()] == [2]
