"""Celery workers carry jobs, and lose and double none, whatever becomes of messages and workers."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.jobs.redis_server import RedisServer
from lastcall.exceptions import JobCancelled, JobFailed
from lastcall.jobs import JobStatus
from tests.dispatch.celery_program import Program
from tests.dispatch.fleet import Fleet, redis_binary, until_async
from tests.dispatch.work import Place
from tests.jobs.crash.ledger import having
from tests.support.postgres import shared_url
from tests.support.processes import PATIENCE_SECONDS

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]

# Celery sleeps so long in its soft shutdown, whatever happens; nobody waits for its end.
SOFT_SECONDS = 8.0


@pytest.fixture(scope="module")
def shared(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker with processes for all tests that leave it alive."""
    with Fleet(Place(str(tmp_path_factory.mktemp("shared")), redis.new_url())) as fleet:
        fleet.celery("prefork")
        yield fleet


def counts(fleet: Fleet, job_id: str) -> tuple[Counter[str], Counter[str]]:
    """How often each step of a job has begun, and ended."""
    lines = [line for line in fleet.lines() if line.job == job_id]
    return Counter(line.key for line in having(lines, "start")), Counter(
        line.key for line in having(lines, "end")
    )


def is_idle(program: Program) -> bool:
    """Whether Celery knows that it has done what it was sent.

    A job ends before its message does. Celery that is told to stop between the two waits for its own processes, which
    wait 30 s for it (billiard 4.3, `_ensure_messages_consumed`); that is so with any task, and not what is asked here.
    """
    asked = program.app.control.inspect(limit=1, timeout=5)
    done = sum(sum(one["total"].values()) for one in (asked.stats() or {}).values())
    return done > 0 and not any((asked.active() or {"nobody": [1]}).values())


# --- a worker that lives -----------------------------------------------------------------------------------


async def test_a_message_comes_five_times(shared: Fleet) -> None:
    """The broker delivers one message again and again; the job runs once."""
    program = Program(shared.place)
    async with program.jobs:
        job = await program.work.add.submit(2, 3)
        for _ in range(5):
            program.carrier._publish(job.id, "default")
        assert await job.result(timeout=PATIENCE_SECONDS) == 5
        program.carrier._publish(job.id, "default")
        assert len(await job.attempts()) == 1


async def test_messages_without_a_job(shared: Fleet) -> None:
    """A message has an id that nobody knows, or none at all; it says so, and what comes after it runs."""
    program = Program(shared.place)
    unknown = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
    sent = [
        await program.carrier.submit(program.carrier._task.s(wrong).set(ignore_result=False))
        for wrong in (unknown, "no id", 7, None)
    ]
    for one in sent:
        one._blind = None  # the carrier's own task keeps no results, unless asked to
        with pytest.raises(JobFailed, match="UnknownJob"):
            await one.result(timeout=PATIENCE_SECONDS)
    async with program.carrier:
        job = await program.work.add.submit(2, 3)
        assert await job.result(timeout=PATIENCE_SECONDS) == 5


async def test_a_message_is_lost(shared: Fleet) -> None:
    """Nobody sends a message for a job; a worker's sweep finds it."""
    program = Program(shared.place)
    async with program.jobs:
        job = await program.work.add.submit(2, 3)
        assert await job.result(timeout=PATIENCE_SECONDS) == 5


async def test_a_cancel_reaches_the_job(shared: Fleet) -> None:
    """Somebody cancels a job that runs inside a Celery worker."""
    program = Program(shared.place)
    async with program.carrier:
        job = await program.work.endless.submit()
        await shared.told("began", job=job.id)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=PATIENCE_SECONDS)
    assert having(shared.lines(), "left", job=job.id, key="user")


async def test_waits_hold_no_place(shared: Fleet) -> None:
    """More jobs than the worker has places wait for a word; each goes on when it comes."""
    program = Program(shared.place)
    async with program.carrier:
        jobs = [await program.work.asking.submit() for _ in range(4)]
        for number, job in enumerate(jobs):

            async def waits(job=job) -> bool:  # type: ignore[no-untyped-def]
                return "signal word" in (await job.info()).waits_for

            await until_async(waits, "the wait")
            await job.send("word", number)
        results = [await job.result(timeout=PATIENCE_SECONDS) for job in jobs]
    assert results == ["0", "1", "2", "3"]


