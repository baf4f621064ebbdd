"""The JSON of the face, as types: what the pages answer and take. The OpenAPI document is made of them (`_schema`).

Times are seconds since the epoch, durations are seconds. Who calls it: the routes; a client in Python may, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from ._schema import Bounds

TaskStatusWord = Literal["pending", "running", "completed", "failed", "cancelled"]
JobStatusWord = Literal["scheduled", "queued", "running", "waiting", "completed", "failed", "cancelled"]
StateWord = Literal["new", "open", "notice", "draining", "cancelling", "closing", "closed"]
ReasonWord = Literal["user", "disconnect", "shutdown", "timeout", "group", "lease_lost"]
KindWord = Literal["task", "thread", "service", "work", "request", "stream", "websocket", "main"]
AttemptWord = Literal["completed", "failed", "cancelled", "handed_over", "lost"]

# Printable, which a schema cannot say.
Text = Annotated[str, Bounds(1, 200)]
StepText = Annotated[str, Bounds(1, 1000)]
NotEmpty = Annotated[str, Bounds(1)]
Delay = Annotated[float, Bounds(least=0)]


class Problem(TypedDict):
    """What went wrong (RFC 9457). `detail` is a sentence for people."""

    type: NotRequired[str]
    title: str
    status: int
    detail: str


class Health(TypedDict):
    """Whether the process lives, or takes new work."""

    status: str
    state: StateWord


class Meta(TypedDict):
    """What this process is, and what its pages offer."""

    name: str
    version: str
    host: str
    pid: int
    state: StateWord
    now: float
    prefix: str
    read_only: bool
    has_jobs: bool
    has_streams: bool
    has_metrics: bool


# --- tasks ----------------------------------------------------------------------------------------------


class Stats(TypedDict):
    """How many tasks there are now (pending, running) and have been since the start; calls: requests in flight."""

    name: str
    state: StateWord
    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int
    swallowed: int
    calls: int


class Task(TypedDict):
    """A task in memory. Its result and error are shown as text, cut to a bounded length."""

    id: str
    name: str
    kind: KindWord
    group: str | None
    status: TaskStatusWord
    labels: dict[str, str]
    daemon: bool
    started_at: float | None
    ended_at: float | None
    seconds: float | None
    result: str | None
    error: str | None
    reason: ReasonWord | None
    swallowed_cancel: bool


class TaskPage(TypedDict):
    """The newest first. `next`: the cursor of the next page."""

    tasks: list[Task]
    shown: int
    total: int
    next: str | None


class TaskCancelled(TypedDict):
    """What a cancel came to. `refused`: it was cancelled and goes on all the same."""

    id: str
    answer: Literal["ended", "refused", "already_ended"]


# --- jobs -----------------------------------------------------------------------------------------------


class JobError(TypedDict):
    """Why an attempt or a step failed."""

    type: NotRequired[str]
    message: NotRequired[str]
    traceback: NotRequired[str]


class ListedJob(TypedDict):
    """A durable job in a list: without its result and its traceback; its arguments unless they were not wanted."""

    id: str
    task: str
    version: str
    queue: str
    status: JobStatusWord
    priority: int
    attempt: int
    failures: int
    lost: int
    args: NotRequired[Any]
    error: JobError | None
    progress: Any
    key: str | None
    labels: dict[str, str]
    parent_id: str | None
    worker_id: str | None
    created_at: float
    due_at: float | None
    started_at: float | None
    ended_at: float | None
    cancel_reason: ReasonWord | None
    waits_for: list[str]


class Job(ListedJob):
    """A durable job with its result."""

    result: Any


class SubmittedJob(TypedDict):
    """A job that was written down. All of `Job` but for the rare case that it could not be read again."""

    id: str
    task: str
    status: NotRequired[JobStatusWord]


class Step(TypedDict):
    """A recorded step, its value as JSON."""

    key: str
    status: Literal["started", "completed", "failed"]
    value: Any
    error: JobError | None
    attempt: int
    started_at: float
    ended_at: float | None


class RunningStep(TypedDict):
    """A step in flight."""

    key: str
    started_at: float


class Attempt(TypedDict):
    """One try. `outcome` null: it runs."""

    attempt: int
    worker_id: str | None
    started_at: float
    ended_at: float | None
    outcome: AttemptWord | None
    reason: str | None
    error: JobError | None


class LogPlace(TypedDict):
    """Which entries of a log are kept: the oldest and the newest one; `last` 0: nothing was written."""

    first: int
    last: int


class Event(TypedDict):
    """An entry of a job's log."""

    seq: int
    type: str
    attempt: int
    step: str | None
    at: float
    data: Any


