"""Job: every verb of a handle, on jobs in every state, and on ids that are none."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lastcall import StopReason
from lastcall.exceptions import (
    BadCursor,
    BadDeclaration,
    BadResult,
    EngineUnavailable,
    JobCancelled,
    JobFailed,
    PayloadTooLarge,
    UnknownJob,
)
from lastcall.jobs import Backoff, CancelOutcome, Context, Event, Job, Jobs, JobStatus
from lastcall.jobs._engine import read_log
from lastcall.jobs._ids import new_id
from tests.jobs.conftest import Store
from tests.jobs.running import PATIENCE_SECONDS, eventually, reaches, set_within, told

# Well below the two seconds after which those who wait ask by themselves.
PROMPT_SECONDS = 1.5


@dataclass
class Report:
    lines: int


async def first(events: Any) -> Event:
    event: Event = await anext(events)
    return event


VERBS: dict[str, Callable[[Job[Any]], Awaitable[Any]]] = {
    "info": lambda job: job.info(),
    "status": lambda job: job.status(),
    "wait": lambda job: job.wait(timeout=5),
    "result": lambda job: job.result(timeout=5),
    "cancel": lambda job: job.cancel(),
    "retry": lambda job: job.retry(),
    "send": lambda job: job.send("name", 1),
    "resolve": lambda job: job.resolve("step"),
    "purge": lambda job: job.purge(),
    "attempts": lambda job: job.attempts(),
    "steps": lambda job: job.steps(),
    "events": lambda job: first(job.events()),
}


# --- ids -----------------------------------------------------------------------------------------------


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("verb", VERBS)
async def test_a_job_that_does_not_exist(jobs: Jobs, store: Store, verb: str) -> None:
    """Each verb says so, and names the id; nothing is written, also not for later."""
    job_id = new_id()
    async with jobs:
        with pytest.raises(UnknownJob, match=f"there is no job {job_id}"):
            await VERBS[verb](jobs.job(job_id))
    assert await store.is_empty()


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("verb", VERBS)
async def test_what_is_no_id(jobs: Jobs, verb: str) -> None:
    """Each verb says so, whatever was given in place of an id, and shows how one looks."""
    upper = new_id().upper()
    no_ids: list[Any] = [
        "",
        "x",
        None,
        5,
        b"a",
        upper,
        f" {new_id()}",
        f"{new_id()}\n",
        "\x00",
        "\ud800",
        "x" * 10**6,
    ]
    no_ids += ["00000000-0000-4000-8000-000000000000", "' OR 1=1 --", ["a"]]
    async with jobs:
        for no_id in no_ids:
            with pytest.raises(UnknownJob, match="is no job id; ids look like"):
                await VERBS[verb](jobs.job(no_id))


@pytest.mark.loops("asyncio")
async def test_a_long_word_in_place_of_an_id_is_cut(jobs: Jobs) -> None:
    """A megabyte that is no id makes no message of a megabyte."""
    async with jobs:
        with pytest.raises(UnknownJob) as caught:
            await jobs.job("x" * 10**6).status()
    assert len(str(caught.value)) < 500


# --- what is known -------------------------------------------------------------------------------------


async def test_info_of_a_job_through_its_life(jobs: Jobs) -> None:
    """What is told of it while it is queued, while it runs, and when it has completed."""
    running, gate = asyncio.Event(), asyncio.Event()

    @jobs.task(version="3", queue="q", priority=2)
    async def work(ctx: Context, a: int) -> Report:
        await ctx.progress(1, 2, "half")
        running.set()
        await gate.wait()
        return Report(a)

    async with jobs:
        before = time.time()
        job = await work.options(key="k", labels={"a": "b"}).submit(5)
        info = await job.info()
        assert (info.id, info.task, info.version, info.queue, info.priority) == (job.id, "work", "3", "q", 2)
        assert (info.status, info.attempt, info.key, info.labels) == (JobStatus.QUEUED, 0, "k", {"a": "b"})
        assert (info.args, info.result, info.error, info.progress) == ({"a": 5}, None, None, None)
        assert before - 1 < info.created_at < time.time() + 1
        assert info.started_at is info.ended_at is info.worker_id is info.due_at is None
        async with jobs.worker() as worker:
            await set_within(running)
            info = await job.info()
            assert (info.status, info.attempt, info.worker_id) == (JobStatus.RUNNING, 1, worker.id)
            assert info.progress == {"done": 1, "of": 2, "message": "half"}
            assert info.started_at is not None and info.ended_at is None
            gate.set()
            info = await job.wait(timeout=PATIENCE_SECONDS)
        assert info == await job.info()
        assert (info.status, info.result, info.worker_id) == (JobStatus.COMPLETED, {"lines": 5}, None)
        assert info.started_at is not None and info.ended_at is not None
        assert info.created_at <= info.started_at <= info.ended_at
        assert info.waits_for == () and info.cancel_reason is None
        (attempt,) = await job.attempts()
        assert (attempt.attempt, attempt.outcome, attempt.worker_id) == (1, "completed", worker.id)
        told = json.loads(json.dumps(info.to_json()))
        assert (
            told["status"] == "completed"
            and told["result"] == {"lines": 5}
            and set(told) == set(info._fields)
        )


async def test_a_handle_by_id_gives_plain_values(jobs: Jobs) -> None:
    """Whoever has the task gets its type; by the id alone there is no type to read."""

    @jobs.task
    async def work() -> Report:
        return Report(7)

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=PATIENCE_SECONDS) == Report(7)
        assert await jobs.job(job.id).result(timeout=PATIENCE_SECONDS) == {"lines": 7}


async def test_what_a_waiting_job_waits_for(jobs: Jobs) -> None:
    """It is told in words."""

    @jobs.task
    async def work(ctx: Context) -> Any:
        return await ctx.wait_for("approval")

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        assert (await job.info()).waits_for == ("signal approval",)
        await job.send("approval", {"by": "ann"})
        assert await job.result(timeout=PATIENCE_SECONDS) == {"by": "ann"}
        (step,) = await job.steps()
        assert (step.status, step.value) == ("completed", {"data": {"by": "ann"}})


# --- results -------------------------------------------------------------------------------------------


async def test_the_result_of_a_failed_job(jobs: Jobs) -> None:
    """The error has the type, the message and the traceback of what was raised, and names the job."""

    @jobs.task
    async def work(message: str) -> None:
        raise LookupError(message)

    async with jobs.worker():
        for message in ("no such thing", "caf\\udce9", ""):
            job = await work.submit(message)
            with pytest.raises(JobFailed, match=f"job {job.id} .work. failed: LookupError: ") as caught:
                await job.result(timeout=PATIENCE_SECONDS)
            assert caught.value.error["type"] == "LookupError"
            assert caught.value.error["message"] == message
            assert "raise LookupError(message)" in caught.value.error["traceback"]


async def test_an_error_whose_text_is_no_unicode(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """A file's name that is no Unicode stands in the message: the job is shown like any other."""
    caplog.set_level(logging.CRITICAL, "lastcall")  # pytest-xdist cannot pass such a text on

    @jobs.task
    async def work() -> None:
        raise FileNotFoundError("caf\udce9")

    async with jobs.worker():
        job = await work.submit()
        info = await job.wait(timeout=PATIENCE_SECONDS)
        assert info.status is JobStatus.FAILED and info.error is not None
        assert info.error["message"] == "caf\\udce9"
        with pytest.raises(JobFailed, match="FileNotFoundError"):
            await job.result(timeout=PATIENCE_SECONDS)


