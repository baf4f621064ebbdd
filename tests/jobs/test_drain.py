"""Shutdown: jobs are told at once, leave at their next checkpoint, and cost nothing; nothing runs twice."""

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lastcall import ShutdownPlan, ShutdownReport, StopReason, TaskManager, current_shutdown
from lastcall._core._report import Outcome
from lastcall.exceptions import NotInJob
from lastcall.jobs import Context, Job, Jobs, JobStatus
from tests.jobs.conftest import Store
from tests.jobs.running import (
    PATIENCE_SECONDS,
    Faulty,
    eventually,
    manager,
    outcomes,
    reaches,
    set_within,
    told,
)

WAYS = ["the manager shuts down", "the block is left", "its own manager"]


class Stopping:
    """A worker that is stopped in one of three ways: `begin` tells it, leaving the block waits for its end."""

    def __init__(self, way: str, mine: TaskManager) -> None:
        self.way = way
        self.mine = mine
        self._told = asyncio.Event()

    def begin(self) -> None:
        self._told.set()
        if self.way == "the manager shuts down":
            self.mine.begin_shutdown()

    @property
    def report(self) -> ShutdownReport:
        assert self.mine.report is not None
        return self.mine.report

    async def wait(self) -> None:
        await self._told.wait()


@asynccontextmanager
async def a_worker(jobs: Jobs, way: str, **plan: float) -> AsyncIterator[Stopping]:
    """A worker in a task of its own, so that the test can look on while it stops."""
    started = asyncio.Event()
    stopping: list[Stopping] = []

    async def run() -> None:
        mine = manager(**plan)
        if way == "its own manager":
            async with jobs.worker() as worker:
                # A worker's own manager has the default plan; nothing here waits for its end.
                stopping.append(Stopping(way, worker.manager))
                started.set()
                await stopping[0].wait()
            return
        async with mine, jobs.worker(manager=mine):
            stopping.append(Stopping(way, mine))
            started.set()
            await stopping[0].wait()
            if way == "the manager shuts down":
                await asyncio.wait([mine._shutdown_task])  # type: ignore[type-var,list-item]

    running = asyncio.create_task(run())
    try:
        await set_within(started)
        yield stopping[0]
        stopping[0].begin()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await running
    finally:
        running.cancel()
        await asyncio.wait([running])


async def given_back(job: Job[Any]) -> bool:
    """Whether it was only ever handed over. A claim on its way at the stop may bring it once more, to be given back."""
    return set(await outcomes(job)) == {"handed_over (shutdown)"}


# --- jobs with checkpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_leaves_after_the_step_in_flight(jobs: Jobs, store: Store, way: str) -> None:
    """A worker is stopped in the middle of the third of six steps: the job hears so at once, ends this step, and goes
    on elsewhere within a second; no step runs twice, nothing is charged, no error is recorded."""
    called: list[int] = []
    standing, go = asyncio.Event(), asyncio.Event()
    told: list[Any] = []
    moments: dict[str, float] = {}
    clock = asyncio.get_running_loop().time

    def declare(on: Jobs) -> Any:
        @on.task(name="work")
        async def work(ctx: Context) -> list[int]:
            async def step(n: int) -> int:
                called.append(n)
                if n == 2:
                    standing.set()
                    await current_shutdown().wait()
                    told.append((ctx.shutdown.reason, ctx.cancel_reason))
                    await set_within(go)
                    moments["end of the step"] = clock()
                elif n == 3:
                    moments["the next step"] = clock()
                return n

            return [await ctx.step(step, n, name=f"step {n}") for n in range(6)]

        return work

    work, other = declare(jobs), store.jobs()
    declare(other)
    async with other:
        async with a_worker(jobs, way) as stopping:
            job = await work.submit()
            await set_within(standing)
            async with other.worker():
                stopping.begin()
                await eventually(lambda: bool(told))
                assert await job.status() == "running"
                go.set()
                there = other.job(job.id)
                assert await there.result(timeout=20) == list(range(6))
        assert called == list(range(6))
        assert told == [(StopReason.SHUTDOWN, None)]
        assert moments["the next step"] - moments["end of the step"] < 1
        info = await there.info()
        assert (info.attempt, info.failures, info.lost, info.error) == (2, 0, 0, None)
        assert await outcomes(there) == ["handed_over (shutdown)", "completed"]
        assert all(attempt.error is None for attempt in await there.attempts())
    if way != "the block is left":  # there its jobs had left before the manager's own shutdown
        assert stopping.report.counts[Outcome.HANDED_OVER] == 1
    assert stopping.report.clean


