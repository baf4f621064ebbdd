"""What our TaskGroup does beyond asyncio's: isolation, life without a block, subtrees, orders of stopping."""

import asyncio
import gc
import weakref

import pytest

from lastcall import (
    DuplicateTask,
    Outcome,
    ShutdownPlan,
    ShuttingDown,
    StopReason,
    TaskGroup,
    TaskManager,
    TaskStatus,
    current_shutdown,
)

virtual = pytest.mark.loops("virtual")


class Boom(Exception):
    pass


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def value(result: object) -> object:
    return result


async def fail(text: str = "boom") -> None:
    raise Boom(text)


async def until_told() -> StopReason | None:
    await current_shutdown().wait()
    return current_shutdown().reason


def errors_of(manager_errors: list[BaseException]) -> list[str]:
    return [str(error) for error in manager_errors]


# --- whose tasks ---


async def test_a_lone_group_inside_a_manager_is_tracked_by_it() -> None:
    """Code that knows nothing of the manager makes a TaskGroup in its context: its tasks are listed and counted."""
    async with TaskManager() as manager:
        async with TaskGroup(name="lone") as group:
            group.create_task(value(1), id="inside")
        assert manager.info("inside").group == "lone"

        async def deeper() -> None:
            async with TaskGroup() as group:
                group.create_task(value(2), id="deeper")

        await manager.create_task(deeper())
        assert manager.info("deeper").status is TaskStatus.COMPLETED
        assert manager.stats().completed == 3


async def test_a_group_outside_is_nobodys() -> None:
    """Before the manager's block and after it, a TaskGroup stands alone and works as asyncio's."""
    manager = TaskManager()
    async with TaskGroup() as before:
        assert await before.create_task(value(1)) == 1
    async with manager:
        pass
    async with TaskGroup() as after:
        assert await after.create_task(value(2)) == 2
    assert manager.stats().completed == 0


@virtual
async def test_a_lone_group_drains_with_its_manager() -> None:
    """A task with a TaskGroup of its own is draining: its children are told, and new children are let in."""

    async def parent() -> list[object]:
        async with TaskGroup() as group:
            first = group.create_task(until_told())
            await current_shutdown().wait()
            late = group.create_task(value("late"))
        return [first.result(), late.result()]

    async with TaskManager() as manager:
        task = manager.create_task(parent())
        await turns()
    assert task.result() == [StopReason.SHUTDOWN, "late"]
    assert manager.report is not None and manager.report.clean


# --- errors ---


async def test_cancel_in_a_block() -> None:
    """As asyncio: one fails, the others are cancelled by the group, the block raises, nobody else reports."""
    told: list[BaseException] = []
    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        with pytest.raises(ExceptionGroup) as raised:
            async with manager.group() as group:
                other = group.create_task(asyncio.sleep(3600), id="other")
                await turns()
                group.create_task(fail("the one"))
                await asyncio.sleep(3600)
        assert errors_of(list(raised.value.exceptions)) == ["the one"]
        assert other.cancelled() and manager.info("other").reason is StopReason.GROUP
        assert told == []
        assert manager.stats().failed == 1


async def test_isolate_in_a_block() -> None:
    """Two of five fail: the others end normally, the block ends normally, each failure is told once."""
    told: list[BaseException] = []
    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        async with manager.group(on_error="isolate") as group:
            tasks = [group.create_task(fail(str(n)) if n % 2 else value(n)) for n in range(5)]
        assert [task.result() for task in tasks[::2]] == [0, 2, 4]
        assert errors_of(told) == ["1", "3"]


async def test_isolate_raises_what_the_body_raises() -> None:
    """The body of an isolating block fails: its own exception leaves it, unwrapped, and its tasks are cancelled."""
    async with TaskManager(on_error=lambda info, error: None) as manager:
        with pytest.raises(Boom, match="body"):
            async with manager.group(on_error="isolate") as group:
                task = group.create_task(asyncio.sleep(3600))
                await turns()
                raise Boom("body")
        assert task.cancelled()