async def test_results_that_do_not_fit(jobs: Jobs) -> None:
    """A result of another type, one that is no JSON, one above the limit: the job has failed, and is not retried."""

    @jobs.task(retries=5, backoff=Backoff(0))
    async def wrong() -> int:
        return "x"  # type: ignore[return-value]

    @jobs.task(retries=5, backoff=Backoff(0))
    def unwritable() -> Any:
        return object()

    @jobs.task(retries=5, backoff=Backoff(0))
    async def surrogate() -> str:
        return "\udce9"

    @jobs.task(retries=5, backoff=Backoff(0))
    async def large(letters: int) -> str:
        return "x" * letters

    told = [
        (wrong.call(), "BadResult", "the result of 'wrong' does not fit its annotation: .*valid integer"),
        (unwritable.call(), "BadResult", "the result of 'unwritable' cannot be written as JSON"),
        (surrogate.call(), "BadResult", "the result of 'surrogate' cannot be written as JSON"),
        (large.call(2**20 - 1), "PayloadTooLarge", "the result of job 'large'.*1048577 bytes"),
    ]
    async with jobs.worker():
        for call, kind, message in told:
            (job,) = await jobs.submit_many([call])
            with pytest.raises(JobFailed, match=message) as caught:
                await job.result(timeout=PATIENCE_SECONDS)
            assert caught.value.error["type"] == kind
            assert (await job.info()).attempt == 1
        fits = await large.submit(2**20 - 2)
        assert len(await fits.result(timeout=PATIENCE_SECONDS)) == 2**20 - 2


