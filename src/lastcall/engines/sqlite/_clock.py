"""The engine's two clocks: the wall clock for due times, the machine's monotonic clock for leases."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is. Asked from the writer thread and the reader thread."""

    def wall(self) -> float:
        """Seconds since the epoch. May jump; due times and everything people read jump with it."""

    def monotonic(self) -> float:
        """Seconds of the clock that all processes of this machine share and that never jumps."""


class SystemClock:
    """The machine's own clocks."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
