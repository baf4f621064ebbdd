"""Claiming: what is due becomes ready, then a worker takes what it can run. A claim that finds nothing writes nothing.

Each lane has its part of the claim index, best job first, so a claim looks at as many entries as it takes, however
many jobs are queued there or in lanes that this worker does not know.

What makes it safe: the rows are locked in the statement that takes them, and rows that others have locked are skipped,
so no job is taken twice and no claim waits for another. The worker's row is locked against its deletion, so a rescue
either comes first, and the claim gets nothing, or sees what was taken. A lock is a write, which has to reach the disk;
so the row is locked only for a claim that has found something. How many of a limited task run, and its bucket,
are looked at under the lock of that task, which every claim takes that could start one.

A skipped row may turn out to be free after all. Then `next_due_seconds` says to ask again soon.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

from ...jobs._events import size_of, status_event
from ...jobs._rows import Claimed, ClaimRequest, TaskLimits
from ...jobs._state import JobStatus
from ._clock import NOW, NOW_AT_LAST
from ._limits import Bucket, bucket, enqueue, take_tokens
from ._log import Head, trim
from ._store import Store
from ._waits import wake_due

# How many scheduled jobs one claim puts in line. More are waiting for the next claim, which is told to come at once.
_DUE_AT_ONCE = 10_000
_ASK_SOON_SECONDS = 0.02

_NEXT_DUE = """least((SELECT min(due_at) FROM lastcall.job WHERE status = 'scheduled'),
    (SELECT min(due_at) FROM lastcall.wait WHERE due_at IS NOT NULL))"""
# $1 now, $2 worker, $3 claim, $4 tasks, $5 versions, $6 room of each task, $7 limit, $8 queues, $9 whatever is due,
# $10 whether there are suspects or not, $11 what is told of every attempt but a job's first, $12 its size
_LANES = """lanes AS MATERIALIZED (SELECT lane.*, known.room FROM lastcall.lane
    JOIN unnest($4::text[], $5::text[], $6::text[]::int[]) AS known (task, version, room)
    ON lane.task = known.task AND lane.version = known.version
    WHERE $8::text[] IS NULL OR lane.queue = ANY($8::text[]))"""
# As `Claimed` has them.
_CLAIMED = """{job}.id, {job}.attempt, {lane}.task, {lane}.version, {job}.args, {lane}.queue, {job}.priority,
    {job}.failures, {has_steps}, {job}.created_at, {job}.key, {job}.labels, {job}.options, {job}.parent_id"""
_HAS_STEPS = "EXISTS (SELECT FROM lastcall.step WHERE step.job = {job}.n)"
_CLAIM = f"""WITH moment AS MATERIALIZED (SELECT {NOW} AS now, {_NEXT_DUE} AS due_at,
        EXISTS (SELECT FROM lastcall.job WHERE suspect AND status IN ('queued', 'running')) AS suspects),
    {_LANES},
    found AS MATERIALIZED (SELECT best.n, best.priority, lanes.room, lanes.queue, lanes.task, lanes.version,
        {{place}} AS place
        FROM lanes CROSS JOIN LATERAL (SELECT n, priority FROM lastcall.job
            WHERE job.lane = lanes.id AND status = 'queued' AND NOT held AND {{which}}
            ORDER BY priority DESC, n LIMIT lanes.room FOR UPDATE SKIP LOCKED) AS best
        WHERE ($9::bool OR NOT coalesce((SELECT due_at <= now FROM moment), false))
        AND ($10::bool OR NOT (SELECT suspects FROM moment))),
    best AS MATERIALIZED (SELECT * FROM found WHERE place <= room ORDER BY priority DESC, n LIMIT $7::int),
    me AS MATERIALIZED (SELECT 1 FROM lastcall.worker WHERE id = $2 AND EXISTS (SELECT FROM best) FOR KEY SHARE),
    taken AS (UPDATE lastcall.job SET status = 'running', attempt = attempt + 1, worker = $2, claim = $3::bigint,
        started_at = {NOW_AT_LAST}, last_seq = last_seq + (attempt > 0)::int,
        log_bytes = log_bytes + CASE WHEN attempt > 0 THEN $12::bigint ELSE 0 END
        FROM best WHERE job.n = best.n AND EXISTS (SELECT FROM me)
        RETURNING job.n, job.id, attempt, args, job.priority, failures, created_at, key, labels, options, parent_id,
        started_at, last_seq, log_bytes, log_max_bytes, log_max_age_seconds, best.queue, best.task, best.version),
    told AS (INSERT INTO lastcall.event (job, seq, attempt, at, type, data, upto)
        SELECT n, last_seq, attempt, started_at, 'status', $11, log_bytes FROM taken WHERE attempt > 1)
    SELECT {_CLAIMED.format(job="taken", lane="taken", has_steps="attempt > 1 AND " + _HAS_STEPS.format(job="taken"))},
        taken.n, taken.last_seq, taken.log_bytes, taken.log_max_bytes, taken.log_max_age_seconds,
        moment.now, moment.suspects, moment.due_at AS next_due_at,
        (SELECT count(*) < $7::int FROM taken) AND EXISTS (SELECT FROM lastcall.worker WHERE id = $2)
            AND EXISTS (SELECT FROM lanes
            WHERE lanes.room >= $7::int AND (SELECT n FROM lastcall.job WHERE job.lane = lanes.id AND status = 'queued'
            AND NOT held AND {{which}} AND n NOT IN (SELECT taken.n FROM taken)
            ORDER BY priority DESC, n LIMIT 1) IS NOT NULL) AS is_left
    FROM moment LEFT JOIN taken ON true ORDER BY taken.priority DESC, taken.n"""
_PLACE = "row_number() OVER (PARTITION BY lanes.task ORDER BY best.priority DESC, best.n)"
# Where every task has as much room as is asked for, or none, nobody's place among its task's jobs matters.
_CLAIM_BEST = _CLAIM.format(which="NOT suspect", place="0")
_CLAIM_WITHIN_ROOM = _CLAIM.format(which="NOT suspect", place=_PLACE)
_CLAIM_SUSPECT = _CLAIM.format(which="suspect", place=_PLACE)
_TAKEN = f"""SELECT {_CLAIMED.format(job="job", lane="lane", has_steps=_HAS_STEPS.format(job="job"))} FROM lastcall.job
    JOIN lastcall.lane ON lane.id = job.lane WHERE worker = $1 AND status = 'running' AND claim = $2::bigint
    ORDER BY priority DESC, n"""
# Not EXISTS, and in order: the planner, which hopes to meet one soon, might go through all jobs for it.
_FIRST_OF_LANE = """(SELECT n FROM lastcall.job WHERE job.lane = lane.id AND status = 'queued' AND NOT held AND {which}
    ORDER BY priority DESC, n LIMIT 1) IS NOT NULL"""
_LEFT = f"""SELECT EXISTS (SELECT FROM lastcall.lane JOIN unnest($1::text[], $2::text[]) AS known (task, version)
    ON lane.task = known.task AND lane.version = known.version
    WHERE ($3::text[] IS NULL OR lane.queue = ANY($3::text[])) AND {_FIRST_OF_LANE})"""
_LEFT_OTHERS = _LEFT.format(which="NOT suspect")
_LEFT_SUSPECTS = _LEFT.format(which="suspect")
_HOLDS = f"""SELECT count(*) > 0 AS anything, coalesce(bool_or(suspect), false) AS a_suspect, {NOW_AT_LAST} AS now
    FROM lastcall.job WHERE worker = $2 AND status = 'running'"""
_LOCK_WORKER = "SELECT 1 FROM lastcall.worker WHERE id = $1 FOR NO KEY UPDATE"

_WHAT_IS_DUE = f"""SELECT {NOW} AS now,
    EXISTS (SELECT FROM lastcall.job WHERE status = 'scheduled' AND due_at <= {NOW}) AS jobs,
    EXISTS (SELECT FROM lastcall.wait WHERE due_at <= {NOW}) AS waits"""
_DUE_PLAIN = f"""UPDATE lastcall.job SET status = 'queued', due_at = NULL WHERE n = ANY(ARRAY(SELECT n FROM lastcall.job
    WHERE status = 'scheduled' AND due_at <= {NOW} AND limit_key IS NULL
    ORDER BY due_at LIMIT {_DUE_AT_ONCE} FOR UPDATE SKIP LOCKED))"""
_DUE_LIMITED = f"""SELECT n, limit_key FROM lastcall.job
    WHERE status = 'scheduled' AND due_at <= $1 AND limit_key IS NOT NULL ORDER BY due_at LIMIT {_DUE_AT_ONCE}"""
_LOCK_LIMITED = """SELECT n, priority, limit_key FROM lastcall.job
    WHERE n = ANY($1::bigint[]) AND status = 'scheduled' ORDER BY n FOR UPDATE SKIP LOCKED"""

_QUEUED_TASKS = f"""SELECT DISTINCT lane.task FROM lastcall.lane WHERE lane.task = ANY($1::text[])
    AND ({_FIRST_OF_LANE.format(which="NOT suspect")} OR {_FIRST_OF_LANE.format(which="suspect")})"""
_RUNNING = """SELECT count(*) FROM lastcall.job JOIN lastcall.lane ON lane.id = job.lane
    WHERE job.status = 'running' AND lane.task = $1"""

_UNLIMITED = TaskLimits()
_COLUMNS = len(Claimed._fields)


def draw() -> int:
    """A number for a claim that nobody else has."""
    return random.getrandbits(62)


class Call(NamedTuple):
    """A call of `claim`, and its number."""

    request: ClaimRequest
    number: int


class Step(NamedTuple):
    """What one try of a claim brought. `due`: nothing was taken, because something is due and must be put in line;
    `suspects`: because there are suspects, which need a closer look."""

    jobs: list[Claimed]
    next_due_seconds: float | None
    due: bool = False
    suspects: bool = False
    suspect_waits: bool = False


class _Limited(NamedTuple):
    """A task with limits: how many may start now, and how many if only for concurrency; its bucket."""

    room: int
    slots: int
    bucket: Bucket | None


class _Terms(NamedTuple):
    """What a try goes by: the room of the tasks that have limits, and whether what is due or suspect matters."""

    rooms: dict[str, int]
    anyhow: bool
    beside_suspects: bool = False


def limited_tasks(request: ClaimRequest) -> dict[str, TaskLimits]:
    """The tasks that have limits."""
    return {
        task: limits
        for (task, _), limits in request.tasks.items()
        if limits is not None and limits != _UNLIMITED
    }


async def queued_of(store: Store, tasks: list[str]) -> list[str]:
    """Those tasks of which a job could be started now. A look without locks: it spares them where there is nothing."""
    return [task for (task,) in await store.rows(_QUEUED_TASKS, tasks)]


async def claim_plain(store: Store, call: Call, without: Iterable[str], *, anyhow: bool) -> Step:
    """Take the best, in one statement. `without`: tasks of which nothing is queued. `anyhow`: whatever is due."""
    if store.again and (jobs := await taken_by(store, call)):
        return Step(jobs, 0.0)
    return await _take(store, call, _Terms(dict.fromkeys(without, 0), anyhow))


async def taken_by(store: Store, call: Call) -> list[Claimed]:
    """What a claim has brought whose answer was lost. A reading."""
    rows = await store.rows(_TAKEN, call.request.worker_id, call.number)
    return [Claimed._make(row) for row in rows]


async def claim_carefully(
    store: Store, call: Call, tasks: dict[str, TaskLimits], without: Iterable[str], *, anyhow: bool
) -> Step:
    """Take a suspect alone, or the best: of each of these tasks no more than it has room for, and none `without`.

    In a transaction. What the worker holds is looked at under the lock of its row, so that no other claim of it comes
    between.
    """
    request = call.request
    await store.lock_tasks(tasks)
    if await store.row(_LOCK_WORKER, request.worker_id) is None:
        nothing = call._replace(request=request._replace(limit=0))
        return await _take(store, nothing, _Terms({}, anyhow, beside_suspects=True))
    holds = await store.row(_HOLDS, store.clock_now(), request.worker_id)
    store.now = holds["now"]  # the transaction is as old as its wait for the locks
    limited = {task: await _room(store, task, limits, request.limit) for task, limits in tasks.items()}
    rooms = {**{task: one.room for task, one in limited.items()}, **dict.fromkeys(without, 0)}
    terms = _Terms(rooms, anyhow, beside_suspects=True)
    idle = not holds["anything"]
    step = Step([], None)
    if idle and request.limit > 0:
        step = await _take(store, call, terms, suspect=True)
    if not step.jobs and not step.due:
        alone = holds["a_suspect"]
        rest = call._replace(request=request._replace(limit=0)) if alone else call
        step = await _take(store, rest, terms)
    else:
        alone = True
    if step.due:
        return step
    full = alone or len(step.jobs) >= request.limit
    next_due = step.next_due_seconds
    for task, one in limited.items():
        count = sum(job.task == task for job in step.jobs)
        next_due = _sooner(next_due, await _pay(store, request, task, one, count, full, idle))
    waits = (not idle or bool(step.jobs)) and await _is_left(store, _LEFT_SUSPECTS, request, request.tasks)
    return step._replace(next_due_seconds=next_due, suspect_waits=waits)


async def _take(store: Store, call: Call, terms: _Terms, *, suspect: bool = False) -> Step:
    request, rooms = call.request, terms.rooms
    limit = min(1, request.limit) if suspect else max(0, request.limit)
    tasks, versions = [task for task, _ in request.tasks], [version for _, version in request.tasks]
    queues = None if request.queues is None else list(request.queues)
    room = [max(0, min(rooms.get(task, limit), limit)) for task in tasks]
    told = status_event(JobStatus.RUNNING, worker=request.worker_id)
    best = _CLAIM_BEST if all(one in (0, limit) for one in room) else _CLAIM_WITHIN_ROOM
    # Numbers as texts: see `_submit`.
    rows = await store.rows(
        _CLAIM_SUSPECT if suspect else best, store.now, request.worker_id, call.number, tasks, versions,
        list(map(str, room)), limit, queues, terms.anyhow, terms.beside_suspects, told.data, size_of(told),
    )  # fmt: skip
    first = rows[0]
    now, next_due_at = first["now"], first["next_due_at"]
    if next_due_at is not None and next_due_at <= now and not terms.anyhow:
        return Step([], None, due=True)
    if first["suspects"] and not terms.beside_suspects:
        return Step([], None, suspects=True)
    taken = [] if first["n"] is None else rows
    await trim(store, [_head(row, size_of(told)) for row in taken if row["attempt"] > 1])
    jobs = [Claimed._make(row[:_COLUMNS]) for row in taken]
    seconds = None if next_due_at is None else max(0.0, next_due_at - now)
    # Somebody else has locked it, and may let go of it.
    if first["is_left"] and not suspect:
        seconds = _sooner(seconds, _ASK_SOON_SECONDS)
    return Step(jobs, seconds)


async def _is_left(store: Store, left: str, request: ClaimRequest, known: Iterable[tuple[str, str]]) -> bool:
    """Whether anything is in line for these tasks and versions."""
    pairs = list(known)
    queues = None if request.queues is None else list(request.queues)
    tasks, versions = [task for task, _ in pairs], [version for _, version in pairs]
    return bool(pairs) and bool(await store.value(left, tasks, versions, queues))


def _sooner(first: float | None, second: float | None) -> float | None:
    return min((seconds for seconds in (first, second) if seconds is not None), default=None)


def _head(row: Any, size: int) -> Head:
    size_before = row["log_bytes"] - size
    return Head(
        row["n"],
        row["last_seq"],
        size_before,
        row["log_bytes"],
        row["log_max_bytes"],
        row["log_max_age_seconds"],
    )


# --- limits --------------------------------------------------------------------------------------------


async def _room(store: Store, task: str, limits: TaskLimits, room: int) -> _Limited:
    if limits.concurrency is not None:
        room = min(room, limits.concurrency - await store.value(_RUNNING, task))
    slots = max(0, room)
    tokens = await bucket(store, task, limits)
    return _Limited(slots if tokens is None else min(slots, tokens.whole), slots, tokens)


async def _pay(
    store: Store, request: ClaimRequest, task: str, limited: _Limited, count: int, full: bool, idle: bool
) -> float | None:
    """Take the tokens of those that start; when the next one will be there, if it is what jobs wait for, or suspects
    for an `idle` worker."""
    tokens = limited.bucket
    if tokens is None:
        return None
    if count:
        tokens = await take_tokens(store, task, tokens, count)
    if full or tokens.whole or limited.slots <= count:
        return None
    known = [pair for pair in request.tasks if pair[0] == task]
    if await _is_left(store, _LEFT_OTHERS, request, known):
        return tokens.next_seconds
    if idle and await _is_left(store, _LEFT_SUSPECTS, request, known):
        return tokens.next_seconds
    return None


# --- what is due ---------------------------------------------------------------------------------------


class Due(NamedTuple):
    """Whether there are jobs to be put in line, and waits that are over."""

    jobs: bool
    waits: bool


async def what_is_due(store: Store) -> Due:
    row = await store.row(_WHAT_IS_DUE, store.now)
    return Due(row["jobs"], row["waits"])


async def make_due(store: Store, due: Due) -> None:
    """Put in line what is due; what somebody else is at is left to them. In a transaction."""
    if due.jobs:
        found = await store.rows(_DUE_LIMITED, store.now)
        await store.lock_keys([limit_key for _, limit_key in found])
        limited = await store.rows(_LOCK_LIMITED, [n for n, _ in found])
        for n, _, limit_key in sorted(limited, key=lambda row: (-row["priority"], row["n"])):
            await enqueue(store, n, limit_key)
        await store.rows(_DUE_PLAIN, store.now)
    if due.waits:
        await wake_due(store)
