"""Audience: who reads what, and what happens to work that nobody reads any more.

Who calls it: `_log_response`, around each reading. A job whose readers have all left may be cancelled some seconds
later: the answer of an expensive model that no browser is waiting for. Rules:

- the time counts from the moment the last reader leaves; what was never read is never cancelled,
- a reader that comes back in time stops it; one without a wish of its own counts as a reader,
- of several wishes the most patient one counts,
- never while the process drains: then the readers left because they were sent away.

It knows this process alone. Where readers may come back to another one, let the time be longer than what a balancer
sends elsewhere takes to come back, or keep one reader's requests on one server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager


class _Seats:
    __slots__ = ("abandon", "readers", "seconds", "timer")

    def __init__(self) -> None:
        self.readers = 0
        self.seconds: float | None = None
        self.abandon: Callable[[], object] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Audience:
    """The readers of each piece of work, by its key. `is_draining`: asked when somebody leaves, and at the end."""

    def __init__(self, is_draining: Callable[[], bool]) -> None:
        self._is_draining = is_draining
        self._seats: dict[Hashable, _Seats] = {}

    @contextmanager
    def reading(
        self, key: Hashable, seconds: float | None, abandon: Callable[[], object] | None
    ) -> Iterator[None]:
        """Somebody reads, inside the block. When the last one has left, `abandon` is called after `seconds`;
        None: this reader has no such wish."""
        seats = self._seats.setdefault(key, _Seats())
        seats.readers += 1
        if seats.timer is not None:
            seats.timer.cancel()
            seats.timer = None
        if seconds is not None and (seats.seconds is None or seconds > seats.seconds):
            seats.seconds, seats.abandon = seconds, abandon
        try:
            yield
        finally:
            seats.readers -= 1
            if seats.readers == 0:
                self._left(key, seats)

    def count(self, key: Hashable) -> int:
        """How many read it now."""
        return self._seats[key].readers if key in self._seats else 0

    def _left(self, key: Hashable, seats: _Seats) -> None:
        if seats.seconds is None or self._is_draining():
            del self._seats[key]
            return
        loop = asyncio.get_running_loop()
        seats.timer = loop.call_later(seats.seconds, self._abandon, key, seats)

    def _abandon(self, key: Hashable, seats: _Seats) -> None:
        del self._seats[key]
        if seats.abandon is not None and not self._is_draining():
            seats.abandon()
