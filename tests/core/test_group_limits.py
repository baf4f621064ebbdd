"""A limit: so many run, the rest wait in order, a bound on the waiting, and nobody waits for ever."""

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall import CancelAnswer, GroupFull, ShuttingDown, TaskGroup, TaskManager, TaskStatus
from tests.support.loops import run_checked


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def value(result: object) -> object:
    return result


async def test_never_more_than_the_limit_and_first_come_first_served() -> None:
    """A hundred tasks behind a limit of three start in the order they came, three at a time, all of them."""
    started: list[int] = []
    running = most = 0

    async def work(number: int) -> None:
        nonlocal running, most
        started.append(number)
        running += 1
        most = max(most, running)
        await turns(6 + number % 3)
        running -= 1

    async with TaskManager() as manager:
        async with manager.group(limit=3) as group:
            for number in range(100):
                group.create_task(work(number))
        assert started == list(range(100)) and most == 3
        assert manager.stats().completed == 100 and group.pending == 0


async def test_pending_has_its_status_and_becomes_running() -> None:
    """Behind the limit: pending, without a start time, counted; then running, with one."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group("one", limit=1)
        first, second = group.create_task(go.wait()), group.create_task(value(2))
        await turns()
        assert isinstance(second, asyncio.Task)
        waiting = manager.info(second)
        assert waiting.status is TaskStatus.PENDING and waiting.started_at is None
        assert waiting.name.endswith("value")
        stats = manager.stats()
        assert (stats.pending, stats.running) == (1, 1) and group.pending == 1
        assert [info.id for info in manager.tasks(status="pending")] == [waiting.id]
        go.set()
        assert await second == 2
        await first
        assert manager.info(second).started_at is not None
        assert manager.info(second).status is TaskStatus.COMPLETED


async def test_max_pending_refuses() -> None:
    """Two run, three wait, the sixth is refused with the numbers in the message and its coroutine closed."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group("full", limit=2, max_pending=3)
        tasks = [group.create_task(go.wait()) for _ in range(5)]
        with pytest.raises(GroupFull, match=r"full.*2 run.*limit 2.*3 wait.*max_pending 3"):
            group.create_task(value(6))
        await turns()
        assert manager.stats().running == 2 and manager.stats().pending == 3
        go.set()
        await asyncio.wait(tasks)
        await turns()
        assert await group.create_task(value(7)) == 7


async def test_no_pending_at_all() -> None:
    """max_pending=0: what cannot run now is refused, or waits in the caller."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1, max_pending=0)
        group.create_task(go.wait())
        with pytest.raises(GroupFull):
            group.create_task(value(1))
        spawning = asyncio.create_task(group.spawn(value(2)))
        await turns()
        assert not spawning.done() and group.pending == 0
        go.set()
        assert await (await spawning) == 2


async def test_spawn_is_back_pressure() -> None:
    """A producer of a thousand items is never more than the bound ahead of its consumers."""
    ahead = 0
    async with TaskManager(keep_ended=0) as manager:
        async with manager.group(limit=2, max_pending=3) as group:
            for _ in range(1000):
                await group.spawn(turns(1))
                ahead = max(ahead, len(group.tasks))
        assert ahead == 5
        assert manager.stats().completed == 1000


async def test_spawners_that_give_up_are_forgotten() -> None:
    """A thousand spawners time out on a group that stays full: none of them leaves anything in it."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1, max_pending=0)
        group.create_task(go.wait())
        spawning = [asyncio.create_task(group.spawn(value(n))) for n in range(1000)]
        await turns()
        for task in spawning:
            task.cancel()
        await asyncio.wait(spawning)
        assert len(group._slots.rooms) == 0
        go.set()
        await turns()
        assert await (await group.spawn(value("next"))) == "next"