async def test_steps_side_by_side_all_end(jobs: Jobs, store: Store) -> None:
    """Three branches are in the middle of a step each, and have others to come: all three end, none of the others
    begins here, and the next worker runs just those."""
    called: list[str] = []
    gates = {name: asyncio.Event() for name in "abc"}

    def declare(on: Jobs, where: str) -> Any:
        @on.task(name="work")
        async def work(ctx: Context) -> list[str]:
            async def step(name: str) -> str:
                called.append(f"{name} {where}")
                if name in gates:
                    await set_within(gates[name])
                return name

            async def branch(name: str) -> str:
                return await ctx.step(step, name) + await ctx.step(step, name * 2)

            return list(await asyncio.gather(*(branch(name) for name in "abc")))

        return work

    work, other = declare(jobs, "here"), store.jobs()
    declare(other, "there")
    async with other:
        async with a_worker(jobs, "the block is left") as stopping:
            job = await work.submit()
            await eventually(lambda: len(called) == 3)
            stopping.begin()
            for name in "cab":
                assert await job.status() == "running"
                gates[name].set()
                await eventually(lambda: gates[name].is_set())  # noqa: B023
        assert await other.job(job.id).status() == "queued"
        assert len(await other.job(job.id).steps()) == 3
        async with other.worker():
            assert await other.job(job.id).result(timeout=20) == ["aaa", "bbb", "ccc"]
    assert sorted(called) == ["a here", "aa there", "b here", "bb there", "c here", "cc there"]


async def test_rolling_restarts_repeat_nothing(jobs: Jobs, store: Store) -> None:
    """Forty jobs, with steps one after the other, side by side, a wait and a child, while two workers are restarted in
    turn all the time: every job ends well, every step runs once, and nothing is charged or lost."""
    called: Counter[str] = Counter()

    def declare(on: Jobs) -> Any:
        @on.task(name="child")
        async def child(ctx: Context, n: int) -> int:
            async def step() -> int:
                called[f"{n} child"] += 1
                await asyncio.sleep(0.001)
                return n

            return await ctx.step(step)

        @on.task(name="work")
        async def work(ctx: Context, n: int) -> int:
            async def step(name: str) -> int:
                called[f"{n} {name}"] += 1
                await asyncio.sleep(0.002)
                return 1

            def block(name: str) -> int:
                called[f"{n} {name}"] += 1
                return 1

            total = 0
            for i in range(4):
                total += await ctx.step(step, f"one after the other {i}")
            total += sum(await asyncio.gather(*(ctx.step(step, f"beside {i}") for i in range(4))))
            await ctx.sleep(0.01)
            total += await ctx.step(block, "in a thread")
            async with asyncio.TaskGroup() as group:
                running = group.create_task(ctx.run(child.call(n)))
                for i in range(3):
                    total += await ctx.step(step, f"beside the child {i}")
            assert running.result() == n
            return total

        return work

    work, other = declare(jobs), store.jobs()
    declare(other)
    done = asyncio.Event()

    async def restart(on: Jobs) -> int:
        restarts = 0
        while not done.is_set():
            async with manager() as mine, on.worker(concurrency=8, manager=mine):
                await asyncio.wait([asyncio.ensure_future(done.wait())], timeout=0.03)
            assert mine.report is not None and mine.report.clean, str(mine.report)
            restarts += 1
        return restarts

    async with jobs, other:
        submitted = await jobs.submit_many(work.call(n) for n in range(40))
        restarting = [asyncio.create_task(restart(on)) for on in (jobs, other)]
        for job in submitted:
            assert await job.result(timeout=50) == 12
        done.set()
        restarts = [await task for task in restarting]
        for job in submitted:
            info = await job.info()
            assert (info.failures, info.lost, info.error) == (0, 0, None)
    assert called == {
        f"{n} {name}": 1
        for n in range(40)
        for name in (
            *(f"one after the other {i}" for i in range(4)),
            *(f"beside {i}" for i in range(4)),
            "in a thread",
            *(f"beside the child {i}" for i in range(3)),
            "child",
        )
    }
    assert sum(restarts) > 4


