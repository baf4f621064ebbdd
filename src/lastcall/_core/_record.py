"""What is known of one piece of work: Record while it lives (private, mutable), TaskInfo to show (public, frozen)."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._state import Kind, StopReason, TaskStatus

if TYPE_CHECKING:
    from ._group import TaskGroup
    from ._stop import StopNode

_PENDING, _RUNNING = (
    TaskStatus.PENDING,
    TaskStatus.RUNNING,
)  # enum look-ups are slow, and this is the hot path

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Extra:
    """What most tasks never need, kept out of `Record` so that a waiting task stays small."""

    __slots__ = (
        "cancel_due",
        "critical_depth",
        "critical_until",
        "error",
        "handed_over",
        "id",
        "labels",
        "node",
        "observed",
        "swallowed",
    )

    def __init__(self) -> None:
        self.id: str | None = None
        self.labels = NO_LABELS
        self.node: StopNode | None = None
        self.cancel_due: StopReason | None = None
        self.critical_depth = 0
        self.critical_until = 0.0
        self.observed = False
        self.swallowed = False
        self.handed_over = False
        self.error: BaseException | None = None


class Record:
    """One piece of work. `task` is strong while it runs, so that nothing is collected in flight (gh-91887)."""

    __slots__ = (
        "cancelled_at",
        "daemon",
        "ended_at",
        "extra",
        "grace_seconds",
        "group",
        "kind",
        "name",
        "number",
        "reason",
        "started_at",
        "status",
        "task",
    )

    def __init__(
        self,
        number: int,
        name: str,
        kind: Kind,
        group: TaskGroup | None,
        daemon: bool,
        started_at: float | None,
        extra: Extra | None,
    ) -> None:
        self.number = number
        self.name = name
        self.kind = kind
        self.group = group
        self.daemon = daemon
        self.started_at = started_at
        self.extra = extra
        self.status = _RUNNING if started_at is not None else _PENDING
        self.ended_at: float | None = None
        self.cancelled_at: float | None = None
        self.reason: StopReason | None = None
        self.grace_seconds: float | None = None
        self.task: asyncio.Task[Any] | weakref.ref[asyncio.Task[Any]] | None = None

    @property
    def id(self) -> str:
        extra = self.extra
        return f"t-{self.number}" if extra is None or extra.id is None else extra.id

    @property
    def live_task(self) -> asyncio.Task[Any] | None:
        """The task behind this record, if it still exists."""
        task = self.task
        return task() if isinstance(task, weakref.ref) else task

    def ensure_extra(self) -> Extra:
        if self.extra is None:
            self.extra = Extra()
        return self.extra

    def describe(self) -> str:
        """How messages name this work: `task 'poll' (t-7)`."""
        return f"{self.kind} {self.name!r} ({self.id})"

    def log_fields(self, event: str) -> dict[str, object]:
        """What a line of the log about this work carries; most are written when it does not run (any more)."""
        return {"event": event, "task_id": self.id, "task_name": self.name}


class TaskInfo(NamedTuple):
    """A snapshot of one piece of work; it does not change afterwards.

    Times are seconds since the epoch; `started_at` is None while `pending`, `ended_at` until the end.
    `result` is kept if the manager keeps results, `error` if it keeps errors.
    `reason` tells why it was stopped or cancelled, None if nobody here did that.
    """

    id: str
    name: str
    kind: Kind
    group: str | None
    status: TaskStatus
    labels: Mapping[str, str]
    daemon: bool
    started_at: float | None
    ended_at: float | None
    result: Any
    error: BaseException | None
    reason: StopReason | None
    swallowed_cancel: bool

    @property
    def seconds(self) -> float | None:
        """How long it ran; None before its end."""
        return None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at


class Stats(NamedTuple):
    """Counts by status: `pending` and `running` now, the others since the manager was opened.

    `swallowed` counts tasks that were cancelled and ended as if they had not been (among completed and failed).
    `calls` counts work of others that is held now (requests, streams, WebSockets).
    """

    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int
    swallowed: int
    calls: int