async def test_cancel_without_a_block() -> None:
    """A long-lived group whose member fails: its members are cancelled, the error is told once, and it lives on."""
    told: list[BaseException] = []
    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        group = manager.group("long")
        for round in range(3):
            others = [group.create_task(asyncio.sleep(3600)) for _ in range(3)]
            await turns()
            bad = group.create_task(fail(f"round {round}"))
            await asyncio.wait({bad, *others})
            await turns()
            assert all(task.cancelled() for task in others)
        assert errors_of(told) == ["round 0", "round 1", "round 2"]
        assert await group.create_task(value("alive")) == "alive"
        assert not group.tasks


async def test_two_fail_at_once_without_a_block() -> None:
    """The second failure comes while the first one's cancels are under way; both are told."""
    told: list[BaseException] = []
    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        group = manager.group()
        go = asyncio.Event()

        async def fail_at(number: int) -> None:
            await go.wait()
            raise Boom(str(number))

        tasks = [group.create_task(fail_at(n)) for n in range(3)]
        await turns()
        go.set()
        await asyncio.wait(tasks)
        await turns()
        assert errors_of(told) == ["0", "1", "2"]


async def test_a_failing_subgroup_stays_inside() -> None:
    """A subgroup's member fails: the subgroup's others are cancelled, the group above goes on."""
    async with TaskManager(on_error=lambda info, error: None) as manager:
        above = manager.group("above")
        below = above.group("below")
        kept, lost = above.create_task(until_told()), below.create_task(asyncio.sleep(3600))
        await turns()
        below.create_task(fail())
        await asyncio.wait({lost})
        assert lost.cancelled() and not kept.done()
        above.stop()
        assert await kept is StopReason.GROUP


async def test_a_block_waits_for_its_subgroups() -> None:
    """Work started in a group below a block is over when the block is."""
    async with TaskManager() as manager:
        async with manager.group() as above:
            task = above.group("below").create_task(turns(20))
            await turns()
        assert task.done()


async def test_a_long_lived_group_keeps_nothing_of_its_failures() -> None:
    """A thousand members fail in each kind of group: neither errors nor tasks stay in it."""

    class Payload:
        pass

    async def fail_with(payload: Payload) -> None:
        raise Boom(payload)

    async with TaskManager(on_error=lambda info, error: None, keep_ended=0) as manager:
        for group in (
            manager.group(on_error="isolate"),
            manager.group(),
            manager.group(limit=2, on_error="isolate"),
        ):
            refs: list[weakref.ref[Payload]] = []
            for _ in range(100):
                payload = Payload()
                refs.append(weakref.ref(payload))
                await asyncio.wait({group.create_task(fail_with(payload))})
            del payload
            await turns()
            gc.collect()
            assert [ref for ref in refs if ref() is not None] == []
            assert not group.tasks and not group._errors and not group._slots.gates and not group._slots.gated


# --- stopping a subtree ---


@virtual
async def test_stop_tells_the_subtree_only() -> None:
    """Three levels: stopping the middle tells it and what is below, with reason `group`; the rest goes on."""
    async with TaskManager() as manager:
        top = manager.group("top")
        middle = top.group("middle")
        bottom = middle.group("bottom", limit=1)
        tasks = [group.create_task(until_told()) for group in (top, middle, bottom)]
        await turns()
        middle.stop()
        assert [await task for task in tasks[1:]] == [StopReason.GROUP] * 2
        assert not tasks[0].done()
        for group in (middle, bottom):
            with pytest.raises(ShuttingDown):
                group.create_task(value(1))
        assert await top.create_task(value(2)) == 2
        top.stop()
        await tasks[0]


