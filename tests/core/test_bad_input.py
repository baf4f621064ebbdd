"""Bad input gets a clear error that names the thing, changes nothing, and leaves no coroutine un-awaited.

That nothing warns "never awaited" is checked after every test by the runner itself.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lastcall import (
    DuplicateTask,
    InvalidPlan,
    ManagerClosed,
    ManagerState,
    NotACoroutine,
    NotOpen,
    ShutdownPlan,
    ShuttingDown,
    TaskGroup,
    TaskManager,
    UnknownTask,
    WrongLoop,
    current_shutdown,
    run,
)
from tests.support.loops import LoopFactory

Creator = Callable[[Any], Any]

IMPOSSIBLE_SECONDS: list[Any] = [-1, -0.001, math.nan, math.inf, -math.inf, True, "5", None]
IMPOSSIBLE_COUNTS: list[Any] = [-1, math.nan, math.inf, 1.5, True, "5"]


async def value(result: object = None) -> object:
    return result


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- not a coroutine ---


@pytest.mark.parametrize(
    "wrong",
    [value, 42, None, "text", lambda: None, asyncio.sleep],
    ids=lambda it: getattr(it, "__name__", repr(it)),
)
async def test_not_a_coroutine(wrong: object) -> None:
    """Something else in place of a coroutine: the error shows it; a function gets the hint to call it."""
    async with TaskManager() as manager:
        for create in (manager.create_task, manager.group().create_task, manager.group(limit=1).create_task):
            with pytest.raises(NotACoroutine) as raised:
                create(wrong)  # type: ignore[operator]
            assert repr(wrong) in str(raised.value)
            assert ("create_task(f())" in str(raised.value)) is callable(wrong)
        assert manager.tasks() == [] and manager.stats().running == 0


async def test_futures_and_generators_are_not_coroutines() -> None:
    """Awaitables that no task can run, an async generator among them."""

    async def generator() -> Any:
        yield 1

    async with TaskManager() as manager:
        task = asyncio.create_task(value())
        for wrong in (task, generator(), asyncio.get_running_loop().create_future()):
            with pytest.raises(NotACoroutine):
                manager.create_task(wrong)  # type: ignore[arg-type]
        await task


async def test_a_coroutine_that_runs_already() -> None:
    """It belongs to another task, suspended or running itself: refused, and left alone, so that it ends as planned."""
    async with TaskManager() as manager:
        go = asyncio.Event()

        async def waiting() -> str:
            await go.wait()
            return "undisturbed"

        coro = waiting()
        task = manager.create_task(coro)
        await turns()
        for create in (manager.create_task, manager.group().create_task):
            with pytest.raises(NotACoroutine, match="already runs"):
                create(coro)

        async def itself() -> None:
            with pytest.raises(NotACoroutine, match="already runs"):
                manager.create_task(own)

        own = itself()
        await own
        go.set()
        assert await task == "undisturbed"
        assert manager.stats().completed == 1


# --- loops ---


def test_no_running_loop(loop_factory: LoopFactory) -> None:
    """Called where no loop runs, although the manager is open on one that rests: refused, coroutine closed."""
    manager = TaskManager()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(manager.open())
        with pytest.raises(WrongLoop):
            manager.create_task(value())
        with pytest.raises(WrongLoop):
            manager.run_in_thread(int)
        with pytest.raises(WrongLoop):
            manager.group().create_task(value())
        runner.run(manager.shutdown())


async def test_another_loop() -> None:
    """A thread with a loop of its own uses the manager: each verb says whose it is, and nothing is half done."""
    async with TaskManager(name="mine") as manager:
        task = manager.create_task(asyncio.sleep(3600))
        group = manager.group()
        errors: list[BaseException] = []

        async def foreign() -> None:
            for attempt in (
                lambda: manager.create_task(value()),
                lambda: group.create_task(value()),
                lambda: manager.run_in_thread(int),
            ):
                with pytest.raises(WrongLoop):
                    attempt()
            with pytest.raises(WrongLoop):
                await manager.cancel_task(task)
            with pytest.raises(WrongLoop):
                await manager.shutdown()
            with pytest.raises(NotACoroutine):
                manager.create_task(asyncio.get_running_loop().create_future())  # type: ignore[arg-type]

        def thread() -> None:
            try:
                asyncio.run(foreign())
            except BaseException as error:
                errors.append(error)

        worker = threading.Thread(target=thread)
        worker.start()
        while worker.is_alive():
            await asyncio.sleep(0.001)
        assert errors == []
        assert not task.done() and manager.state is ManagerState.OPEN and manager.stats().running == 1
        task.cancel()


async def test_a_task_of_another_loop_is_unknown() -> None:
    """Somebody hands in a task that belongs to another loop: unknown, by a clear answer, and it is not touched."""
    other = asyncio.new_event_loop()
    try:
        foreign = other.create_task(value(7))
        async with TaskManager() as manager:
            assert await manager.cancel_task(foreign) == "unknown"
            with pytest.raises(UnknownTask):
                manager.info(foreign)
        await asyncio.get_running_loop().run_in_executor(None, other.run_until_complete, foreign)
        assert foreign.result() == 7
    finally:
        other.close()


# --- when ---

VERBS: dict[str, Creator] = {
    "create_task": lambda manager: manager.create_task(value()),
    "run_in_thread": lambda manager: manager.run_in_thread(int),
    "group": lambda manager: manager.group("late"),
    "service": lambda manager: manager.service(value),
    "on_close": lambda manager: manager.on_close(print),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_before_it_is_opened(verb: str) -> None:
    """A manager that was never opened: NotOpen, with its name and what to do."""
    manager = TaskManager(name="sleepy")
    with pytest.raises(NotOpen, match=r"sleepy.*async with"):
        VERBS[verb](manager)
    assert manager.state is ManagerState.NEW


@pytest.mark.parametrize("verb", VERBS)
async def test_after_it_has_closed(verb: str) -> None:
    """A manager whose block was left: ManagerClosed, also for what had been made before."""
    async with TaskManager() as manager:
        group = manager.group()
    with pytest.raises(ManagerClosed):
        VERBS[verb](manager)
    with pytest.raises((ManagerClosed, ShuttingDown)):
        group.create_task(value())
    assert manager.stats().completed == 0


async def test_asking_before_it_is_opened() -> None:
    """The verbs that look and the ones that end: NotOpen as well, not an AttributeError from the depths."""
    manager = TaskManager()
    for ask in (manager.tasks, manager.stats, manager.calls, manager.begin_shutdown):
        with pytest.raises(NotOpen):
            ask()
    with pytest.raises(NotOpen):
        manager.info("t-1")
    with pytest.raises(NotOpen):
        manager.stop_task("t-1")
    for wait in (manager.cancel_task("t-1"), manager.shutdown()):
        with pytest.raises(NotOpen):
            await wait
    manager.force()
    assert manager.report is None and not manager.ready and "new" in repr(manager)


async def test_opened_twice() -> None:
    """Open is open: the second is refused, the first goes on undisturbed."""
    async with TaskManager(name="busy") as manager:
        task = manager.create_task(current_shutdown().wait())
        with pytest.raises(RuntimeError, match="busy"):
            await manager.open()
        with pytest.raises(RuntimeError, match="busy"):
            async with manager:
                raise AssertionError("entered")
        assert manager.state is ManagerState.OPEN and not task.done()
        assert manager.create_task(turns()) in asyncio.all_tasks()
        task.cancel()


async def test_new_work_while_stopping() -> None:
    """The manager drains: new work from outside is refused and its coroutine closed; the report counts it."""
    go = asyncio.Event()
    manager = TaskManager()
    await manager.open()
    manager.create_task(go.wait())
    manager.begin_shutdown()
    for verb in ("create_task", "run_in_thread", "group", "service"):
        with pytest.raises(ShuttingDown):
            VERBS[verb](manager)
    go.set()
    report = await manager.shutdown()
    assert report.late_births_refused == 3 and report.clean


async def test_a_group_outside_its_block() -> None:
    """Not entered, entered twice, already left: each refused, by asyncio's own kind of error."""
    group = TaskGroup()
    with pytest.raises(RuntimeError, match="not been entered"):
        group.create_task(value())
    with pytest.raises(RuntimeError, match="not been entered"):
        await group.spawn(value())
    with pytest.raises(RuntimeError, match="not been entered"):
        group.group("below")
    with pytest.raises(RuntimeError, match="not been entered"):
        group.stop()
    with pytest.raises(RuntimeError, match="not been entered"):
        await group.shutdown()
    async with group:
        with pytest.raises(RuntimeError, match="already been entered"):
            await group.__aenter__()
    with pytest.raises(RuntimeError, match="finished"):
        group.create_task(value())
    await turns()


