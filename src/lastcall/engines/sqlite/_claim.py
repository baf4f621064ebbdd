"""Claiming: what is due becomes ready, then a worker takes what it can run. A claim that finds nothing writes nothing.

Each lane has its part of the claim index, best job first, so a claim looks at as many entries as it takes, however
many jobs are queued there or in lanes that this worker does not know. Suspects stand apart, in an index of their own
that is nearly always empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...jobs._events import status_event
from ...jobs._rows import Claimed, ClaimRequest, ClaimResult, TaskLimits
from ...jobs._state import JobStatus
from . import _suspects
from ._limits import Bucket, bucket, enqueue, take_tokens
from ._store import Lane, Store
from ._suspects import Holding
from ._waits import wake_due

# How many scheduled jobs one claim puts in line. More are waiting for the next claim, which is told to come at once.
_DUE_AT_ONCE = 10_000

# With it, whether there are suspects at all: nearly never, and then nothing more is asked about them.
_JOINED = """SELECT EXISTS (SELECT 1 FROM lastcall_job INDEXED BY lastcall_job_suspect WHERE held >= 2)
    FROM lastcall_worker WHERE id = ?"""
_NEXT_DUE = """SELECT (SELECT min(due_at) FROM lastcall_job WHERE status = 'scheduled'),
    (SELECT min(due_at) FROM lastcall_wait WHERE due_at IS NOT NULL)"""
_DUE_PLAIN = """UPDATE lastcall_job SET status = 'queued', due_at = NULL WHERE n IN (SELECT n FROM lastcall_job
    WHERE status = 'scheduled' AND due_at <= ? AND limit_key IS NULL ORDER BY due_at LIMIT ?)"""
_DUE_LIMITED = """SELECT priority, n, limit_key FROM lastcall_job
    WHERE status = 'scheduled' AND due_at <= ? AND limit_key IS NOT NULL ORDER BY due_at LIMIT ?"""

_BEST = """SELECT n FROM lastcall_job WHERE lane = ? AND status = 'queued' AND held = 0
    ORDER BY priority DESC, n LIMIT ?"""
_BEST_OF_LANES = """SELECT job.n, job.priority FROM json_each(?) AS lane, lastcall_job AS job
    WHERE job.n IN (SELECT n FROM lastcall_job WHERE lane = lane.value AND status = 'queued' AND held = 0
    ORDER BY priority DESC, n LIMIT ?)
    ORDER BY job.priority DESC, job.n LIMIT ?"""
# One text for all of them: a row that is fetched alone gives the GIL away, and may wait for it (see `_writer`).
_READ = """SELECT json_group_array(json_array(n, id, attempt + 1, lane, args, priority, failures,
    attempt > 0 AND EXISTS (SELECT 1 FROM lastcall_step WHERE job = lastcall_job.n),
    printf('%!.17g', created_at), key, labels, options, parent_id)) FROM lastcall_job WHERE n IN ({which})"""
_READ_BEST = _READ.format(which=_BEST)
_READ_THESE = _READ.format(which="SELECT value FROM json_each(?)")
_TAKE = """UPDATE lastcall_job SET status = 'running', attempt = attempt + 1, worker = ?, started_at = ?
    WHERE n IN (SELECT value FROM json_each(?))"""
_RUNNING = """SELECT count(*) FROM lastcall_job
    WHERE lane IN (SELECT value FROM json_each(?)) AND status = 'running'"""
_ANY_QUEUED = """SELECT 1 FROM lastcall_job
    WHERE lane IN (SELECT value FROM json_each(?)) AND status = 'queued' AND held = 0 LIMIT 1"""


class _Limited(NamedTuple):
    """A task with limits: its lanes; how many may start now, and how many if only for concurrency; its bucket."""

    task: str
    lanes: list[int]
    room: int
    slots: int
    bucket: Bucket | None


def claim(store: Store, request: ClaimRequest) -> ClaimResult:
    next_due = _make_due(store)
    joined = store.execute(_JOINED, (request.worker_id,)).fetchone()
    if joined is None or (request.limit <= 0 and not joined[0]):
        return ClaimResult([], next_due)
    plain, limited = _lanes(store, request)
    waits = False
    if joined[0]:
        rows, next_token, waits = _take_beside_suspects(store, request, plain, limited)
    else:
        rows, next_token = _take_normal(store, request, plain, limited)
    if next_token is not None:
        next_due = next_token if next_due is None else min(next_due, next_token)
    rows.sort(key=_best_first)
    lanes = store.lanes
    return ClaimResult([_claimed(row, lanes[row[3]]) for row in rows], next_due, waits)


_Limits = Mapping[str, tuple[TaskLimits, list[int]]]
_Row = tuple[int, str, int, int, str, int, int, int, str, str | None, str | None, str | None, str | None]


def _best_first(row: _Row) -> tuple[int, int]:
    return -row[5], row[0]


def _claimed(row: _Row, lane: Lane) -> Claimed:
    _, id, attempt, _, args, priority, failures, has_steps, created_at, key, labels, options, parent_id = row
    return Claimed(id, attempt, lane.task, lane.version, args, lane.queue, priority, failures, has_steps == 1,
                   float(created_at), key, labels, options, parent_id)  # fmt: skip


# --- what is due ---------------------------------------------------------------------------------------


def _make_due(store: Store) -> float | None:
    """Put in line what is due; answers when more will be, None: nothing is foreseen."""
    jobs, waits = store.execute(_NEXT_DUE).fetchone()
    if jobs is not None and jobs <= store.now:
        store.execute(_DUE_PLAIN, (store.now, _DUE_AT_ONCE))
        limited = store.execute(_DUE_LIMITED, (store.now, _DUE_AT_ONCE)).fetchall()
        for _, n, limit_key in sorted(limited, key=lambda row: (-row[0], row[1])):
            enqueue(store, n, limit_key)
        jobs, waits = store.execute(_NEXT_DUE).fetchone()
    if waits is not None and waits <= store.now:
        wake_due(store)
        jobs, waits = store.execute(_NEXT_DUE).fetchone()
    return min((max(0.0, due - store.now) for due in (jobs, waits) if due is not None), default=None)


# --- what may be taken ---------------------------------------------------------------------------------


def _lanes(store: Store, request: ClaimRequest) -> tuple[list[int], dict[str, tuple[TaskLimits, list[int]]]]:
    """The lanes that the worker serves: those without limits, and those of each task that has some."""
    tasks, queues = request.tasks, request.queues
    plain: list[int] = []
    limited: dict[str, tuple[TaskLimits, list[int]]] = {}
    for number, (queue, task, version) in store.learn_lanes().items():
        if (task, version) not in tasks or (queues is not None and queue not in queues):
            continue
        limits = tasks[task, version]
        if limits is None or limits == _UNLIMITED:
            plain.append(number)
        else:
            limited.setdefault(task, (limits, []))[1].append(number)
    return plain, limited


_UNLIMITED = TaskLimits()


def _take_normal(
    store: Store, request: ClaimRequest, plain: list[int], limited: _Limits, *, idle: bool = False
) -> tuple[list[_Row], float | None]:
    """Jobs that are no suspects; and when a token of a rate will be there that is all they, or suspects for an `idle`
    worker, wait for."""
    if request.limit <= 0:
        return [], None
    if limited:
        return _take_within_limits(store, request, plain, limited, idle)
    return _take_best(store, request, plain), None


def _take_best(store: Store, request: ClaimRequest, lanes: list[int]) -> list[_Row]:
    if not lanes:
        return []
    if len(lanes) == 1:
        return _take(store, request, _READ_BEST, (lanes[0], request.limit))
    return _take_these(store, request, [n for n, _ in _best(store, lanes, request.limit)])


def _take_within_limits(
    store: Store,
    request: ClaimRequest,
    plain: list[int],
    limited: _Limits,
    idle: bool,
) -> tuple[list[_Row], float | None]:
    """The best of all lanes, of each limited task no more than it has room for; and when a token will be there."""
    tasks = [_room(store, task, limits, lanes, request.limit) for task, (limits, lanes) in limited.items()]
    found: list[tuple[int, int, _Limited | None]] = [
        (-priority, n, None) for n, priority in _best(store, plain, request.limit)
    ]
    for task in tasks:
        found += [(-priority, n, task) for n, priority in _best(store, task.lanes, task.room)]
    found.sort(key=lambda entry: entry[:2])
    taken = found[: max(0, request.limit)]
    rows = _take_these(store, request, [n for _, n, _ in taken])
    full = len(taken) == request.limit
    due = [_pay(store, task, sum(owner is task for *_, owner in taken), full, idle) for task in tasks]
    return rows, min((seconds for seconds in due if seconds is not None), default=None)


def _room(store: Store, task: str, limits: TaskLimits, lanes: list[int], room: int) -> _Limited:
    if limits.concurrency is not None:
        everywhere = [number for number, lane in store.lanes.items() if lane.task == task]
        (running,) = store.execute(_RUNNING, (json.dumps(everywhere),)).fetchone()
        room = min(room, limits.concurrency - running)
    slots = max(0, room)
    tokens = bucket(store, task, limits)
    room = slots if tokens is None else min(slots, tokens.whole)
    return _Limited(task, lanes, room, slots, tokens)


def _pay(store: Store, task: _Limited, count: int, full: bool, idle: bool) -> float | None:
    """Take the tokens of those that start; when the next one will be there, if it is what jobs wait for."""
    tokens = task.bucket
    if tokens is None:
        return None
    if count:
        tokens = take_tokens(store, task.task, tokens, count)
    if full or tokens.whole or task.slots <= count:
        return None
    queued = store.execute(_ANY_QUEUED, (json.dumps(task.lanes),)).fetchone() is not None
    if queued or (idle and _suspects.first_of(store, task.lanes) is not None):
        return tokens.next_seconds
    return None


def _take_beside_suspects(
    store: Store, request: ClaimRequest, plain: list[int], limited: _Limits
) -> tuple[list[_Row], float | None, bool]:
    """Somewhere there are suspects: one of them alone, or other jobs as usual, or nothing; and whether one waits."""
    holds = _suspects.holding(store, request.worker_id)
    idle = holds is Holding.NOTHING
    rows: list[_Row] = []
    next_token = None
    if idle and request.limit > 0:
        rows = _take_suspect(store, request, plain, limited)
    if not rows and holds is not Holding.SUSPECT:
        rows, next_token = _take_normal(store, request, plain, limited, idle=idle)
    if idle and not rows:
        return rows, next_token, False
    lanes = plain + [lane for _, of_task in limited.values() for lane in of_task]
    return rows, next_token, _suspects.first_of(store, lanes) is not None


def _take_suspect(store: Store, request: ClaimRequest, plain: list[int], limited: _Limits) -> list[_Row]:
    """The first suspect, if any, that no limit forbids."""
    tasks = [_room(store, task, limits, lanes, 1) for task, (limits, lanes) in limited.items()]
    found: list[tuple[int, int, _Limited | None]] = []
    for lanes, task in ((plain, None), *((task.lanes, task) for task in tasks if task.room)):
        first = _suspects.first_of(store, lanes)
        if first is not None:
            n, priority = first
            found.append((-priority, n, task))
    if not found:
        return []
    _, n, owner = min(found, key=lambda entry: entry[:2])
    if owner is not None:
        _pay(store, owner, 1, full=True, idle=True)
    return _take_these(store, request, [n])


def _best(store: Store, lanes: list[int], limit: int) -> list[tuple[int, int]]:
    if not lanes or limit <= 0:
        return []
    return store.execute(_BEST_OF_LANES, (json.dumps(lanes), limit, limit)).fetchall()


def _take_these(store: Store, request: ClaimRequest, these: list[int]) -> list[_Row]:
    return _take(store, request, _READ_THESE, (json.dumps(these),)) if these else []


def _take(store: Store, request: ClaimRequest, read: str, which: tuple[Any, ...]) -> list[_Row]:
    rows: list[_Row] = json.loads(store.execute(read, which).fetchone()[0])
    if rows:
        store.execute(_TAKE, (request.worker_id, store.now, json.dumps([row[0] for row in rows])))
        for row in rows:
            if row[2] > 1:
                store.tell(row[0], row[2], status_event(JobStatus.RUNNING, worker=request.worker_id))
    return rows
