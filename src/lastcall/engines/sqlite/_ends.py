"""How attempts end: completed by the many, every other outcome one by one; lost ones; and what an end sets in motion.

`decide` says what an outcome makes of a job and is pure; the rest writes it down. Every end of a job, also a cancel
from outside, goes through `ended`: its waits are dropped, its place under a limit is freed, its parents are woken.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from ...jobs._events import FAILED, LOST, WAKE, status_event
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
from ._limits import release, requeue
from ._log import write_told
from ._store import FEW, Store
from ._suspects import SUSPECT
from ._waits import begin, drop_waits, wake_parents, wakes_limited

_COMPLETED = JobStatus.COMPLETED

# Their logs are to tell of it, where there are any: marked by `held` = 4, so that those few are found by the small
# index of suspects. To ask for each of the many whether it has a log cost a fifth of all that a job costs here.
_MARK = "held = iif(EXISTS (SELECT 1 FROM lastcall_event WHERE job = lastcall_job.n), 4, 0)"
_MARKED = """SELECT n, attempt FROM lastcall_job INDEXED BY lastcall_job_suspect
    WHERE held >= 2 AND status = 'completed'"""
_UNMARK = """UPDATE lastcall_job INDEXED BY lastcall_job_suspect SET held = 0
    WHERE held >= 2 AND status = 'completed'"""
_COMPLETE = f"""UPDATE lastcall_job SET status = 'completed', {_MARK}, result = ?, ended_at = ?,
    expires_at = ? + ifnull(retention_seconds, ?)
    WHERE id = ? AND attempt = ? AND status = 'running'"""
_COMPLETE_ALL = f"""UPDATE lastcall_job SET status = 'completed', {_MARK}, result = ends.value, ended_at = ?,
    expires_at = ? + ifnull(retention_seconds, ?) FROM json_each(?) AS ends
    WHERE lastcall_job.id = ends.key AND attempt = ? AND status = 'running'"""
_ANY_LIMIT = """SELECT 1 FROM lastcall_job
    WHERE limit_key IS NOT NULL AND status IN ('queued', 'running') LIMIT 1"""
_LIMIT_KEYS = """SELECT DISTINCT limit_key FROM lastcall_job
    WHERE id IN (SELECT value FROM json_each(?)) AND limit_key IS NOT NULL"""
_RUNNING = """SELECT n, id, attempt, worker, started_at, cancel_reason, limit_key, failures, lost, lost_in_a_row,
    steps_at_last_loss, max_lost, max_attempts FROM lastcall_job"""
# Named, because SQLite, which does not know how few jobs run, would rather go through all jobs there are.
_INDEXED = " INDEXED BY lastcall_job_running"
_BY_FENCE = _RUNNING + " WHERE id = ? AND attempt = ? AND status = 'running'"
_OF_WORKER = _RUNNING + _INDEXED + " WHERE worker = ? AND status = 'running' ORDER BY n"
_OF_NOBODY = f"""{_RUNNING} {_INDEXED} WHERE status = 'running'
    AND worker NOT IN (SELECT id FROM lastcall_worker) ORDER BY n"""
_HISTORY = """INSERT INTO lastcall_attempt (job, attempt, worker, started_at, ended_at, outcome, reason, error)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_END = """UPDATE lastcall_job SET status = ?, held = 0, due_at = NULL, error = ?, cancel_reason = ?, ended_at = ?,
    expires_at = ? + ifnull(retention_seconds, ?) WHERE n = ?"""
_CHARGE = "UPDATE lastcall_job SET failures = failures + 1 WHERE n = ?"
_SCHEDULE = "UPDATE lastcall_job SET status = 'scheduled', due_at = ?, worker = NULL WHERE n = ?"
_WAIT = "UPDATE lastcall_job SET status = 'waiting', worker = NULL WHERE n = ?"
_LOSE = """UPDATE lastcall_job SET lost = lost + 1, lost_in_a_row = ?, steps_at_last_loss = ?, held = ?
    WHERE n = ?"""
