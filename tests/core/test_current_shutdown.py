"""current_shutdown(): what work sees of the stop, in coroutines, threads, groups and outside all of them."""

import asyncio
import math
import threading
import time
from typing import Any

import pytest

from lastcall import (
    CancelAnswer,
    InvalidPlan,
    Outcome,
    ShutdownPlan,
    StopReason,
    TaskGroup,
    TaskManager,
    current_shutdown,
)

virtual = pytest.mark.loops("virtual")
ABOUT = 0.001


async def until_told(seen: list[Any]) -> None:
    """Wait for the stop and write down its reason."""
    await current_shutdown().wait()
    seen.append(current_shutdown().reason)


@virtual
async def test_before_and_after_the_stop() -> None:
    """Not requested, no reason, endless time; then requested, with a reason and a time that counts down to 0."""
    manager = TaskManager(plan=ShutdownPlan(drain=10, cancel=5))
    await manager.open()
    seen: list[tuple[bool, object, float]] = []

    async def look() -> None:
        shutdown = current_shutdown()
        seen.append((shutdown.requested, shutdown.reason, shutdown.remaining))
        await shutdown.wait()
        await asyncio.sleep(4)
        seen.append((shutdown.requested, shutdown.reason, shutdown.remaining))
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)
            seen.append((shutdown.requested, shutdown.reason, shutdown.remaining))

    manager.create_task(look())
    await asyncio.sleep(0)
    await manager.shutdown()
    assert seen == [
        (False, None, math.inf),
        (True, StopReason.SHUTDOWN, pytest.approx(6, abs=ABOUT)),
        (True, StopReason.SHUTDOWN, 0.0),
    ]


@virtual
async def test_wait_and_sleep_wake_at_once() -> None:
    """The stop comes in the middle of a long sleep: it returns True in that moment; wait() too."""
    loop = asyncio.get_running_loop()
    manager = TaskManager()
    await manager.open()
    woke: list[tuple[str, object, float]] = []

    async def sleeper() -> None:
        told = await current_shutdown().sleep(3600)
        woke.append(("sleep", told, loop.time() - began))

    async def waiter() -> None:
        woke.append(("wait", await current_shutdown().wait(), loop.time() - began))

    manager.create_task(sleeper())
    manager.create_task(waiter())
    await asyncio.sleep(5)
    began = loop.time()
    report = await manager.shutdown()
    assert sorted(woke) == [("sleep", True, 0.0), ("wait", None, 0.0)]
    assert report.counts[Outcome.STOPPED] == 2


@virtual
async def test_sleep_that_is_not_disturbed() -> None:
    """False after exactly its time; at once True when the stop has come already, even for 0 seconds."""
    loop = asyncio.get_running_loop()
    async with TaskManager() as manager:
        began = loop.time()
        assert await current_shutdown().sleep(3) is False
        assert loop.time() - began == pytest.approx(3, abs=ABOUT)
        assert await current_shutdown().sleep(0) is False
        manager.begin_shutdown()
        assert await current_shutdown().sleep(3600) is True
        assert await current_shutdown().sleep(0) is True
        for seconds in (-1, math.nan, math.inf):
            with pytest.raises(InvalidPlan):
                await current_shutdown().sleep(seconds)


async def test_all_who_wait_say_the_same() -> None:
    """`sleep` in a task and `wait_sync` in a thread answer as `threading.Event.wait`, before the stop and after it."""
    standard = threading.Event()
    async with TaskManager() as manager:

        async def answers() -> set[bool]:
            shutdown = current_shutdown()
            in_thread = manager.run_in_thread(lambda: current_shutdown().wait_sync(0))
            return {await shutdown.sleep(0), await in_thread, standard.wait(0), shutdown.requested}

        before = await answers()
        going = asyncio.Event()

        async def late() -> set[bool]:
            going.set()
            await current_shutdown().wait()
            return await answers()

        after = manager.create_task(late())
        await going.wait()
        standard.set()
        manager.begin_shutdown()
        assert (before, await after) == ({False}, {True})


async def test_sleep_lets_a_cancel_through() -> None:
    """A cancel that hits the sleep is a cancel, not a time-out and not a stop."""
    async with TaskManager() as manager:
        task = manager.create_task(current_shutdown().sleep(3600))
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        await asyncio.wait({task})
        assert task.cancelled()


