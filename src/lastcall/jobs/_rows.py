"""What crosses the port: plain values, frozen, made by one side and read by the other.

Every time is in seconds since the epoch, by the engine's clock; every `…_seconds` is a length of time.
Arguments, results, values and data are JSON texts here: an engine stores them and never looks inside.
NamedTuples, because a worker makes some of these for every job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .._core._state import StopReason
from ._state import AttemptOutcome, JobStatus, StepPolicy, StepStatus, WaitKind

DEFAULT_QUEUE = "default"
DEFAULT_MAX_LOST = 3
DEFAULT_MAX_ATTEMPTS = 100
DEFAULT_LOG_MAX_BYTES = 16 * 1024 * 1024


# --- submitting ----------------------------------------------------------------------------------------


class NewJob(NamedTuple):
    """A job to be submitted. `delay_seconds` or `due_at`, not both; neither: at once.

    `key` makes it idempotent, per task name. `limit_key` and `limit`: at most so many jobs with this
    limit key run at once, over all workers. `options` is the worker's business and opaque to the engine.
    `max_lost`: so many attempts lost in a row without a new completed step fail the job; `max_attempts`: so
    many failed or lost ones altogether. `retention_seconds`: how long it is kept after its end.
    `log_max_bytes`, `log_max_age_seconds`: how much of its log is kept, trimmed when something is appended
    (`_events.trimmed_up_to` says when); the newest entry always stays.
    """

    id: str
    task: str
    args: str
    version: str = ""
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    delay_seconds: float | None = None
    due_at: float | None = None
    key: str | None = None
    limit_key: str | None = None
    limit: int | None = None
    labels: str | None = None
    options: str | None = None
    parent_id: str | None = None
    max_lost: int = DEFAULT_MAX_LOST
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    retention_seconds: float | None = None
    log_max_bytes: int = DEFAULT_LOG_MAX_BYTES
    log_max_age_seconds: float | None = None


class Submitted(NamedTuple):
    """What became of one submitted job.

    `created` False: a job with this key was there, and `id` and `status` are its. `conflict` True: it was
    there with other arguments; then nothing of the whole call was written.
    """

    id: str
    status: JobStatus
    created: bool
    conflict: bool = False


# --- claiming ------------------------------------------------------------------------------------------


class TaskLimits(NamedTuple):
    """How often one task may run, over all workers: `concurrency` at once, `rate_count` starts per `rate_seconds`.

    The rate is a token bucket that is full at first: up to `rate_count` at once, refilled evenly.
    """

    concurrency: int | None = None
    rate_count: int | None = None
    rate_seconds: float | None = None


class ClaimRequest(NamedTuple):
    """What a worker can take: `tasks` maps (name, version) to limits (None: none); `queues` None: every queue."""

    worker_id: str
    limit: int
    tasks: Mapping[tuple[str, str], TaskLimits | None]
    queues: frozenset[str] | None = None


class Claimed(NamedTuple):
    """A job this worker holds now. `(id, attempt)` is the fence that every write carries.

    `failures`: attempts that were charged so far. `has_steps`: something is recorded, ask `steps(id)`.
    """

    id: str
    attempt: int
    task: str
    version: str
    args: str
    queue: str
    priority: int
    failures: int
    has_steps: bool
    created_at: float
    key: str | None
    labels: str | None
    options: str | None
    parent_id: str | None


class ClaimResult(NamedTuple):
    """`next_due_seconds`: when asking again may bring more although nobody tells; None: only after news.

    `suspect_waits`: a job that is to run alone (see `Engine.claim`) is queued and fits what was asked, by task,
    version, queue and limit key, and this worker holds something. Asking for no jobs tells it, too.
    """

    jobs: list[Claimed]
    next_due_seconds: float | None
    suspect_waits: bool = False


# --- ends of an attempt --------------------------------------------------------------------------------


class Completed(NamedTuple):
    """The function returned. The job is completed."""

    result: str


class Failed(NamedTuple):
    """It raised. Charged. With `retry_in_seconds` the job is scheduled again, without it has failed.

    `error`: JSON with `type`, `message` and `traceback`.
    """

    error: str
    retry_in_seconds: float | None = None


class Cancelled(NamedTuple):
    """It was cancelled for good: by a user, or by the job's own cancelling code."""

    reason: StopReason
    error: str | None = None


class HandedOver(NamedTuple):
    """Given back unharmed, not charged; queued again at once (cancelled, if that was asked for meanwhile)."""

    reason: StopReason = StopReason.SHUTDOWN


class Wait(NamedTuple):
    """One thing a job waits for; when it comes, the engine completes the step `step` with it and wakes the job.

    `sleep`: `seconds` from now. `signal`: a message `name`, or `seconds` from now, whichever comes first.
    `jobs`: all of the jobs `jobs` have ended (an unknown id counts as ended). `decision`: a message `name`, about a
    step whose outcome nobody knows.
    The step's value is JSON: null for sleep and jobs; {"data": …} for a message, {"timeout": true} without one.
    Asked for again with the same `step`, a wait keeps the end it was given first.
    """

    step: str
    kind: WaitKind
    name: str | None = None
    seconds: float | None = None
    jobs: tuple[str, ...] = ()


