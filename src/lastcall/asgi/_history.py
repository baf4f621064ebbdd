"""The last minutes in numbers: what tasks and jobs of this process did, in steps of five seconds, for small plots.

Who calls it: `_live_face` and the live feed. What it owns: observers of the manager and of the jobs, which are there
only while somebody looks now and then: a process that nobody looks at pays nothing. In memory and bounded: a step
holds counts and a sample of durations.
"""

from __future__ import annotations

import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .. import _names as names
from .._core._manager import TaskManager
from .._core._observer import Ended, TaskObserver
from .._core._record import TaskInfo

if TYPE_CHECKING:
    from ..jobs import AttemptResult, Claimed, Jobs, NewJob, StepPolicy

STEP_SECONDS = 5.0
_STEPS = 120
_GIVE_UP_SECONDS = 600.0
_SAMPLED = 200

_TASK_COUNTS = ("started", "completed", "failed", "cancelled")
_JOB_COUNTS = ("submitted", "completed", "failed", "cancelled", "handed_over", "lost")


class Sample:
    """Some durations of many, each as likely as any other."""

    __slots__ = ("_kept", "_seen")

    def __init__(self) -> None:
        self._kept: list[float] = []
        self._seen = 0

    def add(self, seconds: float) -> None:
        self._seen += 1
        if len(self._kept) < _SAMPLED:
            self._kept.append(seconds)
        elif (place := random.randrange(self._seen)) < _SAMPLED:
            self._kept[place] = seconds

    def quantile(self, share: float) -> float | None:
        """The duration that this share of them did not exceed; None without any."""
        if not self._kept:
            return None
        ordered = sorted(self._kept)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Step:
    __slots__ = ("jobs", "ran", "store", "tasks", "took", "waited")

    def __init__(self) -> None:
        self.tasks: Counter[str] = Counter()
        self.took = Sample()
        self.jobs: Counter[str] = Counter()
        self.ran = Sample()
        self.waited = Sample()
        self.store: Mapping[str, int] | None = None


class History:
    """The numbers. `look()` begins or keeps it going; `clock` is for tests: seconds since the epoch."""

    def __init__(
        self, manager: TaskManager, jobs: Jobs | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._manager = manager
        self._jobs = jobs
        self._clock = clock
        self._steps: OrderedDict[int, _Step] = OrderedDict()
        self._begun_at = self._looked_at = 0.0
        self._stops: list[Callable[[], None]] = []

    def look(self) -> None:
        """Somebody looks: from now on, and for ten minutes after the last look, it is counted."""
        self._looked_at = self._clock()
        if not self._stops:
            self._begun_at = self._looked_at
            self._steps.clear()
            self._stops = [self._manager.observe(_Tasks(self))]
            if self._jobs is not None:
                self._stops.append(self._jobs.observe(_Jobs(self)))

    @property
    def counts(self) -> bool:
        """Whether it is counted now."""
        return bool(self._stops)

    def note_store(self, counts: Mapping[str, int]) -> None:
        """How many jobs there are in the store now, by status."""
        step = self.step()
        if step is not None:
            step.store = dict(counts)

    def points(self, most: int = _STEPS) -> list[dict[str, Any]]:
        """The last steps, the oldest first, also those in which nothing happened; the last one is not over."""
        now = int(self._clock() // STEP_SECONDS)
        first = max(now - min(most, _STEPS) + 1, int(self._begun_at // STEP_SECONDS))
        return [self._point(number) for number in range(first, now + 1)] if self.counts else []

    def step(self) -> _Step | None:
        """Where what happens now is counted; None: nobody has looked for long, and from now on nothing is."""
        now = self._clock()
        if now - self._looked_at > _GIVE_UP_SECONDS:
            self.stop()
            return None
        number = int(now // STEP_SECONDS)
        found = self._steps.get(number)
        if found is None:
            found = self._steps[number] = _Step()
            while len(self._steps) > _STEPS:
                self._steps.popitem(last=False)
        return found

    def stop(self) -> None:
        """Let go of those who are observed."""
        for stop in self._stops:
            stop()
        self._stops = []

    def _point(self, number: int) -> dict[str, Any]:
        step = self._steps.get(number) or _Step()
        jobs = None
        if self._jobs is not None:
            jobs = {
                **{name: step.jobs[name] for name in _JOB_COUNTS},
                "p50_seconds": step.ran.quantile(0.5),
                "p95_seconds": step.ran.quantile(0.95),
                "wait_p50_seconds": step.waited.quantile(0.5),
                "wait_p95_seconds": step.waited.quantile(0.95),
            }
        tasks = {
            **{name: step.tasks[name] for name in _TASK_COUNTS},
            "p50_seconds": step.took.quantile(0.5),
            "p95_seconds": step.took.quantile(0.95),
        }
        return {"at": number * STEP_SECONDS, "tasks": tasks, "jobs": jobs, "store": step.store}


class _Tasks(TaskObserver):
    """Counts tasks."""

    def __init__(self, history: History) -> None:
        self._history = history

    def task_started(self, task: TaskInfo, context: Context, *, inside: bool) -> None:
        step = self._history.step()
        if step is not None:
            step.tasks["started"] += 1

    def task_ended(self, task: TaskInfo) -> None:
        step = self._history.step()
        if step is not None:
            step.tasks[task.status.value] += 1
            if task.seconds is not None:
                step.took.add(task.seconds)


class _Jobs:
    """Counts jobs; a `JobObserver`, which is not imported for it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._begun: dict[tuple[str, int], float] = {}

    def submit_started(self, jobs: Sequence[NewJob]) -> Ended:
        def ended(error: BaseException | None) -> None:
            step = self._history.step()
            if step is not None and error is None:
                step.jobs["submitted"] += len(jobs)

        return ended

    def carry(self, job: NewJob) -> Mapping[str, str]:
        return {}

    def attempt_started(self, job: Claimed, carried: Mapping[str, str]) -> None:
        step = self._history.step()
        if step is None:
            return
        self._begun[job.id, job.attempt] = time.monotonic()
        waited = names.waited_seconds(job.attempt, job.created_at, job.options)
        if waited is not None:
            step.waited.add(waited)

    def attempt_ended(self, job: Claimed, result: AttemptResult) -> None:
        begun = self._begun.pop((job.id, job.attempt), None)
        step = self._history.step()
        if step is None:
            self._begun.clear()
            return
        step.jobs[result.outcome.value] += 1
        if begun is not None:
            step.ran.add(time.monotonic() - begun)

    def step_started(self, job: Claimed, key: str, policy: StepPolicy) -> None:
        return None

    def events_written(self, job: Claimed, count: int) -> None:
        return None