async def test_a_result_whose_type_was_changed(jobs: Jobs, store: Store) -> None:
    """A newer version of the program reads a result of the older one, which does not fit."""

    @jobs.task(name="work")
    async def work() -> str:
        return "many"

    async with jobs.worker():
        job = await work.options(key="k").submit()
        await job.wait(timeout=PATIENCE_SECONDS)
    newer = store.jobs()

    @newer.task(name="work")
    async def changed() -> int:
        return 5

    async with newer:
        job_now = await changed.options(key="k").submit()
        assert job_now.id == job.id
        with pytest.raises(BadResult, match="what is stored for the result of 'work' does not fit"):
            await job_now.result(timeout=PATIENCE_SECONDS)


async def test_a_timeout_leaves_the_job(jobs: Jobs) -> None:
    """Whoever waits gives up; the job goes on, and may be waited for again."""
    gate = asyncio.Event()

    @jobs.task
    async def work() -> int:
        await gate.wait()
        return 5

    async with jobs.worker():
        job = await work.submit()
        for wait in (job.result, job.wait):
            with pytest.raises(TimeoutError):
                await wait(timeout=0.05)
        await reaches(job, "running")
        gate.set()
        assert await job.result(timeout=PATIENCE_SECONDS) == 5


async def test_many_wait_for_one_and_one_for_many(jobs: Jobs) -> None:
    """All are told, and those who left meanwhile disturb nobody."""
    gate = asyncio.Event()

    @jobs.task
    async def work(n: int) -> int:
        await gate.wait()
        return n

    async with jobs.worker(concurrency=20):
        submitted = await jobs.submit_many(work.call(n) for n in range(10))
        waits = [
            asyncio.ensure_future(job.result(timeout=PATIENCE_SECONDS)) for job in submitted for _ in range(5)
        ]
        await reaches(submitted[-1], "running")
        for leaving in waits[::5]:
            leaving.cancel()
        gate.set()
        results = await asyncio.gather(*waits, return_exceptions=True)
        for n, result in enumerate(results):
            assert isinstance(result, asyncio.CancelledError) if n % 5 == 0 else result == n // 5


async def test_an_end_is_heard_of_at_once(jobs: Jobs, store: Store) -> None:
    """In the same process and in another one: nobody waits for the next time that somebody asks."""
    gate, elsewhere = asyncio.Event(), store.jobs()

    @jobs.task
    async def work() -> float:
        await gate.wait()
        return time.monotonic()

    async with jobs.worker(), elsewhere:
        job = await work.submit()
        here = asyncio.ensure_future(job.result(timeout=PATIENCE_SECONDS))
        there = asyncio.ensure_future(elsewhere.job(job.id).result(timeout=PATIENCE_SECONDS))
        await reaches(job, "running")
        gate.set()
        ended = await here
        assert time.monotonic() - ended < PROMPT_SECONDS
        await there
        assert time.monotonic() - ended < PROMPT_SECONDS


async def test_a_job_that_vanishes_while_it_is_waited_for(jobs: Jobs, store: Store) -> None:
    """Somebody else cancels and purges it before the waiter has looked: it hears of one of the two."""

    @jobs.task
    async def work() -> None: ...

    elsewhere = store.jobs()
    async with jobs, elsewhere:
        job = await work.submit()
        wait = asyncio.ensure_future(job.result(timeout=PATIENCE_SECONDS))
        await eventually(lambda: bool(jobs._client._waiting))
        await elsewhere.job(job.id).cancel()
        await elsewhere.job(job.id).purge()
        with pytest.raises((UnknownJob, JobCancelled), match=job.id):
            await wait


