"""Blocking functions in the manager's own threads: limited, in order, told to stop, never half started."""

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import weakref

import pytest

from lastcall import (
    CancelAnswer,
    Kind,
    Outcome,
    ShutdownPlan,
    StopReason,
    TaskManager,
    TaskStatus,
    current_shutdown,
)
from tests.support.loops import LoopFactory

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outer")
SECONDS = 30  # the most that anything here may take; nothing takes it


class Boom(Exception):
    pass


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def reached(event: threading.Event) -> None:
    """Wait for a thread without blocking the loop."""
    async with asyncio.timeout(SECONDS):
        while not event.is_set():
            await asyncio.sleep(0.001)


class Gate:
    """A function that says it has begun and waits until it may return."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(SECONDS)
        return threading.current_thread().name


async def test_it_returns_what_the_function_returns() -> None:
    """Positional arguments, keywords through partial; the work is not on the loop's thread; the record says thread."""

    def add(a: int, b: int, *, c: int = 0) -> tuple[int, int]:
        return a + b + c, threading.get_ident()

    async with TaskManager() as manager:
        task = manager.run_in_thread(add, 1, 2, name="sum", id="s", labels={"k": "v"})
        total, ident = await task
        assert total == 3 and ident != threading.get_ident()
        assert (await manager.run_in_thread(functools.partial(add, c=10), 1, 2))[0] == 13
        info = manager.info("s")
        assert (info.kind, info.name, info.status, info.result) == (
            Kind.THREAD,
            "sum",
            TaskStatus.COMPLETED,
            (3, ident),
        )
        assert info.started_at is not None
        assert manager.info(manager.run_in_thread(len, "abc", id="builtin")).name == "len"


async def test_the_limit_holds_and_the_order_is_kept() -> None:
    """Twenty calls with two threads: never more than two at once, begun in the order they came."""
    lock = threading.Lock()
    begun: list[int] = []
    running = most = 0

    def work(number: int) -> None:
        nonlocal running, most
        with lock:
            begun.append(number)
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    async with TaskManager(max_threads=2) as manager:
        await asyncio.gather(*(manager.run_in_thread(work, number) for number in range(20)))
        assert sorted(begun) == list(range(20)) and most <= 2
    async with TaskManager(max_threads=1) as manager:
        begun.clear()
        await asyncio.gather(*(manager.run_in_thread(work, number) for number in range(20)))
        assert begun == list(range(20))


async def test_it_is_pending_until_a_thread_is_free() -> None:
    """One thread: the second call is pending, without a start time, and then runs in the same thread."""
    async with TaskManager(max_threads=1) as manager:
        first, second = Gate(), Gate()
        one, two = manager.run_in_thread(first), manager.run_in_thread(second)
        await reached(first.begun)
        assert manager.info(one).status is TaskStatus.RUNNING
        assert manager.info(two).status is TaskStatus.PENDING and manager.info(two).started_at is None
        assert manager.stats().pending == 1 and manager.stats().running == 1
        first.go.set()
        second.go.set()
        assert await one == await two


async def test_an_error_comes_out_and_is_told_once() -> None:
    """The function raises: so does awaiting the task, with the thread's own traceback; it is reported once."""
    told: list[BaseException] = []

    def fail() -> None:
        raise Boom("in the thread")

    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        with pytest.raises(Boom) as raised:
            await manager.run_in_thread(fail)
        assert "fail" in [entry.name for entry in raised.traceback]
        await turns()
    assert [str(error) for error in told] == ["in the thread"]


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]
)
async def test_sys_exit_in_a_thread_ends_that_function_only(error: BaseException) -> None:
    """sys.exit() and its like in a worker function: the task has failed, names the cause, and the loop goes on."""
    told: list[BaseException] = []

    def leave() -> None:
        raise error

    async with TaskManager(on_error=lambda info, error: told.append(error), max_threads=1) as manager:
        task = manager.run_in_thread(leave, name="leaver")
        await asyncio.wait({task})
        assert isinstance(task.exception(), RuntimeError) and "leaver" in str(task.exception())
        assert type(error).__name__ in str(task.exception())
        assert await manager.run_in_thread(int, "7") == 7
    assert len(told) == 1 and told[0].__cause__ is error


