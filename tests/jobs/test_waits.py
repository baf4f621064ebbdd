"""Waiting: a job leaves its worker, holds nothing there, and goes on when what it waits for has come."""

import asyncio
import gc
import math
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from lastcall import current_shutdown
from lastcall.exceptions import NotInJob
from lastcall.jobs import Context, Jobs, JobStatus
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import AT_ONCE, ended, eventually, manager, outcomes, reaches, set_within

HOUR = 3600.0

kept: ContextVar[object] = ContextVar("kept")


async def let_pass(jobs: Jobs, clock: VirtualClock, seconds: float) -> None:
    """Time passes for the store; workers hear so as they would by a timer."""
    clock.advance(seconds)
    jobs._client.work_arrived()


# --- sleeping ------------------------------------------------------------------------------------------


async def test_a_sleeping_job_holds_no_slot_and_no_memory_and_wakes_on_time(store: Store) -> None:
    """A job sleeps an hour on a worker with a single slot: another job runs meanwhile, nothing of the first one is in
    memory, and it goes on when the hour is over and not before."""
    clock = VirtualClock()
    jobs = store.jobs(clock)

    class Large: ...

    seen: list[weakref.ref[Large]] = []
    called: list[str] = []

    @jobs.task(timeout=7200)
    async def sleepy(ctx: Context) -> str:
        large = Large()
        kept.set(large)
        seen.append(weakref.ref(large))
        called.append("asleep")
        await ctx.sleep(HOUR)
        called.append("awake")
        return type(large).__name__

    @jobs.task
    async def other() -> str:
        return "other"

    async with jobs.worker(concurrency=1) as worker:
        job = await sleepy.submit()
        await reaches(job, "waiting")
        assert (await job.info()).waits_for == ("sleep",)
        assert await (await other.submit()).result(timeout=20) == "other"

        def is_gone() -> bool:
            gc.collect()
            return seen[0]() is None

        await eventually(is_gone)
        assert worker.running == 0
        await let_pass(jobs, clock, HOUR - 1)
        assert await (await other.submit()).result(timeout=20) == "other"
        assert await job.status() == "waiting"
        await let_pass(jobs, clock, 1)
        assert await job.result(timeout=20) == "Large"
        assert await outcomes(job) == ["handed_over (waiting)", "completed"]
        assert (await job.info()).failures == 0
    assert called == ["asleep", "asleep", "awake"]


@pytest.mark.loops("asyncio")
async def test_a_short_sleep_wakes_by_itself(jobs: Jobs) -> None:
    """Nobody tells the worker anything: it knows by itself when the next job is due."""

    @jobs.task
    async def nap(ctx: Context) -> None:
        await ctx.sleep(0.1)

    async with jobs.worker():
        job = await nap.submit()
        # Far less than the seconds after which a worker asks for want of news.
        await job.result(timeout=3)
        first, second = await job.attempts()
    assert second.started_at - first.started_at >= 0.1


async def test_waiting_jobs_outlive_their_worker(store: Store) -> None:
    """A job sleeps, its worker is stopped, the hour passes without any worker: the next one runs it at once."""
    clock = VirtualClock()

    def declare(on: Jobs) -> Any:
        @on.task(name="sleepy")
        async def sleepy(ctx: Context) -> int:
            await ctx.sleep(HOUR)
            return ctx.attempt

        return sleepy

    first, second = store.jobs(clock), store.jobs(clock)
    sleepy = declare(first)
    declare(second)
    async with first.worker():
        job = await sleepy.submit()
        await reaches(job, "waiting")
    clock.advance(HOUR)
    async with second.worker():
        assert await second.job(job.id).result(timeout=20) == 2


