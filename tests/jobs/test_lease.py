"""The lease: who has lost it writes nothing any more, hears so, and goes on under another name."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lastcall import StopReason
from lastcall.exceptions import NotInJob
from lastcall.jobs import Context, Job, Jobs, Worker
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import (
    Faulty,
    ended,
    eventually,
    manager,
    outcomes,
    set_within,
    told,
)

Declare = Callable[[Jobs], Any]


class Scene:
    """Two workers on one store; the first one's renewals can be held, so that it is taken for dead."""

    def __init__(self, store: Store) -> None:
        self.clock = VirtualClock()
        self.engine = Faulty(store.engine(self.clock))
        self.first = Jobs(self.engine, lease_seconds=0.6)
        self.second = store.jobs(self.clock, lease_seconds=0.6)
        self.standing, self.go = asyncio.Event(), asyncio.Event()
        self.reasons: list[StopReason | None] = []
        self.attempts: list[int] = []

    async def stand(self, ctx: Context) -> None:
        """The first attempt stands here until it is let go, or cancelled."""
        self.attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            self.standing.set()
            try:
                await set_within(self.go)
            except asyncio.CancelledError:
                self.reasons.append(ctx.cancel_reason)
                raise

    @asynccontextmanager
    async def stalled(self, declare: Declare, **plan: float) -> AsyncIterator[tuple[Worker, Job[Any]]]:
        """A job stands in its first attempt, on a worker that nobody has heard of for long."""
        task = declare(self.first)
        declare(self.second)
        async with manager(**plan) as mine, self.first.worker(manager=mine, concurrency=2) as worker:
            job = await task.submit()
            await set_within(self.standing)
            self.engine.held["renew"] = asyncio.Event()
            self.clock.advance(100)
            yield worker, self.second.job(job.id)
            self.release()

    def release(self) -> None:
        """The first worker is heard of again."""
        held = self.engine.held.pop("renew", None)
        if held is not None:
            held.set()


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(store)


async def test_who_is_taken_for_dead_hears_so_at_its_next_renewal(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker stalls past its lease and another one takes its job: continued, it cancels its copy with the reason
    `lease_lost`, joins under a new id, and runs the next job."""

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="work")
        async def work(ctx: Context) -> int:
            await scene.stand(ctx)
            return ctx.attempt

        return work

    async with scene.stalled(declare) as (worker, job):
        before = worker.id
        async with scene.second.worker():
            assert await job.result(timeout=20) == 2
        assert "lost its attempt 1" in caplog.text and before in caplog.text
        assert scene.reasons == []
        scene.release()
        await eventually(lambda: worker.id != before)
        await eventually(lambda: scene.reasons == [StopReason.LEASE_LOST])
        assert worker.running == 0
        assert "was taken for dead" in caplog.text
        scene.attempts.clear()
        again = await scene.first.task_named("work").submit()
        scene.go.set()
        assert await again.result(timeout=20) == 1
        assert await outcomes(job) == ["lost", "completed"]
        assert [row.id for row in (await scene.second.overview()).workers] == [worker.id]
    assert worker.manager.report is not None and worker.manager.report.clean


@pytest.mark.parametrize("what", ["step", "event", "start", "transaction", "result", "error"])
async def test_nothing_of_a_lost_attempt_is_written(
    scene: Scene, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The old copy goes on before its worker has heard anything: whatever it wants to write is refused, and it is
    cancelled for that."""

    async def step() -> str:
        return "written by the first"

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="child")
        async def child() -> None: ...

        @jobs.task(name="work")
        async def work(ctx: Context) -> str:
            await scene.stand(ctx)
            if ctx.attempt == 2:
                return "second"
            try:
                match what:
                    case "step":
                        await ctx.step(step)
                    case "event":
                        await ctx.emit("written by the first")
                    case "start":
                        await ctx.start(child.call())
                    case "transaction":
                        await ctx.transaction(lambda connection: "written by the first", name="x")
                    case "error":
                        raise OSError("written by the first")
            except asyncio.CancelledError:
                scene.reasons.append(ctx.cancel_reason)
                raise
            return "first"

        return work

    async with scene.stalled(declare) as (worker, job):
        async with scene.second.worker():
            assert await job.result(timeout=20) == "second"
            scene.go.set()
            # While its renewals hang, so that it is the refusal that it hears first.
            if what in ("result", "error"):
                await eventually(lambda: "was refused" in caplog.text)
            else:
                await eventually(lambda: scene.reasons == [StopReason.LEASE_LOST])
            await eventually(lambda: worker.running == 0)
            info = await job.info()
            assert info.result == "second" and info.error is None
            assert await outcomes(job) == ["lost", "completed"]
            assert [s.value for s in await job.steps() if s.value == "written by the first"] == []
            assert await told(job) == []


