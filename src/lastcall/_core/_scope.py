"""How code finds out whether it has been asked to stop: `current_shutdown()`.

One ContextVar holds a Scope: the roster (a manager's, or a lone group's), and, for work that is no task of
ours (a request, a thread), the record that stands for it. A task is found through the loop instead of the
context, so that the hot path of `create_task` need not copy and change a context per task.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ._clock import check_seconds
from ._record import Record
from ._state import StopReason
from ._stop import StopNode

if TYPE_CHECKING:
    from ._roster import Roster


class Scope:
    """What a context belongs to."""

    __slots__ = ("record", "roster")

    def __init__(self, roster: Roster, record: Record | None = None) -> None:
        self.roster = roster
        self.record = record

    def current_record(self) -> Record | None:
        """The record of whatever runs right now, if it is known and has not ended."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        record = self.roster.live.get(task) if task is not None else None
        if record is None:
            record = self.record
        return record if record is not None and record.ended_at is None else None


current_scope: ContextVar[Scope | None] = ContextVar("lastcall_scope", default=None)


class Shutdown:
    """The stop as the current work sees it. Get it with `current_shutdown()`, in a coroutine or a thread.

    shutdown = current_shutdown()
    while not shutdown.requested:
        await poll()
        await shutdown.sleep(5)             # wakes at once when the stop comes
    """

    __slots__ = ("_record", "_roster")

    def __init__(self, roster: Roster | None, record: Record | None) -> None:
        self._roster = roster
        self._record = record

    @property
    def requested(self) -> bool:
        """Whether this work has been asked to stop."""
        node = self._nearest_node()
        if node is None or node.reason is None:
            return False
        self._observed()
        return True

    @property
    def reason(self) -> StopReason | None:
        """Why it was asked to stop, or cancelled; None before that."""
        record = self._record
        if record is not None and record.reason is not None:
            return record.reason
        node = self._nearest_node()
        return None if node is None else node.reason

    @property
    def remaining(self) -> float:
        """Seconds until the cancel comes: `math.inf` before the stop, 0.0 once the time is up."""
        node = self._nearest_node()
        return math.inf if node is None else node.remaining_seconds

    async def wait(self) -> None:
        """Return as soon as the stop comes; at once if it has come. Outside any manager: never."""
        node = self._own_node()
        if node is None:
            await asyncio.get_running_loop().create_future()
            return
        await node.wait()
        self._observed()

    async def sleep(self, seconds: float) -> bool:
        """Sleep, but wake when the stop comes. Whether it has come, as `threading.Event.wait` says it.

            while not await shutdown.sleep(60):
                await look()

        Raises `InvalidPlan` for a negative, NaN or endless number of seconds.
        """
        seconds = check_seconds("sleep", seconds)
        node = self._own_node()
        if node is None:
            await asyncio.sleep(seconds)
            return False
        try:
            async with asyncio.timeout(seconds):
                await node.wait()
        except TimeoutError:
            return False
        self._observed()
        return True

    def wait_sync(self, timeout: float | None = None) -> bool:
        """For threads: block until the stop comes or `timeout` seconds passed. Whether the stop has come.

        Never call it on the event loop's thread: it would block the loop it waits for.
        """
        node = self._nearest_node()
        if node is None:
            raise RuntimeError(
                "wait_sync() found no manager: call it in a function started with run_in_thread"
            )
        if node.wait_sync(timeout):
            self._observed()
            return True
        return False

    @contextmanager
    def critical(self, max: float = 4.0) -> Iterator[None]:
        """A short section that a cancel waits for, at most `max` seconds, and never beyond the plan.

        For the few lines between two writes that belong together. It holds back the cancels that lastcall
        sends (shutdown, `cancel_task`, a group's stop); a bare `task.cancel()` by others it cannot see.
        """
        check_seconds("critical(max)", max)
        roster, record = self._roster, self._record
        if roster is None or record is None:
            yield
            return
        roster.enter_critical(record, max)
        try:
            yield
        finally:
            roster.leave_critical(record)

    def _observed(self) -> None:
        if self._record is not None:
            self._record.ensure_extra().observed = True

    def _nearest_node(self) -> StopNode | None:
        if self._roster is None:
            return None
        return self._roster.node_of(self._record)

    def _own_node(self) -> StopNode | None:
        """A node of its own, so that stopping this task alone wakes its wait."""
        if self._roster is None:
            return None
        return (
            self._roster.node_of(self._record)
            if self._record is None
            else self._roster.own_node(self._record)
        )


def current_shutdown() -> Shutdown:
    """The stop signal of the task, thread or request that calls. Outside all of them it is never requested.

    Free of locks and safe in threads started with `run_in_thread`.

        if current_shutdown().requested: return partial_result
    """
    scope = current_scope.get()
    if scope is None:
        return Shutdown(None, None)
    return Shutdown(scope.roster, scope.current_record())