async def test_stop_iteration_does_not_hang() -> None:
    """A function that raises StopIteration, which no future may carry: its task fails, and nobody waits for ever."""
    async with TaskManager(on_error=lambda info, error: None) as manager:
        task = manager.run_in_thread(next, iter(()))
        await asyncio.wait({task}, timeout=SECONDS)
        assert isinstance(task.exception(), RuntimeError)


async def test_context_variables_come_along() -> None:
    """The thread sees the caller's variables, in a copy, and those of a context it was given."""

    def change() -> str:
        seen = variable.get()
        variable.set("changed in the thread")
        return seen

    async with TaskManager() as manager:
        variable.set("mine")
        assert await manager.run_in_thread(change) == "mine"
        assert variable.get() == "mine"
        context = contextvars.Context()
        assert await manager.run_in_thread(change, context=context) == "outer"
        assert context[variable] == "changed in the thread"


async def test_a_thread_is_woken_by_the_stop() -> None:
    """It sleeps on the stop without a time-out; the shutdown wakes it, and it can read why and how long it has."""
    waiting = threading.Event()

    def work() -> tuple[bool, object, bool]:
        shutdown = current_shutdown()
        assert not shutdown.requested and shutdown.wait_sync(0) is False
        waiting.set()
        stopped = shutdown.wait_sync()
        return stopped, shutdown.reason, 0 < shutdown.remaining <= 20

    async with TaskManager() as manager:
        task = manager.run_in_thread(work)
        await reached(waiting)
    assert task.result() == (True, StopReason.SHUTDOWN, True)
    assert manager.report is not None and manager.report.clean
    assert manager.report.counts[Outcome.STOPPED] == 1


async def test_two_threads_are_stopped_one_by_one() -> None:
    """stop_task reaches the one thread it names."""

    def work() -> object:
        current_shutdown().wait_sync(SECONDS)
        return current_shutdown().reason

    async with TaskManager() as manager:
        one, two = manager.run_in_thread(work), manager.run_in_thread(work)
        await turns()
        manager.stop_task(one, reason=StopReason.TIMEOUT)
        assert await one is StopReason.TIMEOUT
        assert not two.done()
        manager.stop_task(two)
        assert await two is StopReason.USER


@pytest.mark.loops("asyncio", "uvloop")
async def test_cancelled_before_its_first_step() -> None:
    """Cancelled in the turn it was made: no thread runs the function, the slot is free, the end is counted."""
    ran: list[int] = []
    async with TaskManager(max_threads=1) as manager:
        task = manager.run_in_thread(ran.append, 1)
        assert await manager.cancel_task(task) is CancelAnswer.ENDED
        assert await manager.run_in_thread(lambda: 2) == 2
        assert ran == [] and manager.stats().cancelled == 1


async def test_cancelled_while_it_waits_for_a_slot() -> None:
    """Behind a busy thread: the cancelled call never runs, those behind it do."""
    ran: list[int] = []
    async with TaskManager(max_threads=1) as manager:
        gate = Gate()
        first = manager.run_in_thread(gate)
        waiting = [manager.run_in_thread(ran.append, number) for number in range(4)]
        await reached(gate.begun)
        assert await manager.cancel_task(waiting[1]) is CancelAnswer.ENDED
        assert manager.info(waiting[1]).status is TaskStatus.CANCELLED
        waiting[2].cancel()
        gate.go.set()
        await asyncio.wait({first, *waiting})
        assert ran == [0, 3] and waiting[2].cancelled()


async def test_cancelled_while_it_runs() -> None:
    """The thread is told; the task ends when the function has returned, as cancelled; its late error is told once."""
    told: list[BaseException] = []
    begun = threading.Event()

    def work() -> None:
        begun.set()
        assert current_shutdown().wait_sync(SECONDS)
        raise Boom("late")

    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        task = manager.run_in_thread(work)
        await reached(begun)
        assert await manager.cancel_task(task, timeout=SECONDS) is CancelAnswer.ENDED
        assert task.cancelled() and manager.info(task).status is TaskStatus.CANCELLED
        assert manager.stats().swallowed == 0
    assert [str(error) for error in told] == ["late"]


async def test_somebody_elses_cancel_tells_the_thread() -> None:
    """A bare task.cancel(), from a timeout for instance, is passed on to the thread as a stop."""
    begun = threading.Event()

    def work() -> object:
        begun.set()
        current_shutdown().wait_sync(SECONDS)
        return current_shutdown().reason

    async with TaskManager() as manager:
        task = manager.run_in_thread(work)
        await reached(begun)
        task.cancel()
        await asyncio.wait({task}, timeout=SECONDS)
        assert task.cancelled()