async def test_nothing_begins_under_a_lease_that_may_be_over(scene: Scene) -> None:
    """The process stood still for longer than its lease is: before it has renewed that it begins no step, and it has
    lost the job by then."""
    called: list[int] = []

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="work")
        async def work(ctx: Context) -> int:
            async def step() -> None:
                called.append(ctx.attempt)

            await scene.stand(ctx)
            await ctx.step(step)
            return ctx.attempt

        return work

    async with scene.stalled(declare) as (worker, job):
        await eventually(lambda: time.monotonic() > worker._lease._valid_until)
        async with scene.second.worker():
            assert await job.result(timeout=20) == 2
            scene.go.set()
            # It must not have begun when the renewal comes; there is no event for what does not happen.
            await asyncio.sleep(0.05)
            assert called == [2] and worker.running == 1
            scene.release()
            await eventually(lambda: worker.running == 0)
    assert called == [2]


async def test_a_lease_that_was_renewed_in_time_goes_on(scene: Scene) -> None:
    """The process stood still, but nobody has taken its job: the renewal succeeds, and the job goes on."""

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="work")
        async def work(ctx: Context) -> int:
            await scene.stand(ctx)
            return await ctx.step(int, str(ctx.attempt))

        return work

    async with scene.stalled(declare) as (worker, job):
        before = worker.id
        await eventually(lambda: time.monotonic() > worker._lease._valid_until)
        async with scene.second:
            scene.go.set()
            scene.release()
            assert await job.result(timeout=20) == 1
        assert worker.id == before


async def test_a_lost_copy_that_will_not_end_is_given_up(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """It swallows the cancellation: its slot is free at once, and its context of no use to it."""
    refused: list[BaseException] = []

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="work")
        async def work(ctx: Context) -> int:
            while True:
                try:
                    await scene.stand(ctx)
                    break
                except asyncio.CancelledError:
                    continue
            if ctx.attempt == 1:
                try:
                    await ctx.step(int, "1")
                except NotInJob as error:
                    refused.append(error)
            return ctx.attempt

        return work

    async with scene.stalled(declare, cancel=0.2) as (worker, job):
        async with scene.second.worker():
            assert await job.result(timeout=20) == 2
            scene.release()
            await eventually(lambda: worker.running == 0)
            await eventually(lambda: "(lease_lost)" in caplog.text and "it is given up" in caplog.text)
            scene.go.set()
            await eventually(lambda: len(refused) == 1)


async def test_a_cancelled_job_that_cleans_up_when_the_lease_is_lost(scene: Scene) -> None:
    """A user has cancelled the job, which cleans up with a step when another worker takes it for lost: the step's
    record is refused, and the job ends instead of waiting for a second cancellation."""
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="work")
        async def work(ctx: Context) -> None:
            async def clean_up() -> None:
                cleaning.set()
                await set_within(cleaned)

            try:
                await scene.stand(ctx)
            finally:
                if ctx.attempt == 1:
                    await ctx.step(clean_up)

        return work

    async with scene.stalled(declare) as (worker, job):
        async with scene.second:
            await job.cancel()
            await set_within(cleaning)
            async with scene.second.worker():
                assert await ended(job) == "cancelled"
                cleaned.set()
                await eventually(lambda: worker.running == 0)
            assert await outcomes(job) == ["lost"]
    assert scene.attempts == [1]
    assert worker.manager.report is not None and worker.manager.report.clean


async def test_joining_again_while_the_store_is_away(scene: Scene) -> None:
    """The worker hears that it was taken for dead, and in that moment the store goes away: it joins afterwards."""

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="work")
        async def work(ctx: Context) -> int:
            await scene.stand(ctx)
            return ctx.attempt

        return work

    async with scene.stalled(declare) as (worker, job):
        before = worker.id
        async with scene.second.worker():
            assert await job.result(timeout=20) == 2
        scene.engine.away.add("join")
        scene.release()
        await eventually(lambda: scene.engine.calls.count("join") >= 3)
        assert worker.id == before
        scene.engine.away.clear()
        await eventually(lambda: worker.id != before)
        scene.go.set()
        again = await scene.first.task_named("work").submit()
        assert await again.result(timeout=20) == 1


async def test_the_lease_is_renewed_at_a_third_and_resigned_at_the_end(store: Store) -> None:
    """A worker without any jobs renews all the time, and is gone from the list when it has ended."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine, lease_seconds=0.3)
    async with jobs:
        began = time.monotonic()
        async with jobs.worker() as worker:
            await eventually(lambda: engine.calls.count("renew") >= 4)
            assert time.monotonic() - began >= 0.39
            (row,) = (await jobs.overview()).workers
            assert (row.id, row.lease_seconds, row.running) == (worker.id, 0.3, 0)
            assert row.renewed_at > row.joined_at
        assert (await jobs.overview()).workers == []