class LogPage(TypedDict):
    """Entries, where to read on (`next`), where the log stands, and what it is about."""

    events: list[Event]
    shown: int
    next: int
    first: int
    last: int
    closed: bool
    snapshot: dict[str, Any]


class JobDetail(Job):
    """Everything about a job but its events. `running_steps`: those in flight, of which nothing is recorded yet; null
    if the answering process does not run the job, and so cannot know."""

    steps: list[Step]
    running_steps: list[RunningStep] | None
    attempts: list[Attempt]
    undecided_steps: list[str]
    log: LogPlace


class JobPage(TypedDict):
    """The newest first. `next`: the cursor of the next page."""

    jobs: list[ListedJob]
    shown: int
    next: str | None


class NewJob(TypedDict):
    """A job to be submitted. `delay`: seconds. `key`: submitted again with the same key it is the same job."""

    task: NotEmpty
    args: NotRequired[dict[str, Any]]
    key: NotRequired[Text | None]
    delay: NotRequired[Delay | None]
    priority: NotRequired[int | None]
    queue: NotRequired[Text | None]
    labels: NotRequired[dict[str, str] | None]


class Message(TypedDict):
    """A message for a job that waits for this name, now or later."""

    name: Text
    data: NotRequired[Any]


class Decision(TypedDict):
    """What became of a step whose outcome nobody knows: `happened` (perhaps with a `value`), or an `error`."""

    step: StepText
    happened: NotRequired[bool | None]
    value: NotRequired[Any]
    error: NotRequired[NotEmpty | None]


class JobAnswer(TypedDict):
    """What was done to a job."""

    id: str
    answer: Literal["cancelled", "requested", "already_ended", "queued", "sent", "resolved", "purged"]


class TaskName(TypedDict):
    """A task that is declared here."""

    name: str
    version: str
    queue: str
    retries: int
    timeout_seconds: float | None
    cron: str | None
    timezone: str | None


class TaskNames(TypedDict):
    """What can be submitted."""

    tasks: list[TaskName]


class Worker(TypedDict):
    """A worker with its lease. `is_here`: it is of this process."""

    id: str
    host: str
    pid: int
    process_start: str | None
    boot_id: str | None
    pid_namespace: str | None
    lease_seconds: float
    lease_left_seconds: float
    concurrency: int
    queues: list[str] | None
    joined_at: float
    renewed_at: float
    running: int
    is_here: bool


class Workers(TypedDict):
    """All workers of the store. `now`: its clock."""

    now: float
    workers: list[Worker]


class StoredSchedule(TypedDict):
    """A schedule as the store knows it."""

    name: str
    last_tick: float


class Schedule(TypedDict):
    """A schedule: its last tick, from the store, and, where this process declares it, the next one."""

    name: str
    declared: bool
    cron: str | None
    timezone: str | None
    catch_up: bool | None
    last_tick: float | None
    next_tick: float | None


class Schedules(TypedDict):
    """All schedules, by their next tick."""

    now: float
    schedules: list[Schedule]


class Overview(TypedDict):
    """The store at a glance: jobs by status, in all and by queue."""

    now: float
    jobs: dict[str, int]
    queues: dict[str, dict[str, int]]
    workers: list[Worker]
    schedules: list[StoredSchedule]


# --- streams --------------------------------------------------------------------------------------------


class Stream(TypedDict):
    """A free-standing stream. `url`: its path, for the Durable Streams protocol; null if no client can ask for it.
    `entries`: how many can be read, from `first` to `last`. `bytes`: written so far. `expires_at`: if nobody uses it
    until then. `inherited`: how many of its entries are those of `forked_from`."""

    name: str
    url: str | None
    content_type: str
    closed: bool
    entries: int
    first: int
    last: int
    bytes: int
    next_offset: str
    created_at: float
    updated_at: float
    ttl_seconds: int | None
    expires_at: float | None
    forked_from: str | None
    inherited: int


