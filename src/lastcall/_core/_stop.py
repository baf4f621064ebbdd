"""StopNode: "you have been asked to stop", as a tree.

The manager has a root node, each group a child, and each task, thread or call a leaf, made only when
somebody waits on it or stops it alone: a hundred thousand sleeping tasks cost no node at all.

Stopping flows down at the moment it happens, so reading is one attribute, from any thread.
A node told once keeps its first reason: a user's cancel that races a shutdown stays a user's cancel.
Nodes change on the loop's thread only; threads read them, and sleep on `wait_sync`.
"""

from __future__ import annotations

import asyncio
import math
import threading
import weakref

from ._clock import Clock
from ._state import StopReason

# Guards the making of the thread-side event: a thread about to sleep and the loop about to tell it
# must agree on one event. Held for a few instructions, and only by threads that wait.
_event_lock = threading.Lock()


class StopNode:
    __slots__ = ("__weakref__", "_children", "_clock", "_event", "_parent", "_waiters", "cancel_at", "reason")

    def __init__(self, clock: Clock, parent: StopNode | None = None) -> None:
        self._clock = clock
        self._parent = parent
        # Weak, so that a group dropped without a word takes its node along.
        self._children: weakref.WeakSet[StopNode] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._event: threading.Event | None = None
        self.reason: StopReason | None = None
        self.cancel_at = math.inf
        if parent is not None:
            if parent._children is None:
                parent._children = weakref.WeakSet()
            parent._children.add(self)
            if parent.reason is not None:
                self.stop(parent.reason, parent.cancel_at)

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the cancel; endless before the stop, 0 after the deadline."""
        return math.inf if self.cancel_at == math.inf else max(0.0, self.cancel_at - self._clock())

    def stop(self, reason: StopReason, cancel_at: float) -> None:
        """Tell this node and all below it. Told again, only the deadline moves, and only closer."""
        if self.reason is None:
            self.reason = reason
        self.cancel_at = min(self.cancel_at, cancel_at)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        with _event_lock:
            if self._event is not None:
                self._event.set()
        for child in tuple(self._children or ()):
            child.stop(reason, cancel_at)

    async def wait(self) -> None:
        """Return as soon as the stop comes; at once if it came."""
        if self.reason is not None:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def wait_sync(self, timeout_seconds: float | None) -> bool:
        """For threads: sleep until the stop or the timeout; whether the stop has come."""
        with _event_lock:
            if self.reason is not None:
                return True
            if self._event is None:
                self._event = threading.Event()
        return self._event.wait(timeout_seconds)

    def detach(self) -> None:
        """Leave the tree; the owner has ended."""
        if self._parent is not None and self._parent._children is not None:
            self._parent._children.discard(self)
        self._parent = None
