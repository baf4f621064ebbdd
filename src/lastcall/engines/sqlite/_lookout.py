"""When to look whether somebody else has committed, and the look itself: `PRAGMA data_version`.

Who calls it: the writer thread, between batches. The number changes only through other connections, so our own commits
are never taken for news.

Another process's write to the log is seen before its commit is: it writes, then syncs, then makes the commit
visible, and only the write can be watched. So a nudge that finds nothing is followed by more looks, each after
twice the time. Regular polling is the truth beneath.
"""

from __future__ import annotations

import sqlite3
import time

_FIRST_SECONDS = 0.001
_LAST_SECONDS = 0.3


class Lookout:
    """`poll_seconds`: look at least so often; None: never. `nudged`: set from the loop, look at once."""

    def __init__(self) -> None:
        self.poll_seconds: float | None = None
        self.nudged = False
        self._version: int | None = None
        self._again_seconds: float | None = None
        self._looked_at = 0.0

    def begin(self, connection: sqlite3.Connection) -> None:
        """A connection was opened; what it sees now is no news."""
        self._version = _data_version(connection)

    def wait_seconds(self) -> float | None:
        """How long to sleep until the next look; None: until called."""
        if self.poll_seconds is None:
            return None
        pause = self.poll_seconds if self._again_seconds is None else self._again_seconds
        return max(0.0, self._looked_at + min(pause, self.poll_seconds) - time.monotonic())

    def look(self, connection: sqlite3.Connection) -> bool:
        """Whether somebody else has committed since the last look."""
        if self.poll_seconds is None:
            return False
        self._looked_at = time.monotonic()
        nudged, self.nudged = self.nudged, False
        version = _data_version(connection)
        news = version != self._version
        self._version = version
        if news or self._again_seconds is None:
            self._again_seconds = _FIRST_SECONDS if nudged else None
        elif nudged:
            self._again_seconds = _FIRST_SECONDS
        else:
            doubled = self._again_seconds * 2
            self._again_seconds = doubled if doubled < _LAST_SECONDS else None
        return news


def _data_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)
