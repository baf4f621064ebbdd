"""`lastcall.run(main())`: `asyncio.run` for programs without a web server, with a planned and reported end."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..exceptions import NotACoroutine
from ._diagnose import task_stack
from ._disown import disown
from ._exit import ExitGuard
from ._manager import TaskManager, current_home
from ._record import Record
from ._report import ShutdownReport
from ._roster import logger
from ._signals import SignalWatch
from ._state import Kind, ManagerState

T = TypeVar("T")

# A Ctrl-C through `make` or a shell script can arrive twice; people are not that fast.
_REPEAT_WINDOW_SECONDS = 0.25

# What main() may do after its managers have closed, and what leftovers of asyncio get to unwind.
_EPILOGUE_SECONDS = 5.0


def run(
    main: Coroutine[Any, Any, T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    debug: bool | None = None,
) -> T:
    """Run a program to its end, or to the end of its shutdown plan.

    SIGINT and SIGTERM begin the shutdown of every manager open in `main()`; the body of its `async with`
    block is told through `current_shutdown()` like any task, and cancelled at the drain's deadline like
    any task. A second signal forces. Without an open manager the first signal cancels `main()`.

    Returns what `main()` returned. Raises SystemExit where a manager's report is not clean: 1 if work was cut
    off or failed in the shutdown, 128 + signal number if forced, or if there was no manager to drain.
    The process ends by the plan even if a task swallows every cancel or a thread never returns.

    Raises `NotACoroutine`, and RuntimeError inside a running event loop.

        async def main() -> None:
            async with TaskManager() as manager:
                manager.service(consume)
                await current_shutdown().wait()

        lastcall.run(main())
    """
    if not asyncio.iscoroutine(main):
        raise NotACoroutine(f"run() needs a coroutine: run(main()), not {main!r}")
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("lastcall.run() cannot be called from a running event loop")
    loop = asyncio.new_event_loop() if loop_factory is None else loop_factory()
    if debug is not None:
        loop.set_debug(debug)
    executor = _hidden_executor(loop)
    home = _Home(loop)
    watch = SignalWatch(
        loop, home.on_request, home.on_force, repeat_window_seconds=_REPEAT_WINDOW_SECONDS, spare_default=True
    )
    watch.install()
    try:
        try:
            result = loop.run_until_complete(home.start(main))
        except asyncio.CancelledError:
            home.exit_if_told(cut=True)
            raise
        finally:
            home.end(_close_loop(loop, executor))
        home.exit_if_told(cut=False)
        return result
    finally:
        watch.restore()


class _Home:
    """Carries the process' signals to the managers that open in main()."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._managers: list[TaskManager] = []
        self._bodies: dict[TaskManager, Record] = {}
        self._signum: int | None = None
        self._forced = False
        self._main_cancelled = False
        self._guard = ExitGuard()

    def start(self, main: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = contextvars.copy_context()
        context.run(current_home.set, self)
        task: asyncio.Task[T] = self._loop.create_task(main, name="main", context=context)
        self._task = task
        return task

    def manager_opened(self, manager: TaskManager) -> None:
        # A program may open one after the other for months; what has closed cleanly has nothing more to say.
        self._managers = [m for m in self._managers if m.report is None or not m.report.clean] + [manager]
        if asyncio.current_task() is self._task:
            self._bodies[manager] = manager._roster.hold("main", Kind.MAIN, None)
        if self._signum is not None:
            manager.begin_shutdown(skip_notice=True)

    def manager_leaving(self, manager: TaskManager) -> None:
        body = self._bodies.pop(manager, None)
        if body is not None:
            manager._roster.release(body)

    def on_request(self, signum: int) -> None:
        self._signum = signum
        name = signal.Signals(signum).name
        open_managers = self._open_managers()
        budget = max((m.plan.total_seconds for m in open_managers), default=0.0) + _EPILOGUE_SECONDS
        self._guard.arm(budget, 1, f"{budget:g} s after {name}, main() has still not returned")
        if not open_managers:
            self._cancel_main()
        for manager in open_managers:
            logger.info(
                "%s: shutting down %r within %g s; again to force",
                name,
                manager.name,
                manager.plan.total_seconds,
                extra={"event": "shutdown.begun"},
            )
            manager.begin_shutdown()

    def on_force(self, signum: int) -> None:
        self._forced = True
        open_managers = self._open_managers()
        for manager in open_managers:
            manager.force()
        if not open_managers:
            self._cancel_main()
            self._guard.arm(1.0, 128 + signum, "a second signal came and nothing was left to shut down")

    def _open_managers(self) -> list[TaskManager]:
        return [m for m in self._managers if m.state is not ManagerState.CLOSED]

    def _cancel_main(self) -> None:
        if self._task is not None:
            self._main_cancelled = True
            self._task.cancel()

    def end(self, stubborn: int) -> None:
        """The loop is closed. After a signal, what clings to the process now gets a second, and not more.

        Without one the caller of `run` may have other plans for this process than its end.
        """
        left = stubborn + sum(len(report.left_behind) for report in self._reports())
        if left and self._signum is not None:
            self._guard.arm(
                1.0, self._exit_code() or 1, f"{left} tasks or threads would not end; see the report"
            )
        else:
            self._guard.disarm()

    def exit_if_told(self, *, cut: bool) -> None:
        """The exit code tells how the end was, where main() itself has no worse news (an exception of its own)."""
        code = self._exit_code()
        if cut and self._signum is not None and self._main_cancelled:
            code = 128 + self._signum
        if code or (cut and self._signum is not None):
            raise SystemExit(code)

    def _exit_code(self) -> int:
        if self._forced and self._signum is not None:
            return 128 + self._signum
        return max((report.exit_code for report in self._reports()), default=0)

    def _reports(self) -> list[ShutdownReport]:
        return [m.report for m in self._managers if m.report is not None]


def _close_loop(loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor | None) -> int:
    """What `asyncio.run` does at the end, with an end: how many tasks or threads would not go."""
    try:
        stubborn = loop.run_until_complete(_cancel_leftovers(loop))
        stubborn += loop.run_until_complete(_close_generators(loop))
        return stubborn + _release(executor or getattr(loop, "_default_executor", None))
    finally:
        loop.close()


async def _cancel_leftovers(loop: asyncio.AbstractEventLoop) -> int:
    """Cancel what belongs to no manager, wait for it, a bounded time, and report what it raised."""
    leftovers = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in leftovers:
        task.cancel()
    if not leftovers:
        return 0
    done, _ = await asyncio.wait(leftovers, timeout=_EPILOGUE_SECONDS)
    for task in done:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception while main() had ended",
                    "exception": task.exception(),
                    "task": task,
                }
            )
    return _name_stubborn(loop, "belongs to no manager and would not end")


