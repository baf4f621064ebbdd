"""The writer thread: what is called together is committed together, and one that fails takes nobody along."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from lastcall._core._state import StopReason
from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import KeyConflict, NotOpen, WrongLoop
from lastcall.jobs._engine import read_log
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, EventPage, NewEvent, NewJob, WorkerRow
from lastcall.jobs._state import CancelOutcome, JobStatus

from .support import inside, opened, query, until

JOB = NewJob("a", "work", "[]")
TASKS = {("work", ""): None}
WORKER = WorkerRow("w", "host", 1, None, None, None, 15.0, 10, None)


def jobs(*ids: str) -> list[NewJob]:
    return [JOB._replace(id=id) for id in ids]


async def test_calls_together_are_one_commit(tmp_path: Path) -> None:
    """A hundred tasks submit, and claim in the same turn: one commit or two, and the claim sees all of them."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.join(WORKER)
        commits = await inside(engine, count_commits)
        claim = asyncio.ensure_future(engine.claim(ClaimRequest("w", 200, TASKS)))
        await asyncio.gather(*(engine.submit(jobs(f"{n}")) for n in range(100)), claim)
        seen = {job.id for job in (await claim).jobs}
        seen |= {job.id for job in (await engine.claim(ClaimRequest("w", 200, TASKS))).jobs}
        assert seen == {f"{n}" for n in range(100)}
        assert len(commits) <= 6, commits


def count_commits(store: object) -> list[str]:
    commits: list[str] = []
    connection = store.connection  # type: ignore[attr-defined]
    connection.set_trace_callback(
        lambda statement: commits.append(statement) if statement == "COMMIT" else None
    )
    return commits


@pytest.mark.loops("asyncio")
async def test_one_that_fails_takes_nobody_along(tmp_path: Path) -> None:
    """Among many submits of one commit one uses an id that exists; it alone is refused."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.submit(jobs("taken"))
        calls = [engine.submit(jobs(f"{n}", f"{n}+")) for n in range(20)]
        calls.insert(10, engine.submit(jobs("new", "taken")))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [list] * 10 + [KeyConflict] + [list] * 10
        assert "'taken'" in str(answers[10])
        assert len(query(tmp_path / "jobs.db", "SELECT id FROM lastcall_job")) == 41
        assert await engine.get(["new"]) == []


@pytest.mark.loops("asyncio")
async def test_a_lease_is_renewed_before_what_waits(tmp_path: Path) -> None:
    """Twenty thousand submits wait when a worker renews its lease: it does not stand in line behind them."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.join(WORKER)
        busy, free = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            busy.set()
            assert free.wait(30)

        holding = asyncio.ensure_future(inside(engine, hold))
        await asyncio.to_thread(busy.wait, 30)
        calls = [asyncio.ensure_future(engine.submit(jobs(f"{n}"))) for n in range(20_000)]
        await asyncio.sleep(0)
        renewed = asyncio.ensure_future(engine.renew("w"))
        await asyncio.sleep(0)
        free.set()
        assert (await renewed).alive
        assert sum(call.done() for call in calls) < 10_000
        await asyncio.gather(holding, *calls)


