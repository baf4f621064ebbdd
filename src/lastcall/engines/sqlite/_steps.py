"""What a running job writes: its steps and its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...jobs._rows import NewEvent, StepRecord
from ...jobs._state import StepStatus
from ._store import Store

_FENCED = "SELECT n FROM lastcall_job WHERE id = ? AND attempt = ? AND status = 'running'"
_KNOWN = "SELECT n FROM lastcall_job WHERE id = ?"
_RECORD = """INSERT INTO lastcall_step (job, key, status, policy, main, attempt, started_at, ended_at, value, error)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (job, key) DO UPDATE SET status = excluded.status, policy = excluded.policy, main = excluded.main,
    attempt = excluded.attempt, started_at = excluded.started_at, ended_at = excluded.ended_at,
    value = excluded.value, error = excluded.error WHERE status <> 'completed'"""
_LAST_SEQ = "SELECT ifnull(max(seq), 0) FROM lastcall_event WHERE job = ?"
_APPEND = "INSERT INTO lastcall_event (job, seq, attempt, step, type, at, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
_PROGRESS = "UPDATE lastcall_job SET progress = ? WHERE n = ?"


class Step(NamedTuple):
    """A call of `record_step`."""

    job_id: str
    attempt: int
    step: StepRecord


class Append(NamedTuple):
    """A call of `append_events`."""

    job_id: str
    attempt: int | None
    events: Sequence[NewEvent]


def fenced(store: Store, job_id: str, attempt: int) -> int | None:
    """The job's number while this attempt is the running one; None: lost."""
    row = store.execute(_FENCED, (job_id, attempt)).fetchone()
    return None if row is None else row[0]


def record_step(store: Store, call: Step) -> bool:
    n = fenced(store, call.job_id, call.attempt)
    if n is None:
        return False
    write_step(store, n, call.attempt, call.step)
    return True


def write_step(store: Store, n: int, attempt: int, step: StepRecord) -> None:
    key, status, value, error, policy, main, seconds = step
    now = store.now
    ended_at = None if status is StepStatus.STARTED else now
    store.execute(_RECORD, (n, key, status, policy, main, attempt, now - seconds, ended_at, value, error))


def append_events(store: Store, call: Append) -> int | None:
    job_id, attempt, events = call
    if attempt is None:
        row = store.execute(_KNOWN, (job_id,)).fetchone()
        n = None if row is None else row[0]
    else:
        n = fenced(store, job_id, attempt)
    if n is None:
        return None
    (last,) = store.execute(_LAST_SEQ, (n,)).fetchone()
    written, now = attempt or 0, store.now
    store.executemany(
        _APPEND,
        [(n, seq, written, step, type, now, data) for seq, (type, data, step) in enumerate(events, last + 1)],
    )
    progress = [event.data for event in events if event.type == "progress"]
    if progress:
        store.execute(_PROGRESS, (progress[-1], n))
    return int(last) + len(events)