async def test_a_critical_section_in_a_thread() -> None:
    """A cancel that comes while the thread is in a critical section waits until it has left it."""
    inside, leave, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        shutdown = current_shutdown()
        with shutdown.critical(max=SECONDS):
            inside.set()
            assert leave.wait(SECONDS)
            seen.append(shutdown.requested)
        assert shutdown.wait_sync(SECONDS)
        seen.append(shutdown.requested)

    async with TaskManager() as manager:
        task = manager.run_in_thread(work)
        await reached(inside)
        cancelling = asyncio.create_task(manager.cancel_task(task, timeout=SECONDS))
        await turns()
        leave.set()
        assert await cancelling is CancelAnswer.ENDED
        assert seen == [False, True]


async def test_a_stuck_thread_is_left_and_named() -> None:
    """A thread that never returns: the shutdown ends by its plan, the report has the thread's own stack."""
    gate = Gate()
    manager = TaskManager(plan=ShutdownPlan(drain=0.05, cancel=0.05, close=0))
    async with manager:
        task = manager.run_in_thread(gate, name="stuck")
        await reached(gate.begun)
    report = manager.report
    assert report is not None and not report.clean
    (left,) = report.left_behind
    assert left.outcome is Outcome.THREAD_LEFT and left.name == "stuck"
    assert any("__call__" in line for line in left.stack) and task.done()
    gate.go.set()


@pytest.mark.loops("asyncio", "uvloop")
def test_it_returns_after_the_loop_has_closed(loop_factory: LoopFactory) -> None:
    """The loop is gone when the stuck function returns at last: its result is dropped, no thread dies of it."""
    gate = Gate()
    died: list[object] = []
    others = set(threading.enumerate())
    before, threading.excepthook = threading.excepthook, lambda args: died.append(args.exc_value)
    try:

        async def main() -> None:
            manager = TaskManager(plan=ShutdownPlan(drain=0, cancel=0, close=0))
            async with manager:
                manager.run_in_thread(gate)
                await reached(gate.begun)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
        mine = set(threading.enumerate()) - others
        threads = [thread for thread in mine if thread.name.startswith("lastcall-")]
        assert len(threads) == 1 and threads[0].daemon
        gate.go.set()
        threads[0].join(SECONDS)
        assert not threads[0].is_alive() and died == []
    finally:
        threading.excepthook = before


async def test_threads_are_reused_and_leave_with_the_manager() -> None:
    """Fifty calls one after the other need one thread; after the shutdown it is gone."""
    async with TaskManager() as manager:
        names = {await manager.run_in_thread(lambda: threading.current_thread().name) for _ in range(50)}
        assert len(names) == 1
        thread = next(thread for thread in threading.enumerate() if thread.name in names)
    async with asyncio.timeout(SECONDS):
        while thread.is_alive():
            await asyncio.sleep(0.001)


async def test_an_idle_thread_keeps_nothing() -> None:
    """Function, arguments and result of the last call are free while its thread waits for the next."""

    class Big:
        pass

    async with TaskManager(keep_ended=0) as manager:
        big = Big()
        ref = weakref.ref(big)
        assert await manager.run_in_thread(lambda it: it, big) is big
        del big
        await turns()
        async with asyncio.timeout(SECONDS):
            while ref() is not None:
                gc.collect()
                await asyncio.sleep(0.001)


async def test_wrong_functions_are_refused() -> None:
    """A coroutine function, a coroutine, something that cannot be called: a clear error, nothing warns."""

    async def coroutine() -> None:
        """Never runs."""

    async with TaskManager() as manager:
        for wrong in (coroutine, functools.partial(coroutine), coroutine(), 42, None):
            with pytest.raises(TypeError, match="run_in_thread"):
                manager.run_in_thread(wrong)  # type: ignore[arg-type]
        assert manager.tasks() == []


async def test_a_late_call_is_refused_by_its_own_name() -> None:
    """After the shutdown: the message names the function, and no thread starts."""

    def crunch() -> None:
        sys.exit("never runs")

    manager = TaskManager()
    async with manager:
        pass
    with pytest.raises(RuntimeError, match="crunch"):
        manager.run_in_thread(crunch)
