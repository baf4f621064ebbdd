"""The words for where a task is and why it ended, and the table of what may follow what.

Everything that is a *decision about status* reads this file; nothing else spells a status out.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class TaskStatus(StrEnum):
    """Where a task is. `pending` waits for a slot of its group; the last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.PENDING: frozenset({TaskStatus.RUNNING, TaskStatus.CANCELLED}),
    TaskStatus.RUNNING: frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}),
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset(),
    TaskStatus.CANCELLED: frozenset(),
}


class StopReason(StrEnum):
    """Why work was asked to stop, or was cancelled: one enum everywhere, so that no reason looks like another."""

    USER = "user"
    DISCONNECT = "disconnect"
    SHUTDOWN = "shutdown"
    TIMEOUT = "timeout"
    GROUP = "group"
    LEASE_LOST = "lease_lost"


class CancelAnswer(StrEnum):
    """What `cancel_task` found when it stopped waiting."""

    ENDED = "ended"
    REFUSED = "refused"
    ALREADY_ENDED = "already_ended"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """What kind of work a record stands for."""

    TASK = "task"
    THREAD = "thread"
    SERVICE = "service"
    WORK = "work"
    REQUEST = "request"
    STREAM = "stream"
    WEBSOCKET = "websocket"
    MAIN = "main"


class ManagerState(StrEnum):
    """Where a manager is on its way; `closed` managers may be opened again."""

    NEW = "new"
    OPEN = "open"
    NOTICE = "notice"
    DRAINING = "draining"
    CANCELLING = "cancelling"
    CLOSING = "closing"
    CLOSED = "closed"


MANAGER_TRANSITIONS: Mapping[ManagerState, frozenset[ManagerState]] = {
    ManagerState.NEW: frozenset({ManagerState.OPEN}),
    ManagerState.OPEN: frozenset({ManagerState.NOTICE, ManagerState.DRAINING}),
    ManagerState.NOTICE: frozenset({ManagerState.DRAINING}),
    ManagerState.DRAINING: frozenset({ManagerState.CANCELLING}),
    ManagerState.CANCELLING: frozenset({ManagerState.CLOSING}),
    ManagerState.CLOSING: frozenset({ManagerState.CLOSED}),
    ManagerState.CLOSED: frozenset({ManagerState.OPEN}),
}
