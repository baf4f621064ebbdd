"""The verbs that read. Each runs in the reader thread, in a snapshot of its own."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..._core._state import StopReason
from ...jobs._rows import (
    AttemptRow,
    EventPage,
    EventRow,
    JobQuery,
    JobRow,
    Overview,
    ReadFrom,
    ScheduleRow,
    StepRow,
    Wait,
    WorkerRow,
)
from ...jobs._state import FINAL, AttemptOutcome, JobStatus, StepPolicy, StepStatus, WaitKind

_JOB = """SELECT job.id, lane.task, lane.version, lane.queue, job.status, job.priority, job.attempt, job.failures,
    job.lost, job.args, job.result, job.error, job.progress, job.key, job.limit_key, job.labels, job.options,
    job.parent_id, iif(job.status = 'running', job.worker, NULL), job.created_at, job.due_at, job.started_at,
    job.ended_at, job.expires_at, job.cancel_reason, job.n"""
_GET = f"""{_JOB} FROM json_each(?) AS asked JOIN lastcall_job AS job ON job.id = asked.value
    JOIN lastcall_lane AS lane ON lane.id = job.lane ORDER BY asked.key"""
_FIND = f"""{_JOB} FROM lastcall_job AS job {{index}} JOIN lastcall_lane AS lane ON lane.id = job.lane
    WHERE {{conditions}} ORDER BY job.n DESC LIMIT ?"""
# In this order: the newest with the label first, until there are enough.
_FIND_LABELLED = f"""{_JOB} FROM lastcall_label AS label CROSS JOIN lastcall_job AS job ON job.n = label.job
    CROSS JOIN lastcall_lane AS lane ON lane.id = job.lane WHERE {{conditions}} ORDER BY label.job DESC LIMIT ?"""
_WAITS = """SELECT job, step, kind, name, seconds, jobs FROM lastcall_wait
    WHERE job IN (SELECT value FROM json_each(?)) ORDER BY n"""

_ATTEMPTS = """SELECT attempt, worker, started_at, ended_at, outcome, reason, error FROM lastcall_attempt
    WHERE job = (SELECT n FROM lastcall_job WHERE id = ?) ORDER BY attempt"""
# The running attempt and one that completed its job have no row of their own.
_LAST_ATTEMPT = """SELECT attempt, worker, started_at, ended_at, iif(status = 'completed', status, NULL), NULL, NULL
    FROM lastcall_job WHERE id = ? AND status IN ('running', 'completed')"""
_STEPS = """SELECT key, status, value, error, policy, main, attempt, started_at, ended_at FROM lastcall_step
    WHERE job = (SELECT n FROM lastcall_job WHERE id = ?) ORDER BY n"""
# Each a look at one end of the primary key. Together in one query they would be a walk through all of it.
_LOG = """SELECT n, (SELECT min(seq) FROM lastcall_event WHERE job = lastcall_job.n),
    (SELECT max(seq) FROM lastcall_event WHERE job = lastcall_job.n), status FROM lastcall_job WHERE id = ?"""
_EVENTS = """SELECT seq, attempt, step, type, data, at FROM lastcall_event
    WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?"""

_COUNTED = {
    JobStatus.SCHEDULED: "lastcall_job INDEXED BY lastcall_job_due WHERE status = 'scheduled'",
    JobStatus.QUEUED: "lastcall_job INDEXED BY lastcall_job_claim WHERE status = 'queued' AND held = 0",
    JobStatus.RUNNING: "lastcall_job INDEXED BY lastcall_job_running WHERE status = 'running'",
    JobStatus.WAITING: "lastcall_job INDEXED BY lastcall_job_aside WHERE status = 'waiting'",
    JobStatus.FAILED: "lastcall_job INDEXED BY lastcall_job_aside WHERE status = 'failed'",
    JobStatus.CANCELLED: "lastcall_job INDEXED BY lastcall_job_aside WHERE status = 'cancelled'",
}
_HELD = """lastcall_job INDEXED BY lastcall_job_limit
    WHERE limit_key IS NOT NULL AND held = 1 AND status IN ('queued', 'running')"""
_SUSPECT = "lastcall_job INDEXED BY lastcall_job_suspect WHERE held >= 2 AND status = 'queued'"
_COUNT = "SELECT lane, count(*) FROM {which} GROUP BY lane"
_LANES = "SELECT id, queue, jobs FROM lastcall_lane"
_WORKERS = """SELECT id, host, pid, process_start, boot_id, pid_namespace, lease_seconds, concurrency, queues,
    joined_at, renewed_at, (SELECT count(*) FROM lastcall_job WHERE status = 'running' AND worker = lastcall_worker.id)
    FROM lastcall_worker ORDER BY joined_at, id"""
_SCHEDULES = "SELECT name, last_tick FROM lastcall_schedule ORDER BY name"

_PRUNABLE = "SELECT n, expires_at FROM lastcall_job WHERE n > ? ORDER BY n LIMIT ?"

_STATUS = {str(status): status for status in JobStatus}
_FINAL = frozenset(map(str, FINAL))


def get(connection: sqlite3.Connection, job_ids: Sequence[str]) -> list[JobRow]:
    return _jobs(connection, connection.execute(_GET, (json.dumps(list(job_ids)),)).fetchall())


def find(connection: sqlite3.Connection, query: JobQuery) -> list[JobRow]:
    """Asked status by status, because each has an index of its own, and the newest of all are taken."""
    conditions, values = _conditions(query)
    limit = max(0, query.limit)
    if query.label is not None:
        if query.statuses is not None:
            conditions.append("job.status IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(query.statuses)))
        statements = [_FIND_LABELLED.format(conditions=" AND ".join(conditions))]
    elif query.statuses is None:
        statements = [_FIND.format(index="", conditions=" AND ".join(conditions) or "1")]
    else:
        # A rarer condition than the status has an index of its own.
        by_status = query.key is None and query.parent_id is None
        statements = [_find_in(status, conditions, by_status) for status in query.statuses]
    rows = [row for each in statements for row in connection.execute(each, (*values, limit)).fetchall()]
    rows.sort(key=lambda row: row[-1], reverse=True)
    return _jobs(connection, rows[:limit])


# Jobs in order; completed and queued ones are found by going back through all.
_INDEXES = {
    JobStatus.RUNNING: "INDEXED BY lastcall_job_running",
    JobStatus.SCHEDULED: "INDEXED BY lastcall_job_due",
    JobStatus.WAITING: "INDEXED BY lastcall_job_aside",
    JobStatus.FAILED: "INDEXED BY lastcall_job_aside",
    JobStatus.CANCELLED: "INDEXED BY lastcall_job_aside",
}


def _find_in(status: JobStatus, conditions: list[str], by_status: bool) -> str:
    # The word of a closed list, written out, because only a literal finds the partial index.
    index = _INDEXES.get(status, "NOT INDEXED") if by_status else ""
    where = " AND ".join([f"job.status = '{JobStatus(status)}'", *conditions])
    return _FIND.format(index=index, conditions=where)


def _conditions(query: JobQuery) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, *given: Any) -> None:
        conditions.append(condition)
        values.extend(given)

    if query.task is not None:
        add("lane.task = ?", query.task)
    if query.task_part is not None:
        add("instr(lower(lane.task), lower(?)) > 0", query.task_part)
    if query.queue is not None:
        add("lane.queue = ?", query.queue)
    if query.key is not None:
        add("job.key = ?", query.key)
    if query.parent_id is not None:
        add("job.parent_id = ?", query.parent_id)
    if query.label is not None:
        add("label.name = ? AND label.value = ?", *query.label)
    if query.before is not None:
        add("job.n < (SELECT n FROM lastcall_job WHERE id = ?)", query.before)
    return conditions, values


def _jobs(connection: sqlite3.Connection, rows: list[Any]) -> list[JobRow]:
    waits = _waits(connection, [row[25] for row in rows if row[4] not in _FINAL])
    return [
        JobRow._make(
            (
                *row[:4],
                _STATUS[row[4]],
                *row[5:24],
                row[24] and StopReason(row[24]),
                waits.get(row[25], ()),
            )
        )
        for row in rows
    ]


def _waits(connection: sqlite3.Connection, numbers: list[int]) -> dict[int, tuple[Wait, ...]]:
    waits: dict[int, tuple[Wait, ...]] = {}
    if numbers:
        for n, step, kind, name, seconds, jobs in connection.execute(_WAITS, (json.dumps(numbers),)):
            wait = Wait(step, WaitKind(kind), name, seconds, tuple(json.loads(jobs)))
            waits[n] = (*waits.get(n, ()), wait)
    return waits


def attempts(connection: sqlite3.Connection, job_id: str) -> list[AttemptRow]:
    rows = connection.execute(_ATTEMPTS, (job_id,)).fetchall()
    rows += connection.execute(_LAST_ATTEMPT, (job_id,)).fetchall()
    return [AttemptRow._make((*row[:4], row[4] and AttemptOutcome(row[4]), *row[5:])) for row in rows]


def steps(connection: sqlite3.Connection, job_id: str) -> list[StepRow]:
    return [
        StepRow(key, StepStatus(status), value, error, StepPolicy(policy), main == 1, *when)
        for key, status, value, error, policy, main, *when in connection.execute(_STEPS, (job_id,))
    ]


def read_events(
    connection: sqlite3.Connection, reads: Sequence[ReadFrom], limit: int
) -> list[EventPage | None]:
    return [_log(connection, read, limit) for read in reads]


def _log(connection: sqlite3.Connection, read: ReadFrom, limit: int) -> EventPage | None:
    found = connection.execute(_LOG, (read.id,)).fetchone()
    if found is None:
        return None
    n, first, last, status = found
    if last is None or read.after >= last or limit <= 0:
        return EventPage([], first or 1, last or 0, JobStatus(status))
    rows = connection.execute(_EVENTS, (n, read.after, limit)).fetchall()
    return EventPage(list(map(EventRow._make, rows)), first, last, JobStatus(status))


def overview(connection: sqlite3.Connection, now: float) -> Overview:
    schedules = list(map(ScheduleRow._make, connection.execute(_SCHEDULES).fetchall()))
    workers = [_worker(row) for row in connection.execute(_WORKERS).fetchall()]
    return Overview(now, _counts(connection), workers, schedules)


def _counts(connection: sqlite3.Connection) -> dict[tuple[str, JobStatus], int]:
    """By the small indexes; what is left of a lane has completed."""
    lanes = {lane: (queue, jobs) for lane, queue, jobs in connection.execute(_LANES)}
    left = {lane: jobs for lane, (_, jobs) in lanes.items()}
    counts: Counter[tuple[str, JobStatus]] = Counter()
    for status, which in (*_COUNTED.items(), (JobStatus.QUEUED, _HELD), (JobStatus.QUEUED, _SUSPECT)):
        for lane, jobs in connection.execute(_COUNT.format(which=which)):
            counts[lanes[lane][0], status] += jobs
            left[lane] -= jobs
    for lane, jobs in left.items():
        counts[lanes[lane][0], JobStatus.COMPLETED] += jobs
    return {place: jobs for place, jobs in counts.items() if jobs > 0}


def _worker(row: tuple[Any, ...]) -> WorkerRow:
    queues = None if row[8] is None else frozenset(json.loads(row[8]))
    return WorkerRow._make((*row[:8], queues, *row[9:]))


def expired(connection: sqlite3.Connection, after: int, count: int, now: float) -> tuple[list[int], int]:
    """Among the `count` jobs behind `after`: those whose retention is over; and where to go on, 0: at the beginning."""
    rows = connection.execute(_PRUNABLE, (after, count)).fetchall()
    found = [n for n, expires_at in rows if expires_at is not None and expires_at <= now]
    return found, rows[-1][0] if len(rows) == count else 0