async def test_a_limit_holds(shared: Fleet) -> None:
    """Of a task with concurrency=1 two jobs are sent; the second one's message comes too early, and it runs later."""
    program = Program(shared.place)
    async with program.carrier:
        jobs = [await program.work.single.submit() for _ in range(2)]
        await shared.told("start", key="alone")
        shared.place.gate(0).touch()
        for job in jobs:
            assert await job.result(timeout=PATIENCE_SECONDS) == "done"
    spans = [(line.what, line.job) for line in shared.lines() if line.key == "alone"]
    assert [what for what, _ in spans] == ["start", "end"] * 2


async def test_a_task_of_celerys_own(shared: Fleet) -> None:
    """A Celery task that was there before is started, watched and awaited from asyncio; one fails, one is revoked."""
    program = Program(shared.place)
    sent = await program.carrier.submit(program.double, 21)
    assert await sent.result(timeout=PATIENCE_SECONDS) == 42
    assert await sent.status() is JobStatus.COMPLETED
    failing = await program.carrier.submit("fail")
    with pytest.raises(JobFailed, match="ValueError: as agreed"):
        await failing.result(timeout=PATIENCE_SECONDS)
    waiting = await program.carrier.submit(program.wait.s())

    async def runs() -> bool:
        return await waiting.status() is JobStatus.RUNNING

    await until_async(runs, "its start")
    with pytest.raises(TimeoutError):
        await waiting.result(timeout=0.05)
    await waiting.cancel()
    assert await waiting.wait(timeout=PATIENCE_SECONDS) is JobStatus.CANCELLED


async def test_a_process_is_killed(shared: Fleet) -> None:
    """One process of the pool dies by kill -9 in a step: another one goes on, and repeats that step alone."""
    program = Program(shared.place)
    for number in (0, 2):
        shared.place.gate(number).touch()
    async with program.carrier:
        job = await program.work.stepping.submit(3)
        line = await shared.told("start", key="step 1", job=job.id)
        os.kill(line.pid, signal.SIGKILL)
        again = await shared.told("start", key="step 1", job=job.id, attempt=2)
        shared.place.gate(1).touch()
        assert await job.result(timeout=PATIENCE_SECONDS) == 3
        assert [str(attempt.outcome) for attempt in await job.attempts()] == ["lost", "completed"]
    assert again.pid != line.pid
    assert counts(shared, job.id)[1] == {"step 0": 1, "step 1": 1, "step 2": 1}


# --- a worker that ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "store"),
    [("prefork", "sqlite"), ("threads", "sqlite"), ("solo", "sqlite"), ("prefork", "postgresql")],
)
async def test_warm_shutdown(redis: RedisServer, tmp_path: Path, pool: str, store: str) -> None:
    """SIGTERM in the middle of a job of steps: it goes on in another worker at once, and no step runs twice."""
    url = "" if store == "sqlite" else f"{shared_url()}?schema=carried_{os.getpid()}"
    with Fleet(Place(str(tmp_path), redis.new_url(), url)) as fleet:
        program = Program(fleet.place)
        fleet.place.gate(0).touch()
        async with program.carrier:
            first = fleet.celery(pool)
            job = await program.work.stepping.submit(3)
            line = await fleet.told("start", key="step 1")
            fleet.celery("threads")
            first.send_signal(signal.SIGTERM)
            await fleet.told("told", key="step 1")
            fleet.place.gate(1).touch()
            next_line = await fleet.told("start", key="step 2")
            fleet.place.gate(2).touch()
            assert await job.result(timeout=PATIENCE_SECONDS) == 3
            assert [str(attempt.outcome) for attempt in await job.attempts()] == ["handed_over", "completed"]
        assert await fleet.ended(first) == 0
        assert next_line.pid != line.pid
        assert counts(fleet, job.id) == (({"step 0": 1, "step 1": 1, "step 2": 1},) * 2)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_soft_shutdown(fleet: Fleet, pool: str) -> None:
    """SIGQUIT, and Celery's soft shutdown sleeps: the job hears of it at once, and no step runs twice."""
    program = Program(fleet.place)
    fleet.place.gate(0).touch()
    async with program.carrier:
        first = fleet.celery(pool, LASTCALL_TEST_SOFT=str(SOFT_SECONDS))
        job = await program.work.stepping.submit(3)
        await fleet.told("start", key="step 1")
        fleet.celery("threads")
        first.send_signal(signal.SIGQUIT)
        sent_at = time.time()
        assert (await fleet.told("told", key="step 1")).at - sent_at < SOFT_SECONDS / 2
        for number in (1, 2):
            fleet.place.gate(number).touch()
        assert await job.result(timeout=PATIENCE_SECONDS) == 3
        assert [str(attempt.outcome) for attempt in await job.attempts()] == ["handed_over", "completed"]
    assert counts(fleet, job.id) == (({"step 0": 1, "step 1": 1, "step 2": 1},) * 2)