async def test_spawners_that_wait_when_the_group_stops_are_all_refused() -> None:
    """Three wait for room, the group is stopped, its one task ends: all three hear ShuttingDown, none waits on."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1, max_pending=0)
        group.create_task(go.wait())
        spawning = [asyncio.create_task(group.spawn(value(n))) for n in range(3)]
        await turns()
        group.stop()
        go.set()
        done, pending = await asyncio.wait(spawning, timeout=5)
        for task in pending:
            task.cancel()
        assert not pending
        assert [type(task.exception()) for task in spawning] == [ShuttingDown] * 3


async def test_a_spawn_that_fails_passes_its_room_on() -> None:
    """The first in the queue is refused for a bad id; the second gets the room."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1, max_pending=0)
        group.create_task(go.wait(), id="taken")
        bad = asyncio.create_task(group.spawn(value(1), id="taken"))
        good = asyncio.create_task(group.spawn(value(2)))
        await turns()
        go.set()
        done, pending = await asyncio.wait({bad, good}, timeout=5)
        for task in pending:
            task.cancel()
        assert not pending
        assert isinstance(bad.exception(), ValueError)
        assert await good.result() == 2


async def test_a_cancelled_spawner_passes_its_room_on() -> None:
    """Woken for the free slot and cancelled in the same turn: the next in the queue is woken instead."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1, max_pending=0)
        first = group.create_task(go.wait())
        one, two = (asyncio.create_task(group.spawn(value(n))) for n in (1, 2))
        await turns()
        go.set()
        first.add_done_callback(lambda task: one.cancel())
        done, pending = await asyncio.wait({one, two}, timeout=5)
        for task in pending:
            task.cancel()
        assert not pending
        assert await two.result() == 2


async def test_cancel_the_first_in_the_queue() -> None:
    """Those who wait are cancelled from both ends; the rest run, in order."""
    started: list[int] = []

    async def work(number: int) -> None:
        started.append(number)

    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1)
        group.create_task(go.wait())
        waiting = [group.create_task(work(number)) for number in range(6)]
        for number in (0, 5, 3):
            assert await manager.cancel_task(waiting[number]) is CancelAnswer.ENDED
        assert group.pending == 3
        go.set()
        await asyncio.wait(waiting)
        assert started == [1, 2, 4]


async def test_cancelled_between_its_gate_and_its_first_step() -> None:
    """The slot was just given to it: the cancel takes it back and the next one runs."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1)
        first = group.create_task(go.wait())
        second, third = group.create_task(value(2)), group.create_task(value(3))
        await turns()
        first.add_done_callback(lambda task: second.cancel())
        go.set()
        assert await third == 3
        assert second.cancelled() and group._slots.running == 0


async def test_mass_cancellation_costs_each_task_once() -> None:
    """Ten thousand wait and all are cancelled: the queue is asked a bounded number of times per task."""

    async with TaskManager(keep_ended=0) as manager:
        go = asyncio.Event()
        group = manager.group(limit=1, on_error="isolate")
        group.create_task(go.wait())
        waiting = [group.create_task(value(n)) for n in range(10_000)]
        await turns()
        asked = 0
        gates = group._slots.gates

        class Gates(type(gates)):  # type: ignore[misc]
            def pop(self, *args: object) -> object:
                nonlocal asked
                asked += 1
                return super().pop(*args)

            def popitem(self, last: bool = True) -> object:
                nonlocal asked
                asked += 1
                return super().popitem(last=last)

        group._slots.gates = Gates(gates)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await turns()
        assert asked <= 2 * len(waiting)
        assert group.pending == 0 and group._slots.running == 1 and not group._slots.gated
        go.set()
        await turns()
        assert group._slots.running == 0 and not group.tasks


async def test_shutdown_of_a_full_group_is_bounded_work() -> None:
    """Ten thousand wait when their group is told to end now: all are cancelled, none runs, the report counts them."""
    async with TaskManager(keep_ended=0) as manager:
        group = manager.group(limit=1, on_error="isolate")
        for _ in range(10_000):
            group.create_task(asyncio.sleep(3600))
        report = await group.shutdown(timeout=0)
        assert manager.stats().cancelled == 10_000
        assert sum(report.counts.values()) == 10_000 and not group.tasks