@virtual
async def test_outside_managers_nothing_is_ever_requested() -> None:
    """In code that runs without lastcall the calls work: never requested, endless, sleep sleeps."""
    shutdown = current_shutdown()
    assert (shutdown.requested, shutdown.reason, shutdown.remaining) == (False, None, math.inf)
    assert await shutdown.sleep(2) is False
    with shutdown.critical(max=1):
        pass
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000):
            await shutdown.wait()
    with pytest.raises(RuntimeError, match="run_in_thread"):
        shutdown.wait_sync(0)
    assert await asyncio.to_thread(lambda: current_shutdown().requested) is False


def test_without_a_loop_nothing_is_requested() -> None:
    """A plain function in a plain script may ask as well."""
    assert current_shutdown().requested is False


async def test_the_block_of_the_manager_is_told() -> None:
    """The body of `async with manager` is told like its tasks, and knows nothing of it after the block."""
    async with TaskManager() as manager:
        asyncio.get_running_loop().call_soon(manager.begin_shutdown)
        await current_shutdown().wait()
        assert current_shutdown().reason is StopReason.SHUTDOWN
    assert not current_shutdown().requested


async def test_plain_children_of_tracked_tasks_are_told() -> None:
    """gather, asyncio.TaskGroup and to_thread below a tracked task: each of them sees the stop."""
    manager = TaskManager()
    await manager.open()
    seen: list[Any] = []
    ready: list[asyncio.Event] = [asyncio.Event() for _ in range(2)]

    async def child(event: asyncio.Event) -> None:
        event.set()
        await until_told(seen)

    def in_thread() -> None:
        if current_shutdown().wait_sync(20):
            seen.append(current_shutdown().reason)

    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child(ready[0]))
            await asyncio.gather(child(ready[1]), asyncio.to_thread(in_thread))

    manager.create_task(parent())
    for event in ready:
        await event.wait()
    report = await manager.shutdown()
    assert seen == [StopReason.SHUTDOWN] * 3 and report.clean


async def test_a_thread_wakes_at_once() -> None:
    """A thread that sleeps in wait_sync for 30 s returns in the moment of the stop, and sees its reason and time."""
    manager = TaskManager()
    await manager.open()
    asleep = threading.Event()

    def work() -> tuple[bool, object, bool, float]:
        shutdown = current_shutdown()
        assert not shutdown.wait_sync(0)
        asleep.set()
        told = shutdown.wait_sync(30)
        return told, shutdown.reason, shutdown.requested, shutdown.remaining

    task = manager.run_in_thread(work)
    await asyncio.to_thread(asleep.wait, 30)
    began = time.monotonic()
    report = await manager.shutdown()
    assert time.monotonic() - began < 10
    told, reason, requested, remaining = task.result()
    assert (told, reason, requested) == (True, StopReason.SHUTDOWN, True) and 0 < remaining <= 20
    assert report.counts[Outcome.STOPPED] == 1


async def test_a_hundred_threads_and_waits_miss_nothing() -> None:
    """Many threads go to sleep while the stop comes; none of them sleeps through it."""
    manager = TaskManager(max_threads=100)
    await manager.open()
    tasks = [manager.run_in_thread(lambda: current_shutdown().wait_sync(30)) for _ in range(100)]
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert all(task.result() for task in tasks) and report.clean


# --- reasons are never mixed ---


async def test_each_way_of_ending_has_its_own_reason() -> None:
    """User's stop, user's cancel, group's stop and the shutdown: four tasks, four stories."""
    manager = TaskManager()
    await manager.open()
    seen: dict[str, object] = {}

    async def watch(name: str) -> None:
        shutdown = current_shutdown()
        try:
            await shutdown.wait()
        finally:
            seen[name] = shutdown.reason

    tasks = {name: manager.create_task(watch(name), name=name) for name in ("stopped", "cancelled", "rest")}
    group = manager.group("group")
    tasks["group"] = group.create_task(watch("group"), name="group")
    await asyncio.sleep(0)
    assert manager.stop_task(tasks["stopped"])
    assert await manager.cancel_task(tasks["cancelled"]) is CancelAnswer.ENDED
    await group.shutdown()
    await asyncio.wait({tasks["stopped"]})
    await manager.shutdown()
    assert seen == {
        "stopped": StopReason.USER,
        "cancelled": StopReason.USER,
        "group": StopReason.GROUP,
        "rest": StopReason.SHUTDOWN,
    }
    assert manager.info(tasks["cancelled"]).reason is StopReason.USER
    assert (
        manager.info(tasks["rest"]).reason is None
        or manager.info(tasks["rest"]).reason is StopReason.SHUTDOWN
    )


