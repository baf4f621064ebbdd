"""When the store could last not be written to, as this process found it, and for how long.

Who calls it: an engine, around every try to write; `rescue`, when it judges leases. From one thread only.

A full disk, or somebody who is stopped in the middle of a commit, keeps all workers from renewing their leases. When
that is over, the first one through the lock would find all others dead, take their jobs, and run for a second time what
they hold finished in their hands. So a lease that may have ended for this reason is given the time to be renewed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

# A service that found the store away pauses for about as long as it was away, 2 seconds at most.
_GRACE_SECONDS = 1.0
_LONGEST_GRACE_SECONDS = 3.0


class Outage:
    """The last spell without a commit. It counts real time, whatever clock the engine was given."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._trying_since: float | None = None
        self._ended = -math.inf
        self._seconds = 0.0

    def begin(self) -> None:
        """A transaction is tried, perhaps not for the first time."""
        if self._trying_since is None:
            self._trying_since = self._clock()

    def end(self) -> None:
        """The store took it, or it was not the store's fault. A short wait does not make a long one forgotten."""
        now = self._clock()
        seconds = now - (now if self._trying_since is None else self._trying_since)
        self._trying_since = None
        if seconds >= self._seconds or not self._in_grace(now):
            self._seconds, self._ended = seconds, now

    def excuses(self, lease_seconds: float) -> bool:
        """Whether a lease of this length may be over only because its worker could not renew it.

        Leases are renewed at a third: two thirds without the store end one, of which we, who try once a second at
        least, have seen the better part.
        """
        now, long = self._clock(), lease_seconds / 3
        if self._trying_since is not None and now - self._trying_since >= long:
            return True
        return self._seconds >= long and self._in_grace(now)

    def _in_grace(self, now: float) -> bool:
        return now - self._ended < min(self._seconds + _GRACE_SECONDS, _LONGEST_GRACE_SECONDS)