async def test_sleeps_of_another_length_in_each_attempt(store: Store) -> None:
    """The length of a sleep is a random number, and that of the next one is the time until a moment which has passed
    when the job is awake again: it sleeps each of them once."""
    clock = VirtualClock()
    jobs = store.jobs(clock)
    moment = clock.wall() + 2 * HOUR

    @jobs.task
    async def work(ctx: Context) -> int:
        await ctx.sleep(HOUR + ctx.attempt)
        await ctx.sleep(moment + 2 - clock.wall())
        return ctx.attempt

    async with jobs.worker():
        job = await work.submit()
        for attempt in (1, 2):

            async def sleeps_again() -> bool:
                info = await job.info()
                return info.attempt == attempt and info.status is JobStatus.WAITING  # noqa: B023

            await eventually(sleeps_again)
            await let_pass(jobs, clock, HOUR + 1)
        await let_pass(jobs, clock, 2)
        assert await job.result(timeout=20) == 3


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "5"])
@pytest.mark.loops("asyncio")
async def test_impossible_sleeps_are_refused(jobs: Jobs, seconds: Any) -> None:
    """A length that is none: the job fails with an error that names it, and does not wait."""

    @jobs.task
    async def alone(ctx: Context) -> None:
        await ctx.sleep(seconds)

    @jobs.task
    async def beside(ctx: Context) -> None:
        await asyncio.gather(ctx.sleep(seconds))

    @jobs.task
    async def message(ctx: Context) -> None:
        await ctx.wait_for("x", timeout=seconds)

    async with jobs.worker():
        for task in (alone, beside, message):
            job = await task.submit()
            info = await job.wait(timeout=20)
            assert info.error is not None and info.error["type"] == "BadDeclaration", info
            assert str(seconds).strip("-") in info.error["message"]


# --- messages ------------------------------------------------------------------------------------------


async def test_messages_are_received_in_the_order_in_which_they_were_sent(jobs: Jobs) -> None:
    """Three messages of one name come before the job waits for the first, the fourth while it waits; one of another
    name lies between them."""

    @jobs.task
    async def work(ctx: Context) -> list[Any]:
        return [await ctx.wait_for("order") for _ in range(4)] + [await ctx.wait_for("other")]

    async with jobs:
        job = await work.submit()
        for data in (1, {"two": [2]}, None):
            await job.send("order", data)
        await job.send("other", "five")
        async with jobs.worker():
            await reaches(job, "waiting")
            assert (await job.info()).waits_for == ("signal order",)
            assert await job.send("order", "four") == "queued"
            assert await job.result(timeout=20) == [1, {"two": [2]}, None, "four", "five"]


async def test_two_waits_for_one_name_get_a_message_each(jobs: Jobs) -> None:
    """Two branches wait for the same name at once."""

    @jobs.task
    async def work(ctx: Context) -> list[Any]:
        return list(await asyncio.gather(ctx.wait_for("x"), ctx.wait_for("x")))

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        await job.send("x", 1)
        await job.send("x", 2)
        assert sorted(await job.result(timeout=20)) == [1, 2]


@pytest.mark.loops("asyncio")
async def test_names_that_look_like_counts_are_other_names(jobs: Jobs) -> None:
    """A message is called like the second of another name would be, if waits were counted at the end."""

    @jobs.task
    async def work(ctx: Context) -> list[Any]:
        return [await ctx.wait_for(name) for name in ("x", "x", "x #2")]

    async with jobs.worker():
        job = await work.submit()
        await job.send("x #2", "another")
        await job.send("x", 1)
        await job.send("x", 2)
        assert await job.result(timeout=20) == [1, 2, "another"]


async def test_a_wait_that_takes_too_long(store: Store) -> None:
    """No message comes within its time: TimeoutError, also in the attempts after that; one that comes then is the next
    wait's."""
    clock = VirtualClock()
    jobs = store.jobs(clock)

    @jobs.task
    async def work(ctx: Context) -> str:
        try:
            await ctx.wait_for("approval", timeout=HOUR)
        except TimeoutError as error:
            late: str = await ctx.wait_for("approval")
            return f"{error}; then {late}"
        return "no timeout"

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        await let_pass(jobs, clock, HOUR)

        async def waits_again() -> bool:
            info = await job.info()
            return info.attempt == 2 and info.status is JobStatus.WAITING

        await eventually(waits_again)
        await job.send("approval", "granted")
        assert await job.result(timeout=20) == "no message 'approval' came within 3600 s; then granted"