_COMPLETED_STEPS = "SELECT count(*) FROM lastcall_step WHERE job = ? AND status = 'completed'"


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


def finish(store: Store, calls: Sequence[Sequence[AttemptEnd]]) -> list[list[JobStatus | None]]:
    """All ends of all calls, in order; what results set in motion comes once, for all of them together.

    But one by one where they wake a job that has a limit: together, a job that is woken by the second end might take
    the place that the first one has freed, before those who have been held back for it.
    """
    write_told(store)  # a log in which only that stands is not empty, either
    if _one_by_one(store, calls):
        return [[_finish_alone(store, end) for end in ends] for ends in calls]
    completed: list[str] = []
    answers = _complete_all(store, calls, completed)
    if answers is None:
        answers = [[_finish_one(store, end, completed) for end in ends] for ends in calls]
    _set_in_motion(store, completed)
    return answers


def _one_by_one(store: Store, calls: Sequence[Sequence[AttemptEnd]]) -> bool:
    ids = []
    for ends in calls:
        for id, _, outcome in ends:
            if isinstance(outcome, Suspended) and any(wait.jobs for wait in outcome.waits):
                return True
            ids.append(id)
    return wakes_limited(store, ids)


def _finish_alone(store: Store, end: AttemptEnd) -> JobStatus | None:
    completed: list[str] = []
    status = _finish_one(store, end, completed)
    _set_in_motion(store, completed)
    return status


def _set_in_motion(store: Store, completed: list[str]) -> None:
    if completed:
        _tell_completed(store)
        _release_all(store, completed)
        ended(store, completed)


def _complete_all(
    store: Store, calls: Sequence[Sequence[AttemptEnd]], completed: list[str]
) -> list[list[JobStatus | None]] | None:
    """The usual case, many results and nothing else, all of which count: one step for each attempt number, in which the
    GIL is nobody's (see `_writer`). None: it is another case, nothing was written, and each must be looked at."""
    by_attempt: dict[int, dict[str, str]] = {}
    count = 0
    for ends in calls:
        for id, attempt, outcome in ends:
            if not isinstance(outcome, Completed):
                return None
            by_attempt.setdefault(attempt, {})[id] = outcome.result
            count += 1
    if count < FEW or count > sum(map(len, by_attempt.values())):
        return None
    store.execute("SAVEPOINT together")
    done = 0
    for attempt, results in by_attempt.items():
        texts = json.dumps(results, ensure_ascii=False)
        done += store.execute(
            _COMPLETE_ALL, (store.now, store.now, store.retention_seconds, texts, attempt)
        ).rowcount
    if done < count:
        store.execute("ROLLBACK TO together")
    store.execute("RELEASE together")
    if done < count:
        return None
    completed.extend(id for results in by_attempt.values() for id in results)
    return [[_COMPLETED] * len(ends) for ends in calls]


def _finish_one(store: Store, end: AttemptEnd, completed: list[str]) -> JobStatus | None:
    id, attempt, outcome = end
    if isinstance(outcome, Completed):
        # The plain end, and the fence in the same statement.
        now = store.now
        fenced = (outcome.result, now, now, store.retention_seconds, id, attempt)
        if store.execute(_COMPLETE, fenced).rowcount == 0:
            return None
        completed.append(id)
        return _COMPLETED
    row = store.execute(_BY_FENCE, (id, attempt)).fetchone()
    if row is None:
        return None
    job = Running._make(row)
    return _end_attempt(store, job, decide(outcome, job.cancel_reason))


def _tell_completed(store: Store) -> None:
    """In the logs that are not empty."""
    marked = store.execute(_MARKED).fetchall()
    for n, attempt in marked:
        store.tell(n, attempt, status_event(_COMPLETED))
    if marked:
        store.execute(_UNMARK)


