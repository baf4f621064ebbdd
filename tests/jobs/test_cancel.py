"""A cancel is a durable fact: it reaches a job wherever it is, and is never taken for anything else."""

import asyncio
import threading
from typing import Any

import pytest

from lastcall import StopReason, current_shutdown
from lastcall.exceptions import JobCancelled, NotInJob, UnknownJob
from lastcall.jobs import CancelOutcome, Context, Job, Jobs
from lastcall.jobs._rows import CancelRequest
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import (
    AT_ONCE,
    PATIENCE_SECONDS,
    Faulty,
    ended,
    eventually,
    manager,
    outcomes,
    reaches,
    set_within,
)


async def test_what_does_not_run_is_cancelled_at_once(jobs: Jobs, store: Store) -> None:
    """A queued, a scheduled, a waiting job and one held by its key's limit are cancelled from another process: they
    end there and then, and never run."""
    called: list[str] = []
    go = asyncio.Event()

    @jobs.task(concurrency_key="what")
    async def work(ctx: Context, what: str) -> None:
        if what == "waiting":
            await ctx.wait_for("x")
        elif what == "first":
            await set_within(go)
        called.append(what)

    @jobs.task(queue="nobody's")
    async def idle() -> None: ...

    other = store.jobs()
    async with other, jobs.worker(queues=["default"]):
        first = await work.submit("first")
        every: dict[str, Job[Any]] = {
            "queued": await idle.submit(),
            "scheduled": await work.options(delay=3600).submit("scheduled"),
            "waiting": await work.submit("waiting"),
            "held": await work.submit("first"),
        }
        await reaches(every["waiting"], "waiting")
        for job in every.values():
            assert await other.job(job.id).cancel() is CancelOutcome.CANCELLED
            info = await job.info()
            assert (info.status, info.cancel_reason) == ("cancelled", StopReason.USER)
            with pytest.raises(JobCancelled, match=job.id):
                await job.result(timeout=20)
            assert await job.cancel() is CancelOutcome.ALREADY_ENDED
        await every["waiting"].send("x")
        go.set()
        await first.result(timeout=20)
    assert called == ["first"]