# --- cancel and retry ----------------------------------------------------------------------------------


async def test_cancel_in_every_state(jobs: Jobs) -> None:
    """Queued, scheduled and waiting ones at once, a running one by request, an ended one not at all."""
    gate = asyncio.Event()

    @jobs.task
    async def work(ctx: Context, what: str) -> None:
        if what == "wait":
            await ctx.wait_for("never")
        if what == "run":
            await gate.wait()

    async with jobs:
        queued, scheduled = await work.submit(""), await work.options(delay=100).submit("")
        for job in (queued, scheduled):
            assert await job.cancel() is CancelOutcome.CANCELLED
            assert await job.cancel() is CancelOutcome.ALREADY_ENDED
            info = await job.wait(timeout=PATIENCE_SECONDS)
            assert (info.status, info.cancel_reason, info.attempt) == (
                JobStatus.CANCELLED,
                StopReason.USER,
                0,
            )
            with pytest.raises(JobCancelled, match=rf"job {job.id} \(work\) was cancelled \(user\)"):
                await job.result(timeout=PATIENCE_SECONDS)
        async with jobs.worker():
            waiting, running, done = [await work.submit(what) for what in ("wait", "run", "done")]
            await reaches(waiting, "waiting")
            await reaches(running, "running")
            await done.wait(timeout=PATIENCE_SECONDS)
            assert await done.cancel() is CancelOutcome.ALREADY_ENDED
            assert await done.status() is JobStatus.COMPLETED
            assert await waiting.cancel() is CancelOutcome.CANCELLED
            assert await running.cancel(StopReason.DISCONNECT) is CancelOutcome.REQUESTED
            info = await running.wait(timeout=PATIENCE_SECONDS)
            assert (info.status, info.cancel_reason) == (JobStatus.CANCELLED, StopReason.DISCONNECT)


@pytest.mark.loops("asyncio")
async def test_a_reason_that_is_none(jobs: Jobs) -> None:
    """A word that is no reason, or that of a shutdown or a timeout, which end no job: the job is not cancelled."""

    @jobs.task
    async def work() -> None: ...

    reasons: list[Any] = [
        "because",
        None,
        5,
        "shutdown",
        *(set(StopReason) - {StopReason.USER, StopReason.DISCONNECT}),
    ]
    async with jobs:
        job = await work.submit()
        for reason in reasons:
            with pytest.raises(
                BadDeclaration, match="cancelled by a user or a disconnect, not for the reason"
            ):
                await job.cancel(reason)
        assert await job.status() is JobStatus.QUEUED


async def test_retry_by_hand(jobs: Jobs) -> None:
    """A failed and a cancelled job run again; one that waits for its turn or has completed is left alone."""
    failing = True

    @jobs.task
    async def work() -> int:
        if failing:
            raise ValueError("not yet")
        return 5

    async with jobs:
        job = await work.submit()
        assert await job.retry() is JobStatus.QUEUED
        cancelled = await work.submit()
        await cancelled.cancel()
        async with jobs.worker():
            assert (await job.wait(timeout=PATIENCE_SECONDS)).status is JobStatus.FAILED
            failing = False
            assert await job.retry() is JobStatus.QUEUED
            assert await cancelled.retry() is JobStatus.QUEUED
            assert await job.result(timeout=PATIENCE_SECONDS) == 5
            assert await cancelled.result(timeout=PATIENCE_SECONDS) == 5
            assert await job.retry() is JobStatus.COMPLETED
            info = await job.info()
            assert (info.attempt, info.failures, info.error) == (2, 0, None)
            assert [attempt.outcome for attempt in await job.attempts()] == ["failed", "completed"]


# --- send ----------------------------------------------------------------------------------------------


