"""The verbs that read. Each is one statement, and so one snapshot; but for the overview, which nobody adds up."""

from __future__ import annotations

import json
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
from ._clock import NOW
from ._store import Store

_JOB = """SELECT job.id, lane.task, lane.version, lane.queue, job.status, job.priority, job.attempt, job.failures,
    job.lost, job.args, job.result, job.error, job.progress, job.key, job.limit_key, job.labels, job.options,
    job.parent_id, CASE WHEN job.status = 'running' THEN job.worker END, job.created_at, job.due_at, job.started_at,
    job.ended_at, job.expires_at, job.cancel_reason, CASE WHEN job.tied AND job.status <> ALL ($1::text[]) THEN
    (SELECT json_agg(json_build_array(step, kind, name, seconds, jobs) ORDER BY wait.n)::text FROM lastcall.wait
    WHERE wait.job = job.n) END"""
_GET = f"""{_JOB} FROM unnest($2::text[]) WITH ORDINALITY AS asked (id, at)
    JOIN lastcall.job ON job.id = asked.id JOIN lastcall.lane ON lane.id = job.lane ORDER BY asked.at"""
_FIND = f"""{_JOB} FROM lastcall.job JOIN lastcall.lane ON lane.id = job.lane
    WHERE {{conditions}} ORDER BY job.n DESC LIMIT $2"""

# The running attempt and one that completed its job have no row of their own.
_ATTEMPTS = """WITH mine AS (SELECT * FROM lastcall.job WHERE id = $1)
    SELECT attempt.attempt, attempt.worker, attempt.started_at, attempt.ended_at, attempt.outcome, attempt.reason,
    attempt.error FROM lastcall.attempt JOIN mine ON attempt.job = mine.n
    UNION ALL SELECT attempt, worker, started_at, ended_at, CASE WHEN status = 'completed' THEN status END, NULL, NULL
    FROM mine WHERE status IN ('running', 'completed') ORDER BY 1"""
_STEPS = """SELECT key, status, value, error, policy, main, attempt, started_at, ended_at FROM lastcall.step
    WHERE job = (SELECT n FROM lastcall.job WHERE id = $1) ORDER BY n"""
_EVENTS = """SELECT asked.at - 1 AS place, job.status, job.last_seq,
    (SELECT min(seq) FROM lastcall.event WHERE event.job = job.n) AS first_seq, event.*
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (id, after, at)
    JOIN lastcall.job ON job.id = asked.id
    LEFT JOIN LATERAL (SELECT seq, attempt, step, type, data, event.at AS written_at FROM lastcall.event
    WHERE event.job = job.n AND seq > asked.after ORDER BY seq LIMIT $3) AS event ON true
    ORDER BY asked.at, event.seq"""

_COUNTS = """SELECT lane.queue, counted.status, counted.jobs FROM
    (SELECT lane, status, count(*) AS jobs FROM lastcall.job GROUP BY lane, status) AS counted
    JOIN lastcall.lane ON lane.id = counted.lane"""
_WORKERS = """SELECT id, host, pid, process_start, boot_id, pid_namespace, lease_seconds, concurrency, queues,
    joined_at, renewed_at, (SELECT count(*) FROM lastcall.job WHERE status = 'running' AND job.worker = worker.id)
    FROM lastcall.worker ORDER BY joined_at, id"""
_SCHEDULES = "SELECT name, last_tick FROM lastcall.schedule ORDER BY name"

_STATUS = {str(status): status for status in JobStatus}
_FINAL = sorted(map(str, FINAL))


async def get(store: Store, job_ids: Sequence[str]) -> list[JobRow]:
    return [_job(row) for row in await store.rows(_GET, _FINAL, list(job_ids))]


async def find(store: Store, query: JobQuery) -> list[JobRow]:
    conditions, values = _conditions(query)
    statement = _FIND.format(conditions=" AND ".join(conditions) or "true")
    return [_job(row) for row in await store.rows(statement, _FINAL, max(0, query.limit), *values)]


def _conditions(query: JobQuery) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, *given: Any) -> None:
        places = [f"${len(values) + 3 + n}" for n in range(len(given))]
        conditions.append(condition.format(*places))
        values.extend(given)

    if query.statuses is not None:
        add("job.status = ANY({}::text[])", sorted(map(str, query.statuses)))
    if query.task is not None:
        add("lane.task = {}", query.task)
    if query.task_part is not None:
        add("strpos(lower(lane.task), lower({}::text)) > 0", query.task_part)
    if query.queue is not None:
        add("lane.queue = {}", query.queue)
    if query.key is not None:
        add("job.key = {}", query.key)
    if query.parent_id is not None:
        add("job.parent_id = {}", query.parent_id)
    if query.label is not None:
        add(
            "job.n IN (SELECT label.job FROM lastcall.label"
            " WHERE hashtextextended(label.name || chr(1) || label.value, 0)"
            " = hashtextextended({0}::text || chr(1) || {1}::text, 0)"
            " AND label.name = {0} AND label.value = {1})",
            *query.label,
        )
    if query.before is not None:
        add("job.n < (SELECT n FROM lastcall.job WHERE id = {})", query.before)
    return conditions, values


def _job(row: Any) -> JobRow:
    *plain, cancel_reason, waits = row
    plain[4] = _STATUS[plain[4]]
    return JobRow._make((*plain, cancel_reason and StopReason(cancel_reason), _waits(waits)))


def _waits(text: str | None) -> tuple[Wait, ...]:
    if text is None:
        return ()
    return tuple(
        Wait(step, WaitKind(kind), name, None if seconds is None else float(seconds), tuple(json.loads(jobs)))
        for step, kind, name, seconds, jobs in json.loads(text)
    )


async def attempts(store: Store, job_id: str) -> list[AttemptRow]:
    return [
        AttemptRow(number, worker, started_at, ended_at, outcome and AttemptOutcome(outcome), reason, error)
        for number, worker, started_at, ended_at, outcome, reason, error in await store.rows(
            _ATTEMPTS, job_id
        )
    ]


async def steps(store: Store, job_id: str) -> list[StepRow]:
    return [
        StepRow(key, StepStatus(status), value, error, StepPolicy(policy), *rest)
        for key, status, value, error, policy, *rest in await store.rows(_STEPS, job_id)
    ]


async def read_events(store: Store, reads: Sequence[ReadFrom], limit: int) -> list[EventPage | None]:
    pages: list[EventPage | None] = [None] * len(reads)
    ids, afters = [read.id for read in reads], [read.after for read in reads]
    for row in await store.rows(_EVENTS, ids, afters, max(0, limit)):
        place, status, last, first, seq, *event = row
        page = pages[place]
        if page is None:
            page = pages[place] = EventPage([], last + 1 if first is None else first, last, _STATUS[status])
        if seq is not None:
            page.events.append(EventRow(seq, *event))
    return pages


async def overview(store: Store) -> Overview:
    now = await store.value(f"SELECT {NOW}", store.now)
    counts: Counter[tuple[str, JobStatus]] = Counter()
    for queue, status, jobs in await store.rows(_COUNTS):
        counts[queue, _STATUS[status]] += jobs
    workers = [_worker(row) for row in await store.rows(_WORKERS)]
    schedules = [ScheduleRow(*row) for row in await store.rows(_SCHEDULES)]
    return Overview(now, dict(counts), workers, schedules)


def _worker(row: Any) -> WorkerRow:
    *before, queues, joined_at, renewed_at, running = row
    queues = None if queues is None else frozenset(queues)
    return WorkerRow._make((*before, queues, joined_at, renewed_at, running))
