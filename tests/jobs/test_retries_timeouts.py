"""How attempts end: results, errors, tries, timeouts, and everything that a job may raise."""

import asyncio
import threading
from typing import Any

import pytest

from lastcall import StopReason, current_shutdown
from lastcall.exceptions import JobFailed
from lastcall.jobs import Backoff, Context, Job, Jobs, JobStatus
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import (
    AT_ONCE,
    PATIENCE_SECONDS,
    ended,
    eventually,
    manager,
    outcomes,
    reaches,
    set_within,
)


async def error_of(job: Job[Any]) -> tuple[str, str]:
    info = await job.wait(timeout=20)
    assert info.status == "failed" and info.error is not None, info
    return info.error["type"], info.error["message"]


# --- errors and tries ------------------------------------------------------------------------------------


async def test_an_error_is_kept_with_its_traceback(jobs: Jobs) -> None:
    """A job raises: whoever asks for its result, in any process, gets the type, the message and where it was."""

    def deep_inside() -> None:
        raise OSError("disk on fire")

    @jobs.task
    async def work() -> None:
        deep_inside()

    async with jobs.worker():
        job = await work.submit()
        with pytest.raises(JobFailed, match="OSError: disk on fire") as raised:
            await job.result(timeout=20)
        assert raised.value.error["type"] == "OSError"
        assert "in deep_inside" in raised.value.error["traceback"]
        (attempt,) = await job.attempts()
        assert attempt.outcome == "failed" and "disk on fire" in (attempt.error or "")
        assert await job.status() == "failed"
        assert [info.id for info in await jobs.find(status="failed")] == [job.id]


async def test_tries_wait_longer_each_time(store: Store) -> None:
    """A job fails four times: it waits 100 s, 200 s and, capped, 250 s for the next try, and has failed then."""
    clock = VirtualClock()
    jobs = store.jobs(clock)
    backoff = Backoff(first_seconds=100, factor=2, max_seconds=250, jitter=0)

    @jobs.task(retries=3, backoff=backoff)
    async def work(ctx: Context) -> None:
        assert ctx.attempt == ctx.failures + 1
        raise OSError(f"try {ctx.attempt}")

    async with jobs.worker():
        job = await work.submit()
        for seconds in (100, 200, 250):
            await reaches(job, "scheduled")
            due_at = (await job.info()).due_at
            assert due_at == pytest.approx(clock.wall() + seconds)
            clock.advance(seconds)
            jobs._client.work_arrived()

            async def has_moved_on() -> bool:
                return (await job.info()).due_at != due_at  # noqa: B023

            await eventually(has_moved_on)
        assert await error_of(job) == ("OSError", "try 4")
        assert await outcomes(job) == ["failed"] * 4


@pytest.mark.loops("asyncio")
def test_backoff_is_spread_and_bounded() -> None:
    """Jobs that failed together do not come back together, and never wait for longer than the jitter allows."""
    backoff = Backoff(first_seconds=1, factor=2, max_seconds=60, jitter=0.2)
    assert [backoff.delay_seconds(n, 0) for n in (1, 2, 3, 10, 1000)] == [1, 2, 4, 60, 60]
    assert backoff.delay_seconds(1, -1) == pytest.approx(0.8)
    assert backoff.delay_seconds(1000, 1) == pytest.approx(72)