class Suspended(NamedTuple):
    """Given back to wait, not charged. Queued at once if one of the waits is over already."""

    waits: tuple[Wait, ...]


Outcome = Completed | Failed | Cancelled | HandedOver | Suspended


class AttemptEnd(NamedTuple):
    """How the attempt under this fence ended."""

    id: str
    attempt: int
    outcome: Outcome


# --- steps and events ----------------------------------------------------------------------------------


class StepRecord(NamedTuple):
    """What a worker writes of a step. `key` is its identity in the job, `seconds` how long it ran.

    `main`: called by the job's own task, not by a task that it started. `value`: JSON, when completed.
    """

    key: str
    status: StepStatus
    value: str | None = None
    error: str | None = None
    policy: StepPolicy = StepPolicy.REPLAY
    main: bool = True
    seconds: float = 0.0


class StepRow(NamedTuple):
    """What is recorded of a step, in the order of recording."""

    key: str
    status: StepStatus
    value: str | None
    error: str | None
    policy: StepPolicy
    main: bool
    attempt: int
    started_at: float
    ended_at: float | None


class NewEvent(NamedTuple):
    """An event to be appended. `data` is JSON. The type `progress` also becomes the job's progress."""

    type: str
    data: str
    step: str | None = None


class EventRow(NamedTuple):
    """An entry of a job's log; `seq` counts from 1 without gaps. `attempt` 0: written from outside."""

    seq: int
    attempt: int
    step: str | None
    type: str
    data: str
    at: float


class ReadFrom(NamedTuple):
    """Whose events, and behind which `seq`; 0 for all of them."""

    id: str
    after: int = 0


class EventPage(NamedTuple):
    """Some of a job's log, and where it and its job stand, all of one moment.

    `first`: the oldest `seq` that is kept, `last + 1` if none is. `last`: the newest ever written, 0 before that. Old
    entries may be deleted, the newest one never: so both can be told from what is kept.
    """

    events: list[EventRow]
    first: int
    last: int
    status: JobStatus


# --- looking -------------------------------------------------------------------------------------------


class JobRow(NamedTuple):
    """Everything about a job but its steps, attempts and events."""

    id: str
    task: str
    version: str
    queue: str
    status: JobStatus
    priority: int
    attempt: int
    failures: int
    lost: int
    args: str
    result: str | None
    error: str | None
    progress: str | None
    key: str | None
    limit_key: str | None
    labels: str | None
    options: str | None
    parent_id: str | None
    worker_id: str | None
    created_at: float
    due_at: float | None
    started_at: float | None
    ended_at: float | None
    expires_at: float | None
    cancel_reason: StopReason | None
    waits: tuple[Wait, ...]


class AttemptRow(NamedTuple):
    """One try. `outcome` None: it runs. `reason`: why it was cancelled or handed over (`waiting` for a suspension)."""

    attempt: int
    worker_id: str | None
    started_at: float
    ended_at: float | None
    outcome: AttemptOutcome | None
    reason: str | None
    error: str | None


class JobQuery(NamedTuple):
    """Which jobs: all given conditions hold. Newest first, `limit` of them, those older than the job `before`.
    `task_part`: the name of the task has this in it, in capitals or not."""

    statuses: frozenset[JobStatus] | None = None
    task: str | None = None
    queue: str | None = None
    key: str | None = None
    parent_id: str | None = None
    label: tuple[str, str] | None = None
    before: str | None = None
    limit: int = 50
    task_part: str | None = None


# --- workers -------------------------------------------------------------------------------------------


class WorkerRow(NamedTuple):
    """A worker as it joins and as it is listed. `pid`, `process_start`, `boot_id` and `pid_namespace` say which process
    it is, so that another worker on the same machine can see that it is gone; None where that cannot be told."""

    id: str
    host: str
    pid: int
    process_start: str | None
    boot_id: str | None
    pid_namespace: str | None
    lease_seconds: float
    concurrency: int
    queues: frozenset[str] | None
    joined_at: float = 0.0
    renewed_at: float = 0.0
    running: int = 0


class CancelRequest(NamedTuple):
    """A running job of this worker that somebody wants cancelled."""

    id: str
    attempt: int
    reason: StopReason


class Renewal(NamedTuple):
    """`alive` False: this worker was taken for dead and its jobs were given to others; it must let go of them."""

    alive: bool
    cancels: list[CancelRequest]


class Rescued(NamedTuple):
    """A job taken from a worker that is dead, and what it is now."""

    id: str
    attempt: int
    worker_id: str
    status: JobStatus


class ScheduleRow(NamedTuple):
    """A schedule and the last tick of it that was fired or passed over."""

    name: str
    last_tick: float


class Overview(NamedTuple):
    """`now`: the engine's clock. `counts`: by (queue, status)."""

    now: float
    counts: Mapping[tuple[str, JobStatus], int]
    workers: list[WorkerRow]
    schedules: list[ScheduleRow]
