"""Stubborn work inside one process: bounded by the plan and named; the program's own end is in test_run.py."""

import asyncio
import threading

import pytest

from lastcall import CancelAnswer, Outcome, ShutdownPlan, TaskManager, current_shutdown
from tests.support.loops import LoopErrors

virtual = pytest.mark.loops("virtual")


@virtual
async def test_a_finally_that_awaits_too_long() -> None:
    """Its cleaning up needs an hour; it gets the cancel budget, and one cancel only."""
    release = asyncio.Event()
    interrupted: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            try:
                await release.wait()
            except asyncio.CancelledError:
                interrupted.append("a second cancel")
                raise

    manager = TaskManager(plan=ShutdownPlan(drain=5, cancel=3, close=0))
    await manager.open()
    task = manager.create_task(work(), name="slow to clean up")
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert report.seconds == pytest.approx(8, abs=0.001)
    (outcome,) = report.tasks
    assert outcome.outcome is Outcome.REFUSED and any("work" in line for line in outcome.stack)
    release.set()
    await asyncio.wait({task})
    assert interrupted == [] and task.cancelled()


async def test_a_done_callback_that_raises_harms_nobody(loop_errors: LoopErrors) -> None:
    """A user's callback on a tracked task fails: asyncio reports it once, the drain neither hangs nor forgets."""

    def fails(task: asyncio.Task[None]) -> None:
        raise ValueError("in a callback")

    async with TaskManager() as manager:
        for _ in range(3):
            manager.create_task(current_shutdown().wait()).add_done_callback(fails)
        await asyncio.sleep(0)
    assert manager.report is not None and manager.report.clean
    assert sum(manager.report.counts.values()) == 3
    assert [str(context["exception"]) for context in loop_errors] == ["in a callback"] * 3


async def test_an_on_error_hook_that_raises_harms_nobody() -> None:
    """The hook itself fails: the task's error is still reported, and the drain goes on."""

    def hook(info: object, error: BaseException) -> None:
        raise RuntimeError("the hook is broken")

    async def fails() -> None:
        await current_shutdown().wait()
        raise ValueError("the task's own")

    async with TaskManager(on_error=hook) as manager:
        manager.create_task(fails())
        await asyncio.sleep(0)
    assert manager.report is not None and manager.report.counts[Outcome.FAILED] == 1


async def test_a_thread_that_never_returns_is_left_with_its_stack() -> None:
    """It is told, waited for by plan, named with its stack, and its task ends so that awaiting it does not hang."""
    release, running = threading.Event(), threading.Event()

    def stuck_here() -> None:
        running.set()
        release.wait(60)

    manager = TaskManager(plan=ShutdownPlan(drain=0.1, cancel=0.1, close=0))
    await manager.open()
    task = manager.run_in_thread(stuck_here)
    await asyncio.to_thread(running.wait, 30)
    report = await manager.shutdown()
    assert report.counts[Outcome.THREAD_LEFT] == 1
    assert any("stuck_here" in line for line in report.tasks[0].stack)
    await asyncio.wait({task}, timeout=10)
    assert task.done()
    release.set()


async def test_whoever_waits_for_a_stuck_thread_is_not_to_blame() -> None:
    """A task awaits a thread that never returns: the thread is left behind, the task is not called a refuser."""
    release, running = threading.Event(), threading.Event()

    def stuck() -> None:
        running.set()
        release.wait(60)

    manager = TaskManager(plan=ShutdownPlan(drain=0.1, cancel=0.1, close=0))
    await manager.open()

    async def waits() -> None:
        await manager.run_in_thread(stuck, name="stuck")

    manager.create_task(waits(), name="waits")
    await asyncio.to_thread(running.wait, 30)
    report = await manager.shutdown()
    assert {t.name: t.outcome for t in report.tasks} == {
        "stuck": Outcome.THREAD_LEFT,
        "waits": Outcome.CANCELLED,
    }
    release.set()


async def test_threads_that_wait_for_a_turn_are_never_started() -> None:
    """One thread at a time, one stuck: the calls queued behind it are cancelled and never run."""
    release, running = threading.Event(), threading.Event()
    ran: list[int] = []

    def stuck() -> None:
        running.set()
        release.wait(60)

    manager = TaskManager(plan=ShutdownPlan(drain=0.1, cancel=0.1, close=0), max_threads=1)
    await manager.open()
    manager.run_in_thread(stuck)
    queued = [manager.run_in_thread(ran.append, n) for n in range(5)]
    await asyncio.to_thread(running.wait, 30)
    report = await manager.shutdown()
    assert report.counts[Outcome.THREAD_LEFT] == 1 and report.counts[Outcome.CANCELLED] == 5
    release.set()
    assert all(task.cancelled() for task in queued) and ran == []


@virtual
async def test_refusers_are_told_apart_from_the_slow() -> None:
    """`cancel_task` says `refused` while it cleans up, and `ended` when asked again later."""
    async with TaskManager() as manager:

        async def slow() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(10)

        task = manager.create_task(slow())
        await asyncio.sleep(0)
        assert await manager.cancel_task(task, timeout=1) is CancelAnswer.REFUSED
        assert await manager.cancel_task(task, timeout=60) is CancelAnswer.ENDED
        assert await manager.cancel_task(task) is CancelAnswer.ALREADY_ENDED


@virtual
async def test_many_stubborn_tasks_cost_one_budget() -> None:
    """A hundred refusers are given up together, not one after the other."""
    release = asyncio.Event()

    async def refuses() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    manager = TaskManager(plan=ShutdownPlan(drain=2, cancel=3, close=0))
    await manager.open()
    tasks = {manager.create_task(refuses()) for _ in range(100)}
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert report.seconds == pytest.approx(5, abs=0.001)
    assert report.counts[Outcome.REFUSED] == 100
    release.set()
    await asyncio.wait(tasks)


async def test_a_task_cancelled_before_its_first_step_is_counted() -> None:
    """It never ran a line, and still is one of the counted, with its coroutine closed."""
    async with TaskManager(plan=ShutdownPlan(drain=0, cancel=5)) as manager:
        manager.create_task(asyncio.sleep(3600))
    assert manager.report is not None and manager.report.counts[Outcome.CANCELLED] == 1
