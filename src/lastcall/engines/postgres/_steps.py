"""What a running job writes: its steps and its log.

Both look at the fence under the lock of the job's row, so a step cannot come after a rescue; and the log's numbers
are drawn from that row under the same lock, so they have no gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...jobs._rows import NewEvent, StepRecord
from ...jobs._state import StepStatus
from ._clock import NOW
from ._store import Store

_FENCED = "SELECT n FROM lastcall.job WHERE id = $1 AND attempt = $2 AND status = 'running' FOR UPDATE"
_RECORD = f"""WITH mine AS MATERIALIZED (SELECT job.n, job.attempt, new.* FROM lastcall.job
    JOIN unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bool[], $8::float8[], $9::text[],
    $10::text[]) WITH ORDINALITY AS new (id, fence, key, status, policy, main, seconds, value, error, at)
    ON job.id = new.id AND job.attempt = new.fence WHERE job.status = 'running' ORDER BY job.n FOR UPDATE OF job),
    written AS (INSERT INTO lastcall.step AS step
    (job, key, status, policy, main, attempt, started_at, ended_at, value, error)
    SELECT n, key, status, policy, main, attempt, {NOW} - seconds, CASE WHEN status <> 'started' THEN {NOW} END,
    value, error FROM mine ORDER BY at
    ON CONFLICT (job, key) DO UPDATE SET status = excluded.status, policy = excluded.policy, main = excluded.main,
    attempt = excluded.attempt, started_at = excluded.started_at, ended_at = excluded.ended_at,
    value = excluded.value, error = excluded.error WHERE step.status <> 'completed' RETURNING job, status),
    acquitted AS (UPDATE lastcall.job SET suspect = false
    WHERE suspect AND n IN (SELECT job FROM written WHERE status = 'completed'))
    SELECT at FROM mine"""
_APPEND = f"""WITH calls AS (SELECT * FROM unnest($2::text[], $3::int[], $4::int[], $5::text[])
    AS calls (id, fence, count, progress)),
    mine AS MATERIALIZED (SELECT job.n, calls.* FROM lastcall.job JOIN calls ON job.id = calls.id
    WHERE calls.fence IS NULL OR (job.attempt = calls.fence AND job.status = 'running')
    ORDER BY job.n FOR UPDATE OF job),
    numbered AS (UPDATE lastcall.job SET last_seq = last_seq + mine.count,
    progress = coalesce(mine.progress, job.progress) FROM mine WHERE job.n = mine.n
    RETURNING job.n, job.id, job.last_seq, mine.count, mine.fence),
    written AS (INSERT INTO lastcall.event (job, seq, attempt, at, step, type, data)
    SELECT numbered.n, numbered.last_seq - numbered.count + new.place, coalesce(numbered.fence, 0), {NOW}, new.step,
    new.type, new.data FROM numbered JOIN unnest($6::text[], $7::int[], $8::text[], $9::text[], $10::text[])
    AS new (id, place, step, type, data) ON new.id = numbered.id)
    SELECT id, last_seq FROM numbered"""


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
    """All calls in one statement, each of another step. One that is made again changes nothing."""
    rows = [
        (call.job_id, call.attempt, call.step.key, call.step.status, call.step.policy, call.step.main,
         call.step.seconds, call.step.value, call.step.error)
        for call in calls
    ]  # fmt: skip
    applied = {at for (at,) in await store.rows(_RECORD, store.now, *_columns(rows))}
    return [number in applied for number in range(1, len(calls) + 1)]


async def append_events(store: Store, calls: Sequence[Append]) -> list[int | None]:
    """All calls in one statement, each of another job. In a transaction, because it must not be made twice."""
    heads: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    for job_id, attempt, events in calls:
        progress = [event.data for event in events if event.type == "progress"]
        heads.append((job_id, attempt, len(events), progress[-1] if progress else None))
        rows += [(job_id, place, event.step, event.type, event.data) for place, event in enumerate(events, 1)]
    events_columns = _columns(rows) if rows else [[], [], [], [], []]
    last = dict(await store.rows(_APPEND, store.now, *_columns(heads), *events_columns))
    return [last.get(call.job_id) for call in calls]


def of_different_jobs(calls: Sequence[Append]) -> list[list[int]]:
    """The places of these calls, in rounds of which none has a job twice; of one job, in their order."""
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for place, call in enumerate(calls):
        turn = seen.get(call.job_id, 0)
        seen[call.job_id] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    return rounds


def different_steps(calls: Sequence[Step]) -> bool:
    return len({(call.job_id, call.step.key) for call in calls}) == len(calls)


def completed(step: StepRecord, value: str) -> StepRecord:
    return step._replace(status=StepStatus.COMPLETED, value=value)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