async def test_options_of_one_submission(jobs: Jobs) -> None:
    """The task declares no retries and no timeout; one submission asks for both."""
    tries: list[int] = []

    @jobs.task(backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        tries.append(ctx.attempt)
        await asyncio.sleep(60 if ctx.attempt == 2 else 0)
        raise OSError

    async with jobs.worker():
        assert (await error_of(await work.options(retries=1, timeout=0.05).submit()))[0] == "TimeoutError"
    assert tries == [1, 2]


async def test_errors_that_are_not_worth_a_try(jobs: Jobs) -> None:
    """The task gives up on some errors, and their subclasses; others are tried again."""

    @jobs.task(retries=2, backoff=AT_ONCE, give_up_on=LookupError)
    async def work(what: str) -> None:
        raise KeyError(what) if what == "missing" else OSError(what)

    async with jobs.worker():
        missing, broken = await work.submit("missing"), await work.submit("broken")
        await error_of(missing)
        await error_of(broken)
        assert len(await missing.attempts()) == 1
        assert len(await broken.attempts()) == 3


@pytest.mark.parametrize("what", ["arguments", "result", "too large"])
async def test_errors_that_every_attempt_would_meet_are_not_tried_again(store: Store, what: str) -> None:
    """The stored arguments no longer fit the function, or its result does not: the code must change first."""
    old = store.jobs()
    new = store.jobs(max_payload_bytes=1000)

    @old.task(name="work")
    async def before(n: str) -> int: ...  # type: ignore[empty-body]

    taken: Any = int if what == "arguments" else str
    given: Any = int if what == "result" else str

    @new.task(name="work", retries=5, backoff=AT_ONCE)
    async def after(n: taken) -> given:
        return "x" * 2000 if what == "too large" else "no number"

    async with old:
        job = await before.submit("one")
    async with new.worker():
        job = new.job(job.id)
        kind, message = await error_of(job)
        assert kind == {"arguments": "BadArguments", "result": "BadResult"}.get(what, "PayloadTooLarge")
        assert "work" in message or "after" in message
        assert len(await job.attempts()) == 1


async def test_retrying_by_hand_begins_to_count_anew(jobs: Jobs) -> None:
    """A job has used up its tries; retried by hand it has all of them again."""

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        if ctx.attempt < 4:
            raise OSError(f"try {ctx.attempt}, {ctx.failures} before")
        return "at last"

    async with jobs.worker():
        job = await work.submit()
        assert (await error_of(job))[1] == "try 2, 1 before"
        assert (await job.info()).failures == 2
        assert await job.retry() == "queued"
        assert await job.result(timeout=20) == "at last"
        assert await outcomes(job) == ["failed", "failed", "failed", "completed"]
        assert await job.retry() == "completed", "what has completed is left alone"
        assert len(await job.attempts()) == 4


# --- whatever a job may raise ------------------------------------------------------------------------------


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no text for you")


class Strange(BaseException): ...


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (SystemExit(3), "SystemExit", "3"),
        (Strange("odd"), "Strange", "odd"),
        (Speechless(), "Speechless", "Speechless (its text cannot be made: ValueError)"),
        (FileNotFoundError(2, "no such file", "\udcff.txt"), "FileNotFoundError", "[Errno 2]"),
        (ExceptionGroup("both", [OSError("a"), ValueError("b")]), "ExceptionGroup", "both"),
        (StopIteration("x"), "RuntimeError", "coroutine raised StopIteration"),
        (RecursionError("too deep"), "RecursionError", "too deep"),
        (MemoryError(), "MemoryError", ""),
        (GeneratorExit("x"), "GeneratorExit", "x"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_a_job_raises_its_worker_lives(
    jobs: Jobs, error: BaseException, kind: str, message: str
) -> None:
    """A job calls sys.exit(), or raises what nobody expects: it has failed, and the next job runs."""

    @jobs.task
    async def work() -> None:
        raise error

    @jobs.task
    async def other() -> str:
        return "other"

    async with jobs.worker(concurrency=1):
        job = await work.submit()
        found = await error_of(job)
        assert found[0] == kind and found[1].startswith(message)
        assert await (await other.submit()).result(timeout=20) == "other"


@pytest.mark.loops("asyncio")
async def test_a_plain_function_that_exits(jobs: Jobs) -> None:
    """sys.exit() in a job that runs in a thread means that job, not the service."""

    @jobs.task
    def work() -> None:
        raise SystemExit("enough")

    async with jobs.worker():
        kind, message = await error_of(await work.submit())
        assert kind == "RuntimeError" and "SystemExit" in message and "enough" in message


@pytest.mark.loops("asyncio")
def test_an_interrupt_in_the_middle_of_a_job(store: Store) -> None:
    """Ctrl-C without any handler of ours is raised inside a job: the program ends, and the job is handed over, neither
    failed nor lost."""

    def declare(jobs: Jobs, interrupt: bool) -> Any:
        @jobs.task(name="work")
        async def work(ctx: Context) -> int:
            await ctx.step(int, "1")
            if interrupt:
                raise KeyboardInterrupt
            return ctx.attempt

        return work

    ids: list[str] = []

    async def first() -> None:
        jobs = store.jobs()
        work = declare(jobs, interrupt=True)
        async with jobs, jobs.worker():
            job = await work.submit()
            ids.append(job.id)
            await job.wait(timeout=20)

    async def second() -> tuple[int, list[str]]:
        jobs = store.jobs()
        declare(jobs, interrupt=False)
        async with jobs.worker():
            job = jobs.job(ids[0])
            return await job.result(timeout=20), await outcomes(job)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    assert asyncio.run(second()) == (2, ["handed_over (shutdown)", "completed"])


# --- timeouts ----------------------------------------------------------------------------------------------


async def test_an_attempt_that_takes_too_long(jobs: Jobs) -> None:
    """The first attempt overruns its timeout: it is cancelled, can read why, and has failed; the next is in time."""
    reasons: list[Any] = []

    @jobs.task(timeout=0.1, retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        try:
            await asyncio.sleep(60 if ctx.attempt == 1 else 0)
        except asyncio.CancelledError:
            reasons.append((ctx.cancel_reason, ctx.shutdown.reason))
            raise
        return "in time"

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == "in time"
        assert await outcomes(job) == ["failed", "completed"]
        assert "took longer than its timeout" in ((await job.attempts())[0].error or "")
    assert reasons == [(StopReason.TIMEOUT, StopReason.TIMEOUT)]


async def test_a_timeout_is_per_attempt_and_not_while_waiting(store: Store) -> None:
    """A job with a short timeout waits for an hour: each attempt has its time for itself."""
    clock = VirtualClock()
    jobs = store.jobs(clock)

    @jobs.task(timeout=5)
    async def work(ctx: Context) -> int:
        await ctx.sleep(3600)
        return ctx.attempt

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        clock.advance(3600)
        jobs._client.work_arrived()
        assert await job.result(timeout=20) == 2


async def test_a_timeout_of_a_job_with_steps_keeps_its_steps(jobs: Jobs) -> None:
    """The second step overruns: the next attempt does not repeat the first."""
    called: list[str] = []

    async def step(name: str, seconds: float) -> None:
        called.append(name)
        await asyncio.sleep(seconds)

    @jobs.task(timeout=0.2, retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        await ctx.step(step, "one", 0, name="one")
        await ctx.step(step, "two", 60 if ctx.attempt == 1 else 0, name="two")

    async with jobs.worker():
        job = await work.submit()
        assert await ended(job) == "completed"
    assert called == ["one", "two", "two"]


async def test_who_swallows_its_timeout_is_given_up(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """The job ignores that its time is over: it has failed without it when its grace is over."""
    go = asyncio.Event()

    @jobs.task(timeout=0.05)
    async def work() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    async with manager(cancel=0.1) as mine, jobs.worker(manager=mine):
        job = await work.submit()
        assert (await error_of(job))[0] == "TimeoutError"
        assert "(timeout)" in caplog.text and "it is given up" in caplog.text
        go.set()
        await eventually(lambda: not mine.tasks(status="running"))
        assert await job.status() == "failed"


async def test_a_thread_that_takes_too_long_is_told(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """Plain functions, a job and a step of one, cannot be cancelled: they see that they should stop, and do."""
    told: list[Any] = []

    def wait() -> None:
        told.append((current_shutdown().wait_sync(PATIENCE_SECONDS), current_shutdown().reason))

    @jobs.task(timeout=0.05)
    def work() -> None:
        wait()

    @jobs.task(timeout=0.05)
    async def with_step(ctx: Context) -> None:
        await ctx.step(wait)

    async with jobs.worker():
        assert (await error_of(await work.submit()))[0] == "TimeoutError"
        assert (await error_of(await with_step.submit()))[0] == "TimeoutError"
        assert told == [(True, StopReason.TIMEOUT)] * 2
    assert "it is given up" not in caplog.text


async def test_a_thread_that_will_not_stop_is_given_up(jobs: Jobs) -> None:
    """It runs on beside its next attempt, and what it returns at last is nobody's result."""
    go = threading.Event()
    second = asyncio.Event()
    loop = asyncio.get_running_loop()

    @jobs.task(timeout=0.1, retries=1, backoff=AT_ONCE)
    def work(ctx: Context) -> str:
        if ctx.attempt == 1:
            go.wait(PATIENCE_SECONDS)
            return "late"
        loop.call_soon_threadsafe(second.set)
        return "in time"

    async with manager(cancel=0.1) as mine, jobs.worker(manager=mine):
        job = await work.submit()
        await set_within(second)
        assert await job.result(timeout=20) == "in time"
        go.set()
        await eventually(lambda: not mine.tasks(status="running"))
        assert (await job.info()).result == "in time"
        assert await job.status() is JobStatus.COMPLETED