async def test_what_waits_does_not_keep_its_branches_waiting(jobs: Jobs, store: Store) -> None:
    """One branch waits for a message that does not come, the other one has steps to do when the worker is stopped: the
    next worker goes on with these at once, and the wait keeps the time that has passed."""
    called: list[str] = []
    standing, go = asyncio.Event(), asyncio.Event()

    def declare(on: Jobs) -> Any:
        @on.task(name="work")
        async def work(ctx: Context) -> Any:
            async def step(name: str) -> None:
                called.append(name)
                if name == "one":
                    standing.set()
                    await set_within(go)

            async def branch() -> None:
                await ctx.step(step, "one")
                await ctx.step(step, "two")

            return (await asyncio.gather(ctx.wait_for("x", timeout=3600), branch()))[0]

        return work

    work, other = declare(jobs), store.jobs()
    declare(other)
    async with other, other.worker(queues=["nothing yet"]):
        async with a_worker(jobs, "the manager shuts down") as stopping:
            job = await work.submit()
            await set_within(standing)
            stopping.begin()
            go.set()
        there = other.job(job.id)
        assert await there.status() == "queued"
        async with other.worker():
            await eventually(lambda: called == ["one", "two"])
            await reaches(there, "waiting")
            (row,) = await store.rows()
            assert [wait.seconds is not None and wait.seconds < 3600 for wait in row.waits] == [True]
            await there.send("x", "came")
            assert await there.result(timeout=20) == "came"
    assert called == ["one", "two"]


async def test_a_job_that_waits_in_the_drain_just_waits(jobs: Jobs, store: Store) -> None:
    """The worker is told to stop, and the job comes to a wait instead of a step: it leaves to wait."""
    standing, go = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def work(ctx: Context) -> Any:
        standing.set()
        await set_within(go)
        return await ctx.wait_for("x")

    async with jobs:
        async with a_worker(jobs, "the manager shuts down") as stopping:
            job = await work.submit()
            await set_within(standing)
            stopping.begin()
            go.set()
        assert await job.status() == "waiting"
        assert await outcomes(job) == ["handed_over (waiting)"]
        assert stopping.report.clean and stopping.report.counts[Outcome.HANDED_OVER] == 1
        await job.send("x", "came")
        async with jobs.worker():
            assert await job.result(timeout=20) == "came"


# --- jobs without checkpoints ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_without_checkpoints_may_finish(jobs: Jobs, way: str) -> None:
    """It has nothing that could be handed over, but time: it ends, and the stop with it at once."""
    standing = asyncio.Event()

    @jobs.task
    async def work(ctx: Context) -> str:
        standing.set()
        await ctx.shutdown.wait()
        await asyncio.sleep(0.05)
        return f"{ctx.shutdown.reason}, {ctx.shutdown.remaining > 1}"

    async with jobs:
        async with a_worker(jobs, way) as stopping:
            job = await work.submit()
            await set_within(standing)
            stopping.begin()
        assert await job.result(timeout=20) == "shutdown, True"
        assert stopping.report.clean and stopping.report.seconds < 5


@pytest.mark.parametrize("how", ["passes it on", "cleans up", "raises", "asks for a step"])
@pytest.mark.parametrize("way", WAYS[:2])
async def test_a_job_at_the_deadline_is_handed_over(jobs: Jobs, way: str, how: str) -> None:
    """The drain is over: the job is cancelled, can read why, and is handed over, whatever it raises while it cleans
    up; nothing is charged, and no error recorded. It begins anew elsewhere."""
    standing = asyncio.Event()
    reasons: list[Any] = []

    async def step() -> None:
        raise AssertionError("nothing begins after the deadline")

    @jobs.task
    async def work(ctx: Context) -> int:
        if ctx.attempt == 2:
            return 2
        standing.set()
        try:
            await asyncio.sleep(60)
        finally:
            reasons.append(ctx.cancel_reason)
            if how == "cleans up":
                await asyncio.sleep(0.1)
            elif how == "raises":
                raise OSError("the connection is gone")
            elif how == "asks for a step":
                await ctx.step(step)
        return 1

    async with jobs:
        async with a_worker(jobs, way, drain=0.1) as stopping:
            job = await work.submit()
            await set_within(standing)
            stopping.begin()
        assert await job.status() == "queued"
        assert reasons == [StopReason.SHUTDOWN]
        assert stopping.report.clean
        if way == "the manager shuts down":
            assert stopping.report.counts[Outcome.HANDED_OVER] == 1
            assert stopping.report.seconds < 3
        async with jobs.worker():
            assert await job.result(timeout=20) == 2
        info = await job.info()
        assert (info.failures, info.lost, info.error) == (0, 0, None)
        assert await outcomes(job) == ["handed_over (shutdown)", "completed"]
        assert (await job.attempts())[0].error is None


