"""Blocking functions in threads of our own, behind a limiter of our own.

Why not `concurrent.futures`: its threads are joined at interpreter exit, so one stuck call keeps a
finished process alive for ever. Why not anyio's limiter: its 40 tokens are shared with sync endpoints,
and background work would starve requests (starlette #1724). These threads are daemons: they are told
to stop, waited for by the plan, named in the report, and never joined.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ._diagnose import error_text
from ._record import Extra, Record
from ._roster import Roster, logger
from ._scope import Scope, current_scope
from ._state import Kind, StopReason, TaskStatus
from ._stop import StopNode

T = TypeVar("T")


class ThreadCall:
    """One call of a blocking function. `done` belongs to the loop; the thread only posts to it."""

    __slots__ = ("args", "context", "done", "error", "fn", "ident", "record", "result")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        done: asyncio.Future[None],
    ) -> None:
        self.fn = fn
        self.args = args
        self.context = context
        self.done = done
        self.record: Record | None = None
        self.ident: int | None = None
        self.result: Any = None
        self.error: BaseException | None = None


class ThreadLane:
    """At most `max_threads` daemon threads, started when needed, reused while the manager is open."""

    def __init__(self, roster: Roster, max_threads: int | None) -> None:
        self._roster = roster
        self._max_threads = max_threads or min(32, (os.cpu_count() or 1) + 4)
        self._threads = 0
        self._free = self._max_threads
        self._waiting: deque[ThreadCall] = deque()
        self._inbox: queue.SimpleQueue[ThreadCall | None] = queue.SimpleQueue()
        self._idle = 0
        self._calls: dict[asyncio.Task[Any], ThreadCall] = {}

    def start(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        name: str | None,
        daemon: bool,
        context: contextvars.Context | None,
        extra: Extra | None,
    ) -> asyncio.Task[Any]:
        """A task that ends when the function has returned in its thread. All but `_work` runs on the loop's thread."""
        roster = self._roster
        call = ThreadCall(fn, args, context, roster.loop.create_future())
        extra = extra or Extra()
        extra.node = StopNode(roster.clock, roster.node)
        label = name or getattr(fn, "__qualname__", type(fn).__qualname__)
        return roster.spawn(self._follow(call), label, Kind.THREAD, None, daemon, None, extra, pending=True)

    def add_room(self, calls: int) -> None:
        """Run so many more calls at once: a worker's jobs must not wait for each other's threads."""
        self._max_threads += calls
        self._free += calls

    async def call(self, fn: Callable[[], T]) -> T:
        """Call a blocking function as a part of the task that runs now."""
        done = self._roster.loop.create_future()
        result: T = await self._follow(ThreadCall(fn, (), None, done))
        return result

    async def _follow(self, call: ThreadCall) -> Any:
        """Wait for the thread, through cancellations: they are passed on as a stop, since no thread can be cancelled.

        The thread is started here and not in `start`: a task cancelled before its first step never comes
        here, and must not leave a thread running that nobody follows.
        """
        task = asyncio.current_task()
        assert task is not None
        self._calls[task] = call
        try:
            self._begin(call)
            cancelled = await self._wait(call)
        finally:
            del self._calls[task]
        if cancelled is not None:
            if call.error is not None and call.record is not None:
                self._roster.report_error(call.record, call.error)
            raise cancelled
        if call.error is not None:
            raise call.error
        # Taken out of the call, which its thread may hold a moment longer, or for ever if it is never run again.
        result, call.result = call.result, None
        return result

    async def _wait(self, call: ThreadCall) -> asyncio.CancelledError | None:
        cancelled: asyncio.CancelledError | None = None
        while not call.done.done():
            try:
                await asyncio.wait({call.done})
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                if call in self._waiting:
                    self._waiting.remove(call)
                    raise
                self._tell(call)
        return cancelled

    def _begin(self, call: ThreadCall) -> None:
        scope = current_scope.get()
        assert scope is not None
        call.record = scope.current_record()
        if call.context is None:  # the task's: what observers have set in it is the thread's, too
            call.context = contextvars.copy_context()
        call.context.run(current_scope.set, Scope(self._roster, call.record))
        if self._free:
            self._hand_out(call)
        else:
            self._waiting.append(call)

    def _tell(self, call: ThreadCall) -> None:
        record = call.record
        if record is not None:
            self._roster.own_node(record).stop(record.reason or StopReason.USER, self._roster.clock())

    def _hand_out(self, call: ThreadCall) -> None:
        if self._idle:
            self._idle -= 1
        else:
            threading.Thread(target=self._work, name=f"lastcall-{self._threads + 1}", daemon=True).start()
            self._threads += 1
        self._free -= 1
        self._inbox.put(call)

    def _work(self) -> None:
        """The thread: take a call, run it, post the end to the loop. A `None` ends it."""
        while (call := self._inbox.get()) is not None:
            record = call.record
            assert record is not None and call.context is not None
            call.ident = threading.get_ident()
            record.started_at = self._roster.clock()
            record.status = TaskStatus.RUNNING
            try:
                call.result = call.context.run(call.fn, *call.args)
            except Exception as error:
                call.error = error
            except BaseException as error:
                # Raised inside a task, SystemExit would tear down the whole loop; sys.exit() in a worker
                # function means that function, not the service.
                call.error = RuntimeError(f"{record.describe()} raised {error_text(error)}")
                call.error.__cause__ = error
            call.ident = None
            try:
                self._roster.loop.call_soon_threadsafe(self._on_returned, call)
            except RuntimeError:
                logger.info(
                    "%s returned after its event loop had closed; its result is dropped", record.describe()
                )
            del call, record

    def _on_returned(self, call: ThreadCall) -> None:
        self._free += 1
        self._idle += 1
        if not call.done.done():
            call.done.set_result(None)
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done.done():
                self._hand_out(waiting)
                break

    # --- shutdown --------------------------------------------------------------------------------------

    def follows(self, task: asyncio.Task[Any]) -> bool:
        """Whether this task waits for a thread's call."""
        return task in self._calls

    def ident_of(self, task: asyncio.Task[Any]) -> int | None:
        """The thread that runs this task's function now, for its stack."""
        call = self._calls.get(task)
        return None if call is None else call.ident

    def abandon(self, task: asyncio.Task[Any]) -> None:
        """Let the task end although its thread does not: the report names the thread, and the loop can close."""
        call = self._calls.get(task)
        if call is not None and not call.done.done():
            call.done.set_result(None)

    def close(self) -> None:
        """Let idle threads go. A stuck one is a daemon and keeps nobody."""
        for _ in range(self._threads):
            self._inbox.put(None)