async def test_messages_before_and_after(jobs: Jobs) -> None:
    """Sent before the job runs, while it waits, and out of order: received by name, first sent first."""

    @jobs.task
    async def work(ctx: Context) -> list[Any]:
        return [await ctx.wait_for("a"), await ctx.wait_for("b"), await ctx.wait_for("a")]

    async with jobs:
        job = await work.submit()
        assert await job.send("a", 1) is JobStatus.QUEUED
        assert await job.send("a", {"two": [2]}) is JobStatus.QUEUED
        async with jobs.worker():
            await reaches(job, "waiting")
            assert await job.send("c") is JobStatus.WAITING
            assert await job.send("b", None) is JobStatus.QUEUED
            assert await job.result(timeout=PATIENCE_SECONDS) == [1, None, {"two": [2]}]
            assert await job.send("a", 3) is JobStatus.COMPLETED


@pytest.mark.loops("asyncio")
async def test_messages_that_cannot_be_sent(store: Store) -> None:
    """A name that is none, data that is no JSON or too much: refused, and the job hears nothing."""
    jobs = store.jobs(max_payload_bytes=100)

    @jobs.task
    async def work(ctx: Context) -> Any:
        return await ctx.wait_for("name")

    names: list[Any] = ["", None, 5, "a\nb", "\x00", "\udce9", "x" * 201]
    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        for name in names:
            with pytest.raises(BadDeclaration, match="the name of a message must be"):
                await job.send(name, 1)
            with pytest.raises(BadDeclaration, match="a step must be"):
                await job.resolve(name if name != "x" * 201 else "")
        for data in (object(), "\udce9", {"a": {1: object()}}):
            with pytest.raises(BadResult, match="the message 'name' cannot be written as JSON"):
                await job.send("name", data)
        with pytest.raises(PayloadTooLarge, match="the message 'name': 101 bytes"):
            await job.send("name", "x" * 99)
        assert await job.status() is JobStatus.WAITING
        await job.send("name", "x" * 98)
        assert await job.result(timeout=PATIENCE_SECONDS) == "x" * 98


# --- purge ---------------------------------------------------------------------------------------------


async def test_purge(jobs: Jobs, store: Store) -> None:
    """Only what has ended is deleted, with everything that belongs to it."""

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.step(len, "a")
        await ctx.log("here")

    async with jobs:
        job, other = await work.submit(), await work.submit()
        assert await job.purge() is JobStatus.QUEUED
        async with jobs.worker():
            await job.wait(timeout=PATIENCE_SECONDS)
            await other.wait(timeout=PATIENCE_SECONDS)
        assert await job.purge() is JobStatus.COMPLETED
        with pytest.raises(UnknownJob, match=job.id):
            await job.purge()
        assert not await jobs.engine.steps(job.id) and await read_log(jobs.engine, job.id, 0, 9) is None
        assert [row.id for row in await store.rows()] == [other.id]
        assert [event.type for event in await told(other)] == ["log"]


# --- events --------------------------------------------------------------------------------------------


async def test_events_while_it_runs_and_afterwards(jobs: Jobs, store: Store) -> None:
    """Readers from the beginning, from the middle, in another process and afterwards: each event once, in order."""
    steps = [asyncio.Event() for _ in range(3)]
    elsewhere = store.jobs()

    @jobs.task
    async def work(ctx: Context) -> None:
        for n, step in enumerate(steps):
            await ctx.emit("n", n)
            await ctx.emit("again", {"n": n})
            await step.wait()
        await ctx.log("last")

    async def read(job: Job[Any], after: int = 0) -> list[int]:
        return [event.seq async for event in job.events(after)]

    async with jobs.worker(), elsewhere:
        job = await work.submit()
        readers = [
            asyncio.ensure_future(read(reader, after))
            for reader, after in [(job, 0), (elsewhere.job(job.id), 0)]
        ]
        events = job.events()
        for n, step in enumerate(steps):
            event = await anext(events)
            assert (event.seq, event.type, event.data, event.attempt) == (2 * n + 1, "n", n, 1)
            assert (await anext(events)).data == {"n": n}
            if n == 1:
                readers.append(asyncio.ensure_future(read(job, 3)))
            step.set()
        event = await anext(events)
        assert (event.seq, event.type, event.data["message"]) == (7, "log", "last")
        event = await anext(events)
        assert (event.seq, event.type, event.data) == (8, "status", {"status": "completed"})
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await asyncio.gather(*readers) == [[*range(1, 9)], [*range(1, 9)], [*range(4, 9)]]
        assert await read(job) == [*range(1, 9)]
        assert await read(job, 7) == [8] and await read(job, 8) == []
        for no_cursor in (-1, 9, 2**70):
            with pytest.raises(BadCursor, match=str(no_cursor)):
                await read(job, no_cursor)


