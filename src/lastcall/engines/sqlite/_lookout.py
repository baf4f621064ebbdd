"""When to look whether somebody else has committed, and the look itself: `PRAGMA data_version`.

Who calls it: the writer thread, between batches. The number changes only through other connections, so our own commits
are never taken for news.

Another process's write to the log is seen before its commit is: it writes, then syncs, then makes the commit
visible, and only the write can be watched. So a nudge is followed by more looks, each after a quarter of the time that
has passed since: a commit is seen late by that share of what its sync took. In the end that is as long as between
the regular looks, which are the truth beneath.
"""

from __future__ import annotations

import sqlite3
import time

_FIRST_SECONDS = 0.00025
_SHARE = 0.25


class Lookout:
    """`poll_seconds`: look at least so often; None: never. It and `nudge` are for the loop, the rest for the thread."""

    def __init__(self) -> None:
        self.poll_seconds: float | None = None
        self._nudges = self._nudges_seen = 0
        self._version: int | None = None
        self._pause_seconds = _FIRST_SECONDS
        self._looked_at = self._nudged_at = 0.0

    def nudge(self) -> None:
        """Look at once. Counted, because a flag could be set in the moment in which it is taken down."""
        self._nudges += 1

    @property
    def is_nudged(self) -> bool:
        return self._nudges != self._nudges_seen

    def begin(self, connection: sqlite3.Connection) -> None:
        """A connection was opened; what it sees now is no news."""
        self._version = _data_version(connection)

    def wait_seconds(self) -> float | None:
        """How long to sleep until the next look; None: until called."""
        if self.poll_seconds is None:
            return None
        pause = min(self._pause_seconds, self.poll_seconds)
        return max(0.0, self._looked_at + pause - time.monotonic())

    def look(self, connection: sqlite3.Connection | None) -> bool:
        """Whether somebody else has committed since the last look. None: the file is not open, look another time."""
        nudges = self._nudges
        if self.poll_seconds is None:
            return False
        self._looked_at = time.monotonic()
        if nudges != self._nudges_seen:
            self._nudges_seen = nudges
            self._nudged_at = self._looked_at
        self._pause_seconds = max(_FIRST_SECONDS, (self._looked_at - self._nudged_at) * _SHARE)
        before = self._version
        if connection is not None:
            self._version = _data_version(connection)
        return self._version != before


def _data_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)