@pytest.mark.loops("asyncio")
async def test_a_message_in_time(store: Store) -> None:
    """The message comes a moment before the time is over: it counts, although its job runs only after that."""
    clock = VirtualClock()
    jobs = store.jobs(clock)

    @jobs.task
    async def work(ctx: Context) -> Any:
        return await ctx.wait_for("x", timeout=HOUR)

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
    clock.advance(HOUR - 1)
    async with jobs:
        await job.send("x", "in time")
    clock.advance(HOUR)
    async with jobs.worker():
        assert await job.result(timeout=20) == "in time"


@pytest.mark.loops("asyncio")
async def test_a_message_to_a_job_that_has_ended_is_not_kept(jobs: Jobs) -> None:
    """The sender hears that nobody will receive it."""

    @jobs.task
    async def work(ctx: Context) -> None: ...

    async with jobs.worker():
        job = await work.submit()
        await job.wait(timeout=20)
        assert (await job.send("x")).final


# --- waits and what runs beside them ---------------------------------------------------------------------


async def test_several_waits_at_once(store: Store) -> None:
    """Two messages and a sleep side by side: the job goes on when all have come, in whatever order."""
    clock = VirtualClock()
    jobs = store.jobs(clock)

    @jobs.task
    async def work(ctx: Context) -> list[Any]:
        return list(await asyncio.gather(ctx.wait_for("a"), ctx.sleep(HOUR), ctx.wait_for("b")))

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        assert set((await job.info()).waits_for) == {"signal a", "sleep", "signal b"}
        await job.send("b", 2)

        async def waits_for_two() -> bool:
            info = await job.info()
            return info.status is JobStatus.WAITING and set(info.waits_for) == {"signal a", "sleep"}

        await eventually(waits_for_two)
        await let_pass(jobs, clock, HOUR)
        await job.send("a", 1)
        assert await job.result(timeout=20) == [1, None, 2]


async def test_a_wait_does_not_cut_the_step_beside_it(jobs: Jobs) -> None:
    """One branch waits while another one is in the middle of a step, and after that of a second one and of writing its
    progress: all of these end before the job leaves, and none runs twice."""
    called: list[str] = []
    go = asyncio.Event()

    async def step(name: str) -> str:
        called.append(name)
        await set_within(go)
        return name

    @jobs.task
    async def work(ctx: Context) -> list[Any]:
        async def branch() -> str:
            one = await ctx.step(step, "one")
            await ctx.progress(1, 2)
            two = await ctx.step(step, "two")
            await ctx.progress(2, 2)
            return one + two

        return list(await asyncio.gather(ctx.wait_for("x"), branch()))

    async with jobs.worker() as worker:
        job = await work.submit()
        await eventually(lambda: called == ["one"])
        assert await job.status() == "running" and worker.running == 1
        go.set()
        await reaches(job, "waiting")
        assert called == ["one", "two"]
        assert (await job.info()).progress == {"done": 2, "of": 2}
        await job.send("x", "came")
        assert await job.result(timeout=20) == ["came", "onetwo"]
    assert called == ["one", "two"]


async def test_a_message_that_comes_while_a_step_beside_the_wait_runs(jobs: Jobs) -> None:
    """The wait is over before the job can leave: it does not wait at all then."""
    started, go = asyncio.Event(), asyncio.Event()

    async def step() -> str:
        started.set()
        await set_within(go)
        return "step"

    @jobs.task
    async def work(ctx: Context) -> list[Any]:
        return list(await asyncio.gather(ctx.wait_for("x"), ctx.step(step)))

    async with jobs.worker():
        job = await work.submit()
        await set_within(started)
        await job.send("x", "early")
        go.set()
        assert await job.result(timeout=20) == ["early", "step"]


async def test_the_time_of_a_wait_runs_while_a_step_beside_it_does(jobs: Jobs, store: Store) -> None:
    """A sleep begins beside a step: what the step takes is a part of it."""
    took = 0.0

    async def step() -> None:
        nonlocal took
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0.05)
        took = loop.time() - began

    @jobs.task
    async def work(ctx: Context) -> None:
        await asyncio.gather(ctx.sleep(HOUR), ctx.step(step))

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        (row,) = await store.rows()
    (wait,) = row.waits
    # Not to the millisecond: uvloop's time() is the reading of the last turn.
    assert wait.seconds is not None and HOUR - 60 < wait.seconds <= HOUR - took / 2