async def _close_generators(loop: asyncio.AbstractEventLoop) -> int:
    """Close the async generators that were left half way."""
    await asyncio.wait({loop.create_task(loop.shutdown_asyncgens())}, timeout=_EPILOGUE_SECONDS)
    return _name_stubborn(loop, "closes an async generator and would not end")


def _name_stubborn(loop: asyncio.AbstractEventLoop, what: str) -> int:
    pending = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in pending:
        logger.error(
            "task %r %s; it stands at\n    %s", task.get_name(), what, "\n    ".join(task_stack(task))
        )
        disown(task)
    return len(pending)


def _hidden_executor(loop: asyncio.AbstractEventLoop) -> ThreadPoolExecutor | None:
    """uvloop does not show its default executor, whose threads keep a process; so it is given one we know."""
    if hasattr(loop, "_default_executor"):
        return None
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(executor)
    return executor


def _release(executor: ThreadPoolExecutor | None) -> int:
    """Let `asyncio.to_thread`'s threads go; how many would not, within the epilogue.

    Before 3.12 `shutdown_default_executor` has no timeout, so the executor is asked directly.
    """
    if executor is None:
        return 0
    executor.shutdown(wait=False, cancel_futures=True)
    deadline = time.monotonic() + _EPILOGUE_SECONDS
    threads = list(getattr(executor, "_threads", ()))
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return sum(thread.is_alive() for thread in threads)