@pytest.mark.parametrize(("pool", "soft"), [("prefork", "0"), ("threads", "0"), ("threads", "1")])
async def test_cold_shutdown(fleet: Fleet, pool: str, soft: str) -> None:
    """SIGQUIT in a step that does not end, at once or with a soft shutdown before: handed over, only it runs again."""
    program = Program(fleet.place)
    fleet.place.gate(0).touch()
    async with program.carrier:
        first = fleet.celery(pool, LASTCALL_TEST_SOFT=soft)
        job = await program.work.stepping.submit(3)
        await fleet.told("start", key="step 1")
        fleet.celery("threads")
        first.send_signal(signal.SIGQUIT)
        await fleet.told("start", key="step 1", attempt=2)
        for number in (1, 2):
            fleet.place.gate(number).touch()
        assert await job.result(timeout=PATIENCE_SECONDS) == 3
        assert [str(attempt.outcome) for attempt in await job.attempts()] == ["handed_over", "completed"]
    await fleet.ended(first)
    assert counts(fleet, job.id)[1] == {"step 0": 1, "step 1": 1, "step 2": 1}


async def test_a_worker_is_killed(fleet: Fleet) -> None:
    """kill -9 for a whole worker in a step: another worker takes the job, and repeats that step alone."""
    program = Program(fleet.place)
    fleet.place.gate(0).touch()
    async with program.carrier:
        first = fleet.celery("threads")
        job = await program.work.stepping.submit(2)
        await fleet.told("start", key="step 1")
        fleet.celery("threads")
        first.kill()
        await fleet.told("start", key="step 1", attempt=2)
        fleet.place.gate(1).touch()
        assert await job.result(timeout=PATIENCE_SECONDS) == 2
    assert counts(fleet, job.id)[1] == {"step 0": 1, "step 1": 1}


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
async def test_an_idle_worker_ends(fleet: Fleet, pool: str) -> None:
    """SIGTERM for a worker that has nothing to do any more: it ends, with its leases."""
    program = Program(fleet.place)
    async with program.carrier:
        worker = fleet.celery(pool)
        assert await (await program.work.add.submit(2, 3)).result(timeout=PATIENCE_SECONDS) == 5
        await until_async(lambda: asyncio.to_thread(is_idle, program), "the end of the message")
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(fleet.ended(worker), PATIENCE_SECONDS) == 0
        assert (await program.jobs.overview()).workers == []


async def test_the_soft_time_limit(fleet: Fleet) -> None:
    """Celery wants its place back after a second; that is a failure of the job, as its own timeout would be."""
    program = Program(fleet.place)
    async with program.carrier:
        fleet.celery("prefork", 1, LASTCALL_TEST_LIMIT="1")
        job = await program.work.endless.submit()
        with pytest.raises(JobFailed, match="TimeoutError"):
            await job.result(timeout=PATIENCE_SECONDS)
        again = await program.work.add.submit(2, 3)
        assert await again.result(timeout=PATIENCE_SECONDS) == 5


async def test_the_broker_comes_back_empty(tmp_path: Path) -> None:
    """The broker dies with all messages in it, jobs are submitted meanwhile, and it is started again: they run."""
    with RedisServer(redis_binary()) as first, Fleet(Place(str(tmp_path), first.new_url())) as fleet:
        program = Program(fleet.place)
        async with program.carrier:
            fleet.celery("threads")
            job = await program.work.add.submit(2, 3)
            assert await job.result(timeout=PATIENCE_SECONDS) == 5
            first.__exit__(None, None, None)
            job = await program.work.add.submit(3, 4)
            assert await job.status() is JobStatus.QUEUED
            second = RedisServer(redis_binary())
            second.port = first.port
            with second:
                assert await job.result(timeout=PATIENCE_SECONDS) == 7