async def test_a_wait_in_a_task_of_the_job(jobs: Jobs) -> None:
    """A task of the job waits while the job itself does something that is no step: that is cut, and runs again."""
    began: list[int] = []

    @jobs.task
    async def work(ctx: Context) -> list[Any]:
        waiting = asyncio.create_task(ctx.wait_for("x"))
        began.append(ctx.attempt)
        await asyncio.sleep(60 if ctx.attempt == 1 else 0)
        return [await waiting, ctx.attempt]

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        await job.send("x", "came")
        assert await job.result(timeout=20) == ["came", 2]
    assert began == [1, 2]


async def test_a_wait_under_a_timeout_is_a_wait(jobs: Jobs) -> None:
    """`asyncio.timeout` around a wait: the job leaves, the process' timeout ends with its attempt."""

    @jobs.task
    async def work(ctx: Context) -> Any:
        async with asyncio.timeout(30):
            return await ctx.wait_for("x")

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        await job.send("x", "came")
        assert await job.result(timeout=20) == "came"


async def test_a_wait_that_was_given_up_is_forgotten(jobs: Jobs) -> None:
    """A timeout ends a wait and the step beside it, and the job goes on with other steps: it must not leave for the
    sake of a wait that nobody waits for any more."""

    async def endless() -> None:
        await asyncio.sleep(60)

    async def step(n: int) -> int:
        return n

    @jobs.task
    async def work(ctx: Context) -> list[int]:
        try:
            async with asyncio.timeout(0.05):
                await asyncio.gather(ctx.wait_for("never"), ctx.step(endless))
        except TimeoutError:
            pass
        return [await ctx.step(step, n) for n in range(3)]

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == [0, 1, 2]
        assert await outcomes(job) == ["completed"]


async def test_a_group_that_fails_takes_its_waits_along(jobs: Jobs) -> None:
    """A step fails in a group where another child waits: the error comes out, through three groups, and no wait keeps
    the job from it."""

    async def bad() -> None:
        raise OSError("broken")

    @jobs.task
    async def fails(ctx: Context) -> None:
        async with asyncio.TaskGroup() as outer:

            async def middle() -> None:
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(ctx.wait_for("never"))
                    inner.create_task(asyncio.wait_for(ctx.step(bad), 20))  # type: ignore[arg-type]

            outer.create_task(middle())

    @jobs.task
    async def handles(ctx: Context) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.wait_for("never"))
                group.create_task(ctx.step(bad))
        except* OSError:
            pass
        return await ctx.step(str.upper, "went on")

    async with jobs.worker():
        job = await fails.submit()
        info = await job.wait(timeout=20)
        assert info.status == "failed" and info.error is not None
        assert "OSError: broken" in info.error["traceback"]
        assert await outcomes(job) == ["failed"]
        assert await (await handles.submit()).result(timeout=20) == "WENT ON"


async def test_a_critical_section_is_not_cut_by_a_wait_beside_it(jobs: Jobs) -> None:
    """A task of the job waits while the job is between two writes that belong together."""
    written: list[str] = []
    waits = asyncio.Event()

    @jobs.task
    async def work(ctx: Context) -> None:
        async def wait() -> None:
            waits.set()
            await ctx.wait_for("x")

        with current_shutdown().critical(max=20):
            waiting = asyncio.create_task(wait())
            written.append("debit")
            await waits.wait()
            await asyncio.sleep(0.1)
            written.append("credit")
        await waiting

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        assert written == ["debit", "credit"]
        await job.cancel()


# --- cleaning up, and code that will not leave -------------------------------------------------------------


async def test_cleaning_up_may_take_a_while(jobs: Jobs) -> None:
    """The job closes something that takes time whenever it leaves: this is waited for."""
    closed: list[int] = []

    @jobs.task
    async def work(ctx: Context) -> str:
        try:
            await ctx.wait_for("x")
            return "done"
        finally:
            await asyncio.sleep(0.05)
            closed.append(ctx.attempt)

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        assert closed == [1]
        await job.send("x")
        assert await job.result(timeout=20) == "done"
    assert closed == [1, 2]


