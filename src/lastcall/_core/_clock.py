"""One clock for deadlines, readable from the loop and from threads."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from ..exceptions import InvalidPlan

Clock = Callable[[], float]

_SAME_TIMELINE_SECONDS = 1.0


def clock_of(loop: asyncio.AbstractEventLoop) -> Clock:
    """The clock whose readings can be compared with `loop.time()`.

    uvloop's `time()` is a cached reading, seconds old when a thread asks an idle loop; so the real
    monotonic clock is preferred, unless the loop lives on a timeline of its own (virtual time in tests).
    """
    if abs(loop.time() - time.monotonic()) < _SAME_TIMELINE_SECONDS:
        return time.monotonic
    return loop.time


def check_count(name: str, count: int, at_least: int) -> int:
    """`count` itself, or ValueError naming what is wrong with it. By its type too: NaN is below nothing."""
    if isinstance(count, bool) or not isinstance(count, int) or count < at_least:
        raise ValueError(f"{name} must be a whole number, {at_least} or more, not {count!r}")
    return count


def check_seconds(name: str, seconds: float, *, zero: bool = True) -> float:
    """`seconds` as a float, or `InvalidPlan` naming what is wrong with it."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidPlan(f"{name} must be a number of seconds, not {seconds!r}")
    if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not zero):
        bound = "a finite number of seconds, 0 or more" if zero else "a finite number of seconds above 0"
        raise InvalidPlan(f"{name} must be {bound}, not {seconds!r}")
    return float(seconds)
