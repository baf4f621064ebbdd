"""What a running job writes: its steps and its log.

Both look at the fence under the lock of the job's row, so a step cannot come after a rescue; and the log's numbers
are drawn from that row under the same lock, so they have no gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...jobs._events import size_of, step_event
from ...jobs._rows import NewEvent, StepRecord
from ...jobs._state import StepStatus
from ._clock import NOW
from ._log import Head, append, trim
from ._store import Entry, Store

_FENCED = "SELECT n FROM lastcall.job WHERE id = $1 AND attempt = $2 AND status = 'running' FOR UPDATE"
# What was newly completed or failed is told in the log, in the order of the calls.
_RECORD = f"""WITH mine AS MATERIALIZED (SELECT job.n, job.attempt, new.* FROM lastcall.job
    JOIN unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bool[], $8::float8[], $9::text[],
    $10::text[], $11::text[], $12::bigint[]) WITH ORDINALITY
    AS new (id, fence, key, status, policy, main, seconds, value, error, told, size, at)
    ON job.id = new.id AND job.attempt = new.fence WHERE job.status = 'running' ORDER BY job.n FOR UPDATE OF job),
    written AS (INSERT INTO lastcall.step AS step
    (job, key, status, policy, main, attempt, started_at, ended_at, value, error)
    SELECT n, key, status, policy, main, attempt, {NOW} - seconds, CASE WHEN status <> 'started' THEN {NOW} END,
    value, error FROM mine ORDER BY at
    ON CONFLICT (job, key) DO UPDATE SET status = excluded.status, policy = excluded.policy, main = excluded.main,
    attempt = excluded.attempt, started_at = excluded.started_at, ended_at = excluded.ended_at,
    value = excluded.value, error = excluded.error WHERE step.status <> 'completed' RETURNING job, key, status),
    told AS MATERIALIZED (SELECT mine.n, mine.attempt, mine.key, mine.told, mine.status,
    row_number() OVER earlier AS place, sum(mine.size) OVER earlier AS upto
    FROM mine JOIN written ON written.job = mine.n AND written.key = mine.key WHERE mine.status <> 'started'
    WINDOW earlier AS (PARTITION BY mine.n ORDER BY mine.at)),
    heads AS MATERIALIZED (SELECT n, max(place)::int AS count, max(upto)::bigint AS size,
    bool_or(status = 'completed') AS further FROM told GROUP BY n),
    numbered AS (UPDATE lastcall.job SET last_seq = last_seq + heads.count, log_bytes = log_bytes + heads.size,
    suspect = suspect AND NOT heads.further FROM heads WHERE job.n = heads.n
    RETURNING job.n, job.last_seq, heads.count, heads.size, job.log_bytes, job.log_max_bytes, job.log_max_age_seconds),
    logged AS (INSERT INTO lastcall.event (job, seq, attempt, at, step, type, data, upto)
    SELECT told.n, numbered.last_seq - numbered.count + told.place, told.attempt, {NOW}, told.key, 'step', told.told,
    numbered.log_bytes - numbered.size + told.upto FROM told JOIN numbered ON numbered.n = told.n)
    SELECT mine.at, numbered.n, numbered.last_seq, numbered.log_bytes - numbered.size, numbered.log_bytes,
    numbered.log_max_bytes, numbered.log_max_age_seconds
    FROM mine LEFT JOIN numbered ON numbered.n = mine.n"""
_LOCK_LOGS = """SELECT asked.at - 1, job.n, job.last_seq FROM lastcall.job
    JOIN unnest($1::text[], $2::int[]) WITH ORDINALITY AS asked (id, fence, at) ON job.id = asked.id
    WHERE asked.fence IS NULL OR (job.attempt = asked.fence AND job.status = 'running')
    ORDER BY job.n FOR UPDATE OF job"""
_PROGRESS = """UPDATE lastcall.job SET progress = new.progress
    FROM unnest($1::bigint[], $2::text[]) AS new (n, progress) WHERE job.n = new.n"""


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


async def fenced(store: Store, job_id: str, attempt: int) -> int | None:
    """The job's number while this attempt is the running one, which it stays until this transaction is over."""
    n: int | None = await store.value(_FENCED, job_id, attempt)
    return n


async def record_steps(store: Store, calls: Sequence[Step]) -> list[bool]:
    """All calls in one statement, each of another step. A completed step that is written again changes nothing."""
    rows: list[tuple[Any, ...]] = []
    for job_id, attempt, step in calls:
        told = step_event(step)
        rows.append(
            (job_id, attempt, step.key, step.status, step.policy, step.main, step.seconds, step.value, step.error,
             told.data, size_of(told))
        )  # fmt: skip
    written = await store.rows(_RECORD, store.now, *(list(column) for column in zip(*rows, strict=True)))
    heads = {row[1]: Head(*row[1:]) for row in written if row[1] is not None}
    await trim(store, heads.values())
    applied = {row[0] for row in written}
    return [number in applied for number in range(1, len(calls) + 1)]


async def append_events(store: Store, calls: Sequence[Append]) -> list[int | None]:
    """All calls in order, their events in one statement. In a transaction, because it must not be made twice."""
    ids, fences = [call.job_id for call in calls], [call.attempt for call in calls]
    found = {place: (n, seq) for place, n, seq in await store.rows(_LOCK_LOGS, ids, fences)}
    answers: list[int | None] = [None] * len(calls)
    entries: list[Entry] = []
    counts: dict[int, int] = {}  # what `entries` adds to the logs
    progress: dict[int, str] = {}
    for place, (_, attempt, events) in enumerate(calls):
        if place not in found:
            continue
        n, seq = found[place]
        counts[n] = counts.get(n, 0) + len(events)
        answers[place] = seq + counts[n]
        entries += [Entry(n, attempt or 0, event) for event in events]
        progress.update((n, event.data) for event in events if event.type == "progress")
    if progress:
        await store.rows(_PROGRESS, list(progress), list(progress.values()))
    if entries:
        await append(store, entries)
    return answers


def all_completed(calls: Sequence[Step]) -> bool:
    return all(call.step.status is StepStatus.COMPLETED for call in calls)


def different_steps(calls: Sequence[Step]) -> bool:
    return len({(call.job_id, call.step.key) for call in calls}) == len(calls)


def completed(step: StepRecord, value: str) -> StepRecord:
    return step._replace(status=StepStatus.COMPLETED, value=value)
