"""What jobs wait for: time, a message, other jobs, a person's decision; and what happens when it comes.

A wait outlives the suspension that began it: while the job runs again for another reason, what it waits for may still
come. Whenever a wait is over, its step is written down as completed with what came, the wait is deleted, and
the job, if it is waiting, is put in line.

Locks: a job's waits change under the lock of the job's own row. Whoever begins to wait for other jobs locks these, too,
and marks them as tied, so that their end, which takes the same lock, sees the wait or is seen by it. Whoever ends a job
locks those that wait for it before looking whether all have ended: of two that end at the same time, the second sees
the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...jobs._events import WAKE, status_event
from ...jobs._rows import Wait
from ...jobs._state import JobStatus, StepPolicy, StepStatus, WaitKind
from ._limits import enqueue
from ._store import Store

_TIMEOUT = '{"timeout": true}'
_NOTHING = "null"
# How many are woken by one claim. More are waiting for the next one.
_DUE_AT_ONCE = 1000

_STEP_DONE = "SELECT 1 FROM lastcall.step WHERE job = $1 AND key = $2 AND status = 'completed'"
_BEGIN = """INSERT INTO lastcall.wait (job, step, kind, name, seconds, jobs, created_at, due_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (job, step) DO NOTHING RETURNING n"""
_FIND = "SELECT n, kind, name, created_at, due_at FROM lastcall.wait WHERE job = $1 AND step = $2"
_TIE = "UPDATE lastcall.job SET tied = true WHERE (n = $1 OR id = ANY($2::text[])) AND NOT tied"
_BEGIN_JOBS = """INSERT INTO lastcall.wait_job (job_id, wait, ended) SELECT DISTINCT asked, $1::bigint, NOT EXISTS
    (SELECT FROM lastcall.job WHERE id = asked AND status NOT IN ('completed', 'failed', 'cancelled'))
    FROM unnest($2::text[]) AS asked"""
_MARK = "UPDATE lastcall.wait_job SET ended = $2 WHERE job_id = ANY($1::text[]) AND ended <> $2"
_MESSAGE = "SELECT n, data FROM lastcall.message WHERE job = $1 AND name = $2 ORDER BY n LIMIT 1"
_DROP_MESSAGE = "DELETE FROM lastcall.message WHERE n = $1"
# With it, the job has got further: it is no suspect any more.
_COMPLETE = """WITH done AS (INSERT INTO lastcall.step AS step
    (job, key, status, policy, main, attempt, started_at, ended_at, value)
    VALUES ($1, $2, $3, $4, true, (SELECT attempt FROM lastcall.job WHERE n = $1), $5, $6, $7)
    ON CONFLICT (job, key) DO UPDATE SET status = excluded.status, ended_at = excluded.ended_at,
    value = excluded.value, error = NULL WHERE step.status <> 'completed' RETURNING job)
    UPDATE lastcall.job SET suspect = false WHERE suspect AND n = ANY(ARRAY(SELECT job FROM done))"""
_DROP = "WITH gone AS (DELETE FROM lastcall.wait_job WHERE wait = $1) DELETE FROM lastcall.wait WHERE n = $1"
_WAITING = "SELECT limit_key FROM lastcall.job WHERE n = $1 AND status = 'waiting'"
_ROW = "SELECT n, job, step, kind, created_at FROM lastcall.wait"
_DUE_JOBS = """SELECT job.n, job.limit_key FROM lastcall.job WHERE n = ANY(ARRAY(
    SELECT job FROM lastcall.wait WHERE due_at <= $1 ORDER BY due_at, job LIMIT $2))"""
_LOCK_DUE = "SELECT n FROM lastcall.job WHERE n = ANY($1::bigint[]) ORDER BY n FOR UPDATE SKIP LOCKED"
_DUE = f"{_ROW} WHERE job = ANY($1::bigint[]) AND due_at <= $2 ORDER BY due_at, job"
_FOR_MESSAGE = f"{_ROW} WHERE job = $1 AND name = $2 AND kind IN ('signal', 'decision') ORDER BY n LIMIT 1"
_WAITERS = """SELECT DISTINCT wait.n, wait.job FROM lastcall.wait_job JOIN lastcall.wait ON wait.n = wait_job.wait
    WHERE wait_job.job_id = ANY($1::text[])"""
_ALL_ENDED = f"""{_ROW} WHERE n = ANY($1::bigint[])
    AND NOT EXISTS (SELECT FROM lastcall.wait_job WHERE wait_job.wait = wait.n AND NOT ended) ORDER BY n"""
_DROP_OF = """WITH over AS (DELETE FROM lastcall.wait WHERE job = ANY(ARRAY(
    SELECT n FROM lastcall.job WHERE id = ANY($1::text[]))) RETURNING n)
    DELETE FROM lastcall.wait_job WHERE wait = ANY(ARRAY(SELECT n FROM over))"""


class _Row(NamedTuple):
    n: int
    job: int
    step: str
    kind: str
    created_at: float


async def begin(store: Store, job: int, waits: Sequence[Wait]) -> bool:
    """Write down what a suspended job waits for. Whether one of the waits is over already.

    The jobs that are waited for must be locked.
    """
    over = [await _begin_one(store, job, wait) for wait in waits]
    return not waits or any(over)  # one that waits for nothing would wait for ever


async def _begin_one(store: Store, job: int, wait: Wait) -> bool:
    if await store.row(_STEP_DONE, job, wait.step):
        return True
    timed = wait.kind in (WaitKind.SLEEP, WaitKind.SIGNAL) and wait.seconds is not None
    due_at = store.now + (wait.seconds or 0.0) if timed else None
    jobs = list(wait.jobs)
    terms = (wait.kind, wait.name, wait.seconds, json.dumps(jobs), store.now, due_at)
    written = await store.value(_BEGIN, job, wait.step, *terms)
    n, kind, name, created_at, due_at = await store.row(_FIND, job, wait.step)
    row = _Row(n, job, wait.step, kind, created_at)
    if written is not None:
        await store.rows(_TIE, job, jobs)
    if kind == WaitKind.JOBS:
        if written is not None:
            await store.rows(_BEGIN_JOBS, n, jobs)
        return bool(await _complete_ended(store, [n]))
    if kind in (WaitKind.SIGNAL, WaitKind.DECISION):
        message = await store.row(_MESSAGE, job, name)
        if message is not None:
            await store.rows(_DROP_MESSAGE, message[0])
            await _complete(store, row, _delivered(message[1]))
            return True
    if due_at is not None and due_at <= store.now:
        await _complete(store, row, _timed_out(kind))
        return True
    return False


async def wake_due(store: Store) -> None:
    """End the waits whose time has come. Those that somebody else is at are left to them."""
    found = await store.rows(_DUE_JOBS, store.now, _DUE_AT_ONCE)
    await store.lock_keys([limit_key for _, limit_key in found])
    mine = [n for (n,) in await store.rows(_LOCK_DUE, [n for n, _ in found])]
    jobs: dict[int, list[_Row]] = {}
    for row in await store.rows(_DUE, mine, store.now):
        jobs.setdefault(row["job"], []).append(_Row(*row))
    due = [row for rows in jobs.values() for row in sorted(rows)]  # of one job: as they were asked for
    for row in due:
        await _complete(store, row, _timed_out(row.kind))
    await _wake(store, due)


async def deliver(store: Store, job: int, name: str, data: str) -> bool:
    """Hand a message to whoever waits for it. False: nobody does."""
    found = await store.row(_FOR_MESSAGE, job, name)
    if found is None:
        return False
    row = _Row(*found)
    await _complete(store, row, _delivered(data))
    await _wake(store, [row])
    return True


async def wake_parents(store: Store, ids: Sequence[str]) -> None:
    """Jobs have ended: those that waited for them, and for nothing else, go on."""
    waits = await _lock_waiters(store, ids)
    if waits:
        await store.rows(_MARK, ids, True)
        await _wake(store, await _complete_ended(store, waits))


async def take_back_end(store: Store, id: str) -> None:
    """A job was retried by hand: who waits for it waits again."""
    if await _lock_waiters(store, [id]):
        await store.rows(_MARK, [id], False)


async def _lock_waiters(store: Store, ids: Sequence[str]) -> list[int]:
    found = await store.rows(_WAITERS, ids)
    if found:
        await store.lock_rows([job for _, job in found])
        found = await store.rows(_WAITERS, ids)  # what is gone meanwhile was over
    return [n for n, _ in found]


async def _complete_ended(store: Store, waits: Sequence[int]) -> list[_Row]:
    """Those among the waits whose jobs have all ended; one that nobody knows has."""
    over = [_Row(*row) for row in await store.rows(_ALL_ENDED, waits)]
    for row in over:
        await _complete(store, row, _NOTHING)
    return over


async def drop_waits(store: Store, ids: Sequence[str]) -> None:
    """Forget what jobs waited for that have ended."""
    await store.rows(_DROP_OF, ids)


async def _complete(store: Store, row: _Row, value: str) -> None:
    status, policy = StepStatus.COMPLETED, StepPolicy.REPLAY
    await store.rows(_COMPLETE, row.job, row.step, status, policy, row.created_at, store.now, value)
    await store.rows(_DROP, row.n)


async def _wake(store: Store, rows: Iterable[_Row]) -> None:
    for job in dict.fromkeys(row.job for row in rows):
        waiting = await store.row(_WAITING, job)
        if waiting is not None:
            await enqueue(store, job, waiting[0])
            store.tell(job, 0, status_event(JobStatus.QUEUED, WAKE))


def _timed_out(kind: str) -> str:
    return _TIMEOUT if kind in (WaitKind.SIGNAL, WaitKind.DECISION) else _NOTHING


def _delivered(data: str) -> str:
    return f'{{"data": {data}}}'
