"""Those who watch jobs from beside: metrics and traces. See `_core._observer`, whose rule holds here, too.

Who calls it: the client (submissions), the executor (attempts), steps, and the log's writes. What it owns: how what an
observer wants to carry from the submission to the run travels there: in the job's options, which no engine looks into.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from .._core._observer import Ended, tell, tell_end
from .._core._state import StopReason
from ._rows import Cancelled, Claimed, Completed, Failed, HandedOver, NewJob, Outcome, Suspended
from ._state import AttemptOutcome, StepPolicy

_CARRIED = "carried"


class AttemptResult(NamedTuple):
    """How an attempt has ended. `reason`: why it was cancelled or handed over (`waiting`: it waits for something).
    `error`: type, message and traceback, if it failed."""

    outcome: AttemptOutcome
    reason: str | None = None
    error: Mapping[str, Any] | None = None


class JobObserver(Protocol):
    """Is told of jobs: here submitted, run by workers of this process. Override what you need; `jobs.observe(...)`.

    Every method is called on the loop, in the middle of things: be quick, and do not wait. What it raises is logged.
    Those that begin something may return a function, which is called at its end with what it raised, or None.

        class Count(JobObserver):
            def attempt_ended(self, job: Claimed, result: AttemptResult) -> None:
                counts[job.task, result.outcome] += 1

        stop = jobs.observe(Count())
    """

    def submit_started(self, jobs: Sequence[NewJob]) -> Ended | None:
        """These are about to be written, all or none."""
        return None

    def carry(self, job: NewJob) -> Mapping[str, str]:
        """What to give this job on its way; `attempt_started` has it again, wherever the job runs. Called between the
        start and the end of its submission, in the context of whoever submits it."""
        return {}

    def attempt_started(self, job: Claimed, carried: Mapping[str, str]) -> None:
        """A worker of this process begins an attempt; called in the context that its function will run in."""
        return None  # in a Protocol a body of words alone would make the method abstract

    def attempt_ended(self, job: Claimed, result: AttemptResult) -> None:
        """It has ended, perhaps without having begun."""
        return None

    def step_started(self, job: Claimed, key: str, policy: StepPolicy) -> Ended | None:
        """A step runs, one that is remembered does not; called in the context that its function will run in."""
        return None

    def events_written(self, job: Claimed, count: int) -> None:
        """So many events were appended to the job's log."""
        return None


Observers = tuple[JobObserver, ...]


def attempt_started(observers: Observers, job: Claimed) -> None:
    """Tell them, with what was given to the job when it was submitted."""
    carried: Mapping[str, str] = {}
    if job.options is not None and _CARRIED in job.options:
        carried = json.loads(job.options).get(_CARRIED, {})
    tell(observers, "attempt_started", job, carried)


def submit_started(
    observers: Observers, jobs: Sequence[NewJob]
) -> tuple[Sequence[NewJob], Callable[[BaseException | None], None]]:
    """The jobs with what they carry, and what to call at the end."""
    ends = tell(observers, "submit_started", jobs)
    loaded = []
    for job in jobs:
        gifts: dict[str, str] = {}
        for gift in tell(observers, "carry", job):
            gifts.update(gift)
        loaded.append(_with(job, gifts) if gifts else job)
    return loaded, lambda error: tell_end(ends, error)


def _with(job: NewJob, gifts: Mapping[str, str]) -> NewJob:
    options = {} if job.options is None else json.loads(job.options)
    return job._replace(options=json.dumps({**options, _CARRIED: gifts}))


def result_of(outcome: Outcome | None) -> AttemptResult:
    """An outcome in the words of the history. None: it was lost."""
    match outcome:
        case None:
            return AttemptResult(AttemptOutcome.LOST)
        case Completed():
            return AttemptResult(AttemptOutcome.COMPLETED)
        case Failed():
            return AttemptResult(AttemptOutcome.FAILED, error=json.loads(outcome.error))
        case Cancelled():
            return AttemptResult(AttemptOutcome.CANCELLED, outcome.reason)
        case HandedOver():
            return AttemptResult(AttemptOutcome.HANDED_OVER, outcome.reason or StopReason.SHUTDOWN)
        case Suspended():
            return AttemptResult(AttemptOutcome.HANDED_OVER, "waiting")
