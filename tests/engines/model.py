"""A plain-Python implementation of the engine port: the oracle that real engines are compared with.

Dicts, lists and one clock; no threads, no await inside a verb, so each verb is one transaction by nature.
`dead_processes` stands for "one can see that this worker's process is gone".

What the docstrings of the port leave open is decided here:

- A queued job is *held* by its limit key, or free. Its place is what a free or running job has. Running to queued
  (handed over, lost, suspended with a wait that is over) keeps the place; every other way into `queued` asks for one.
- When a place is given up, or a held job ends, held jobs are let go while the first of them, by priority and age, has
  room.
- What the engine tells in a log comes where the call comes; calls at the same time may come in any order.
- A suspect stays one through every status but the final ones; when the last of the limits that forbid it falls, it is
  still one.
- In a claim, due jobs enter in claim order (priority, then age), then due waits by their time.
- A cancel that wins over a hand-over, a suspension or a retry changes the job; the attempt keeps its own outcome.
- The first reason of a cancel stays.
- The end of a job drops its waits; messages that nobody received stay for a retry by hand.
- A message is looked for before a timeout when both are there.
- A step that was started and is completed by a wait stays what it was: policy, attempt, start.
- A worker whose slots are full is not told when a rate would let more begin.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lastcall._core._state import StopReason
from lastcall.jobs._events import (
    FAILED,
    LOST,
    RETRY,
    WAKE,
    size_of,
    status_event,
    step_event,
    trimmed_up_to,
)
from lastcall.jobs._policy import Loss, after_loss
from lastcall.jobs._rows import (
    AttemptEnd,
    AttemptRow,
    Cancelled,
    CancelRequest,
    Claimed,
    ClaimRequest,
    ClaimResult,
    Completed,
    EventPage,
    EventRow,
    Failed,
    HandedOver,
    JobQuery,
    JobRow,
    NewEvent,
    NewJob,
    Overview,
    ReadFrom,
    Renewal,
    Rescued,
    ScheduleRow,
    StepRecord,
    StepRow,
    Submitted,
    Suspended,
    TaskLimits,
    Wait,
    WorkerRow,
)
from lastcall.jobs._state import AttemptOutcome, CancelOutcome, JobStatus, StepPolicy, StepStatus, WaitKind

RETENTION_SECONDS = 7 * 24 * 3600.0
SUSPENDED = "waiting"


class Clock(Protocol):
    def wall(self) -> float: ...
    def monotonic(self) -> float: ...


class SystemClock:
    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass
class Job:
    new: NewJob
    seq: int
    created_at: float
    status: JobStatus
    held: bool = False
    suspect: bool = False
    attempt: int = 0
    failures: int = 0
    lost: int = 0
    lost_in_a_row: int = 0
    steps_at_last_loss: int = 0
    result: str | None = None
    error: str | None = None
    progress: str | None = None
    worker_id: str | None = None
    due_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    cancel_reason: StopReason | None = None
    waits: dict[str, PendingWait] = field(default_factory=dict)
    messages: list[tuple[str, str]] = field(default_factory=list)
    steps: dict[str, StepRow] = field(default_factory=dict)
    attempts: list[AttemptRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    upto: list[int] = field(default_factory=list)  # of each event, how long the log was with it

    @property
    def rank(self) -> tuple[int, int]:
        return (-self.new.priority, self.seq)

    @property
    def has_place(self) -> bool:
        return self.status is JobStatus.RUNNING or (self.status is JobStatus.QUEUED and not self.held)

    def holds_fence(self, attempt: int) -> bool:
        return self.status is JobStatus.RUNNING and self.attempt == attempt

    def completed_steps(self) -> int:
        return sum(step.status is StepStatus.COMPLETED for step in self.steps.values())


@dataclass
class PendingWait:
    wait: Wait
    since: float
    due_at: float | None


@dataclass
class Worker:
    row: WorkerRow
    renewed: float  # monotonic


@dataclass
class Bucket:
    tokens: float
    at: float  # monotonic


class ModelStore:
    """What a file or a database would keep: shared by the engine objects opened on it."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.seq = 0
        self.workers: dict[str, Worker] = {}
        self.schedules: dict[str, float] = {}
        self.buckets: dict[str, Bucket] = {}
        self.dead_processes: set[str] = set()
        self.listeners: list[tuple[ModelEngine, asyncio.AbstractEventLoop, Callable[[], None]]] = []