@pytest.mark.parametrize("verb", ["step", "sleep", "wait_for", "start", "transaction"])
async def test_nothing_begins_while_a_job_leaves(jobs: Jobs, verb: str) -> None:
    """A `finally` asks for another step, or wait, whenever the job leaves to wait: that is not the job's end, so it is
    refused; in the end it runs."""
    called: list[str] = []

    async def clean_up() -> None:
        called.append("clean up")

    @jobs.task
    async def child() -> None: ...

    @jobs.task
    async def work(ctx: Context) -> None:
        try:
            await ctx.wait_for("x")
        finally:
            asked = {
                "step": lambda: ctx.step(clean_up),
                "sleep": lambda: ctx.sleep(0),
                "wait_for": lambda: ctx.wait_for("x"),
                "start": lambda: ctx.start(child.call()),
                "transaction": lambda: ctx.transaction(lambda connection: called.append("x"), name="x"),
            }
            await asked[verb]()

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        assert called == [] and (await job.info()).waits_for == ("signal x",)
        assert await jobs.find(task="child") == []
        await job.send("x")
        await job.send("x")
        assert await ended(job) == "completed"


async def test_a_job_that_raises_while_it_leaves_has_not_failed(jobs: Jobs) -> None:
    """What it raises while it is cut off at a wait says nothing about its work."""

    @jobs.task
    async def work(ctx: Context) -> str:
        try:
            await ctx.wait_for("x")
        except asyncio.CancelledError:
            raise ValueError("the connection is closed already") from None
        return "done"

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        await job.send("x")
        assert await job.result(timeout=20) == "done"
        assert await outcomes(job) == ["handed_over (waiting)", "completed"]


async def test_what_a_job_returns_while_it_leaves_does_not_count(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    """The job takes the cancellation at its wait for an order to stop, swallows it and returns: it has not got what it
    waited for, so it is not done."""

    @jobs.task
    async def work(ctx: Context) -> str:
        try:
            return str(await ctx.wait_for("x"))
        except asyncio.CancelledError:
            return "cut off"

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        assert "swallowed" in caplog.text
        await job.send("x", "came")
        assert await job.result(timeout=20) == "came"


async def test_who_swallows_the_cancellation_and_asks_again_is_refused(jobs: Jobs) -> None:
    """The job catches everything around its wait and tries again, some times: it leaves at last, and its slot is
    free."""

    @jobs.task
    async def work(ctx: Context) -> Any:
        for _ in range(5):
            try:
                return await ctx.wait_for("x")
            except BaseException:
                continue
        raise AssertionError("it gave up")

    @jobs.task
    async def other() -> str:
        return "other"

    async with jobs.worker(concurrency=1):
        job = await work.submit()
        await reaches(job, "waiting")
        assert await (await other.submit()).result(timeout=20) == "other"
        await job.send("x", "came")
        assert await job.result(timeout=20) == "came"


async def test_who_will_not_leave_is_given_up(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """The job swallows every cancellation, for ever: when its grace is over its end is written without it, the log has
    its stack, its slot is free, and its context is of no use to it any more."""
    refused: list[BaseException] = []

    @jobs.task
    async def work(ctx: Context) -> Any:
        while True:
            try:
                return await ctx.wait_for("x")
            except asyncio.CancelledError:
                continue
            except NotInJob as error:
                refused.append(error)
                raise

    @jobs.task
    async def other() -> str:
        return "other"

    async with manager(cancel=0.1) as mine, jobs.worker(concurrency=1, manager=mine) as worker:
        job = await work.submit()
        await reaches(job, "waiting")
        await eventually(lambda: worker.running == 0)
        assert await (await other.submit()).result(timeout=20) == "other"
        await eventually(lambda: len(refused) == 1)
        assert job.id in caplog.text and "it is given up" in caplog.text
        assert "in test_who_will_not_leave_is_given_up.<locals>.work" in caplog.text
        await job.send("x", "came")
        assert await job.result(timeout=20) == "came"
    assert mine.report is not None and mine.report.clean


async def test_a_cancellation_of_the_jobs_own_does_not_keep_it_from_waiting(jobs: Jobs) -> None:
    """Old code cancels the task it runs in and swallows that: such a job can still wait, and be handed over."""

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> Any:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return await ctx.wait_for("x")

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        await job.send("x", "came")
        assert await job.result(timeout=20) == "came"