def _end_attempt(store: Store, job: Running, ending: Ending) -> JobStatus:
    _write_history(store, job, ending.outcome, ending.reason, ending.error)
    if ending.charged:
        store.execute(_CHARGE, (job.n,))
    match ending.status:
        case JobStatus.QUEUED:
            requeue(store, job.n)
            _tell(store, job, JobStatus.QUEUED, ending.reason)
        case JobStatus.SCHEDULED:
            store.execute(_SCHEDULE, (store.now + ending.retry_in_seconds, job.n))
            _tell(store, job, JobStatus.SCHEDULED, FAILED)
            release(store, job.limit_key)
        case JobStatus.WAITING:
            store.execute(_WAIT, (job.n,))
            if begin(store, job.n, ending.waits):
                requeue(store, job.n)
                _tell(store, job, JobStatus.QUEUED, WAKE)
                return JobStatus.QUEUED
            _tell(store, job, JobStatus.WAITING)
            release(store, job.limit_key)
        case final:
            # The first reason stays, and an error that would have been retried is not the job's.
            reason = ending.reason if ending.outcome is AttemptOutcome.CANCELLED else None
            error = None if final is JobStatus.CANCELLED and ending.charged else ending.error
            kept = job.cancel_reason or reason
            end_job(store, job.n, job.id, job.limit_key, final, kept, error, attempt=job.attempt)
    return ending.status


def _tell(store: Store, job: Running, status: JobStatus, reason: str | None = None) -> None:
    store.tell(job.n, job.attempt, status_event(status, reason))


def hand_over_all(store: Store, worker_id: str) -> int:
    """Give back whatever a worker still holds."""
    held = [Running._make(row) for row in store.execute(_OF_WORKER, (worker_id,)).fetchall()]
    for job in held:
        _end_attempt(store, job, decide(HandedOver(), job.cancel_reason))
    return len(held)


# --- attempts that were lost ---------------------------------------------------------------------------


def lose_orphans(store: Store) -> list[Rescued]:
    """Take the running jobs whose worker has no row (any more)."""
    orphans = [Running._make(row) for row in store.execute(_OF_NOBODY).fetchall()]
    return [Rescued(job.id, job.attempt, job.worker or "", _lose(store, job)) for job in orphans]


def _lose(store: Store, job: Running) -> JobStatus:
    (steps,) = store.execute(_COMPLETED_STEPS, (job.n,)).fetchone()
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
    _write_history(store, job, AttemptOutcome.LOST, None, None)
    store.execute(_LOSE, (after.lost_in_a_row, steps, SUSPECT if after.suspect else 0, job.n))
    if after.status is JobStatus.QUEUED:
        requeue(store, job.n)
        _tell(store, job, JobStatus.QUEUED, LOST)
    else:
        error = None if after.why is None else _lost_error(after.why)
        reason, attempt = job.cancel_reason, job.attempt
        end_job(store, job.n, job.id, job.limit_key, after.status, reason, error, attempt=attempt, why=LOST)
    return after.status


def _lost_error(why: str) -> str:
    return json.dumps({"type": "LeaseLost", "message": why, "traceback": ""})


# --- the end of a job ----------------------------------------------------------------------------------


def end_job(
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
    now = store.now
    store.tell(n, attempt, status_event(status, cancel_reason if status is JobStatus.CANCELLED else why))
    store.execute(_END, (status, error, cancel_reason, now, now, store.retention_seconds, n))
    release(store, limit_key)
    ended(store, [id])


def ended(store: Store, ids: list[str]) -> None:
    """Jobs are over: nobody waits in them any more, and who waits for them may go on."""
    drop_waits(store, ids)
    wake_parents(store, ids)


def _release_all(store: Store, ids: list[str]) -> None:
    if store.execute(_ANY_LIMIT).fetchone() is not None:
        for (limit_key,) in store.execute(_LIMIT_KEYS, (json.dumps(ids),)).fetchall():
            release(store, limit_key)


def _write_history(
    store: Store, job: Running, outcome: AttemptOutcome, reason: str | None, error: str | None
) -> None:
    row = (job.n, job.attempt, job.worker, job.started_at, store.now, outcome, reason, error)
    store.execute(_HISTORY, row)