class ModelTransaction:
    """A user's transaction: what it has submitted is written when it commits."""

    def __init__(self, store: ModelStore, clock: Clock) -> None:
        # An engine of its own: all others hear of what it writes.
        self._engine = ModelEngine(clock, store)
        self.pending: list[NewJob] = []

    async def commit(self) -> None:
        pending, self.pending = self.pending, []
        await self._engine.submit(pending)

    async def rollback(self) -> None:
        self.pending = []


class ModelEngine:
    """The port over a `ModelStore`; two objects on one store are two processes on one file."""

    shares_commits = True

    def __init__(self, clock: Clock | None = None, store: ModelStore | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.store = store or ModelStore()

    @property
    def dead_processes(self) -> set[str]:
        """Ids of workers whose process a test declares dead."""
        return self.store.dead_processes

    # --- its own life ---

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def listen(self, on_change: Callable[[], None]) -> Callable[[], None]:
        entry = (self, asyncio.get_running_loop(), on_change)
        self.store.listeners.append(entry)

        def stop() -> None:
            self.store.listeners = [each for each in self.store.listeners if each is not entry]

        return stop

    def _changed(self) -> None:
        for engine, loop, on_change in self.store.listeners:
            if engine is not self and not loop.is_closed():
                loop.call_soon(on_change)

    # --- jobs, from outside ---

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        by_key = {(job.new.task, job.new.key): (job.new, job.status) for job in self._all() if job.new.key}
        answers = []
        fresh = []
        for new in jobs:
            there = by_key.get((new.task, new.key)) if new.key else None
            if there is None:
                status = JobStatus.QUEUED if self._due_at(new) is None else JobStatus.SCHEDULED
                answers.append(Submitted(new.id, status, True))
                fresh.append(new)
                if new.key:
                    by_key[new.task, new.key] = (new, status)
            else:
                answers.append(Submitted(there[0].id, there[1], False, there[0].args != new.args))
        if any(answer.conflict for answer in answers):
            return [answer._replace(created=False) for answer in answers]
        for new in fresh:
            self._insert(new)
        if fresh:
            self._changed()
        return answers

    def _due_at(self, new: NewJob) -> float | None:
        now = self.clock.wall()
        due_at = new.due_at if new.delay_seconds is None else now + new.delay_seconds
        return due_at if due_at is not None and due_at > now else None

    def _insert(self, new: NewJob) -> None:
        self.store.seq += 1
        due_at = self._due_at(new)
        job = Job(new, self.store.seq, self.clock.wall(), JobStatus.SCHEDULED, due_at=due_at)
        self.store.jobs[new.id] = job
        if due_at is None:
            self._enqueue(job)

    async def get(self, job_ids: Sequence[str]) -> list[JobRow]:
        return [self._row(self.store.jobs[job_id]) for job_id in job_ids if job_id in self.store.jobs]

    async def find(self, query: JobQuery) -> list[JobRow]:
        before = self.store.jobs.get(query.before) if query.before is not None else None
        if query.before is not None and before is None:
            return []
        fitting = [
            job
            for job in reversed(self._all())
            if (query.statuses is None or job.status in query.statuses)
            and (query.task is None or job.new.task == query.task)
            and (query.task_part is None or query.task_part.lower() in job.new.task.lower())
            and (query.queue is None or job.new.queue == query.queue)
            and (query.key is None or job.new.key == query.key)
            and (query.parent_id is None or job.new.parent_id == query.parent_id)
            and (query.label is None or _label(job, query.label[0]) == query.label[1])
            and (before is None or job.seq < before.seq)
        ]
        return [self._row(job) for job in fitting[: query.limit]]

    async def attempts(self, job_id: str) -> list[AttemptRow]:
        job = self.store.jobs.get(job_id)
        return list(job.attempts) if job else []

    async def steps(self, job_id: str) -> list[StepRow]:
        job = self.store.jobs.get(job_id)
        return list(job.steps.values()) if job else []

    async def cancel(self, job_id: str, reason: StopReason) -> CancelOutcome:
        job = self.store.jobs.get(job_id)
        if job is None:
            return CancelOutcome.UNKNOWN
        if job.status.final:
            return CancelOutcome.ALREADY_ENDED
        job.cancel_reason = job.cancel_reason or reason
        if job.status is JobStatus.RUNNING:
            self._changed()
            return CancelOutcome.REQUESTED
        self._end_badly(job, JobStatus.CANCELLED)
        self._changed()
        return CancelOutcome.CANCELLED

    async def retry(self, job_id: str) -> JobStatus | None:
        job = self.store.jobs.get(job_id)
        if job is None:
            return None
        if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            job.failures = job.lost = job.lost_in_a_row = job.steps_at_last_loss = 0
            job.suspect = False
            job.cancel_reason = job.result = job.error = job.ended_at = job.expires_at = None
            self._enqueue(job)
            self._tell(job, 0, status_event(JobStatus.QUEUED, RETRY))
            self._changed()
        return job.status

    async def send(self, job_id: str, name: str, data: str) -> JobStatus | None:
        job = self.store.jobs.get(job_id)
        if job is None:
            return None
        if not job.status.final:
            job.messages.append((name, data))
            self._wake(job, job.waits, timers=False)
            self._changed()
        return job.status

    async def purge(self, job_id: str) -> JobStatus | None:
        job = self.store.jobs.get(job_id)
        if job is None:
            return None
        if job.status.final:
            del self.store.jobs[job_id]
            self._changed()
        return job.status

    async def append_events(self, job_id: str, attempt: int | None, events: Sequence[NewEvent]) -> int | None:
        job = self.store.jobs.get(job_id)
        if job is None or (attempt is not None and not job.holds_fence(attempt)):
            return None
        if events:
            self._tell(job, attempt or 0, *events)
            self._changed()
        for event in events:
            if event.type == "progress":
                job.progress = event.data
        return job.events[-1].seq if job.events else 0

    def _tell(self, job: Job, attempt: int, *events: NewEvent) -> None:
        """Append to its log, and trim that."""
        now = self.clock.wall()
        before = job.upto[-1] if job.upto else 0
        for event in events:
            seq = job.events[-1].seq + 1 if job.events else 1
            job.events.append(EventRow(seq, attempt, event.step, event.type, event.data, now))
            job.upto.append((job.upto[-1] if job.upto else 0) + size_of(event))
        up_to = trimmed_up_to(before, job.upto[-1], job.new.log_max_bytes)
        while up_to is not None and job.upto[0] <= up_to:
            del job.events[0], job.upto[0]
        max_age_seconds = job.new.log_max_age_seconds
        while max_age_seconds is not None and job.events[0].at < now - max_age_seconds:
            del job.events[0], job.upto[0]

    async def read_events(self, reads: Sequence[ReadFrom], limit: int) -> list[EventPage | None]:
        return [self._log(read, limit) for read in reads]

    def _log(self, read: ReadFrom, limit: int) -> EventPage | None:
        job = self.store.jobs.get(read.id)
        if job is None:
            return None
        events = [event for event in job.events if event.seq > read.after][: max(0, limit)]
        last = job.events[-1].seq if job.events else 0
        return EventPage(events, job.events[0].seq if job.events else last + 1, last, job.status)

    async def overview(self) -> Overview:
        running = Counter(job.worker_id for job in self._all() if job.status is JobStatus.RUNNING)
        return Overview(
            now=self.clock.wall(),
            counts=Counter((job.new.queue, job.status) for job in self._all()),
            workers=[
                worker.row._replace(running=running[worker.row.id]) for worker in self.store.workers.values()
            ],
            schedules=[ScheduleRow(*item) for item in self.store.schedules.items()],
        )

    # --- jobs, from a worker ---

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        changed = self._make_due_ready()
        if request.worker_id not in self.store.workers:
            return ClaimResult([], self._next_due_seconds([]))
        claimed: list[Claimed] = []
        refills: list[float] = []
        held = self._held_by(request.worker_id)
        if not held:
            claimed = self._take(self._line(request, suspects=True), request, min(1, request.limit), refills)
        alone = bool(claimed) or any(job.suspect for job in held)
        if not alone:
            claimed = self._take(self._line(request, suspects=False), request, request.limit, refills)
        if changed or claimed:
            self._changed()
        full = alone or len(claimed) >= request.limit
        waits = bool((held or claimed) and self._line(request, suspects=True))
        return ClaimResult(claimed, self._next_due_seconds([] if full else refills), waits)

    def _line(self, request: ClaimRequest, *, suspects: bool) -> list[Job]:
        """Who stands in line for this request, the first one first: the suspects, or the others."""
        line = [
            job
            for job in self._all()
            if job.status is JobStatus.QUEUED
            and not job.held
            and job.suspect is suspects
            and _fits(job, request)
        ]
        return sorted(line, key=lambda job: job.rank)

    def _take(self, line: list[Job], request: ClaimRequest, most: int, refills: list[float]) -> list[Claimed]:
        """Start the first ones that no limit forbids; in `refills`, when there will be tokens for others."""
        claimed: list[Claimed] = []
        for job in line:
            if len(claimed) >= most:
                break
            limits = request.tasks[job.new.task, job.new.version] or TaskLimits()
            if limits.concurrency is not None and self._running(job.new.task) >= limits.concurrency:
                continue
            refill = self._take_token(job.new.task, limits)
            if refill is not None:
                refills.append(refill)
                continue
            claimed.append(self._start(job, request.worker_id))
        return claimed

    def _make_due_ready(self) -> bool:
        """Due jobs in the order of claims, then due waits; whether there were any."""
        now = self.clock.wall()
        due = [job for job in self._all() if job.status is JobStatus.SCHEDULED and (job.due_at or 0) <= now]
        for job in sorted(due, key=lambda job: job.rank):
            self._enqueue(job)
        waits = [
            (pending.due_at, job.seq, job)
            for job in self._all()
            for pending in job.waits.values()
            if pending.due_at is not None and pending.due_at <= now
        ]
        for _, _, job in sorted(waits, key=lambda entry: entry[:2]):
            self._wake(job, job.waits, timers=True)
        return bool(due or waits)

    def _running(self, task: str) -> int:
        return sum(job.status is JobStatus.RUNNING and job.new.task == task for job in self._all())

    def _take_token(self, task: str, limits: TaskLimits) -> float | None:
        """None: taken, or there is no rate. Otherwise the seconds until there is a token."""
        if limits.rate_count is None or limits.rate_seconds is None:
            return None
        now = self.clock.monotonic()
        per_second = limits.rate_count / limits.rate_seconds
        bucket = self.store.buckets.setdefault(task, Bucket(limits.rate_count, now))
        bucket.tokens = min(limits.rate_count, bucket.tokens + (now - bucket.at) * per_second)
        bucket.at = now
        if bucket.tokens < 1 - 1e-9:
            return (1 - bucket.tokens) / per_second
        bucket.tokens -= 1
        return None

    def _start(self, job: Job, worker_id: str) -> Claimed:
        now = self.clock.wall()
        job.status = JobStatus.RUNNING
        job.attempt += 1
        job.worker_id = worker_id
        job.due_at = None
        job.started_at = now
        job.attempts.append(AttemptRow(job.attempt, worker_id, now, None, None, None, None))
        if job.attempt > 1:
            self._tell(job, job.attempt, status_event(JobStatus.RUNNING, worker=worker_id))
        new = job.new
        return Claimed(
            id=new.id,
            attempt=job.attempt,
            task=new.task,
            version=new.version,
            args=new.args,
            queue=new.queue,
            priority=new.priority,
            failures=job.failures,
            has_steps=bool(job.steps),
            created_at=job.created_at,
            key=new.key,
            labels=new.labels,
            options=new.options,
            parent_id=new.parent_id,
        )

    def _next_due_seconds(self, refills: Iterable[float]) -> float | None:
        now = self.clock.wall()
        times = [job.due_at for job in self._all() if job.status is JobStatus.SCHEDULED]
        times += [pending.due_at for job in self._all() for pending in job.waits.values()]
        return min([*refills, *(at - now for at in times if at is not None)], default=None)

    async def finish(self, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
        answers: list[JobStatus | None] = []
        for end in ends:
            job = self.store.jobs.get(end.id)
            if job is None or not job.holds_fence(end.attempt):
                answers.append(None)
                continue
            self._finish(job, end)
            answers.append(job.status)
        if any(answers):
            self._changed()
        return answers

    def _finish(self, job: Job, end: AttemptEnd) -> None:
        match end.outcome:
            case Completed(result):
                self._end_attempt(job, AttemptOutcome.COMPLETED)
                job.result = result
                if job.events:
                    self._tell(job, job.attempt, status_event(JobStatus.COMPLETED))
                self._end(job, JobStatus.COMPLETED)
            case Failed(error, retry_in_seconds):
                self._end_attempt(job, AttemptOutcome.FAILED, error=error)
                job.failures += 1
                if retry_in_seconds is None:
                    job.error = error
                    self._end_badly(job, JobStatus.FAILED, job.attempt)
                elif job.cancel_reason:
                    self._end_badly(job, JobStatus.CANCELLED, job.attempt)
                else:
                    self._tell(job, job.attempt, status_event(JobStatus.SCHEDULED, FAILED))
                    job.status = JobStatus.SCHEDULED
                    job.due_at = self.clock.wall() + retry_in_seconds
                    self._give_place(job.new.limit_key)
            case Cancelled(reason, error):
                self._end_attempt(job, AttemptOutcome.CANCELLED, reason, error)
                job.cancel_reason = job.cancel_reason or reason
                job.error = error
                self._end_badly(job, JobStatus.CANCELLED, job.attempt)
            case HandedOver(reason):
                self._end_attempt(job, AttemptOutcome.HANDED_OVER, reason)
                self._give_back(job, reason)
            case Suspended(waits):
                self._end_attempt(job, AttemptOutcome.HANDED_OVER, SUSPENDED)
                self._suspend(job, waits)

    def _end_attempt(
        self, job: Job, outcome: AttemptOutcome, reason: str | None = None, error: str | None = None
    ) -> None:
        ended_at = self.clock.wall()
        job.worker_id = None
        job.attempts[-1] = job.attempts[-1]._replace(
            ended_at=ended_at, outcome=outcome, reason=reason, error=error
        )

    def _give_back(self, job: Job, reason: StopReason) -> None:
        """From running to queued, keeping its place; cancelled, if that was asked for."""
        if job.cancel_reason:
            self._end_badly(job, JobStatus.CANCELLED, job.attempt)
        else:
            job.status = JobStatus.QUEUED
            self._tell(job, job.attempt, status_event(JobStatus.QUEUED, reason))

    def _end_badly(self, job: Job, status: JobStatus, attempt: int = 0, why: str | None = None) -> None:
        """Failed (`why`) or cancelled. `attempt`: the one that ended with it."""
        reason = job.cancel_reason if status is JobStatus.CANCELLED else why
        self._tell(job, attempt, status_event(status, reason))
        self._end(job, status)

    def _end(self, job: Job, status: JobStatus) -> None:
        now = self.clock.wall()
        retention = job.new.retention_seconds
        job.status = status
        job.held = job.suspect = False
        job.due_at = None
        job.ended_at = now
        job.expires_at = now + (RETENTION_SECONDS if retention is None else retention)
        job.waits.clear()
        self._give_place(job.new.limit_key)
        for waiting in self._all():
            self._wake(waiting, waiting.waits, timers=False)

    async def record_step(self, job_id: str, attempt: int, step: StepRecord) -> bool:
        job = self.store.jobs.get(job_id)
        if job is None or not job.holds_fence(attempt):
            return False
        there = job.steps.get(step.key)
        if there is None or there.status is not StepStatus.COMPLETED:
            now = self.clock.wall()
            job.steps[step.key] = StepRow(
                key=step.key,
                status=step.status,
                value=step.value,
                error=step.error,
                policy=step.policy,
                main=step.main,
                attempt=attempt,
                started_at=now - step.seconds,
                ended_at=None if step.status is StepStatus.STARTED else now,
            )
            job.suspect = job.suspect and step.status is not StepStatus.COMPLETED
            if step.status is not StepStatus.STARTED:
                self._tell(job, attempt, step_event(step))
            self._changed()
        return True

    async def submit_within(self, connection: ModelTransaction, jobs: Sequence[NewJob]) -> list[Submitted]:
        """What it will come to is tried on a copy of the store; the store itself is written at the commit."""
        trial = ModelEngine(self.clock, pickle.loads(pickle.dumps(self._without_listeners())))
        await trial.submit(connection.pending)
        answers = await trial.submit(jobs)
        connection.pending += [job for job, answer in zip(jobs, answers, strict=True) if answer.created]
        return answers

    def _without_listeners(self) -> ModelStore:
        copy = ModelStore()
        vars(copy).update(vars(self.store), listeners=[])
        return copy

    async def transact(
        self, job_id: str, attempt: int, step: StepRecord, work: Callable[[Any], str]
    ) -> str | None:
        job = self.store.jobs.get(job_id)
        if job is None or not job.holds_fence(attempt):
            return None
        there = job.steps.get(step.key)
        if there is not None and there.status is StepStatus.COMPLETED:
            return there.value
        value = work(None)
        await self.record_step(job_id, attempt, step._replace(status=StepStatus.COMPLETED, value=value))
        return value

    # --- workers ---

    async def join(self, worker: WorkerRow) -> None:
        now = self.clock.wall()
        row = worker._replace(joined_at=now, renewed_at=now, running=0)
        self.store.workers[worker.id] = Worker(row, self.clock.monotonic())
        self._changed()

    async def renew(self, worker_id: str) -> Renewal:
        worker = self.store.workers.get(worker_id)
        if worker is None:
            return Renewal(False, [])
        worker.row = worker.row._replace(renewed_at=self.clock.wall())
        worker.renewed = self.clock.monotonic()
        return Renewal(True, await self.cancel_requests(worker_id))

    async def cancel_requests(self, worker_id: str) -> list[CancelRequest]:
        return [
            CancelRequest(job.new.id, job.attempt, job.cancel_reason)
            for job in self._held_by(worker_id)
            if job.cancel_reason
        ]

    async def resign(self, worker_id: str) -> int:
        jobs = self._held_by(worker_id)
        for job in jobs:
            self._end_attempt(job, AttemptOutcome.HANDED_OVER, StopReason.SHUTDOWN)
            self._give_back(job, StopReason.SHUTDOWN)
        if self.store.workers.pop(worker_id, None) or jobs:
            self._changed()
        return len(jobs)

    async def rescue(self, worker_id: str) -> list[Rescued]:
        now = self.clock.monotonic()
        dead = [
            other
            for other, worker in self.store.workers.items()
            if other != worker_id
            and (other in self.dead_processes or now - worker.renewed >= worker.row.lease_seconds)
        ]
        rescued = []
        for other in dead:
            for job in self._held_by(other):
                self._lose(job)
                rescued.append(Rescued(job.new.id, job.attempt, other, job.status))
            del self.store.workers[other]
        if dead:
            self._changed()
        return rescued

    def _lose(self, job: Job) -> None:
        completed = job.completed_steps()
        after = after_loss(
            Loss(
                cancel_requested=job.cancel_reason is not None,
                completed_steps=completed,
                steps_at_last_loss=job.steps_at_last_loss,
                lost_in_a_row=job.lost_in_a_row,
                lost=job.lost,
                failures=job.failures,
                max_lost=job.new.max_lost,
                max_attempts=job.new.max_attempts,
            )
        )
        self._end_attempt(job, AttemptOutcome.LOST)
        job.lost += 1
        job.lost_in_a_row = after.lost_in_a_row
        job.steps_at_last_loss = completed
        job.suspect = after.suspect
        if after.status is JobStatus.QUEUED:
            job.status = JobStatus.QUEUED
            self._tell(job, job.attempt, status_event(JobStatus.QUEUED, LOST))
        else:
            if after.why is not None:
                job.error = json.dumps({"type": "LeaseLost", "message": after.why, "traceback": ""})
            self._end_badly(job, after.status, job.attempt, LOST)

    # --- time ---

    async def fire(self, schedule: str, tick: float, job: NewJob | None) -> bool:
        last = self.store.schedules.get(schedule)
        if last is not None and tick <= last:
            return False
        self.store.schedules[schedule] = tick
        if job is not None:
            await self.submit([job])
        self._changed()
        return True

    async def prune(self, limit: int) -> int:
        now = self.clock.wall()
        over = [
            job
            for job in self._all()
            if job.expires_at is not None and job.expires_at <= now and self._has_ended(job.new.parent_id)
        ]
        pruned = sorted(over, key=lambda job: (job.expires_at, job.seq))[:limit]
        for job in pruned:
            del self.store.jobs[job.new.id]
        if pruned:
            self._changed()
        return len(pruned)

    # --- places under a limit ---

    def _enqueue(self, job: Job) -> None:
        """Into `queued`, from where it has no place."""
        key, limit = job.new.limit_key, job.new.limit
        job.held = key is not None and limit is not None and self._places(key) >= limit
        job.status = JobStatus.QUEUED
        job.due_at = None

    def _places(self, key: str) -> int:
        return sum(job.has_place and job.new.limit_key == key for job in self._all())

    def _give_place(self, key: str | None) -> None:
        if key is None:
            return
        held = [job for job in self._all() if job.held and job.new.limit_key == key]
        for job in sorted(held, key=lambda job: job.rank):
            if job.new.limit is not None and self._places(key) >= job.new.limit:
                return
            job.held = False

    # --- waits ---

    def _suspend(self, job: Job, waits: Sequence[Wait]) -> None:
        if job.cancel_reason:
            self._end_badly(job, JobStatus.CANCELLED, job.attempt)
            return
        now = self.clock.wall()
        over = not waits  # one that waits for nothing would wait for ever
        for wait in waits:
            step = job.steps.get(wait.step)
            if step is not None and step.status is StepStatus.COMPLETED:
                over = True
            elif wait.step not in job.waits:
                timed = wait.kind in (WaitKind.SLEEP, WaitKind.SIGNAL) and wait.seconds is not None
                due_at = now + (wait.seconds or 0.0) if timed else None
                job.waits[wait.step] = PendingWait(wait, now, due_at)
        if self._wake(job, [wait.step for wait in waits], timers=True) or over:
            job.status = JobStatus.QUEUED
            self._tell(job, job.attempt, status_event(JobStatus.QUEUED, WAKE))
        else:
            job.status = JobStatus.WAITING
            self._tell(job, job.attempt, status_event(JobStatus.WAITING))
            self._give_place(job.new.limit_key)

    def _wake(self, job: Job, steps: Iterable[str], *, timers: bool) -> bool:
        """Complete these steps where their waits are over, and queue the job if it is waiting; whether any was.

        `timers` False: what is due is left to the next claim.
        """
        over = False
        for step in list(steps):
            pending = job.waits.get(step)
            value = self._value_if_over(job, pending, timers) if pending is not None else None
            if pending is None or value is None:
                continue
            over = True
            del job.waits[step]
            there = job.steps.get(step)
            if there is not None and there.status is StepStatus.COMPLETED:
                continue
            job.suspect = False
            job.steps[step] = StepRow(
                key=step,
                status=StepStatus.COMPLETED,
                value=value,
                error=None,
                policy=there.policy if there else StepPolicy.REPLAY,
                main=there.main if there else True,
                attempt=there.attempt if there else job.attempt,
                started_at=there.started_at if there else pending.since,
                ended_at=self.clock.wall(),
            )
        if over and job.status is JobStatus.WAITING:
            self._enqueue(job)
            self._tell(job, 0, status_event(JobStatus.QUEUED, WAKE))
        return over

    def _value_if_over(self, job: Job, pending: PendingWait, timers: bool) -> str | None:
        wait = pending.wait
        is_due = timers and pending.due_at is not None and pending.due_at <= self.clock.wall()
        if wait.kind is WaitKind.SLEEP:
            return "null" if is_due else None
        if wait.kind is WaitKind.JOBS:
            return "null" if all(self._has_ended(job_id) for job_id in wait.jobs) else None
        for place, (name, data) in enumerate(job.messages):
            if name == wait.name:
                del job.messages[place]
                return f'{{"data": {data}}}'
        return '{"timeout": true}' if is_due else None

    # --- small things ---

    def _all(self) -> list[Job]:
        return list(self.store.jobs.values())

    def _held_by(self, worker_id: str) -> list[Job]:
        return [job for job in self._all() if job.status is JobStatus.RUNNING and job.worker_id == worker_id]

    def _has_ended(self, job_id: str | None) -> bool:
        """An unknown one has."""
        job = self.store.jobs.get(job_id) if job_id is not None else None
        return job is None or job.status.final

    def _row(self, job: Job) -> JobRow:
        new = job.new
        return JobRow(
            id=new.id,
            task=new.task,
            version=new.version,
            queue=new.queue,
            status=job.status,
            priority=new.priority,
            attempt=job.attempt,
            failures=job.failures,
            lost=job.lost,
            args=new.args,
            result=job.result,
            error=job.error,
            progress=job.progress,
            key=new.key,
            limit_key=new.limit_key,
            labels=new.labels,
            options=new.options,
            parent_id=new.parent_id,
            worker_id=job.worker_id,
            created_at=job.created_at,
            due_at=job.due_at,
            started_at=job.started_at,
            ended_at=job.ended_at,
            expires_at=job.expires_at,
            cancel_reason=job.cancel_reason,
            waits=tuple(pending.wait for pending in job.waits.values()),
        )


def _fits(job: Job, request: ClaimRequest) -> bool:
    return (job.new.task, job.new.version) in request.tasks and (
        request.queues is None or job.new.queue in request.queues
    )


def _label(job: Job, name: str) -> str | None:
    return json.loads(job.new.labels).get(name) if job.new.labels else None
