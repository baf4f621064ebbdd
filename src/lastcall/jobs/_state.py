"""The words for where a job is and how its attempts end, and the table of what may follow what.

Theory of operation. A job has one status; a process that dies changes an *attempt*, never the status by itself.
Everything that changes a status reads the table below; engines, executor, command line and docs spell no other.

    scheduled   its time has not come (a delay, a retry's backoff)
    queued      any worker that knows the task may claim it
    running     one worker holds it, under one attempt, until its lease ends
    waiting     it sleeps, or waits for an event, for other jobs, or for a person's decision; holds no slot
    completed, failed, cancelled    final; only `retry` by hand leads back
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is. The last three are final."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in FINAL


class Cause(StrEnum):
    """What moves a job from one status to another: the labels of the table."""

    SUBMIT = "submit"
    DUE = "due"
    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY_LATER = "retry later"
    HAND_OVER = "hand over"
    SUSPEND = "suspend"
    WAKE = "wake"
    LOSE = "lose"
    CANCEL = "cancel"
    RETRY_BY_HAND = "retry by hand"


TRANSITIONS: Mapping[JobStatus, Mapping[Cause, frozenset[JobStatus]]] = {
    JobStatus.SCHEDULED: {
        Cause.DUE: frozenset({JobStatus.QUEUED}),
        Cause.CANCEL: frozenset({JobStatus.CANCELLED}),
    },
    JobStatus.QUEUED: {
        Cause.CLAIM: frozenset({JobStatus.RUNNING}),
        Cause.CANCEL: frozenset({JobStatus.CANCELLED}),
    },
    JobStatus.RUNNING: {
        Cause.COMPLETE: frozenset({JobStatus.COMPLETED}),
        Cause.FAIL: frozenset({JobStatus.FAILED}),
        Cause.RETRY_LATER: frozenset({JobStatus.SCHEDULED, JobStatus.CANCELLED}),
        Cause.HAND_OVER: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
        Cause.SUSPEND: frozenset({JobStatus.WAITING, JobStatus.QUEUED, JobStatus.CANCELLED}),
        Cause.LOSE: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
        Cause.CANCEL: frozenset({JobStatus.CANCELLED}),
    },
    JobStatus.WAITING: {
        Cause.WAKE: frozenset({JobStatus.QUEUED}),
        Cause.CANCEL: frozenset({JobStatus.CANCELLED}),
    },
    JobStatus.COMPLETED: {},
    JobStatus.FAILED: {Cause.RETRY_BY_HAND: frozenset({JobStatus.QUEUED})},
    JobStatus.CANCELLED: {Cause.RETRY_BY_HAND: frozenset({JobStatus.QUEUED})},
}

FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class AttemptOutcome(StrEnum):
    """How one try at running a job ended. `lost`: its process vanished or stalled past its lease."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HANDED_OVER = "handed_over"
    LOST = "lost"


class StepStatus(StrEnum):
    """What is written of a step. `started` is written beforehand by the policies that must know of a step in flight."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"


class StepPolicy(StrEnum):
    """What becomes of a step that was in flight when its process died.

    `replay`: it runs again. `once`: nobody can know whether it had happened; the job waits for a decision.
    `continue`: it runs again and is handed what it had emitted so far.
    """

    REPLAY = "replay"
    ONCE = "once"
    CONTINUE = "continue"


class WaitKind(StrEnum):
    """What a waiting job waits for."""

    SLEEP = "sleep"
    SIGNAL = "signal"
    JOBS = "jobs"
    DECISION = "decision"


class CancelOutcome(StrEnum):
    """What a cancel of a job came to. `requested`: it runs; the cancel is written down and will reach it."""

    CANCELLED = "cancelled"
    REQUESTED = "requested"
    ALREADY_ENDED = "already_ended"
    UNKNOWN = "unknown"