@pytest.mark.loops("asyncio")
async def test_a_lane_of_a_failed_commit_is_forgotten(tmp_path: Path) -> None:
    """The first job of a new task is rolled back together with its lane; the next one makes the lane anew."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.submit(jobs("taken"))
        with pytest.raises(KeyConflict):
            await engine.submit([NewJob("other", "brand new", "[]"), *jobs("taken")])
        await engine.submit([NewJob("other", "brand new", "[]")])
        (row,) = await engine.get(["other"])
        assert row.task == "brand new"


@pytest.mark.loops("asyncio")
async def test_what_cannot_be_stored_is_the_callers_error(tmp_path: Path) -> None:
    """A lone surrogate and a number of 70 bits: Python's own errors, and the other calls go through."""
    async with opened(tmp_path / "jobs.db") as engine:
        answers = await asyncio.gather(
            engine.submit([NewJob("a", "work", '"\ud800"')]),
            engine.submit([NewJob("b", "work", "[]", priority=2**70)]),
            engine.submit(jobs("c")),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [UnicodeEncodeError, OverflowError, list]
        assert [row.id for row in await engine.get(["a", "b", "c"])] == ["c"]


async def test_a_cancelled_caller_takes_nothing_back(tmp_path: Path) -> None:
    """The task that submits is cancelled while the commit is on its way: the job is there."""
    async with opened(tmp_path / "jobs.db") as engine:
        task = asyncio.ensure_future(engine.submit(jobs("a")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.submit(jobs("b"))
        assert [row.id for row in await engine.get(["a", "b"])] == ["a", "b"]


@pytest.mark.loops("asyncio")
async def test_ends_and_steps_ride_in_order(tmp_path: Path) -> None:
    """Events, the end of the attempt and the next claim are called together: the events are not too late, and the claim
    comes last."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.join(WORKER)
        await engine.submit(jobs("a", "b"))
        (a,) = (await engine.claim(ClaimRequest("w", 1, TASKS))).jobs
        claim, finish, append = await asyncio.gather(
            engine.claim(ClaimRequest("w", 1, TASKS)),
            engine.finish([AttemptEnd(a.id, a.attempt, Completed("1"))] * 2),
            engine.append_events(a.id, a.attempt, [NewEvent("log", "1")]),
        )
        assert (append, finish) == (1, [JobStatus.COMPLETED, None])
        assert [job.id for job in claim.jobs] == ["b"]


@pytest.mark.loops("asyncio")
async def test_what_is_told_of_a_deleted_job_is_told_of_no_other(tmp_path: Path) -> None:
    """A job is cancelled, deleted, and another one gets its number, all in one commit: the other's log is empty."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit(jobs("a"))
        (number,) = query(path, "SELECT n FROM lastcall_job")
        go_on, held = threading.Event(), threading.Event()
        holding = asyncio.ensure_future(inside(engine, lambda store: held.set() or go_on.wait(20)))
        await asyncio.to_thread(held.wait, 20)
        together = asyncio.gather(
            engine.cancel("a", StopReason.USER), engine.purge("a"), engine.fire("tick", 1.0, jobs("b")[0])
        )
        await asyncio.sleep(0)
        go_on.set()
        assert await holding
        assert await together == [CancelOutcome.CANCELLED, JobStatus.CANCELLED, True]
        assert query(path, "SELECT n FROM lastcall_job") == [number]
        assert await read_log(engine, "b", 0, 10) == EventPage([], 1, 0, JobStatus.QUEUED)


@pytest.mark.loops("asyncio")
async def test_a_claim_without_work_writes_nothing(tmp_path: Path) -> None:
    """A worker asks and asks; the log stays as it is, so nobody is woken by it."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.join(WORKER)
        await engine.submit([JOB._replace(delay_seconds=1000)])
        before = (tmp_path / "jobs.db-wal").read_bytes()
        for _ in range(10):
            await engine.claim(ClaimRequest("w", 10, TASKS))
            await engine.rescue("w")
        assert (tmp_path / "jobs.db-wal").read_bytes() == before


async def test_close_writes_what_waits(tmp_path: Path) -> None:
    """Calls that nobody has awaited yet are written before the file is let go, and the log is tidied away."""
    engine = SqliteEngine(str(tmp_path / "jobs.db"))
    await engine.open()
    waiting = [asyncio.ensure_future(engine.submit(jobs(f"{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    await engine.close()
    assert len(await asyncio.gather(*waiting)) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.db"]
    assert query(tmp_path / "jobs.db", "SELECT count(*) FROM lastcall_job") == [(50,)]


async def test_open_and_close_are_patient(tmp_path: Path) -> None:
    """Closing before opening, opening twice at once, closing twice, opening again."""
    engine = SqliteEngine(str(tmp_path / "jobs.db"))
    await engine.close()
    await asyncio.gather(engine.open(), engine.open(), engine.open())
    await engine.submit(jobs("a"))
    await asyncio.gather(engine.close(), engine.close())
    with pytest.raises(NotOpen, match="not open"):
        await engine.get(["a"])
    with pytest.raises(NotOpen, match="not open"):
        await engine.submit(jobs("b"))
    await engine.open()
    assert len(await engine.get(["a"])) == 1
    await engine.close()


@pytest.mark.loops("asyncio")
async def test_a_cancelled_open_leaves_no_thread_behind(tmp_path: Path) -> None:
    """The caller of open is cancelled at once; close still ends what was begun."""
    engine = SqliteEngine(str(tmp_path / "jobs.db"))
    task = asyncio.ensure_future(engine.open())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await engine.close()
    assert not (tmp_path / "jobs.db-wal").exists()


@pytest.mark.loops("asyncio")
async def test_another_loop_is_refused(tmp_path: Path) -> None:
    """The engine is used from a second loop, in a thread: a clear error."""
    async with opened(tmp_path / "jobs.db") as engine:

        def elsewhere() -> None:
            with pytest.raises(WrongLoop, match=r"jobs\.db"):
                asyncio.run(engine.submit(jobs("a")))
            with pytest.raises(WrongLoop):
                asyncio.run(engine.close())

        await asyncio.to_thread(elsewhere)


def test_a_loop_that_ended_without_close(tmp_path: Path) -> None:
    """asyncio.run ends and nobody has closed the engine; the next loop opens it and finds everything."""
    engine = SqliteEngine(str(tmp_path / "jobs.db"))

    async def first() -> None:
        await engine.open()
        await engine.submit(jobs("a"))

    async def second() -> None:
        await engine.open()
        assert len(await engine.get(["a"])) == 1
        await engine.close()
        await until(lambda: not (tmp_path / "jobs.db-wal").exists(), "the first thread to let go")

    asyncio.run(first())
    asyncio.run(second())


@pytest.mark.loops("asyncio")
async def test_a_long_reading_delays_no_commit(tmp_path: Path) -> None:
    """A reading that does not end is under way; writes are answered meanwhile."""
    async with opened(tmp_path / "jobs.db") as engine:
        under_way, goes_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def reading(connection: sqlite3.Connection) -> int:
            (before,) = connection.execute("SELECT count(*) FROM lastcall_job").fetchone()
            loop.call_soon_threadsafe(under_way.set)
            asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(30)
            (after,) = connection.execute("SELECT count(*) FROM lastcall_job").fetchone()
            assert before == after  # one snapshot
            return int(after)

        reader = asyncio.ensure_future(engine._read(reading))
        await under_way.wait()
        for n in range(20):
            await engine.submit(jobs(f"{n}"))
        goes_on.set()
        assert await reader == 0
        assert len(await engine.get([f"{n}" for n in range(20)])) == 20
