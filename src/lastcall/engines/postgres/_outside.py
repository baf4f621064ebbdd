"""What people and other jobs do to a job: cancel, retry, send, purge; and pruning what is over.

Each locks the job's row, with what hangs on it, before it looks at the job's status.
"""

from __future__ import annotations

from typing import NamedTuple

from ..._core._state import StopReason
from ...jobs._events import RETRY, status_event
from ...jobs._state import CancelOutcome, JobStatus
from ._clock import NOW
from ._ends import end_job
from ._limits import enqueue
from ._store import Store
from ._waits import deliver, take_back_end

_FIND = "SELECT n, status, limit_key FROM lastcall.job WHERE id = $1"
_STATUS = "SELECT status FROM lastcall.job WHERE n = $1"
# The first reason stays.
_ASK = """UPDATE lastcall.job SET cancel_reason = coalesce(cancel_reason, $2)
    WHERE id = $1 AND status = 'running' RETURNING 1"""
_RESET = """UPDATE lastcall.job SET failures = 0, lost = 0, lost_in_a_row = 0, steps_at_last_loss = 0, suspect = false,
    cancel_reason = NULL, error = NULL, result = NULL, ended_at = NULL, expires_at = NULL WHERE n = $1"""
_KEEP_MESSAGE = "INSERT INTO lastcall.message (job, name, data) VALUES ($1, $2, $3)"
_DELETE = """, events AS (DELETE FROM lastcall.event WHERE job = ANY(ARRAY(SELECT n FROM gone))),
    steps AS (DELETE FROM lastcall.step WHERE job = ANY(ARRAY(SELECT n FROM gone))),
    attempts AS (DELETE FROM lastcall.attempt WHERE job = ANY(ARRAY(SELECT n FROM gone))),
    messages AS (DELETE FROM lastcall.message WHERE job = ANY(ARRAY(SELECT n FROM gone)))
    DELETE FROM lastcall.job WHERE n = ANY(ARRAY(SELECT n FROM gone)) RETURNING 1"""
_PURGE = f"""WITH gone AS MATERIALIZED (SELECT n FROM lastcall.job WHERE id = $1
    AND status IN ('completed', 'failed', 'cancelled') FOR UPDATE) {_DELETE}"""
# A job that somebody is at, or that is retried in this moment, is left for another time. The parent is looked up for
# each: where the server expects many to be over, it would join NOT EXISTS with a walk through all jobs.
_PRUNE = f"""WITH gone AS MATERIALIZED (SELECT n FROM lastcall.job WHERE expires_at <= {NOW} AND coalesce(
    (SELECT parent.status FROM lastcall.job AS parent WHERE parent.id = job.parent_id), 'completed')
    IN ('completed', 'failed', 'cancelled')
    ORDER BY expires_at, n LIMIT $2 FOR UPDATE SKIP LOCKED) {_DELETE}"""


class Cancel(NamedTuple):
    """A call of `cancel`."""

    job_id: str
    reason: StopReason


class Send(NamedTuple):
    """A call of `send`."""

    job_id: str
    name: str
    data: str


class _Found(NamedTuple):
    n: int
    status: JobStatus
    limit_key: str | None


async def _locked(store: Store, job_id: str) -> _Found | None:
    await store.lock_jobs([job_id])
    row = await store.row(_FIND, job_id)
    return None if row is None else _Found(row[0], JobStatus(row[1]), row[2])


async def ask_to_cancel(store: Store, call: Cancel) -> bool:
    """Write the wish down, if the job runs: the usual case, in one statement."""
    return await store.value(_ASK, call.job_id, call.reason) is not None


async def cancel(store: Store, call: Cancel) -> CancelOutcome:
    job = await _locked(store, call.job_id)
    if job is None:
        return CancelOutcome.UNKNOWN
    if job.status.final:
        return CancelOutcome.ALREADY_ENDED
    if job.status is JobStatus.RUNNING:
        await ask_to_cancel(store, call)
        return CancelOutcome.REQUESTED
    await end_job(store, job.n, call.job_id, job.limit_key, JobStatus.CANCELLED, call.reason)
    return CancelOutcome.CANCELLED


async def retry(store: Store, job_id: str) -> JobStatus | None:
    job = await _locked(store, job_id)
    if job is None or job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        return None if job is None else job.status
    await store.rows(_RESET, job.n)
    await enqueue(store, job.n, job.limit_key)
    await take_back_end(store, job_id)
    store.tell(job.n, 0, status_event(JobStatus.QUEUED, RETRY))
    return JobStatus.QUEUED


async def send(store: Store, call: Send) -> JobStatus | None:
    job = await _locked(store, call.job_id)
    if job is None or job.status.final:
        return None if job is None else job.status
    if not await deliver(store, job.n, call.name, call.data):
        await store.rows(_KEEP_MESSAGE, job.n, call.name, call.data)
        return job.status
    return JobStatus(await store.value(_STATUS, job.n))


async def purge(store: Store, job_id: str) -> JobStatus | None:
    job = await _locked(store, job_id)
    if job is None:
        return None
    if job.status.final:
        await store.rows(_PURGE, job_id)
    return job.status


async def prune(store: Store, limit: int) -> int:
    """Delete jobs whose retention is over; a child stays as long as its parent lives."""
    return len(await store.rows(_PRUNE, store.now, max(0, limit)))
