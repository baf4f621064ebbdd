"""A clock that moves only when told.

Who uses it: tests of jobs, the conformance suite, and whoever tests code that takes a clock. It owns two numbers;
threads may read it while the test moves it.
"""

from __future__ import annotations

WALL_START = 1_800_000_000.0
MONOTONIC_START = 1_000.0


class VirtualClock:
    """The two clocks of a machine, wall and monotonic, both standing still until a test moves them.

    >>> clock = VirtualClock()
    >>> before = clock.wall()
    >>> clock.advance(30)
    >>> clock.wall() - before
    30.0
    """

    def __init__(self, wall: float = WALL_START, monotonic: float = MONOTONIC_START) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let so much time pass. ValueError for a negative number: time does not go back, `jump_wall` does."""
        if seconds < 0:
            raise ValueError(
                f"time cannot go back by {-seconds!r} seconds; use jump_wall() for a clock that is set back"
            )
        self._wall += seconds
        self._monotonic += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or a time server does, while no time passes."""
        self._wall += seconds
