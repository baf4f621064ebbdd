"""What jobs wait for: time, a message, other jobs, a person's decision; and what happens when it comes.

A wait outlives the suspension that began it: while the job runs again for another reason, what it waits for may still
come. Whenever a wait is over, its step is written down as completed with what came, the wait is deleted, and
the job, if it is waiting, is put in line.
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
from ._suspects import progressed

_TIMEOUT = '{"timeout": true}'
_NOTHING = "null"
# How many are woken by one claim. More are waiting for the next one.
_DUE_AT_ONCE = 1000

_STEP_DONE = "SELECT 1 FROM lastcall_step WHERE job = ? AND key = ? AND status = 'completed'"
_BEGIN = """INSERT INTO lastcall_wait (job, step, kind, name, seconds, jobs, created_at, due_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job, step) DO NOTHING"""
_FIND = "SELECT n, kind, name, created_at, due_at FROM lastcall_wait WHERE job = ? AND step = ?"
_BEGIN_JOBS = """INSERT OR IGNORE INTO lastcall_wait_job (job_id, wait, ended)
    SELECT value, ?, NOT EXISTS (SELECT 1 FROM lastcall_job WHERE id = value
    AND status NOT IN ('completed', 'failed', 'cancelled')) FROM json_each(?)"""
_MARK = "UPDATE lastcall_wait_job SET ended = ? WHERE job_id IN (SELECT value FROM json_each(?))"
_MESSAGE = "SELECT n, data FROM lastcall_message WHERE job = ? AND name = ? ORDER BY n LIMIT 1"
_DROP_MESSAGE = "DELETE FROM lastcall_message WHERE n = ?"
_COMPLETE = """INSERT INTO lastcall_step (job, key, status, policy, main, attempt, started_at, ended_at, value)
    VALUES (?, ?, ?, ?, 1, (SELECT attempt FROM lastcall_job WHERE n = ?), ?, ?, ?)
    ON CONFLICT (job, key) DO UPDATE SET status = excluded.status, ended_at = excluded.ended_at,
    value = excluded.value, error = NULL WHERE status <> 'completed'"""
_DROP = "DELETE FROM lastcall_wait WHERE n = ?"
_DROP_JOBS = "DELETE FROM lastcall_wait_job WHERE wait = ?"
_WAITING = "SELECT limit_key FROM lastcall_job WHERE n = ? AND status = 'waiting'"
_DUE = """SELECT n, job, step, kind, created_at FROM lastcall_wait WHERE due_at <= ? ORDER BY due_at, job LIMIT ?"""
_FOR_MESSAGE = """SELECT n, job, step, kind, created_at FROM lastcall_wait
    WHERE job = ? AND name = ? AND kind IN ('signal', 'decision') ORDER BY n LIMIT 1"""
_ANY = "SELECT 1 FROM lastcall_wait LIMIT 1"
_ANY_JOBS = "SELECT 1 FROM lastcall_wait_job LIMIT 1"
_WAITERS = "SELECT DISTINCT wait FROM lastcall_wait_job WHERE job_id IN (SELECT value FROM json_each(?))"
_LIMITED_WAITER = """SELECT 1 FROM lastcall_wait_job AS about JOIN lastcall_wait AS wait ON wait.n = about.wait
    JOIN lastcall_job AS waiter ON waiter.n = wait.job
    WHERE about.job_id IN (SELECT value FROM json_each(?)) AND waiter.limit_key IS NOT NULL LIMIT 1"""
_ALL_ENDED = """SELECT n, job, step, kind, created_at FROM lastcall_wait
    WHERE n IN (SELECT value FROM json_each(?))
    AND NOT EXISTS (SELECT 1 FROM lastcall_wait_job WHERE wait = lastcall_wait.n AND ended = 0) ORDER BY n"""
_OF_JOBS = """SELECT n FROM lastcall_wait WHERE job IN
    (SELECT n FROM lastcall_job WHERE id IN (SELECT value FROM json_each(?)))"""


class _Row(NamedTuple):
    n: int
    job: int
    step: str
    kind: str
    created_at: float


def begin(store: Store, job: int, waits: Sequence[Wait]) -> bool:
    """Write down what a suspended job waits for. Whether one of the waits is over already."""
    over = [_begin_one(store, job, wait) for wait in waits]
    return not waits or any(over)  # one that waits for nothing would wait for ever


def _begin_one(store: Store, job: int, wait: Wait) -> bool:
    if store.execute(_STEP_DONE, (job, wait.step)).fetchone():
        return True
    timed = wait.kind in (WaitKind.SLEEP, WaitKind.SIGNAL) and wait.seconds is not None
    due_at = store.now + (wait.seconds or 0.0) if timed else None
    written = store.execute(
        _BEGIN,
        (job, wait.step, wait.kind, wait.name, wait.seconds, json.dumps(wait.jobs), store.now, due_at),
    )
    n, kind, name, created_at, due_at = store.execute(_FIND, (job, wait.step)).fetchone()
    row = _Row(n, job, wait.step, kind, created_at)
    if kind == WaitKind.JOBS:
        if written.rowcount == 1:
            store.execute(_BEGIN_JOBS, (n, json.dumps(wait.jobs)))
        return bool(_complete_ended(store, [n]))
    if kind in (WaitKind.SIGNAL, WaitKind.DECISION):
        message = store.execute(_MESSAGE, (job, name)).fetchone()
        if message is not None:
            store.execute(_DROP_MESSAGE, (message[0],))
            _complete(store, row, _delivered(message[1]))
            return True
    if due_at is not None and due_at <= store.now:
        _complete(store, row, _timed_out(kind))
        return True
    return False


def wake_due(store: Store) -> None:
    """End the waits whose time has come."""
    jobs: dict[int, list[_Row]] = {}
    for row in map(_Row._make, store.execute(_DUE, (store.now, _DUE_AT_ONCE)).fetchall()):
        jobs.setdefault(row.job, []).append(row)
    due = [row for rows in jobs.values() for row in sorted(rows)]  # of one job: as they were asked for
    for row in due:
        _complete(store, row, _timed_out(row.kind))
    _wake(store, due)


def deliver(store: Store, job: int, name: str, data: str) -> bool:
    """Hand a message to whoever waits for it. False: nobody does."""
    found = store.execute(_FOR_MESSAGE, (job, name)).fetchone()
    if found is None:
        return False
    row = _Row(*found)
    _complete(store, row, _delivered(data))
    _wake(store, [row])
    return True


def wake_parents(store: Store, ids: Sequence[str]) -> None:
    """Jobs have ended: those that waited for them, and for nothing else, go on."""
    if store.execute(_ANY_JOBS).fetchone() is None:
        return
    waits = [n for (n,) in store.execute(_WAITERS, (json.dumps(ids),)).fetchall()]
    if waits:
        store.execute(_MARK, (True, json.dumps(ids)))
        _wake(store, _complete_ended(store, waits))


def wakes_limited(store: Store, ids: Sequence[str]) -> bool:
    """Whether a job that has a limit waits for one of these."""
    if store.execute(_ANY_JOBS).fetchone() is None:
        return False
    return store.execute(_LIMITED_WAITER, (json.dumps(ids),)).fetchone() is not None


def _complete_ended(store: Store, waits: Sequence[int]) -> list[_Row]:
    """Those among the waits whose jobs have all ended; one that nobody knows has."""
    over = [_Row(*row) for row in store.execute(_ALL_ENDED, (json.dumps(waits),)).fetchall()]
    for row in over:
        _complete(store, row, _NOTHING)
    return over


def take_back_end(store: Store, id: str) -> None:
    """A job was retried by hand: who waits for it waits again."""
    store.execute(_MARK, (False, json.dumps([id])))


def drop_waits(store: Store, ids: Sequence[str]) -> None:
    """Forget what jobs waited for that have ended."""
    if store.execute(_ANY).fetchone() is None:
        return
    for (n,) in store.execute(_OF_JOBS, (json.dumps(ids),)).fetchall():
        _drop(store, n)


def _complete(store: Store, row: _Row, value: str) -> None:
    status, policy = StepStatus.COMPLETED, StepPolicy.REPLAY
    completed = (row.job, row.step, status, policy, row.job, row.created_at, store.now, value)
    if store.execute(_COMPLETE, completed).rowcount == 1:
        progressed(store, [row.job])
    _drop(store, row.n)


def _drop(store: Store, n: int) -> None:
    store.execute(_DROP, (n,))
    store.execute(_DROP_JOBS, (n,))


def _wake(store: Store, rows: Iterable[_Row]) -> None:
    for job in dict.fromkeys(row.job for row in rows):
        waiting = store.execute(_WAITING, (job,)).fetchone()
        if waiting is not None:
            enqueue(store, job, waiting[0])
            store.tell(job, 0, status_event(JobStatus.QUEUED, WAKE))


def _timed_out(kind: str) -> str:
    return _TIMEOUT if kind in (WaitKind.SIGNAL, WaitKind.DECISION) else _NOTHING


def _delivered(data: str) -> str:
    return f'{{"data": {data}}}'