@virtual
async def test_a_users_cancel_that_races_a_shutdown_stays_the_users() -> None:
    """Cancelled by a user one moment before the drain's end: `user` in the task, the record and the report."""
    manager = TaskManager(plan=ShutdownPlan(drain=5, cancel=5))
    await manager.open()
    seen: list[object] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(2)  # cleaning up, into the cancel phase
            seen.append(current_shutdown().reason)

    task = manager.create_task(work())
    await asyncio.sleep(0)
    manager.begin_shutdown()
    await asyncio.sleep(4)
    asking = asyncio.create_task(manager.cancel_task(task))
    report = await manager.shutdown()
    assert await asking is CancelAnswer.ENDED
    assert seen == [StopReason.USER]
    assert [t.reason for t in report.tasks] == [StopReason.USER]


@virtual
async def test_a_users_cancel_does_not_make_a_shutdown_unclean() -> None:
    """What a user cancelled while the drain went on was not cut off by it, and the text does not say so."""
    manager = TaskManager(plan=ShutdownPlan(drain=50))
    await manager.open()
    task = manager.create_task(asyncio.sleep(3600), name="cancelled by hand")
    bare = manager.create_task(asyncio.sleep(3600), name="cancelled by a bare cancel()")
    manager.create_task(asyncio.sleep(2))
    await asyncio.sleep(0)
    manager.begin_shutdown()
    await manager.cancel_task(task)
    bare.cancel()
    report = await manager.shutdown()
    assert report.clean and report.exit_code == 0
    assert "deadline" not in str(report)


@virtual
async def test_told_by_a_user_and_cut_off_by_the_drain() -> None:
    """A user's stop is obeyed too slowly; the drain's end cuts the task off, and that is not clean."""
    manager = TaskManager(plan=ShutdownPlan(drain=5))
    await manager.open()
    task = manager.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    manager.stop_task(task)
    report = await manager.shutdown()
    assert not report.clean and report.counts[Outcome.CANCELLED] == 1


async def test_a_group_stopped_alone_leaves_the_others_untold() -> None:
    """One subtree stops: its tasks and its subgroups' tasks are told, nobody else is."""
    manager = TaskManager()
    await manager.open()
    seen: list[Any] = []
    group = manager.group("one")
    group.create_task(until_told(seen))
    group.group("below").create_task(until_told(seen))
    other = manager.create_task(until_told(others := []))
    await asyncio.sleep(0)
    report = await group.shutdown(5)
    assert seen == [StopReason.GROUP] * 2 and report.clean
    assert not other.done() and manager.ready
    await manager.shutdown()
    assert others == [StopReason.SHUTDOWN]


async def test_in_a_lone_group() -> None:
    """A TaskGroup without a manager tells its tasks as well."""
    seen: list[Any] = []
    async with TaskGroup() as group:
        group.create_task(until_told(seen))
        await asyncio.sleep(0)
        group.stop()
    assert seen == [StopReason.GROUP]


async def test_two_managers_do_not_tell_each_others_tasks() -> None:
    """Nested managers: the inner one's shutdown is not the outer one's, in tasks of either."""
    seen: list[Any] = []
    async with TaskManager(name="outer") as outer:
        task = outer.create_task(until_told(seen))
        async with TaskManager(name="inner") as inner:
            inner_task = inner.create_task(until_told([]))
            outer_task = outer.create_task(until_told([]))
            await asyncio.sleep(0)
            inner.begin_shutdown()
            await current_shutdown().wait()
        assert inner_task.done() and not outer_task.done() and not task.done()
        assert not current_shutdown().requested
    assert seen == [StopReason.SHUTDOWN]


# --- critical sections ---


