"""What a running job writes: its steps and its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...jobs._events import step_event
from ...jobs._rows import NewEvent, StepRecord
from ...jobs._state import StepStatus
from ._log import Head, append, head_of, heads_of
from ._store import Entry, Store
from ._suspects import progressed

_FENCED = "SELECT n FROM lastcall_job WHERE id = ? AND attempt = ? AND status = 'running'"
_RECORD = """INSERT INTO lastcall_step (job, key, status, policy, main, attempt, started_at, ended_at, value, error)
    SELECT n, ?, ?, ?, ?, attempt, ?, ?, ?, ? FROM lastcall_job WHERE id = ? AND attempt = ? AND status = 'running'
    ON CONFLICT (job, key) DO UPDATE SET status = excluded.status, policy = excluded.policy, main = excluded.main,
    attempt = excluded.attempt, started_at = excluded.started_at, ended_at = excluded.ended_at,
    value = excluded.value, error = excluded.error WHERE status <> 'completed'"""
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


def record_steps(store: Store, calls: Sequence[Step]) -> list[bool]:
    """All calls in order; what they set in motion comes once, for all of them."""
    answers = []
    ended: list[Step] = []
    for call in calls:
        written = _record(store, call)
        # Where nothing was written it is not lost, but completed before.
        answers.append(written or fenced(store, call.job_id, call.attempt) is not None)
        if written and call.step.status is not StepStatus.STARTED:
            ended.append(call)
    if ended:
        _tell_steps(store, ended)
    return answers


def _record(store: Store, call: Step) -> bool:
    job_id, attempt, (key, status, value, error, policy, main, seconds) = call
    now = store.now
    ended_at = None if status is StepStatus.STARTED else now
    row = (key, status, policy, main, now - seconds, ended_at, value, error, job_id, attempt)
    return store.execute(_RECORD, row).rowcount == 1


def _tell_steps(store: Store, calls: Sequence[Step]) -> None:
    heads = heads_of(store, [call.job_id for call in calls])
    entries = [Entry(heads[call.job_id].n, call.attempt, step_event(call.step)) for call in calls]
    append(store, entries, heads.values())
    completed = {heads[call.job_id].n for call in calls if call.step.status is StepStatus.COMPLETED}
    if completed:
        progressed(store, completed)


def append_events(store: Store, calls: Sequence[Append]) -> list[int | None]:
    """All calls in order, their events in one statement."""
    answers: list[int | None] = []
    entries: list[Entry] = []
    heads: dict[int, Head] = {}
    counts: dict[int, int] = {}  # what `entries` adds to the logs
    for job_id, attempt, events in calls:
        head = head_of(store, job_id, attempt)
        if head is None:
            answers.append(None)
            continue
        n = head.n
        heads[n] = head
        counts[n] = counts.get(n, 0) + len(events)
        entries += [Entry(n, attempt or 0, event) for event in events]
        answers.append(head.seq + counts[n])
        progress = [event.data for event in events if event.type == "progress"]
        if progress:
            store.execute(_PROGRESS, (progress[-1], n))
    append(store, entries, heads.values())
    return answers