async def test_a_step_in_flight_at_the_deadline_is_cut(jobs: Jobs) -> None:
    """A step outlasts the whole drain: it is cut, and is the one thing that runs again."""
    called: list[str] = []
    standing = asyncio.Event()

    async def step(name: str) -> None:
        called.append(name)
        if called == ["one", "two"]:
            standing.set()
            await asyncio.sleep(60)

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.step(step, "one")
        await ctx.step(step, "two")

    async with jobs:
        async with a_worker(jobs, "the manager shuts down", drain=0.1) as stopping:
            job = await work.submit()
            await set_within(standing)
        assert stopping.report.clean
        assert await outcomes(job) == ["handed_over (shutdown)"]
        async with jobs.worker():
            await job.result(timeout=20)
    assert called == ["one", "two", "two"]


async def test_a_thread_at_the_deadline(jobs: Jobs) -> None:
    """A job and a step in threads hear of the stop, do not care, and end a little after the deadline: the job is handed
    over; what the step has done is remembered."""
    standing, go = threading.Barrier(3), threading.Event()
    called: list[str] = []

    def block(what: str) -> str:
        called.append(what)
        if len(called) <= 2:
            standing.wait(PATIENCE_SECONDS)
            current_shutdown().wait_sync(PATIENCE_SECONDS)
            go.wait(PATIENCE_SECONDS)
        return what

    @jobs.task
    def plain() -> str:
        return block("job")

    @jobs.task
    async def with_step(ctx: Context) -> str:
        return await ctx.step(block, "step")

    async with jobs:
        async with a_worker(jobs, "the manager shuts down", drain=0.1) as stopping:
            submitted = [await plain.submit(), await with_step.submit()]
            await asyncio.to_thread(standing.wait, PATIENCE_SECONDS)
            stopping.begin()
            await eventually(lambda: stopping.mine.state == "cancelling")
            go.set()
        assert [await job.status() for job in submitted] == ["queued", "queued"]
        assert stopping.report.clean
        async with jobs.worker():
            assert [await job.result(timeout=20) for job in submitted] == ["job", "step"]
    assert sorted(called) == ["job", "job", "step"]


