"""Policies: what becomes of a step that was in flight when its worker died, or that is called again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lastcall.jobs import Context, Decision, Job, Jobs, StepPolicy, StepStatus, current_step
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import AT_ONCE, ended, manager, outcomes, reaches, set_within, told

Declare = Callable[[Jobs], Any]


class Scene:
    """A step that stands still in its first call, until its worker is taken for dead."""

    def __init__(self, store: Store) -> None:
        self.clock = VirtualClock()
        self.store = store
        self.called: list[str] = []
        self.so_far: list[list[Any]] = []
        self.standing = asyncio.Event()
        self.released = asyncio.Event()

    async def stand(self) -> None:
        """The first caller stands here until the end of the test."""
        if not self.standing.is_set():
            self.standing.set()
            await set_within(self.released)

    @asynccontextmanager
    async def lost(self, declare: Declare, **options: Any) -> Any:
        """A job that was lost by its worker in the middle of its step, and that another worker has now."""
        first, second = self.store.jobs(self.clock), self.store.jobs(self.clock)
        task = declare(first)
        declare(second)
        async with first.worker():
            job = await task.options(**options).submit()
            await set_within(self.standing)
            self.clock.advance(100)
            async with second.worker():
                yield second.job(job.id)
            self.released.set()


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(store)


async def events_of(job: Job[Any]) -> list[tuple[int, str, Any]]:
    return [(event.attempt, event.type, event.data) for event in await told(job)]


# --- replay --------------------------------------------------------------------------------------------


async def test_a_lost_step_is_called_again_and_says_so(scene: Scene) -> None:
    """A step has shown two events when its worker is lost: the log tells readers to take them back before the next
    ones, and only for the step that had shown some."""

    def declare(jobs: Jobs) -> Any:
        @jobs.task
        async def work(ctx: Context) -> str:
            async def step() -> str:
                scene.called.append("step")
                await ctx.emit("token", "a")
                await ctx.emit("token", "b")
                await scene.stand()
                return "ab"

            await ctx.emit("token", "outside")
            await ctx.step(str.upper, "quiet")
            return await ctx.step(step, name="loud")

        return work

    async with scene.lost(declare) as job:
        assert await job.result(timeout=20) == "ab"
        assert await events_of(job) == [
            (1, "token", "outside"),
            (1, "token", "a"),
            (1, "token", "b"),
            (2, "token", "outside"),
            (2, "step.reset", {"step": "loud"}),
            (2, "token", "a"),
            (2, "token", "b"),
        ]
        assert await outcomes(job) == ["lost", "completed"]
        assert (await job.info()).failures == 0
    assert scene.called == ["step", "step"]


@pytest.mark.parametrize("policy", ["replay", "once"])
async def test_a_step_that_failed_takes_its_events_back_too(jobs: Jobs, policy: str) -> None:
    """A step emits, fails, and is called again in the next attempt, twice: each time readers are told once."""

    @jobs.task(retries=2, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        async def step() -> None:
            await ctx.emit("token", ctx.attempt)
            if ctx.attempt < 3:
                raise OSError("cut off")

        await ctx.step(step, name="step", policy=policy)

    async with jobs.worker():
        job = await work.submit()
        assert await ended(job) == "completed"
        assert [event[1:] for event in await events_of(job)] == [
            ("token", 1),
            ("step.reset", {"step": "step"}),
            ("token", 2),
            ("step.reset", {"step": "step"}),
            ("token", 3),
        ]


# --- once ----------------------------------------------------------------------------------------------


def declare_once(scene: Scene, on_unknown: Callable[[], Awaitable[Decision]] | None = None) -> Declare:
    """A job that pays once, and stands still in the middle of that the first time."""

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="order")
        async def order(ctx: Context) -> int:
            async def pay() -> int:
                scene.called.append(current_step().idempotency_key)
                await scene.stand()
                return 5

            paid = await ctx.step(pay, name="pay", policy="once", on_unknown=on_unknown)
            return paid + await ctx.step(int, "100")

        return order

    return declare


async def test_the_intent_of_a_once_step_is_written_first(scene: Scene, store: Store) -> None:
    """While it runs, everybody can see that it has begun."""
    jobs = store.jobs()
    order = declare_once(scene)(jobs)
    async with jobs.worker():
        job = await order.submit()
        await set_within(scene.standing)
        (step,) = await job.steps()
        assert (step.key, step.status, step.ended_at) == ("pay", StepStatus.STARTED, None)
        scene.released.set()
        assert await job.result(timeout=20) == 105
        assert [step.status for step in await job.steps()] == ["completed", "completed"]


async def test_a_lost_once_step_waits_for_a_decision(scene: Scene) -> None:
    """Nobody can know whether the payment went through: the job waits, holds no slot, and says for what; it is not
    paid again."""
    async with scene.lost(declare_once(scene)) as job:
        await reaches(job, "waiting")
        info = await job.info()
        assert info.waits_for == ("step_outcome_unknown",) and info.failures == 0
        assert len(scene.called) == 1
        assert await job.resolve("pay", happened=True, value=7) == "queued"
        assert await job.result(timeout=20) == 107
    assert len(scene.called) == 1


async def test_a_once_step_that_did_not_happen_is_called_again(scene: Scene) -> None:
    """Somebody has looked and found no payment: the step runs, with the same idempotency key as before."""
    async with scene.lost(declare_once(scene)) as job:
        await reaches(job, "waiting")
        await job.resolve("pay", happened=False)
        assert await job.result(timeout=20) == 105
    assert scene.called == [f"{job.id}/pay"] * 2


async def test_a_once_step_that_was_decided_to_have_failed(scene: Scene) -> None:
    """Somebody has found that the payment was refused: the job gets an error with that text; retried by hand, it pays
    again, as after any known failure."""
    async with scene.lost(declare_once(scene)) as job:
        await reaches(job, "waiting")
        await job.resolve("pay", error="refused by the bank")
        info = await job.wait(timeout=20)
        assert info.status == "failed" and info.error is not None
        assert info.error["type"] == "StepUnknownOutcome"
        assert "'pay'" in info.error["message"] and "refused by the bank" in info.error["message"]
        assert len(scene.called) == 1
        await job.retry()
        assert await job.result(timeout=20) == 105
    assert len(scene.called) == 2


async def test_a_decision_may_come_before_the_job_waits_for_it(scene: Scene, store: Store) -> None:
    """Somebody decides while no worker is there."""
    jobs = store.jobs()
    order = declare_once(scene)(jobs)
    async with jobs:
        async with manager(drain=0.05) as first, jobs.worker(manager=first):
            job = await order.submit()
            await set_within(scene.standing)
        await job.resolve("pay", value=7)
        async with jobs.worker():
            assert await job.result(timeout=20) == 107
    assert len(scene.called) == 1


async def test_a_decision_of_the_wrong_type_is_not_taken_for_a_value(scene: Scene) -> None:
    """The person who decides has the type of the value wrong: the job fails with a clear error, and the step is not
    taken as completed with something that it could never have returned."""
    async with scene.lost(declare_once(scene)) as job:
        await reaches(job, "waiting")
        await job.resolve("pay", happened=True, value="seven")
        info = await job.wait(timeout=20)
        assert info.error is not None and info.error["type"] == "BadResult"
        assert "seven" in info.error["message"]
        assert [step.status for step in await job.steps() if step.key == "pay"] == ["started"]


@pytest.mark.parametrize("happened", [True, False])
async def test_a_callback_decides(scene: Scene, happened: bool) -> None:
    """The program itself can ask the payment service what became of it; it is asked only when that is unknown."""
    asked: list[str] = []

    async def ask() -> Decision:
        asked.append("asked")
        return Decision(happened, 9 if happened else None)

    async with scene.lost(declare_once(scene, ask)) as job:
        assert await job.result(timeout=20) == (109 if happened else 105)
        again = scene.store.jobs(scene.clock)
        order = declare_once(scene, ask)(again)
        async with again:
            healthy = await order.submit()
        assert await job._client.wait_final(healthy.id)
    assert asked == ["asked"]
    assert len(scene.called) == (2 if happened else 3)


async def test_a_once_step_that_has_failed_is_called_again(jobs: Jobs) -> None:
    """The step has raised: it is known how it ended, and a retried job may call it again without asking anybody."""
    called: list[int] = []

    async def pay() -> str:
        called.append(1)
        if len(called) == 1:
            raise OSError("refused")
        return "paid"

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def order(ctx: Context) -> str:
        return await ctx.step(pay, policy=StepPolicy.ONCE)

    async with jobs.worker():
        job = await order.submit()
        assert await job.result(timeout=20) == "paid"
    assert called == [1, 1]


async def test_a_once_step_whose_value_cannot_be_stored_has_failed(jobs: Jobs) -> None:
    """It has run, but what it returned is no JSON: that is known, and nobody needs to decide anything."""

    def pay() -> Any:
        return object()

    @jobs.task
    async def order(ctx: Context) -> None:
        await ctx.step(pay, name="pay", policy="once")

    async with jobs.worker():
        job = await order.submit()
        assert await ended(job) == "failed"
        assert [step.status for step in await job.steps()] == ["failed"]


async def test_a_once_step_cut_at_the_deadline_is_unknown(scene: Scene, store: Store) -> None:
    """A shutdown's deadline cuts the step: an orderly stop cannot know either what became of the payment."""
    jobs = store.jobs()
    order = declare_once(scene)(jobs)
    async with jobs:
        async with manager(drain=0.05) as first, jobs.worker(manager=first):
            job = await order.submit()
            await set_within(scene.standing)
        assert await outcomes(job) == ["handed_over (shutdown)"]
        async with jobs.worker():
            await reaches(job, "waiting")
            assert (await job.info()).waits_for == ("step_outcome_unknown",)
            await job.resolve("pay", value=1)
            assert await job.result(timeout=20) == 101
    assert len(scene.called) == 1