async def test_more_events_than_are_read_at_once(jobs: Jobs) -> None:
    """A thousand and some, written side by side by one job, read while they come."""

    @jobs.task
    async def work(ctx: Context) -> None:
        await asyncio.gather(*(ctx.emit("n", n) for n in range(1203)))

    async with jobs.worker():
        job = await work.submit()
        seen = await told(job)
        assert [event.seq for event in seen] == [*range(1, 1204)]
        assert sorted(event.data for event in seen) == [*range(1203)]
        assert len(await told(job, after=600)) == 603


async def test_events_over_several_attempts(jobs: Jobs) -> None:
    """The log goes on over failures, and tells the attempt and the step of each event."""

    async def step(ctx: Context) -> None:
        await ctx.emit("in", 1)

    @jobs.task(retries=1, backoff=Backoff(0))
    async def work(ctx: Context) -> None:
        await ctx.emit("begin")
        await ctx.step(step, ctx, name="s")
        if ctx.attempt == 1:
            raise ValueError("again")

    async with jobs.worker():
        job = await work.submit()
        seen = [(event.seq, event.type, event.attempt, event.step) async for event in job.events()]
    assert seen == [
        (1, "begin", 1, None),
        (2, "in", 1, "s"),
        (3, "step", 1, "s"),
        (4, "status", 1, None),
        (5, "status", 2, None),
        (6, "begin", 2, None),
        (7, "status", 2, None),
    ]


async def test_an_event_that_comes_between_two_looks(jobs: Jobs) -> None:
    """The job emits after the reader has looked and before it waits: the reader hears of it at once all the same."""
    gate, emitted, engine = asyncio.Event(), asyncio.Event(), jobs.engine
    read_events = engine.read_events

    async def read_and_be_late(reads: Any, limit: int) -> Any:
        pages = await read_events(reads, limit)
        if not emitted.is_set():
            gate.set()
            await set_within(emitted)
        return pages

    @jobs.task
    async def work(ctx: Context) -> None:
        await gate.wait()
        await ctx.emit("late", time.monotonic())
        emitted.set()
        await asyncio.Event().wait()

    engine.read_events = read_and_be_late  # type: ignore[method-assign]
    async with jobs.worker():
        job = await work.submit()
        events = job.events()
        async with asyncio.timeout(PATIENCE_SECONDS):
            event = await anext(events)
        assert event.type == "late" and time.monotonic() - event.data < PROMPT_SECONDS
        await events.aclose()  # type: ignore[attr-defined]
        await job.cancel()
    assert jobs._client.tails.is_idle


async def test_a_reader_leaves_nothing(jobs: Jobs) -> None:
    """Whoever stops reading, or waits for what never comes and gives up, leaves nothing behind."""

    @jobs.task
    async def work() -> None: ...

    async with jobs:
        job = await work.submit()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    async for event in job.events():
                        raise AssertionError(event)
            with pytest.raises(TimeoutError):
                await job.wait(timeout=0.05)
        assert jobs._client.tails.is_idle and not jobs._client._waiting


# --- when the store closes -----------------------------------------------------------------------------


async def test_closing_while_somebody_waits(jobs: Jobs) -> None:
    """Those who wait for an end and those who read events hear of it at once; nobody opens the store again."""

    @jobs.task
    async def work() -> None: ...

    await jobs.open()
    job = await work.submit()
    waiters = [
        asyncio.ensure_future(waiter)
        for waiter in (job.result(), job.wait(timeout=60), first(job.events()), first(job.events()))
    ]
    await eventually(lambda: len(jobs._client.tail(job.id)._waiting) == 2 and bool(jobs._client._asking))
    await jobs.close()
    async with asyncio.timeout(PROMPT_SECONDS):
        for waiter in waiters:
            with pytest.raises(EngineUnavailable, match="closed while somebody waited"):
                await waiter
    assert not jobs._client.is_open
