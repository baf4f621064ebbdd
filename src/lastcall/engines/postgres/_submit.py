"""Submitting: plain jobs by the many in one statement, keyed and limited ones in a transaction; the ticks of schedules.

A plain insert takes no locks but those of its own rows. A keyed one is held up by another with the same key until that
one's commit (the unique index sees to it), and then finds its job. A limited one holds the lock of its limit key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...exceptions import KeyConflict
from ...jobs._rows import DEFAULT_LOG_MAX_BYTES, NewJob, Submitted
from ...jobs._state import JobStatus
from ._clock import NOW_ONCE
from ._driver import violated
from ._limits import places
from ._store import Lane, Store, TryAgain

_QUEUED, _SCHEDULED = JobStatus.QUEUED, JobStatus.SCHEDULED

_NEW_LANES = """INSERT INTO lastcall.lane (queue, task, version)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS new (queue, task, version) ORDER BY task, version, queue
    ON CONFLICT DO NOTHING"""
# A lane that is missing makes the whole statement fail, because it is not null.
_LANE = """(SELECT id FROM lastcall.lane WHERE lane.task = new.task AND lane.version = new.version
    AND lane.queue = new.queue)"""
# Numbers go as texts here, in a claim and in what completes many: asyncpg knows `text[]`, and asks the server about any
# other array, on each connection anew, some round trips in the middle of a call. The first jobs of a process felt it.
_INSERT_PLAIN = f"""INSERT INTO lastcall.job
    (id, lane, status, priority, max_lost, max_attempts, created_at, options, args)
    SELECT new.id, {_LANE}, 'queued', new.priority, new.max_lost, new.max_attempts, {NOW_ONCE}, new.options, new.args
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[]::int[], $7::text[]::int[],
    $8::text[]::int[], $9::text[], $10::text[]) WITH ORDINALITY
    AS new (id, queue, task, version, priority, max_lost, max_attempts, options, args, at)
    ORDER BY new.at"""
_INSERT_IN = """INSERT INTO lastcall.job (id, lane, status, priority, max_lost, max_attempts, created_at, options, args,
    due_at, retention_seconds, parent_id, labels, key, key_task, limit_key, limit_count, log_max_bytes,
    log_max_age_seconds, held, tied)
    SELECT new.id, {lane}, new.status, new.priority, new.max_lost, new.max_attempts, $1, new.options, new.args,
    new.due_at, new.retention, new.parent_id, new.labels, new.key, CASE WHEN new.key IS NOT NULL THEN new.task END,
    new.limit_key, new.limit_count, new.log_max_bytes, new.log_max_age, new.held, new.limit_key IS NOT NULL
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::int[], $8::int[], $9::text[],
    $10::text[], $11::text[], $12::float8[], $13::float8[], $14::text[], $15::text[], $16::text[], $17::text[],
    $18::int[], $19::bigint[], $20::float8[], $21::bool[]{lanes})
    WITH ORDINALITY AS new (id, queue, task, version, priority, max_lost, max_attempts,
    options, args, status, due_at, retention, parent_id, labels, key, limit_key, limit_count, log_max_bytes,
    log_max_age, held, {numbers}at)
    ORDER BY new.at ON CONFLICT (key, key_task) WHERE key IS NOT NULL DO NOTHING RETURNING id"""
_INSERT = _INSERT_IN.format(lane=_LANE, lanes="", numbers="")
# A user's transaction may have begun before the lane was made, and not see it.
_INSERT_WITHIN = _INSERT_IN.format(lane="new.lane", lanes=", $22::int[]", numbers="lane, ")
_BY_KEY = """SELECT job.key_task, job.key, job.id, job.status, job.args FROM lastcall.job
    JOIN unnest($1::text[], $2::text[]) AS asked (task, key) ON job.key_task = asked.task AND job.key = asked.key"""
_THERE = "SELECT count(*) FROM lastcall.job WHERE id = ANY($1::text[])"
_TICK = """INSERT INTO lastcall.schedule AS there (name, last_tick) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET last_tick = excluded.last_tick WHERE excluded.last_tick > there.last_tick
    RETURNING 1"""

_NONE = (None,) * 8


class Tick(NamedTuple):
    """A call of `fire`."""

    schedule: str
    tick: float
    job: NewJob | None


def is_plain(job: NewJob) -> bool:
    """Whether nothing but the job itself must be looked at or written."""
    given = (job.key, job.limit_key, job.labels, job.delay_seconds, job.due_at, job.parent_id,
             job.retention_seconds, job.log_max_age_seconds)  # fmt: skip
    return given == _NONE and job.log_max_bytes == DEFAULT_LOG_MAX_BYTES


def lanes_of(jobs: Sequence[NewJob]) -> set[Lane]:
    return {Lane(job.queue, job.task, job.version) for job in jobs}


async def add_lanes(store: Store, lanes: set[Lane]) -> None:
    """See to it that these lanes are there, before anything refers to them. They are never deleted."""
    missing = lanes - store.terms.lanes
    if missing:
        columns = zip(*missing, strict=True)
        await store.rows(_NEW_LANES, *map(list, columns))
        store.terms.lanes.update(missing)


async def submit_plain(store: Store, calls: Sequence[Sequence[NewJob]]) -> list[list[Submitted]]:
    """One statement for all of them."""
    jobs = [job for call in calls for job in call]
    answers = [[Submitted(job.id, _QUEUED, True) for job in call] for call in calls]
    if not jobs:
        return answers
    await add_lanes(store, lanes_of(jobs))
    ids = [job.id for job in jobs]
    # All were written or none, so one that is there says that our lost try was committed.
    if store.again and await store.value(_THERE, ids) == len(jobs):
        return answers
    columns = [[getattr(job, name) for job in jobs] for name in NewJob._fields]
    named = dict(zip(NewJob._fields, columns, strict=True))
    lane = (named[name] for name in ("queue", "task", "version"))
    numbers = (list(map(str, named[name])) for name in ("priority", "max_lost", "max_attempts"))
    try:
        await store.rows(_INSERT_PLAIN, store.now, ids, *lane, *numbers, named["options"], named["args"])
    except Exception as error:
        raise _refused(store, error) from error
    return answers


async def submit_carefully(store: Store, calls: Sequence[Sequence[NewJob]]) -> list[list[Submitted]]:
    """First look at all keys, then write: of a call in which one conflicts, nothing."""
    jobs = [job for call in calls for job in call]
    await store.lock_keys([job.limit_key for job in jobs])
    by_key = await _there(store, jobs)
    answers: list[list[Submitted]] = []
    fresh: list[NewJob] = []
    for call in calls:
        answer, new = _answer(store, call, by_key)
        answers.append(answer)
        fresh += new
    if fresh:
        # Mostly they are there: `add_lanes` came before this transaction, so that nobody waits for its end.
        await add_lanes(store, lanes_of(fresh))
        await _insert(store, fresh)
    return answers


async def submit_within(
    store: Store, jobs: Sequence[NewJob], lanes: Mapping[tuple[str, str, str], int]
) -> list[Submitted]:
    """In a transaction that is not ours and may last: without a lock that workers need. `lanes`: their numbers."""
    answers, fresh = _answer(store, jobs, await _there(store, jobs))
    rows = []
    for job in fresh:
        due_at = _due_at(store, job)
        if due_at is None and job.limit_key is not None:
            due_at = store.now  # the next claim puts it in line, under the lock of its limit key
        rows.append((*_row(job, due_at, False), lanes[job.queue, job.task, job.version]))
    await _write(store, _INSERT_WITHIN, rows)
    return answers


async def fire(store: Store, call: Tick) -> bool:
    """Move the schedule on, if nobody did, and submit its job with it."""
    if await store.value(_TICK, call.schedule, call.tick) is None:
        return False
    if call.job is not None:
        await submit_carefully(store, [[call.job]])
    return True


_ByKey = dict[tuple[str, str], tuple[str, JobStatus, str]]


async def _there(store: Store, jobs: Sequence[NewJob]) -> _ByKey:
    keyed = {(job.task, job.key) for job in jobs if job.key is not None}
    if not keyed:
        return {}
    tasks, keys = zip(*keyed, strict=True)
    rows = await store.rows(_BY_KEY, list(tasks), list(keys))
    return {(task, key): (id, JobStatus(status), args) for task, key, id, status, args in rows}


def _answer(store: Store, call: Sequence[NewJob], by_key: _ByKey) -> tuple[list[Submitted], list[NewJob]]:
    """What a call is answered, and what of it is new. `by_key` learns of it, unless there is a conflict."""
    answer: list[Submitted] = []
    fresh: list[NewJob] = []
    mine: _ByKey = {}
    for job in call:
        place = (job.task, job.key or "")
        there = None if job.key is None else mine.get(place) or by_key.get(place)
        if there is None:
            status = _QUEUED if _due_at(store, job) is None else _SCHEDULED
            answer.append(Submitted(job.id, status, True))
            fresh.append(job)
            if job.key is not None:
                mine[place] = (job.id, status, job.args)
        else:
            answer.append(Submitted(there[0], there[1], False, there[2] != job.args))
    if any(each.conflict for each in answer):
        return [each._replace(created=False) for each in answer], []
    by_key.update(mine)
    return answer, fresh


def _due_at(store: Store, job: NewJob) -> float | None:
    due_at = job.due_at if job.delay_seconds is None else store.now + job.delay_seconds
    return due_at if due_at is not None and due_at > store.now else None


async def _insert(store: Store, jobs: Sequence[NewJob]) -> None:
    taken: Counter[str] = Counter()
    for key in {job.limit_key for job in jobs if job.limit_key is not None and job.limit is not None}:
        taken[key] = await places(store, key)
    rows = []
    for job in jobs:
        due_at = _due_at(store, job)
        held = False
        if due_at is None and job.limit_key is not None:
            held = job.limit is not None and taken[job.limit_key] >= job.limit
            taken[job.limit_key] += not held
        rows.append(_row(job, due_at, held))
    await _write(store, _INSERT, rows)


def _row(job: NewJob, due_at: float | None, held: bool) -> tuple[Any, ...]:
    # Plain texts: not every driver knows what an enum is.
    status = _QUEUED.value if due_at is None else _SCHEDULED.value
    log_max_bytes = None if job.log_max_bytes == DEFAULT_LOG_MAX_BYTES else job.log_max_bytes
    return (job.id, job.queue, job.task, job.version, job.priority, job.max_lost, job.max_attempts, job.options,
            job.args, status, due_at, job.retention_seconds, job.parent_id, job.labels, job.key, job.limit_key,
            job.limit, log_max_bytes, job.log_max_age_seconds, held)  # fmt: skip


async def _write(store: Store, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    try:
        written = await store.rows(statement, store.now, *map(list, zip(*rows, strict=True)))
    except Exception as error:
        raise _refused(store, error) from error
    if len(written) < len(rows):
        raise TryAgain  # somebody else has submitted one of the keys since we looked


def _refused(store: Store, error: Exception) -> Exception:
    constraint, detail = violated(error) or ("", "")
    if constraint == "lane":
        # The lanes that we know are not there: another database stands at this address now.
        store.terms.lanes.clear()
        return TryAgain()
    if constraint == "job_id":
        return KeyConflict(
            f"a job with this id exists ({detail}); nothing was written. Every submit needs an id of its own"
        )
    return error
