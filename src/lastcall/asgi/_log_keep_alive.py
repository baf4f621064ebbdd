"""KeepAlive: tells readers that have been quiet for long to say something, with one timer for all of them.

Who calls it: `_log_readers`. Proxies close connections on which nothing moves, and a client that vanished without a
word is only found out by writing to it. A timer for each reader, set anew at each write, would cost more than the
writes do.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

KEEP_ALIVE_SECONDS = 15.0
# Ten thousand readers that came together are due together; the loop gets a breath in between.
_AT_ONCE = 200
_BREATH_SECONDS = 0.01


class Quiet(Protocol):
    """Who may be quiet. `wrote_at`: the loop's time of its last write."""

    wrote_at: float

    def keep_alive(self) -> None: ...


class KeepAlive:
    """The readers in the order in which they may be due, and one timer for the first of them."""

    def __init__(self) -> None:
        self._due: OrderedDict[Quiet, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, reader: Quiet) -> None:
        self._due[reader] = reader.wrote_at + KEEP_ALIVE_SECONDS
        if self._timer is None:
            self._arm(self._due[reader])

    def leave(self, reader: Quiet) -> None:
        self._due.pop(reader, None)
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(at, self._fire)

    def _fire(self) -> None:
        now = asyncio.get_running_loop().time()
        self._timer = None
        for _ in range(min(_AT_ONCE, len(self._due))):
            reader, due_at = next(iter(self._due.items()))
            if due_at > now:
                break
            # Only here is it seen that one has written meanwhile: writing itself costs nothing.
            written = reader.wrote_at + KEEP_ALIVE_SECONDS
            if written <= now:
                reader.keep_alive()
                written = now + KEEP_ALIVE_SECONDS
            self._due[reader] = written
            self._due.move_to_end(reader)
        if self._due:
            self._arm(max(next(iter(self._due.values())), now + _BREATH_SECONDS))