async def test_a_once_step_cut_by_the_jobs_own_timeout_is_unknown(scene: Scene, store: Store) -> None:
    """The job gives up on its payment after a while and fails: what became of it is unknown in the next attempt."""
    jobs = store.jobs()

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def order(ctx: Context) -> str:
        async with asyncio.timeout(None) as patience:

            async def pay() -> str:
                scene.called.append("pay")
                patience.reschedule(
                    asyncio.get_running_loop().time()
                )  # it is over while the step is under way
                await scene.stand()
                return "paid"

            return await ctx.step(pay, name="pay", policy="once")

    async with jobs.worker():
        job = await order.submit()
        await reaches(job, "waiting")
        await job.resolve("pay", value="paid after all")
        assert await job.result(timeout=20) == "paid after all"
    assert scene.called == ["pay"]


async def test_a_changed_policy_does_not_undo_the_intent(scene: Scene) -> None:
    """The step was begun as `once`; new code calls it `replay`. What counts is what was promised when it began."""

    def declare(jobs: Jobs, policy: str) -> Any:
        @jobs.task(name="order")
        async def order(ctx: Context) -> str:
            async def pay() -> str:
                scene.called.append("pay")
                await scene.stand()
                return "paid"

            return await ctx.step(pay, name="pay", policy=policy)

        return order

    policies = iter(["once", "replay"])
    async with scene.lost(lambda jobs: declare(jobs, next(policies))) as job:
        await reaches(job, "waiting")
        await job.resolve("pay", value="decided")
        assert await job.result(timeout=20) == "decided"
    assert scene.called == ["pay"]