class StreamPage(TypedDict):
    """By name. `next`: the cursor of the next page."""

    items: list[Stream]
    shown: int
    next: str | None


# --- shutdown -------------------------------------------------------------------------------------------


class Plan(TypedDict):
    """The budgets of a shutdown, in seconds."""

    notice: float
    drain: float
    cancel: float
    close: float
    total: float


class WorkLeft(TypedDict):
    """Somebody who is waited for."""

    id: str
    name: str
    kind: KindWord
    group: str | None
    status: TaskStatusWord
    seconds: float | None


class PhaseReport(TypedDict):
    """How long a phase was allowed to take, and took."""

    phase: Literal["notice", "drain", "cancel", "close"]
    budget_seconds: float
    seconds: float


class TaskOutcome(TypedDict):
    """How one task met the shutdown."""

    id: str
    name: str
    kind: KindWord
    group: str | None
    daemon: bool
    outcome: str
    seconds: float
    reason: ReasonWord | None
    cut_off: bool
    error: str | None
    swallowed_cancel: bool
    stack: list[str]


class ResourceOutcome(TypedDict):
    """How one resource was closed."""

    name: str
    outcome: str
    seconds: float
    error: str | None
    stack: list[str]


class Report(TypedDict):
    """The record of one shutdown."""

    name: str
    reason: ReasonWord
    started_at: float
    seconds: float
    budget_seconds: float
    phases: list[PhaseReport]
    counts: dict[str, int]
    tasks: list[TaskOutcome]
    resources: list[ResourceOutcome]
    forced: bool
    late_births_refused: int
    unclean: int
    clean: bool
    exit_code: int


class Stand(TypedDict):
    """Where the shutdown stands, how much of its budget is left, and who is waited for (the first fifty)."""

    name: str
    host: str
    pid: int
    ends_process: bool
    state: StateWord
    plan: Plan
    elapsed_seconds: float | None
    remaining_seconds: float | None
    phase_remaining_seconds: float | None
    busy: int
    work: list[WorkLeft]
    report: Report | None
    text: str | None


class Shutdown(Stand):
    """The same with the phase, and the last shutdowns of this process, the newest first."""

    phase: Literal["notice", "drain", "cancel", "close"] | None
    reports: list[Report]


class PastShutdown(TypedDict):
    """The report of a shutdown that its process has left in the store. `is_complete` false: it was written before the
    store closed, and the phase `close` is not in it. `tasks_left_out`: of the report's `tasks`, for want of room."""

    id: int
    at: float
    host: str
    pid: int
    worker_ids: list[str]
    is_complete: bool
    tasks_left_out: int
    report: Report
    text: str


class PastShutdowns(TypedDict):
    """The last shutdowns of all processes on the store, the newest first."""

    now: float
    shutdowns: list[PastShutdown]


# --- the past minutes -----------------------------------------------------------------------------------


class TaskPoint(TypedDict):
    """What tasks of this process did in some seconds, and how long those that ended took."""

    started: int
    completed: int
    failed: int
    cancelled: int
    p50_seconds: float | None
    p95_seconds: float | None


class JobPoint(TypedDict):
    """What jobs did in this process: submitted, and attempts by how they ended. Waits: from when a job could begin."""

    submitted: int
    completed: int
    failed: int
    cancelled: int
    handed_over: int
    lost: int
    p50_seconds: float | None
    p95_seconds: float | None
    wait_p50_seconds: float | None
    wait_p95_seconds: float | None


class Point(TypedDict):
    """Some seconds of the past. `store`: the last count of the store's jobs by status, if somebody has looked."""

    at: float
    tasks: TaskPoint
    jobs: JobPoint | None
    store: dict[str, int] | None


class History(TypedDict):
    """The last minutes, the oldest first. Kept only while somebody looks now and then."""

    step_seconds: float
    points: list[Point]