async def test_a_running_job_is_reached_from_another_process(jobs: Jobs, store: Store) -> None:
    """It hears so at once, by a CancelledError whose reason it can read, cleans up, and is not tried again."""
    running = asyncio.Event()
    heard: list[Any] = []

    @jobs.task(retries=5, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.append((ctx.cancel_reason, ctx.shutdown.reason))
            raise

    other = store.jobs()
    async with other, jobs.worker():
        job = await work.submit()
        await set_within(running)
        async with asyncio.timeout(3):  # by news: a third of the lease would be five seconds
            assert await other.job(job.id).cancel() is CancelOutcome.REQUESTED
            assert (await other.job(job.id).wait()).status == "cancelled"
        assert heard == [(StopReason.USER, StopReason.USER)]
        assert await outcomes(job) == ["cancelled"]
        assert (await job.info()).cancel_reason is StopReason.USER


async def test_a_cancel_is_heard_without_any_news(store: Store) -> None:
    """All hints are lost: the worker hears of the cancel when it renews its lease."""
    running = asyncio.Event()
    engine = store.engine()
    engine.listen = lambda on_change: lambda: None  # type: ignore[method-assign]
    jobs = Jobs(engine, lease_seconds=0.6)

    @jobs.task
    async def work() -> None:
        running.set()
        await asyncio.sleep(60)

    other = store.jobs()
    async with other, jobs.worker():
        job = await work.submit()
        await set_within(running)
        await other.job(job.id).cancel()
        assert await ended(other.job(job.id)) == "cancelled"


async def test_the_first_reason_stays(jobs: Jobs) -> None:
    """A reader has left and its job is cancelled for that; the user's own cancel comes second."""
    running, go = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def work() -> None:
        running.set()
        try:
            await asyncio.sleep(60)
        finally:
            await set_within(go)

    async with jobs.worker():
        job = await work.submit()
        await set_within(running)
        await job.cancel(StopReason.DISCONNECT)
        await job.cancel()
        go.set()
        assert await ended(job) == "cancelled"
        assert (await job.info()).cancel_reason is StopReason.DISCONNECT
        assert [row.reason for row in await job.attempts()] == ["disconnect"]


async def test_who_swallows_a_cancel_is_given_up(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """The job runs on after its cancel: when its grace is over it is cancelled without it, the log has its stack, its
    slot is free, and nothing that it does later counts."""
    running, go = asyncio.Event(), asyncio.Event()
    later: list[BaseException] = []

    async def step() -> None: ...

    @jobs.task
    async def work(ctx: Context) -> str:
        running.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        try:
            await ctx.step(step)
        except NotInJob as error:
            later.append(error)
        return "what I have done after all"

    @jobs.task
    async def other() -> str:
        return "other"

    async with manager(cancel=0.1) as mine, jobs.worker(concurrency=1, manager=mine):
        job = await work.submit()
        await set_within(running)
        await job.cancel()
        assert await ended(job) == "cancelled"
        assert job.id in caplog.text and "(user)" in caplog.text and "it is given up" in caplog.text
        assert "test_who_swallows_a_cancel_is_given_up.<locals>.work" in caplog.text
        assert await (await other.submit()).result(timeout=20) == "other"
        go.set()
        await eventually(lambda: len(later) == 1)
        assert (await job.info()).result is None
        assert await job.steps() == []


async def test_a_cancelled_job_may_compensate_with_steps(jobs: Jobs) -> None:
    """The job has booked a flight when it is cancelled: it takes that back in a step, and is cancelled then."""
    called: list[str] = []
    running = asyncio.Event()

    async def step(what: str) -> None:
        called.append(what)

    @jobs.task
    async def trip(ctx: Context) -> None:
        await ctx.step(step, "book")
        try:
            running.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if ctx.cancel_reason is StopReason.USER:
                await ctx.step(step, "take back")
            raise

    async with jobs.worker():
        job = await trip.submit()
        await set_within(running)
        await job.cancel()
        assert await ended(job) == "cancelled"
        assert len(await job.steps()) == 2
    assert called == ["book", "take back"]


async def test_what_a_thread_has_done_by_then_is_remembered(jobs: Jobs) -> None:
    """A step in a thread cannot be cut: it ends, is written down, and then the job is cancelled; retried by hand, it is
    not called again."""
    running, go = threading.Event(), threading.Event()
    called: list[str] = []

    def step() -> str:
        called.append("step")
        running.set()
        go.wait(PATIENCE_SECONDS)
        return "done"

    @jobs.task
    async def work(ctx: Context) -> str:
        return await ctx.step(step)

    async with jobs.worker() as worker:
        job = await work.submit()
        await eventually(running.is_set)
        await job.cancel()

        def was_told() -> bool:
            (task,) = worker.manager.tasks(status="running")
            return task.reason is StopReason.USER

        await eventually(was_told)
        go.set()
        assert await ended(job) == "cancelled"
        assert [step.value for step in await job.steps()] == ["done"]
        await job.retry()
        assert await job.result(timeout=20) == "done"
    assert called == ["step"]


async def test_a_cancel_before_the_first_line_ran(store: Store) -> None:
    """The cancel comes between the claim and the first step of the job's task, which then runs no line at all: the job
    has an end all the same, and its slot is free."""
    called: list[str] = []
    engine = Faulty(store.engine())
    jobs = Jobs(engine)

    @jobs.task
    async def work(what: str) -> str:
        called.append(what)
        await asyncio.sleep(60 if what == "cancelled" else 0)
        return what

    async with jobs.worker(concurrency=1) as worker:
        claim = engine.claim

        async def claim_and_cancel(request: Any) -> Any:
            result = await claim(request)
            for job in result.jobs:
                if '"cancelled"' in job.args:
                    await engine.cancel(job.id, StopReason.USER)
                    wanted = CancelRequest(job.id, job.attempt, StopReason.USER)
                    asyncio.get_running_loop().call_soon(worker._executor.cancel, wanted)
            return result

        engine.claim = claim_and_cancel  # type: ignore[attr-defined]
        job = await work.submit("cancelled")
        assert await ended(job) == "cancelled"
        assert await (await work.submit("other")).result(timeout=20) == "other"
    eager = asyncio.get_running_loop().get_task_factory() is not None
    assert called == (["cancelled", "other"] if eager else ["other"])


async def test_a_cancel_while_its_claim_is_on_its_way(store: Store) -> None:
    """Another process cancels a job that is claimed, and whose worker does not know of it yet: it is cancelled when it
    begins, and not only at the next renewal of a lease that is renewed every ten minutes."""
    engine, elsewhere = Faulty(store.engine()), store.engine()
    jobs = Jobs(engine, lease_seconds=1800)
    claimed, go_on = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def work() -> None:
        await asyncio.Event().wait()

    async with jobs.worker(concurrency=1), Jobs(elsewhere):
        claim = engine.claim

        async def claim_slowly(request: Any) -> Any:
            result = await claim(request)
            if result.jobs:
                claimed.set()
                await go_on.wait()
            return result

        engine.claim = claim_slowly  # type: ignore[attr-defined]
        job = await work.submit()
        await set_within(claimed)
        looks = engine.calls.count("cancel_requests")
        assert await elsewhere.cancel(job.id, StopReason.USER) is CancelOutcome.REQUESTED
        await eventually(lambda: engine.calls.count("cancel_requests") > looks)
        go_on.set()
        assert await ended(job) == "cancelled"


async def test_a_result_that_races_a_cancel_stands(jobs: Jobs) -> None:
    """The job swallows its cancel and returns within its grace: what it has done is done."""
    running = asyncio.Event()

    @jobs.task
    async def work() -> str:
        running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "finished"
        return "not cancelled"

    async with jobs.worker():
        job = await work.submit()
        await set_within(running)
        await job.cancel()
        assert await job.result(timeout=20) == "finished"


async def test_what_a_cancelled_job_raises_is_kept_and_changes_nothing(jobs: Jobs) -> None:
    """Its cleaning up fails: it is cancelled, not failed, and the error can be looked up."""
    running = asyncio.Event()

    @jobs.task(retries=3, backoff=AT_ONCE)
    async def work() -> None:
        running.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("the connection is gone")

    async with jobs.worker():
        job = await work.submit()
        await set_within(running)
        await job.cancel()
        assert await ended(job) == "cancelled"
        error = (await job.info()).error
        assert error is not None and error["message"] == "the connection is gone"


async def test_a_cancel_while_the_job_leaves_to_wait(jobs: Jobs) -> None:
    """The job is cleaning up before it waits when the user cancels it: it is cancelled, and does not wait."""
    leaving, go = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def work(ctx: Context) -> None:
        try:
            await ctx.wait_for("x")
        finally:
            leaving.set()
            await set_within(go)

    async with jobs.worker():
        job = await work.submit()
        await set_within(leaving)
        await job.cancel()
        go.set()
        assert await ended(job) == "cancelled"


async def test_the_managers_cancel_of_its_task_is_a_users_cancel(jobs: Jobs) -> None:
    """Somebody cancels the job's task on the manager's page: that is a person's wish, and it lasts."""
    running = asyncio.Event()

    @jobs.task(retries=3)
    async def work() -> None:
        running.set()
        await asyncio.sleep(60)

    async with manager() as mine, jobs.worker(manager=mine):
        job = await work.submit()
        await set_within(running)
        (task,) = mine.tasks(status="running")
        assert job.id in task.name
        assert await mine.cancel_task(task.id) == "ended"
        assert await ended(job) == "cancelled"


async def test_a_cancel_reaches_a_job_whose_worker_has_just_died(store: Store) -> None:
    """The worker hears nothing any more; whoever takes its jobs finds the cancel written down."""
    clock = VirtualClock()
    first, second = store.jobs(clock), store.jobs(clock)
    running, released = asyncio.Event(), asyncio.Event()
    called: list[int] = []

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="work")
        async def work(ctx: Context) -> None:
            called.append(ctx.attempt)
            running.set()
            with current_shutdown().critical(max=20):
                await set_within(released)

        return work

    work = declare(first)
    declare(second)
    async with first.worker():
        job = await work.submit()
        await set_within(running)
        await job.cancel()
        clock.advance(100)
        async with second.worker():
            assert await ended(second.job(job.id)) == "cancelled"
            assert await outcomes(job) == ["lost"]
        released.set()
    assert called == [1]


async def test_a_cancelled_error_of_the_jobs_own_is_a_failure(jobs: Jobs) -> None:
    """A task that the job awaits was cancelled, or it raises CancelledError itself: nobody has cancelled the job, so
    it has failed, and is tried again."""

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        if ctx.attempt == 1:
            task = asyncio.create_task(asyncio.sleep(60))
            asyncio.get_running_loop().call_soon(task.cancel)
            await task
        return "second"

    @jobs.task
    async def raises() -> None:
        raise asyncio.CancelledError

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == "second"
        assert await outcomes(job) == ["failed", "completed"]
        info = await (await raises.submit()).wait(timeout=20)
        assert info.status == "failed" and info.error is not None
        assert "nobody had cancelled it" in info.error["message"]


async def test_a_cancel_that_is_not_ours_hands_over_with_a_pause(store: Store) -> None:
    """A program cancels all tasks it can find, and a job is among them: that is no wish of a user's and no failure, so
    it is handed over; not at once, since a job that cancels itself would keep its worker busy for ever."""
    clock = VirtualClock()
    jobs = store.jobs(clock)

    @jobs.task
    async def work(ctx: Context) -> int:
        if ctx.attempt < 3:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)
        return ctx.attempt

    async with jobs.worker():
        job = await work.submit()
        for attempt in (1, 2):

            async def pauses() -> bool:
                info = await job.info()
                return info.attempt == attempt and info.status == "waiting"  # noqa: B023

            await eventually(pauses)
            clock.advance(1)
            jobs._client.work_arrived()
        assert await job.result(timeout=20) == 3
        assert (await job.info()).failures == 0


async def test_cancelling_what_does_not_exist(jobs: Jobs) -> None:
    """An unknown id, and what is no id at all."""
    async with jobs:
        for wrong in ("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "nonsense"):
            with pytest.raises(UnknownJob, match=wrong):
                await jobs.job(wrong).cancel()
