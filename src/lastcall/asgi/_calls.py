"""What one HTTP request or WebSocket in flight is to the layers inside it.

The ContextVar is how a stream response and the BackgroundTasks of a framework find out that they run
inside a call of ours; outside of one it is None and they behave as their framework wrote them.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._core._group import TaskGroup
    from .._core._hold import Hold
    from .._core._manager import TaskManager
    from ._log_readers import Readers


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What all calls of one app share. Seconds count from the moment the drain began."""

    stream_grace_seconds: float
    retry_after_seconds: int
    # The server cuts calls off by itself after this long; ours must be over before, to be ended properly.
    call_limit_seconds: float | None = None

    @property
    def stream_seconds(self) -> float:
        """The grace of an event stream or WebSocket."""
        limit = self.call_limit_seconds
        return self.stream_grace_seconds if limit is None else min(self.stream_grace_seconds, limit)


class Call:
    """One call in flight, held by the manager for as long as the app works on it."""

    __slots__ = ("background", "ends_itself", "hold", "leftovers", "manager", "name", "options", "readers")

    def __init__(
        self, manager: TaskManager, background: TaskGroup, hold: Hold, name: str, options: CallOptions
    ) -> None:
        self.manager = manager
        self.background = background  # the app's group for background tasks
        self.hold = hold
        self.name = name
        self.options = options
        self.ends_itself = False  # the response keeps the grace and writes its own end
        self.leftovers: list[object] = []  # background tasks the framework injected, until they are run
        self.readers: Readers | None = None  # what all readers of logs in this app share


current_call: ContextVar[Call | None] = ContextVar("lastcall_call", default=None)


def call_name(scope_type: str, method: str | None, path: str) -> str:
    """How a call is named in lists, logs and reports."""
    return f"{'WS' if scope_type == 'websocket' else method or 'HTTP'} {path}"[:200]


def absorb_cancel(hold: Hold) -> bool:
    """Take back the manager's cancel of this call; False if somebody else cancelled the task as well."""
    task = hold.task
    return task is None or task.uncancel() == 0
