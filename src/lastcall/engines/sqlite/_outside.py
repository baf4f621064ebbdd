"""What people and other jobs do to a job: cancel, retry, send, purge; and pruning what is over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from ..._core._state import StopReason
from ...jobs._events import RETRY, status_event
from ...jobs._state import CancelOutcome, JobStatus
from ._ends import end_job
from ._limits import enqueue
from ._log import write_told
from ._store import Store
from ._submit import COUNT
from ._waits import deliver, take_back_end

_FIND = "SELECT n, status, limit_key FROM lastcall_job WHERE id = ?"
_STATUS = "SELECT status FROM lastcall_job WHERE n = ?"
# The first reason stays.
_ASK = "UPDATE lastcall_job SET cancel_reason = ? WHERE n = ? AND cancel_reason IS NULL"
_RESET = """UPDATE lastcall_job SET failures = 0, lost = 0, lost_in_a_row = 0, steps_at_last_loss = 0,
    cancel_reason = NULL, error = NULL, result = NULL, ended_at = NULL, expires_at = NULL WHERE n = ?"""
_KEEP_MESSAGE = "INSERT INTO lastcall_message (job, name, data) VALUES (?, ?, ?)"
_EXPIRED = """SELECT n FROM lastcall_job AS job WHERE n IN (SELECT value FROM json_each(?)) AND expires_at <= ?
    AND NOT EXISTS (SELECT 1 FROM lastcall_job AS parent WHERE parent.id = job.parent_id
    AND parent.status NOT IN ('completed', 'failed', 'cancelled')) LIMIT ?"""
_LANES = "SELECT lane, count(*) FROM lastcall_job WHERE n IN (SELECT value FROM json_each(?)) GROUP BY lane"
_DELETE = (
    "DELETE FROM lastcall_event WHERE job IN (SELECT value FROM json_each(?))",
    "DELETE FROM lastcall_step WHERE job IN (SELECT value FROM json_each(?))",
    "DELETE FROM lastcall_attempt WHERE job IN (SELECT value FROM json_each(?))",
    "DELETE FROM lastcall_message WHERE job IN (SELECT value FROM json_each(?))",
    "DELETE FROM lastcall_job WHERE n IN (SELECT value FROM json_each(?))",
)


class Cancel(NamedTuple):
    """A call of `cancel`."""

    job_id: str
    reason: StopReason


class Send(NamedTuple):
    """A call of `send`."""

    job_id: str
    name: str
    data: str


class Prune(NamedTuple):
    """Jobs that may be over, and how many of them to delete at most."""

    candidates: Sequence[int]
    limit: int


class _Found(NamedTuple):
    n: int
    status: JobStatus
    limit_key: str | None


def _find(store: Store, job_id: str) -> _Found | None:
    row = store.execute(_FIND, (job_id,)).fetchone()
    return None if row is None else _Found(row[0], JobStatus(row[1]), row[2])


def cancel(store: Store, call: Cancel) -> CancelOutcome:
    job = _find(store, call.job_id)
    if job is None:
        return CancelOutcome.UNKNOWN
    if job.status.final:
        return CancelOutcome.ALREADY_ENDED
    if job.status is JobStatus.RUNNING:
        store.execute(_ASK, (call.reason, job.n))
        return CancelOutcome.REQUESTED
    end_job(store, job.n, call.job_id, job.limit_key, JobStatus.CANCELLED, call.reason)
    return CancelOutcome.CANCELLED


def retry(store: Store, job_id: str) -> JobStatus | None:
    job = _find(store, job_id)
    if job is None or job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        return None if job is None else job.status
    store.execute(_RESET, (job.n,))
    enqueue(store, job.n, job.limit_key)
    take_back_end(store, job_id)
    store.tell(job.n, 0, status_event(JobStatus.QUEUED, RETRY))
    return JobStatus.QUEUED


def send(store: Store, call: Send) -> JobStatus | None:
    job = _find(store, call.job_id)
    if job is None or job.status.final:
        return None if job is None else job.status
    if not deliver(store, job.n, call.name, call.data):
        store.execute(_KEEP_MESSAGE, (job.n, call.name, call.data))
        return job.status
    (status,) = store.execute(_STATUS, (job.n,)).fetchone()
    return JobStatus(status)


def purge(store: Store, job_id: str) -> JobStatus | None:
    job = _find(store, job_id)
    if job is None:
        return None
    if job.status.final:
        _delete(store, [job.n])
    return job.status


def prune(store: Store, call: Prune) -> int:
    """Delete those among the candidates whose retention is over; a child stays as long as its parent lives."""
    expired = store.execute(_EXPIRED, (json.dumps(call.candidates), store.now, max(0, call.limit))).fetchall()
    if expired:
        _delete(store, [n for (n,) in expired])
    return len(expired)


def _delete(store: Store, jobs: list[int]) -> None:
    write_told(store)  # else it would lie in the log of the next job with this number
    numbers = (json.dumps(jobs),)
    for lane, count in store.execute(_LANES, numbers).fetchall():
        store.execute(COUNT, (-count, lane))
    for statement in _DELETE:
        store.execute(statement, numbers)