async def test_pending_may_run_while_its_group_shuts_down() -> None:
    """What was accepted runs, if there is time: a shutdown lets the queue empty itself."""
    async with TaskManager() as manager:
        group = manager.group(limit=1)
        tasks = [group.create_task(value(n)) for n in range(20)]
        report = await group.shutdown(timeout=30)
        assert report.clean and [task.result() for task in tasks] == list(range(20))


async def test_a_failing_task_frees_its_slot() -> None:
    """Isolated failures, one after the other, do not use the limit up."""
    async with TaskManager(on_error=lambda info, error: None) as manager:
        group = manager.group(limit=2, on_error="isolate")

        async def fail() -> None:
            raise ValueError

        tasks = [group.create_task(fail()) for _ in range(50)]
        last = group.create_task(value("last"))
        assert await last == "last"
        await asyncio.wait(tasks)
        assert manager.stats().failed == 50 and group._slots.running == 0


async def test_a_limit_without_a_manager() -> None:
    """A lone TaskGroup has the limit too, and its first failure cancels those who wait, unstarted."""
    ran: list[int] = []

    async def work(number: int) -> None:
        ran.append(number)
        await asyncio.sleep(0)
        raise ValueError(number)

    with pytest.raises(ExceptionGroup) as raised:
        async with TaskGroup(limit=1) as group:
            for number in range(5):
                group.create_task(work(number))
    assert ran == [0]
    assert [str(error) for error in raised.value.exceptions] == ["0"]


# --- no lost wake-up, whatever the order ---

steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "spawn", "finish", "cancel", "cancel spawn", "turn"]), st.integers(0, 30)
    ),
    max_size=60,
)


@given(limit=st.integers(1, 3), max_pending=st.one_of(st.none(), st.integers(0, 2)), steps=steps)
def test_no_wake_up_is_lost(limit: int, max_pending: int | None, steps: list[tuple[str, int]]) -> None:
    """Tasks come, end and are cancelled in any order: who waits while there is room gets it, the books balance."""

    async def main() -> None:
        async with TaskManager() as manager:
            group = manager.group(limit=limit, max_pending=max_pending)
            gates: deque[asyncio.Event] = deque()
            tasks: list[asyncio.Task[None]] = []
            spawning: list[asyncio.Task[asyncio.Task[None]]] = []

            async def work() -> None:
                gate = asyncio.Event()
                gates.append(gate)
                await gate.wait()

            async def spawn() -> asyncio.Task[None]:
                return await group.spawn(work())

            for step, number in steps:
                if step == "create":
                    try:
                        tasks.append(group.create_task(work()))
                    except GroupFull:
                        assert group._slots.running >= limit and group.pending >= (max_pending or 0)
                elif step == "spawn":
                    spawning.append(asyncio.create_task(spawn()))
                elif step == "finish" and gates:
                    gates.popleft().set()
                elif step == "cancel" and tasks:
                    tasks[number % len(tasks)].cancel()
                elif step == "cancel spawn" and spawning:
                    spawning[number % len(spawning)].cancel()
                else:
                    await asyncio.sleep(0)
                assert group._slots.running <= limit
            await turns(10)
            # At rest: if somebody waits, every slot is taken.
            waiting = [task for task in spawning if not task.done()]
            if waiting or group.pending:
                assert group._slots.running == limit
            if waiting:
                assert group.pending == max_pending
            # And everybody who waits gets his turn.
            for _ in range(len(tasks) + len(spawning) + 1):
                while gates:
                    gates.popleft().set()
                await turns(10)
            assert all(task.done() for task in (*tasks, *spawning))
            assert (
                group._slots.running == 0
                and group.pending == 0
                and not group._slots.gated
                and not group._slots.rooms
            )
            assert not group.tasks

    run_checked(main, timeout=20)
