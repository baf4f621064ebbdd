"""For tests of programs that use lastcall, and of engines for its jobs.

General layout:
    _clock.py       VirtualClock: time that moves only when told
    _places.py      the places at which a job can be made to die, counted
    _run.py         run_jobs: a program's jobs in a test, with faults and crashes at chosen steps
    _survives.py    assert_survives: a job that dies at every place
    _watch.py       watch_tasks: tasks that leak, and such that swallow their cancellation
    conformance/    the suite that every engine of jobs must pass
"""

from ._clock import VirtualClock as VirtualClock
from ._run import JobsRun as JobsRun
from ._run import run_jobs as run_jobs
from ._survives import Survived as Survived
from ._survives import assert_survives as assert_survives
from ._watch import watch_tasks as watch_tasks

__all__ = ["JobsRun", "Survived", "VirtualClock", "assert_survives", "run_jobs", "watch_tasks"]
