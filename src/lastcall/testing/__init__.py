"""For tests of programs that use lastcall, and of engines for its jobs.

General layout:
    _clock.py       VirtualClock: time that moves only when told
    _run.py         run_jobs: a program's jobs in a test, with faults and crashes at chosen steps
    conformance/    the suite that every engine of jobs must pass
"""

from ._clock import VirtualClock as VirtualClock
from ._run import JobsRun as JobsRun
from ._run import run_jobs as run_jobs

__all__ = ["JobsRun", "VirtualClock", "run_jobs"]