@virtual
async def test_a_stopping_group_lets_children_in() -> None:
    """While its group stops, a task that is draining may still start children there; others may not."""

    async def parent() -> object:
        await current_shutdown().wait()
        return await group.create_task(value("child"))

    async with TaskManager() as manager:
        group = manager.group()
        task = group.create_task(parent())
        await turns()
        group.stop()
        assert await task == "child"
        with pytest.raises(ShuttingDown):
            group.create_task(value(1))


@virtual
async def test_shutdown_tells_waits_cancels_and_reports() -> None:
    """One ends when told, one finishes in time, one overstays: each outcome is in the report, in bounded time."""
    loop = asyncio.get_running_loop()
    async with TaskManager() as manager:
        group = manager.group("mixed")
        below = group.group("below")
        group.create_task(until_told(), name="listens")
        group.create_task(asyncio.sleep(3), name="finishes")
        below.create_task(asyncio.sleep(3600), name="overstays")
        outside = manager.create_task(until_told())
        await turns()
        began = loop.time()
        report = await group.shutdown(timeout=10)
        assert loop.time() - began == pytest.approx(10)
        assert {task.name: task.outcome for task in report.tasks} == {
            "listens": Outcome.STOPPED,
            "finishes": Outcome.FINISHED,
            "overstays": Outcome.CANCELLED,
        }
        assert not report.clean and report.reason is StopReason.GROUP and report.name == "mixed"
        assert not outside.done() and manager.ready


@virtual
async def test_shutdown_names_who_refuses() -> None:
    """A member swallows its cancel: the report comes in time, with its stack."""
    release = asyncio.Event()

    async def mule() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    loop = asyncio.get_running_loop()
    async with TaskManager() as manager:
        group = manager.group("stubborn")
        task = group.create_task(mule())
        await turns()
        began = loop.time()
        report = await group.shutdown(timeout=2, cancel_seconds=1)
        assert loop.time() - began == pytest.approx(3)
        assert [entry.outcome for entry in report.tasks] == [Outcome.REFUSED]
        assert any("mule" in line for line in report.tasks[0].stack)
        release.set()
        await asyncio.wait({task})


@virtual
async def test_shutdown_twice_and_at_once() -> None:
    """Asked again, by two at a time, or with nothing there: each gets a report, and it costs no time."""
    async with TaskManager() as manager:
        empty = manager.group()
        assert (await empty.shutdown()).clean and (await empty.shutdown()).clean
        group = manager.group()
        group.create_task(asyncio.sleep(2))
        reports = await asyncio.gather(group.shutdown(30), group.shutdown(30))
        assert [report.counts[Outcome.FINISHED] for report in reports] == [1, 1]


@virtual
async def test_shutdown_with_no_time_at_all() -> None:
    """timeout=0: a willing task is cancelled and ends; it is not called a refuser."""
    async with TaskManager() as manager:
        group = manager.group()
        group.create_task(asyncio.sleep(3600))
        await turns()
        report = await group.shutdown(timeout=0, cancel_seconds=0)
        assert report.counts[Outcome.CANCELLED] == 1 and report.counts[Outcome.REFUSED] == 0


@virtual
async def test_a_member_cannot_wait_for_its_own_shutdown() -> None:
    """A task asks its own group to shut down and would wait for itself: it is told so, at once."""

    async def member(group: TaskGroup) -> None:
        await asyncio.sleep(1)
        await group.shutdown()

    async with TaskManager(on_error=lambda info, error: None) as manager:
        top = manager.group("top")
        task = top.group("below").create_task(member(top))
        await asyncio.wait({task})
        assert isinstance(task.exception(), RuntimeError)
        assert "stop()" in str(task.exception())


@virtual
async def test_a_cancelled_caller_of_shutdown_is_cancelled() -> None:
    """Who waits for a group's shutdown is cancelled: the members end, and the cancellation is not swallowed."""
    loop = asyncio.get_running_loop()
    async with TaskManager() as manager:
        group = manager.group()
        member = group.create_task(asyncio.sleep(3600))
        await turns()
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await group.shutdown(timeout=100)
        assert loop.time() - began == pytest.approx(1)
        assert member.cancelled()
        caller = manager.create_task(manager.group().shutdown())
        await caller
        again = manager.group()
        again.create_task(asyncio.sleep(3600))
        await turns()
        caller = manager.create_task(again.shutdown())
        await turns()
        await manager.cancel_task(caller)
        assert caller.cancelled() and manager.stats().swallowed == 0