async def test_a_job_that_will_not_end_is_handed_over_without_it(
    jobs: Jobs, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It swallows its cancel at the deadline: the report has its stack, the lease's end hands it over, and another
    worker begins at once; what the old copy does later counts for nothing."""
    standing, second, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    later: list[str] = []

    async def step() -> str:
        later.append("step")
        return "step"

    def declare(on: Jobs) -> Any:
        @on.task(name="work")
        async def work(ctx: Context) -> str:
            if ctx.attempt == 2:
                second.set()
                return "second"
            standing.set()
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    continue
            for use in (lambda: ctx.step(step), lambda: ctx.emit("late")):
                try:
                    await use()
                except NotInJob:
                    later.append("refused")
            return "first"

        return work

    work, other = declare(jobs), store.jobs()
    declare(other)
    async with other, other.worker(queues=["nothing yet"]):
        async with a_worker(jobs, "the manager shuts down", drain=0.1, cancel=0.2) as stopping:
            job = await work.submit()
            await set_within(standing)
            async with other.worker():
                stopping.begin()
                await set_within(second)
                assert await other.job(job.id).result(timeout=20) == "second"
                go.set()
                await eventually(lambda: later == ["refused", "refused"])
        report = stopping.report
        assert not report.clean and report.counts[Outcome.REFUSED] == 1
        (refused,) = [task for task in report.tasks if task.outcome is Outcome.REFUSED]
        assert job.id in refused.name
        assert any("in test_a_job_that_will_not_end" in line for line in refused.stack)
        assert "would not end were handed over" in caplog.text
        there = other.job(job.id)
        assert await outcomes(there) == ["handed_over (shutdown)", "completed"]
        assert (await there.info()).result == "second"
        assert await told(there) == []


@pytest.mark.loops("asyncio")
async def test_a_job_that_never_ends_leaves_quietly(jobs: Jobs) -> None:
    """The task of a job that would not end is collected with its loop long gone: no error out of nowhere."""
    standing = asyncio.Event()
    stubborn: list[asyncio.Task[Any]] = []

    @jobs.task
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        stubborn.append(task)
        standing.set()
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                continue

    async with a_worker(jobs, "the manager shuts down", drain=0.05, cancel=0.05) as stopping:
        await work.submit()
        await set_within(standing)
    assert stopping.report.counts[Outcome.REFUSED] == 1
    # Nobody holds it any more: the harness fails on whatever its end prints.
    stubborn.clear()
    gc.collect()


# --- races -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "in the drain", "at a checkpoint", "after the deadline"])
async def test_a_users_cancel_that_races_the_shutdown_wins(jobs: Jobs, store: Store, when: str) -> None:
    """A user cancels the job from another process just before, in or just after its worker's drain: it is cancelled for
    good, and never runs again."""
    standing, told, cleaning, go = (asyncio.Event() for _ in range(4))
    attempts: list[int] = []

    async def step() -> None:
        standing.set()
        await set_within(told)

    @jobs.task
    async def work(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        try:
            if when == "at a checkpoint":
                await ctx.step(step)
                await ctx.step(step, name="another")
            standing.set()
            await asyncio.sleep(60)
        finally:
            cleaning.set()
            await set_within(go)

    other = store.jobs()
    async with other:
        drain = 0.1 if when == "after the deadline" else 10
        async with a_worker(jobs, "the manager shuts down", drain=drain) as stopping:
            job = await work.submit()
            await set_within(standing)
            there = other.job(job.id)
            if when == "before":
                await there.cancel()
            stopping.begin()
            told.set()
            if when in ("at a checkpoint", "after the deadline"):
                await set_within(cleaning)
            if when != "before":
                assert await there.cancel() == "requested"
            await set_within(cleaning)
            go.set()
        async with other.worker():
            assert await there.status() is JobStatus.CANCELLED
            assert (await there.info()).cancel_reason is StopReason.USER
    assert attempts == [1]


async def test_what_was_claimed_when_the_stop_came_is_given_back(store: Store) -> None:
    """The claim is on its way to the store when the worker is told to stop: the jobs that it brings are queued again at
    once, and no line of them ran."""
    called: list[int] = []
    engine = Faulty(store.engine())
    jobs, other = Jobs(engine), store.jobs()

    @jobs.task
    async def work() -> None:
        called.append(1)

    engine.held["claim"] = held = asyncio.Event()
    async with other:
        async with a_worker(jobs, "the manager shuts down") as stopping:
            await eventually(lambda: "claim" in engine.calls)
            job = await work.submit()
            stopping.begin()
            await eventually(lambda: stopping.mine.state != "open")
            held.set()
        there = other.job(job.id)
        assert await there.status() == "queued"
        assert await outcomes(there) == ["handed_over (shutdown)"]
    assert called == []


async def test_what_is_queued_stays_so(jobs: Jobs) -> None:
    """A worker with one slot is stopped: the job in it ends, and no other one begins in the drain."""
    standing = asyncio.Event()

    @jobs.task
    async def work(ctx: Context, n: int) -> int:
        standing.set()
        await ctx.shutdown.wait()
        return n

    async with jobs:
        mine = manager()
        async with mine, jobs.worker(concurrency=1, manager=mine):
            first, second = await work.submit(1), await work.submit(2)
            await set_within(standing)
            report = await mine.shutdown()
        assert await first.result(timeout=20) == 1
        assert (await second.status(), await second.attempts()) == ("queued", [])
        assert report.clean


async def test_the_lease_is_kept_up_through_the_whole_drain(store: Store) -> None:
    """A job drains for much longer than its worker's lease is, beside a worker that looks for dead ones all the time:
    the lease is renewed until the job has ended, and nobody else begins it."""
    engine = Faulty(store.engine())
    jobs, other = Jobs(engine, lease_seconds=0.4), store.jobs(lease_seconds=0.4)
    standing = asyncio.Event()
    attempts: list[int] = []

    def declare(on: Jobs) -> Any:
        @on.task(name="work")
        async def work(ctx: Context) -> str:
            attempts.append(ctx.attempt)
            standing.set()
            await ctx.shutdown.wait()
            renewed = engine.calls.count("renew")
            await eventually(lambda: engine.calls.count("renew") >= renewed + 6)
            return "in peace"

        return work

    work = declare(jobs)
    declare(other)
    async with other:
        async with a_worker(jobs, "the manager shuts down") as stopping:
            job = other.job((await work.submit()).id)
            await set_within(standing)
            async with other.worker():
                stopping.begin()
                assert await job.result(timeout=20) == "in peace"
        assert await outcomes(job) == ["completed"]
    assert attempts == [1]


async def test_jobs_go_on_while_the_manager_gives_notice(jobs: Jobs) -> None:
    """Readiness is down and balancers look away, but the drain has not begun: jobs begin and go on as before."""

    @jobs.task
    async def work(ctx: Context) -> bool:
        return ctx.shutdown.requested

    mine = TaskManager(plan=ShutdownPlan(notice=30, drain=10, cancel=5, close=5))
    async with jobs, mine, jobs.worker(manager=mine):
        mine.begin_shutdown()
        assert mine.state == "notice"
        job = await work.submit()
        assert await job.result(timeout=20) is False


async def test_force_hands_over_now(jobs: Jobs) -> None:
    """Somebody will not wait for the drain: jobs are cancelled at once, and handed over all the same."""
    standing = asyncio.Event()

    @jobs.task
    async def work() -> None:
        standing.set()
        await asyncio.sleep(60)

    async with jobs:
        async with a_worker(jobs, "the manager shuts down", drain=60) as stopping:
            job = await work.submit()
            await set_within(standing)
            stopping.begin()
            stopping.mine.force()
        assert await job.status() == "queued"
        assert await given_back(job)
        assert stopping.report.forced and stopping.report.seconds < 10


async def test_a_drain_of_no_time_at_all(jobs: Jobs) -> None:
    """The plan gives nothing any time: jobs that have only just begun, or have not yet, are handed over."""

    @jobs.task
    async def work() -> None:
        await asyncio.sleep(60)

    async with jobs:
        submitted = await jobs.submit_many(work.call() for _ in range(5))
        async with manager(drain=0, cancel=2) as mine, jobs.worker(manager=mine) as worker:
            await eventually(lambda: worker.running == 5)
        assert {await job.status() for job in submitted} == {"queued"}
        for job in submitted:
            assert await given_back(job)


async def test_a_task_that_was_cancelled_before_its_first_line_is_handed_over(store: Store) -> None:
    """The drain's end comes between the claim and the first step of the job's task, which runs no line of it: the job
    is handed over with the ends of all others, not only with the lease."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)

    @jobs.task
    async def work() -> None:
        await asyncio.sleep(60)

    async with jobs:
        async with manager(drain=0) as mine, jobs.worker(manager=mine):
            claim = engine.claim

            async def claim_and_stop(request: Any) -> Any:
                result = await claim(request)
                if result.jobs:
                    loop = asyncio.get_running_loop()
                    loop.call_soon(mine.begin_shutdown)
                return result

            engine.claim = claim_and_stop  # type: ignore[attr-defined]
            job = await work.submit()
            await eventually(lambda: mine.state == "closed")
        assert await job.status() == "queued"
        assert await given_back(job)
        assert "finish" in engine.calls


async def test_the_block_is_cancelled_together_with_its_jobs(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker's block runs in a task of the manager and does not look at the stop: at the deadline it is cancelled
    like the job in it, and still keeps the lease until the job has cleaned up."""
    standing = asyncio.Event()
    cleaned: list[Any] = []

    @jobs.task
    async def work(ctx: Context) -> None:
        standing.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)
            await ctx.emit("cleaned up")
            cleaned.append(await job.status())

    async def serve() -> None:
        async with jobs.worker():
            await asyncio.sleep(60)

    async with jobs:
        async with manager(drain=0.1) as mine:
            serving = mine.create_task(serve())
            job = await work.submit()
            await set_within(standing)
        assert serving.cancelled()
        assert cleaned == ["running"]
        assert await outcomes(job) == ["handed_over (shutdown)"]
    assert "refused" not in caplog.text and "would not end" not in caplog.text
