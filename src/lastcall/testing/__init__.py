"""For tests of programs that use lastcall, and of engines for its jobs.

General layout:
    _clock.py       VirtualClock: time that moves only when told
    conformance/    the suite that every engine of jobs must pass
"""

from ._clock import VirtualClock as VirtualClock

__all__ = ["VirtualClock"]