# --- the order ---


@virtual
async def test_stop_after() -> None:
    """Producers, then workers, then writers: each is told when those before it are empty."""
    loop = asyncio.get_running_loop()
    told: dict[str, float] = {}

    async def work(name: str, seconds: float) -> None:
        await current_shutdown().wait()
        told[name] = loop.time() - began
        await asyncio.sleep(seconds)

    manager = TaskManager(plan=ShutdownPlan(drain=100))
    async with manager:
        producers = manager.group("producers")
        workers = manager.group("workers", stop_after=[producers])
        writers = manager.group("writers", stop_after=["workers", producers])
        writers.create_task(work("writer", 1))
        workers.create_task(work("worker", 2))
        producers.create_task(work("producer", 3))
        await turns()
        began = loop.time()
    assert told == {"producer": pytest.approx(0), "worker": pytest.approx(3), "writer": pytest.approx(5)}
    assert manager.report is not None and manager.report.clean
    assert manager.report.seconds == pytest.approx(6)


@virtual
async def test_order_is_a_luxury_of_those_who_have_time() -> None:
    """The first group never ends: at the end of the drain the second is told all the same, before its cancel."""
    seen: list[object] = []

    async def late() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append(current_shutdown().requested)
            raise

    manager = TaskManager(plan=ShutdownPlan(drain=5))
    async with manager:
        first = manager.group("first")
        manager.group("second", stop_after=[first]).create_task(late())
        first.create_task(asyncio.sleep(3600))
        await turns()
    assert seen == [True]
    assert manager.report is not None and manager.report.counts[Outcome.CANCELLED] == 2


async def test_names_of_groups() -> None:
    """A live group's name is taken; once it is over or gone it is free. Unknown predecessors are named."""
    async with TaskManager() as manager:
        group = manager.group("mine")
        group.create_task(until_told())
        await turns()
        with pytest.raises(DuplicateTask, match="mine"):
            manager.group("mine")
        with pytest.raises(ValueError, match="ghost"):
            manager.group("late", stop_after=["ghost"])
        with pytest.raises(ValueError, match="name"):
            manager.group("late", stop_after=[manager.group()])
        with pytest.raises(ValueError, match="name"):
            manager.group(stop_after=[group])
        await group.shutdown()
        assert manager.group("mine") is not group


async def test_a_dropped_group_takes_everything_along() -> None:
    """Groups made and forgotten, a thousand times: neither the manager nor the stop tree remembers them."""
    async with TaskManager(keep_ended=0) as manager:
        for number in range(1000):
            group = manager.group(f"g{number}")
            below = group.group("below")
            await below.create_task(value(1))
            await group.create_task(value(1))
        del group, below
        await turns()
        gc.collect()
        assert len(manager._groups) == 0
        assert not manager._roster.node._children


async def test_after_a_block_its_subgroups_take_nothing() -> None:
    """The block is over: what would start in a group below it would be waited for by nobody, and is refused."""
    async with TaskManager() as manager:
        async with manager.group() as above:
            below = above.group("below").group("deeper")
        with pytest.raises(ShuttingDown, match="deeper"):
            below.create_task(value(1))


async def test_a_failing_block_cancels_its_subgroups() -> None:
    """The block's own task fails: what runs two groups below is cancelled, and over when the block raises."""
    async with TaskManager() as manager:
        with pytest.raises(ExceptionGroup):
            async with manager.group() as above:
                deep = above.group().group().create_task(asyncio.sleep(3600))
                await turns()
                above.create_task(fail())
        assert deep.cancelled()
