"""The engine's two clocks: the server's for everything that is stored, this process's own to see the server's jump."""

from __future__ import annotations

from typing import Protocol

# What time it is in a statement that is a transaction of its own; inside a longer one, $1 is the time of its beginning.
# A test's clock takes the server's place by the same parameter.
NOW = "coalesce($1::float8, extract(epoch FROM statement_timestamp())::float8)"
# The same, worked out once and not for each row: to be written, not to be compared with. The planner does not see what
# it is, and for `due_at <= NOW_ONCE` it goes through all jobs.
NOW_ONCE = f"(SELECT {NOW})"

# The same, once a statement comes to it: after what it has waited for. Jobs began before they were submitted, where
# their claim had waited for a lock.
NOW_AT_LAST = "(SELECT coalesce($1::float8, extract(epoch FROM clock_timestamp())::float8))"


class Clock(Protocol):
    """Other clocks than the real ones, for tests."""

    def wall(self) -> float:
        """Seconds since the epoch: what the server's clock says."""

    def monotonic(self) -> float:
        """Seconds of a clock of this process that never jumps."""