@virtual
async def test_a_cancel_waits_for_a_critical_section() -> None:
    """Cancelled in the middle of two writes that belong together: the cancel arrives after the second."""
    loop = asyncio.get_running_loop()
    manager = TaskManager(plan=ShutdownPlan(drain=5, cancel=20))
    await manager.open()
    ledger: list[tuple[str, float]] = []

    began = loop.time()

    async def writes() -> None:
        await asyncio.sleep(4.5)  # so that the section reaches beyond the drain's end
        with current_shutdown().critical(max=4):
            await asyncio.sleep(3)
            ledger.append(("both written", loop.time() - began))
        try:
            await asyncio.sleep(3600)
        finally:
            ledger.append(("cancelled", loop.time() - began))

    manager.create_task(writes())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert [what for what, _ in ledger] == ["both written", "cancelled"]
    assert [at for _, at in ledger] == pytest.approx([7.5, 7.5], abs=ABOUT)
    assert report.counts[Outcome.CANCELLED] == 1


@virtual
async def test_a_critical_section_ends_at_its_max() -> None:
    """A section that overstays its own `max` is cancelled then, by a user's cancel too."""
    loop = asyncio.get_running_loop()
    manager = TaskManager()
    await manager.open()

    async def writes() -> None:
        with current_shutdown().critical(max=4):
            await asyncio.sleep(3600)

    task = manager.create_task(writes())
    await asyncio.sleep(1)
    began = loop.time()
    assert await manager.cancel_task(task, timeout=60) is CancelAnswer.ENDED
    assert loop.time() - began == pytest.approx(3, abs=ABOUT)
    await manager.shutdown()


@virtual
async def test_a_critical_section_never_exceeds_the_plan() -> None:
    """`max=1000` in a plan with 5 s of cancel: the cancel comes within them, with time left to clean up."""
    manager = TaskManager(plan=ShutdownPlan(drain=2, cancel=5, close=0))
    await manager.open()
    cleaned: list[str] = []

    async def writes() -> None:
        with current_shutdown().critical(max=1000):
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.5)
                cleaned.append("yes")

    manager.create_task(writes())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert cleaned == ["yes"]
    assert report.counts[Outcome.CANCELLED] == 1 and report.counts[Outcome.REFUSED] == 0
    assert report.seconds < 7


@virtual
async def test_nested_critical_sections_count_as_one() -> None:
    """Leaving the inner section does not let the cancel into the outer one."""
    manager = TaskManager(plan=ShutdownPlan(drain=0, cancel=50))
    await manager.open()
    ledger: list[str] = []

    async def writes() -> None:
        with current_shutdown().critical(max=30):
            with current_shutdown().critical(max=10):
                await asyncio.sleep(1)
            await asyncio.sleep(1)
            ledger.append("written")
        await asyncio.sleep(3600)

    manager.create_task(writes())
    await asyncio.sleep(0)
    await manager.shutdown()
    assert ledger == ["written"]


@virtual
async def test_a_second_critical_section_is_not_cut_by_the_first_ones_timer() -> None:
    """The cancel is delivered when the first section is left; nothing of it reaches the cleaning up later."""
    manager = TaskManager(plan=ShutdownPlan(drain=0, cancel=50))
    await manager.open()
    ledger: list[str] = []

    async def writes() -> None:
        try:
            with current_shutdown().critical(max=5):
                await asyncio.sleep(1)
            await asyncio.sleep(3600)
        finally:
            with current_shutdown().critical(max=30):
                await asyncio.sleep(20)
                ledger.append("cleaned up, undisturbed")

    manager.create_task(writes())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert ledger == ["cleaned up, undisturbed"] and report.counts[Outcome.CANCELLED] == 1


async def test_a_thread_may_be_critical_too() -> None:
    """A thread's section holds back being told of a user's cancel, and the cancel comes when it is left."""
    manager = TaskManager()
    await manager.open()
    entered, leave, told = threading.Event(), threading.Event(), threading.Event()

    def work() -> bool:
        shutdown = current_shutdown()
        with shutdown.critical(max=60):
            entered.set()
            leave.wait(30)
            early = shutdown.requested
        if shutdown.wait_sync(30):
            told.set()
        return early

    task = manager.run_in_thread(work)
    await asyncio.to_thread(entered.wait, 30)
    asking = asyncio.create_task(manager.cancel_task(task, timeout=30))
    await asyncio.sleep(0)
    leave.set()
    assert await asking is CancelAnswer.ENDED
    assert told.is_set() and task.cancelled()
    await manager.shutdown()
