"""What a running job writes: its steps and its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...jobs._rows import NewEvent, StepRecord
from ...jobs._state import StepStatus
from . import _suspects
from ._store import Store

_FENCED = "SELECT n FROM lastcall_job WHERE id = ? AND attempt = ? AND status = 'running'"
_LOG = """SELECT n, (SELECT ifnull(max(seq), 0) FROM lastcall_event WHERE job = lastcall_job.n)
    FROM lastcall_job WHERE id = ?"""
_FENCED_LOG = _LOG + " AND attempt = ? AND status = 'running'"
_RECORD = """INSERT INTO lastcall_step (job, key, status, policy, main, attempt, started_at, ended_at, value, error)
    SELECT n, ?, ?, ?, ?, attempt, ?, ?, ?, ? FROM lastcall_job WHERE id = ? AND attempt = ? AND status = 'running'
    ON CONFLICT (job, key) DO UPDATE SET status = excluded.status, policy = excluded.policy, main = excluded.main,
    attempt = excluded.attempt, started_at = excluded.started_at, ended_at = excluded.ended_at,
    value = excluded.value, error = excluded.error WHERE status <> 'completed'"""
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
    job_id, attempt, (key, status, value, error, policy, main, seconds) = call
    now = store.now
    ended_at = None if status is StepStatus.STARTED else now
    row = (key, status, policy, main, now - seconds, ended_at, value, error, job_id, attempt)
    if store.execute(_RECORD, row).rowcount == 1:
        if status is StepStatus.COMPLETED and _suspects.are_there_any(store):
            n = fenced(store, job_id, attempt)
            _suspects.progressed(store, [] if n is None else [n])
        return True
    return fenced(store, job_id, attempt) is not None  # not lost, but completed before


def append_events(store: Store, calls: Sequence[Append]) -> list[int | None]:
    """All calls in order, their events in one statement."""
    answers: list[int | None] = []
    rows: list[tuple[int, int, int, str | None, str, float, str]] = []
    last: dict[int, int] = {}  # what `rows` adds to the logs
    now = store.now
    for job_id, attempt, events in calls:
        found = _log(store, job_id, attempt)
        if found is None:
            answers.append(None)
            continue
        n, seq = found
        seq = last.get(n, seq)
        for type, data, step in events:
            seq += 1
            rows.append((n, seq, attempt or 0, step, type, now, data))
        last[n] = seq
        answers.append(seq)
        progress = [event.data for event in events if event.type == "progress"]
        if progress:
            store.execute(_PROGRESS, (progress[-1], n))
    store.executemany(_APPEND, rows)
    return answers


def _log(store: Store, job_id: str, attempt: int | None) -> tuple[int, int] | None:
    """The job's number and the last `seq` of its log; None: lost, or unknown."""
    found: tuple[int, int] | None
    if attempt is None:
        found = store.execute(_LOG, (job_id,)).fetchone()
    else:
        found = store.execute(_FENCED_LOG, (job_id, attempt)).fetchone()
    return found
