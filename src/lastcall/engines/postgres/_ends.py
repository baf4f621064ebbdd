"""How attempts end: completed by the many in one statement, every other outcome in a transaction; lost ones; and what
an end sets in motion.

`decide` says what an outcome makes of a job and is pure; the rest writes it down. Every end of a job, also a cancel
from outside, goes through `ended`: its waits are dropped, its place under a limit is freed, its parents are woken.

The fence is looked at under the lock of the job's row, which every change of its status takes: of two ends of one
attempt, or an end and a rescue, the second finds another attempt or none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...jobs._events import FAILED, LOST, WAKE, size_of, status_event
from ...jobs._policy import Loss, after_loss
from ...jobs._rows import (
    AttemptEnd,
    Cancelled,
    Completed,
    Failed,
    HandedOver,
    Rescued,
    Suspended,
    Wait,
)
from ...jobs._state import AttemptOutcome, JobStatus
from ._clock import NOW_ONCE
from ._limits import release, requeue
from ._log import Head, trim
from ._store import Store
from ._waits import begin, drop_waits, wake_parents

_COMPLETED = JobStatus.COMPLETED
_TOLD_COMPLETED = status_event(_COMPLETED)

# Their logs are to tell of it, where there are any. What is `tied`, and attempts that were lost, are left out: they are
# for the transaction.
_COMPLETE_MANY = f"""WITH done AS (UPDATE lastcall.job SET status = 'completed', suspect = false,
    result = ends.result, ended_at = {NOW_ONCE}, expires_at = {NOW_ONCE} + coalesce(retention_seconds, $2::float8),
    last_seq = last_seq + (last_seq > 0)::int,
    log_bytes = log_bytes + CASE WHEN last_seq > 0 THEN $7::bigint ELSE 0 END
    FROM unnest($3::text[], $4::text[]::int[], $5::text[]) AS ends (id, attempt, result)
    WHERE job.id = ends.id AND job.attempt = ends.attempt AND job.status = 'running' AND NOT job.tied
    RETURNING job.id, job.n, job.attempt, last_seq, log_bytes, log_max_bytes, log_max_age_seconds),
    told AS (INSERT INTO lastcall.event (job, seq, attempt, at, type, data, upto)
    SELECT n, last_seq, attempt, {NOW_ONCE}, 'status', $6, log_bytes FROM done WHERE last_seq > 0)
    SELECT counted.*, head.* FROM (SELECT count(*) = cardinality($3::text[]) AS all,
    CASE WHEN count(*) < cardinality($3::text[]) THEN array_agg(id) END AS ids FROM done) AS counted LEFT JOIN
    (SELECT n, last_seq, log_bytes - $7::bigint AS log_bytes_before, log_bytes, log_max_bytes, log_max_age_seconds
    FROM done WHERE last_seq > 0) AS head ON true"""
# After a lost answer: those that this very attempt has completed.
_COMPLETED_BY = """SELECT job.id FROM lastcall.job JOIN unnest($1::text[], $2::int[]) AS ends (id, attempt)
    ON job.id = ends.id AND job.attempt = ends.attempt WHERE job.status = 'completed'"""
# What became of attempts: those that completed their job have no row of their own.
_ENDED_SO = """SELECT ends.at - 1, job.status, coalesce(attempt.outcome, job.status) AS outcome, attempt.reason
    FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS ends (id, attempt, at)
    JOIN lastcall.job ON job.id = ends.id
    LEFT JOIN lastcall.attempt ON attempt.job = job.n AND attempt.attempt = ends.attempt
    WHERE attempt.job IS NOT NULL OR (job.attempt = ends.attempt AND job.status = 'completed')"""
_COMPLETE = """UPDATE lastcall.job SET status = 'completed', suspect = false, result = $2, ended_at = $3,
    expires_at = $3 + coalesce(retention_seconds, $4::float8) WHERE n = $1 RETURNING last_seq"""
_RUNNING = """SELECT n, id, attempt, worker, started_at, cancel_reason, limit_key, failures, lost, lost_in_a_row,
    steps_at_last_loss, max_lost, max_attempts FROM lastcall.job"""
_BY_FENCE = _RUNNING + " WHERE id = $1 AND attempt = $2 AND status = 'running'"
_OF_WORKER = _RUNNING + " WHERE worker = $1 AND status = 'running' ORDER BY n"
_OF_NOBODY = f"""{_RUNNING} WHERE status = 'running'
    AND NOT EXISTS (SELECT FROM lastcall.worker WHERE worker.id = job.worker) ORDER BY n"""
_HISTORY = """INSERT INTO lastcall.attempt (job, attempt, worker, started_at, ended_at, outcome, reason, error)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"""
_END = """UPDATE lastcall.job SET status = $2, held = false, suspect = false, due_at = NULL, error = $3,
    cancel_reason = $4, ended_at = $5, expires_at = $5 + coalesce(retention_seconds, $6::float8) WHERE n = $1"""
_CHARGE = "UPDATE lastcall.job SET failures = failures + 1 WHERE n = $1"
_SCHEDULE = "UPDATE lastcall.job SET status = 'scheduled', due_at = $2, worker = NULL WHERE n = $1"
_WAIT = "UPDATE lastcall.job SET status = 'waiting', worker = NULL WHERE n = $1"
_LOSE = """UPDATE lastcall.job SET lost = lost + 1, lost_in_a_row = $2, steps_at_last_loss = $3, suspect = $4
    WHERE n = $1"""
_COMPLETED_STEPS = "SELECT count(*) FROM lastcall.step WHERE job = $1 AND status = 'completed'"


class Running(NamedTuple):
    """What is needed of a running job to end its attempt."""

    n: int
    id: str
    attempt: int
    worker: str | None
    started_at: float
    cancel_reason: str | None
    limit_key: str | None
    failures: int
    lost: int
    lost_in_a_row: int
    steps_at_last_loss: int
    max_lost: int
    max_attempts: int


class Ending(NamedTuple):
    """What an outcome makes of the job (`status`) and of the attempt (`outcome`, `reason`, `error`)."""

    status: JobStatus
    outcome: AttemptOutcome
    reason: str | None = None
    error: str | None = None
    charged: bool = False
    retry_in_seconds: float = 0.0
    waits: tuple[Wait, ...] = ()


def decide(outcome: Failed | Cancelled | HandedOver | Suspended, cancel_reason: str | None) -> Ending:
    """A cancel that was asked for wins over everything but a final failure (and a result, which decides itself).

    It changes what becomes of the job; the attempt keeps its own outcome.
    """
    match outcome:
        case Failed(error, None):
            return Ending(JobStatus.FAILED, AttemptOutcome.FAILED, error=error, charged=True)
        case Failed(error, float() | int() as seconds):
            status = JobStatus.SCHEDULED if cancel_reason is None else JobStatus.CANCELLED
            return Ending(status, AttemptOutcome.FAILED, error=error, charged=True, retry_in_seconds=seconds)
        case Cancelled(reason, error):
            return Ending(JobStatus.CANCELLED, AttemptOutcome.CANCELLED, reason, error)
        case HandedOver(reason):
            status = JobStatus.QUEUED if cancel_reason is None else JobStatus.CANCELLED
            return Ending(status, AttemptOutcome.HANDED_OVER, reason)
        case Suspended(waits):
            status = JobStatus.WAITING if cancel_reason is None else JobStatus.CANCELLED
            return Ending(status, AttemptOutcome.HANDED_OVER, "waiting", waits=waits)
    raise TypeError(f"an attempt cannot end with {outcome!r}")


# --- ends that workers report --------------------------------------------------------------------------


def completed_of(ends: Sequence[AttemptEnd]) -> list[AttemptEnd]:
    """The usual case: results, each of another job."""
    completed = [end for end in ends if isinstance(end.outcome, Completed)]
    # A job that is named twice is for the transaction, which goes one after the other.
    return completed if len({end.id for end in ends}) == len(ends) else []


async def complete_many(store: Store, ends: Sequence[AttemptEnd]) -> set[str]:
    """Write down these results in one statement; the jobs that have ended by it. Others are not that simple."""
    ids, attempts = [end.id for end in ends], [end.attempt for end in ends]
    fences = list(map(str, attempts))  # as texts: see `_submit`
    results = [end.outcome.result for end in ends if isinstance(end.outcome, Completed)]
    retention, told = store.terms.retention_seconds, _TOLD_COMPLETED.data
    size = size_of(_TOLD_COMPLETED)
    rows = await store.rows(_COMPLETE_MANY, store.now, retention, ids, fences, results, told, size)
    await trim(store, [Head(*head) for _, _, *head in rows if head[0] is not None])
    are_all, done, *_ = rows[0]
    if are_all:
        return set(ids)
    before = await store.rows(_COMPLETED_BY, ids, attempts) if store.again else []
    return {*(done or ()), *(id for (id,) in before)}


async def ended_so(store: Store, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
    """Which of these attempts have ended in this way already: the status of their job, or None. A reading."""
    answers: list[JobStatus | None] = [None] * len(ends)
    ids, attempts = [end.id for end in ends], [end.attempt for end in ends]
    for place, status, outcome, reason in await store.rows(_ENDED_SO, ids, attempts):
        end = ends[place].outcome
        if isinstance(end, Completed):
            same = outcome == AttemptOutcome.COMPLETED
        else:
            ending = decide(end, None)
            same = (outcome, reason) == (ending.outcome, ending.reason)
        if same:
            answers[place] = JobStatus(status)
    return answers


async def finish(store: Store, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
    """All ends in order; in a transaction."""
    touched = {end.id for end in ends}
    for end in ends:
        if isinstance(end.outcome, Suspended):
            touched.update(job_id for wait in end.outcome.waits for job_id in wait.jobs)
    await store.lock_jobs(list(touched))
    return [await _finish_one(store, end) for end in ends]


async def _finish_one(store: Store, end: AttemptEnd) -> JobStatus | None:
    row = await store.row(_BY_FENCE, end.id, end.attempt)
    if row is None:
        return None
    job = Running(*row)
    if not isinstance(end.outcome, Completed):
        return await _end_attempt(store, job, decide(end.outcome, job.cancel_reason))
    retention = store.terms.retention_seconds
    if await store.value(_COMPLETE, job.n, end.outcome.result, store.now, retention):
        store.tell(job.n, job.attempt, _TOLD_COMPLETED)
    await release(store, job.limit_key)
    await ended(store, [job.id])
    return _COMPLETED


async def _end_attempt(store: Store, job: Running, ending: Ending) -> JobStatus:
    await _write_history(store, job, ending.outcome, ending.reason, ending.error)
    if ending.charged:
        await store.rows(_CHARGE, job.n)
    match ending.status:
        case JobStatus.QUEUED:
            await requeue(store, job.n)
            _tell(store, job, JobStatus.QUEUED, ending.reason)
        case JobStatus.SCHEDULED:
            await store.rows(_SCHEDULE, job.n, store.now + ending.retry_in_seconds)
            _tell(store, job, JobStatus.SCHEDULED, FAILED)
            await release(store, job.limit_key)
        case JobStatus.WAITING:
            await store.rows(_WAIT, job.n)
            if await begin(store, job.n, ending.waits):
                await requeue(store, job.n)
                _tell(store, job, JobStatus.QUEUED, WAKE)
                return JobStatus.QUEUED
            _tell(store, job, JobStatus.WAITING)
            await release(store, job.limit_key)
        case final:
            # The first reason stays, and an error that would have been retried is not the job's.
            reason = ending.reason if ending.outcome is AttemptOutcome.CANCELLED else None
            error = None if final is JobStatus.CANCELLED and ending.charged else ending.error
            kept = job.cancel_reason or reason
            await end_job(store, job.n, job.id, job.limit_key, final, kept, error, attempt=job.attempt)
    return ending.status


def _tell(store: Store, job: Running, status: JobStatus, reason: str | None = None) -> None:
    store.tell(job.n, job.attempt, status_event(status, reason))


async def hand_over_all(store: Store, worker_id: str) -> int:
    """Give back whatever a worker still holds."""
    held = [Running(*row) for row in await store.rows(_OF_WORKER, worker_id)]
    await store.lock_jobs([job.id for job in held])
    # Again: what it held may have ended before the lock was ours.
    held = [Running(*row) for row in await store.rows(_OF_WORKER, worker_id)] if held else []
    for job in held:
        await _end_attempt(store, job, decide(HandedOver(), job.cancel_reason))
    return len(held)


# --- attempts that were lost ---------------------------------------------------------------------------


async def lose_orphans(store: Store) -> list[Rescued]:
    """Take the running jobs whose worker has no row (any more)."""
    orphans = [Running(*row) for row in await store.rows(_OF_NOBODY)]
    if not orphans:
        return []
    await store.lock_jobs([job.id for job in orphans])
    # Again: somebody may have ended or rescued them before the lock was ours.
    orphans = [Running(*row) for row in await store.rows(_OF_NOBODY)]
    return [Rescued(job.id, job.attempt, job.worker or "", await _lose(store, job)) for job in orphans]


async def _lose(store: Store, job: Running) -> JobStatus:
    steps = await store.value(_COMPLETED_STEPS, job.n)
    after = after_loss(
        Loss(
            cancel_requested=job.cancel_reason is not None,
            completed_steps=steps,
            steps_at_last_loss=job.steps_at_last_loss,
            lost_in_a_row=job.lost_in_a_row,
            lost=job.lost,
            failures=job.failures,
            max_lost=job.max_lost,
            max_attempts=job.max_attempts,
        )
    )
    await _write_history(store, job, AttemptOutcome.LOST, None, None)
    await store.rows(_LOSE, job.n, after.lost_in_a_row, steps, after.suspect)
    if after.status is JobStatus.QUEUED:
        await requeue(store, job.n)
        _tell(store, job, JobStatus.QUEUED, LOST)
    else:
        error = None if after.why is None else _lost_error(after.why)
        reason, attempt = job.cancel_reason, job.attempt
        await end_job(
            store, job.n, job.id, job.limit_key, after.status, reason, error, attempt=attempt, why=LOST
        )
    return after.status


def _lost_error(why: str) -> str:
    return json.dumps({"type": "LeaseLost", "message": why, "traceback": ""})


# --- the end of a job ----------------------------------------------------------------------------------


async def end_job(
    store: Store,
    n: int,
    id: str,
    limit_key: str | None,
    status: JobStatus,
    cancel_reason: str | None = None,
    error: str | None = None,
    *,
    attempt: int = 0,
    why: str | None = None,
) -> None:
    """Failed or cancelled, for good: written down, with all that an end sets in motion. `attempt`: the one that ended
    with it, if any; `why`: what is told of a failure."""
    store.tell(n, attempt, status_event(status, cancel_reason if status is JobStatus.CANCELLED else why))
    await store.rows(_END, n, status, error, cancel_reason, store.now, store.terms.retention_seconds)
    await release(store, limit_key)
    await ended(store, [id])


async def ended(store: Store, ids: list[str]) -> None:
    """Jobs are over: nobody waits in them any more, and who waits for them may go on."""
    await drop_waits(store, ids)
    await wake_parents(store, ids)


async def _write_history(
    store: Store, job: Running, outcome: AttemptOutcome, reason: str | None, error: str | None
) -> None:
    row: tuple[Any, ...] = (job.attempt, job.worker, job.started_at, store.now, outcome, reason, error)
    await store.rows(_HISTORY, job.n, *row)