# --- ids ---


async def test_ids_that_cannot_be() -> None:
    """Taken, empty, or of the manager's own form: refused by the id itself, before anything starts."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        first = manager.create_task(go.wait(), id="mine")
        grouped = manager.group(limit=1)
        creators: list[Callable[[str], Any]] = [
            lambda id: manager.create_task(value(), id=id),
            lambda id: grouped.create_task(value(), id=id),
            lambda id: manager.run_in_thread(int, id=id),
        ]
        for create in creators:
            for id in ("mine", "", "t-1", "t-77"):
                with pytest.raises(DuplicateTask, match=repr(id)):
                    create(id)
        assert len(manager.tasks()) == 1 and grouped._slots.running == 0
        go.set()
        await first
        with pytest.raises(DuplicateTask):
            manager.create_task(value(), id="mine")
        assert await manager.create_task(value(1), id="t-like") == 1


async def test_an_id_is_taken_from_the_first_step() -> None:
    """A task's own first step, eager maybe, tries to make another of the same id: refused, and the first is found."""
    async with TaskManager() as manager:

        async def selfish() -> None:
            with pytest.raises(DuplicateTask):
                manager.create_task(value(), id="one")

        task = manager.create_task(selfish(), id="one")
        await task
        assert len(manager.tasks()) == 1