# --- continue ------------------------------------------------------------------------------------------


async def test_a_lost_stream_goes_on_where_it_stood(scene: Scene) -> None:
    """A step has emitted three words when its worker is lost: the next call is handed them, and nobody is told to take
    them back."""

    def declare(jobs: Jobs) -> Any:
        @jobs.task
        async def speak(ctx: Context) -> str:
            async def stream() -> str:
                so_far = list(current_step().so_far)
                scene.so_far.append(list(so_far))
                for word in "one two three four five".split()[len(so_far) :]:
                    await ctx.emit("word", word)
                    so_far.append(word)
                    if word == "three":
                        await scene.stand()
                return " ".join(so_far)

            return await ctx.step(stream, name="stream", policy="continue")

        return speak

    async with scene.lost(declare) as job:
        assert await job.result(timeout=20) == "one two three four five"
        assert [event[1:] for event in await events_of(job)] == [
            ("word", word) for word in "one two three four five".split()
        ]
    assert scene.so_far == [[], ["one", "two", "three"]]


async def test_a_stream_that_failed_goes_on_where_it_stood(jobs: Jobs) -> None:
    """The connection breaks in the middle, twice: each attempt is handed what all before it had emitted."""
    so_far: list[list[Any]] = []

    @jobs.task(retries=2, backoff=AT_ONCE)
    async def speak(ctx: Context) -> list[Any]:
        async def stream() -> list[Any]:
            so_far.append(list(current_step().so_far))
            await ctx.emit("word", ctx.attempt)
            if ctx.attempt < 3:
                raise OSError("cut off")
            return [*current_step().so_far, ctx.attempt]

        return await ctx.step(stream, policy="continue")

    async with jobs.worker():
        assert await (await speak.submit()).result(timeout=20) == [1, 2, 3]
    assert so_far == [[], [1], [1, 2]]


@pytest.mark.loops("asyncio")
async def test_a_policy_that_is_none(jobs: Jobs) -> None:
    """A policy is misspelt: an error that names it and those that exist, before anything runs."""
    called: list[int] = []

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.step(lambda: called.append(1), name="x", policy="twice")

    async with jobs.worker():
        job = await work.submit()
        info = await job.wait(timeout=20)
        assert info.error is not None and info.error["type"] == "BadDeclaration"
        assert "replay, once, continue, not 'twice'" in info.error["message"]
        assert await job.steps() == []
    assert called == []