async def test_unknown_words() -> None:
    """A status, kind or reason that does not exist: ValueError that shows it; an unknown id: UnknownTask."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        task = manager.create_task(go.wait())
        with pytest.raises(ValueError, match="finished"):
            manager.tasks(status="finished")
        with pytest.raises(ValueError, match="process"):
            manager.tasks(kind="process")
        for wrong in ("because", None):
            with pytest.raises(ValueError):
                await manager.cancel_task(task, reason=wrong)  # type: ignore[arg-type]
            with pytest.raises(ValueError):
                manager.stop_task(task, reason=wrong)  # type: ignore[arg-type]
        for unknown in ("nobody", "t-0", "t-99", ""):
            with pytest.raises(UnknownTask, match=repr(unknown)):
                manager.info(unknown)
        go.set()
        await task
        assert manager.info(task).status == "completed" and manager.info(task).reason is None


# --- numbers ---


@pytest.mark.parametrize("seconds", IMPOSSIBLE_SECONDS, ids=repr)
async def test_impossible_seconds(seconds: Any) -> None:
    """Negative, NaN, endless, a bool, a word: InvalidPlan wherever seconds are taken, and nothing was done."""
    for name in ("notice", "drain", "cancel", "close", "total"):
        if name == "total" and seconds is None:
            continue
        with pytest.raises(InvalidPlan, match=name):
            ShutdownPlan(**{name: seconds})
    with pytest.raises(InvalidPlan, match="keep_ended_seconds"):
        TaskManager(keep_ended_seconds=seconds)
    async with TaskManager() as manager:
        go = asyncio.Event()
        task = manager.create_task(go.wait())
        group = manager.group()
        member = group.create_task(go.wait())
        attempts: list[Coroutine[Any, Any, Any]] = [
            manager.cancel_task(task, timeout=seconds),
            group.shutdown(timeout=seconds),
            group.shutdown(cancel_seconds=seconds),
            current_shutdown().sleep(seconds),
        ]
        for attempt in attempts:
            with pytest.raises(InvalidPlan):
                await attempt
        with pytest.raises(InvalidPlan):
            with current_shutdown().critical(max=seconds):
                raise AssertionError("entered")
        if seconds is not None:
            with pytest.raises(InvalidPlan):
                manager.hold("request", grace_seconds=seconds)
        await turns()
        assert not task.done() and not member.done()
        assert await group.create_task(value(1)) == 1
        go.set()


@pytest.mark.parametrize("count", IMPOSSIBLE_COUNTS, ids=repr)
async def test_impossible_counts(count: Any) -> None:
    """Negative, NaN, halves, a bool, a word: ValueError that names the setting, wherever a count is taken."""
    with pytest.raises(ValueError, match="keep_ended"):
        TaskManager(keep_ended=count)
    with pytest.raises(ValueError, match="max_threads"):
        TaskManager(max_threads=count)
    with pytest.raises(ValueError, match="limit"):
        TaskGroup(limit=count)
    with pytest.raises(ValueError, match="max_pending"):
        TaskGroup(limit=1, max_pending=count)
    async with TaskManager() as manager:
        with pytest.raises(ValueError, match="limit of group 'g'"):
            manager.group("g", limit=count)
        assert manager.group("g", limit=1).limit == 1


def test_impossible_choices() -> None:
    """A limit of nothing, a bound without a limit, an on_error that does not exist."""
    for wrong in ({"limit": 0}, {"max_pending": 1}, {"on_error": "ignore"}):
        with pytest.raises(ValueError):
            TaskGroup(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_threads"):
        TaskManager(max_threads=0)


@pytest.mark.parametrize("wrong", [value, 42], ids=["coroutine function", "number"])
def test_an_error_hook_that_cannot_be(wrong: Any) -> None:
    """An `async def` hook would never run: it is refused when the manager is made, not at the first failure."""
    with pytest.raises(TypeError, match="on_error"):
        TaskManager(on_error=wrong)


# --- closing and running ---


async def test_on_close_needs_a_function() -> None:
    """A coroutine in place of the function that makes it: refused, closed, and nothing is registered."""
    async with TaskManager() as manager:
        for wrong in (value(), 42, None):
            with pytest.raises(TypeError, match="on_close"):
                manager.on_close(wrong)  # type: ignore[arg-type]
    assert manager.report is not None and manager.report.resources == ()


async def test_run_needs_a_coroutine_and_no_loop() -> None:
    """run(main) in place of run(main()), and run() inside a loop: refused, the coroutine closed."""
    with pytest.raises(NotACoroutine, match=r"run\(main\(\)\)"):
        run(value)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="running event loop"):
        run(value())
