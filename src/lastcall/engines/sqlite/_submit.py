"""Submitting: plain jobs by the many, keyed and limited ones one by one; and the ticks of schedules."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from ...exceptions import KeyConflict
from ...jobs._rows import DEFAULT_LOG_MAX_BYTES, NewJob, Submitted
from ...jobs._state import JobStatus
from ._limits import is_full
from ._store import FEW, Store

_QUEUED, _SCHEDULED = JobStatus.QUEUED, JobStatus.SCHEDULED

# Two statements, because SQLite takes its time for each value, also for those that are not there.
_INSERT_PLAIN = """INSERT INTO lastcall_job (id, lane, status, priority, max_lost, max_attempts, created_at,
    options, args) VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?)"""
_INSERT = """INSERT INTO lastcall_job (id, lane, status, priority, max_lost, max_attempts, created_at, due_at,
    retention_seconds, parent_id, labels, options, args, key, key_task, limit_key, limit_count, log_max_bytes,
    log_max_age_seconds, held) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
# For many that differ in id and arguments only: one step, in which the GIL is nobody's (see `_writer`).
_INSERT_ALIKE = """INSERT INTO lastcall_job (id, lane, status, priority, max_lost, max_attempts, created_at,
    options, args) SELECT key, ?, 'queued', ?, ?, ?, ?, ?, value FROM json_each(?)"""
COUNT = "UPDATE lastcall_lane SET jobs = jobs + ? WHERE id = ?"
_BY_KEY = "SELECT id, status, args FROM lastcall_job WHERE key = ? AND key_task = ?"
_TICK = """INSERT INTO lastcall_schedule (name, last_tick) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET last_tick = excluded.last_tick WHERE excluded.last_tick > last_tick"""


_Row = tuple[Any, ...]
_shared = itemgetter(slice(1, 7))
_NONE = (None,) * 8


class Tick(NamedTuple):
    """A call of `fire`."""

    schedule: str
    tick: float
    job: NewJob | None


def submit(store: Store, calls: Sequence[Sequence[NewJob]]) -> list[list[Submitted]]:
    """All calls in their order, so that age is the order of submitting; plain jobs in one statement."""
    answers = []
    rows: list[_Row] = []
    for jobs in calls:
        answer = _plain(store, jobs, rows)
        if answer is None:
            _insert_plain(store, rows)
            rows = []
            answer = _careful(store, jobs)
        answers.append(answer)
    _insert_plain(store, rows)
    return answers


def fire(store: Store, call: Tick) -> bool:
    """Move the schedule on, if nobody did, and submit its job with it."""
    if store.execute(_TICK, (call.schedule, call.tick)).rowcount != 1:
        return False
    if call.job is not None:
        _careful(store, [call.job])
    return True


def _plain(store: Store, jobs: Sequence[NewJob], rows: list[_Row]) -> list[Submitted] | None:
    """Add the jobs to the rows; None: one of them is not plain, and none was added."""
    mine: list[_Row] = []
    answer = []
    now = store.now
    for job in jobs:
        (id, task, args, version, queue, priority, delay, due_at, key, limit_key, _, labels, options, parent_id,
         max_lost, max_attempts, retention, log_max_bytes, log_max_age) = job  # fmt: skip
        if (key, limit_key, labels, delay, due_at, parent_id, retention, log_max_age) != _NONE:
            return None
        if log_max_bytes != DEFAULT_LOG_MAX_BYTES:
            return None
        lane = store.lane(queue, task, version)
        mine.append((id, lane, priority, max_lost, max_attempts, now, options, args))
        answer.append(Submitted(id, _QUEUED, True))
    rows += mine
    return answer


def _careful(store: Store, jobs: Sequence[NewJob]) -> list[Submitted]:
    """First look at all keys, then write: if one conflicts, nothing was written."""
    answers = []
    fresh: list[tuple[NewJob, _Row]] = []
    by_key: dict[tuple[str, str], tuple[str, JobStatus, str]] = {}
    conflict = False
    for job in jobs:
        there = _there(store, job, by_key)
        if there is None:
            row = _row(store, job)
            fresh.append((job, row))
            answers.append(Submitted(job.id, row[2], True))
            if job.key is not None:
                by_key[job.task, job.key] = (job.id, row[2], job.args)
        else:
            id, status, args = there
            answers.append(Submitted(id, JobStatus(status), False, args != job.args))
            conflict = conflict or args != job.args
    if conflict:
        return [answer._replace(created=False) for answer in answers]
    rows: list[_Row] = []
    for job, row in fresh:
        held = False
        if row[2] is _QUEUED and job.limit_key is not None:
            _insert(store, _INSERT, rows)  # those before it may take the last place
            rows = []
            held = is_full(store, job.limit_key, job.limit)
        rows.append((*row, held))
    _insert(store, _INSERT, rows)
    return answers


def _there(
    store: Store, job: NewJob, by_key: dict[tuple[str, str], tuple[str, JobStatus, str]]
) -> tuple[str, str, str] | None:
    """The job that has this key already: id, status and arguments."""
    if job.key is None:
        return None
    found: tuple[str, str, str] | None = by_key.get((job.task, job.key))
    return found or store.execute(_BY_KEY, (job.key, job.task)).fetchone()


def _row(store: Store, job: NewJob) -> _Row:
    (id, task, args, version, queue, priority, delay, due_at, key, limit_key, limit, labels, options, parent_id,
     max_lost, max_attempts, retention, log_max_bytes, log_max_age) = job  # fmt: skip
    now = store.now
    if delay is not None:
        due_at = now + delay
    if due_at is not None and due_at <= now:
        due_at = None
    status = _QUEUED if due_at is None else _SCHEDULED
    key_task = None if key is None else task
    lane = store.lane(queue, task, version)
    return (id, lane, status, priority, max_lost, max_attempts, now, due_at, retention, parent_id, labels, options,
            args, key, key_task, limit_key, limit, log_max_bytes, log_max_age)  # fmt: skip


def _insert_plain(store: Store, rows: list[_Row]) -> None:
    for shared, group in groupby(rows, _shared):
        alike = list(group)
        texts = {row[0]: row[7] for row in alike}
        if len(alike) < FEW or len(texts) < len(alike):
            _insert(store, _INSERT_PLAIN, alike)
            continue
        try:
            store.execute(_INSERT_ALIKE, (*shared, json.dumps(texts, ensure_ascii=False)))
        except sqlite3.IntegrityError:
            _insert(store, _INSERT_PLAIN, alike)  # which says who is guilty
        else:
            store.execute(COUNT, (len(alike), shared[0]))


def _insert(store: Store, statement: str, rows: list[_Row]) -> None:
    if not rows:
        return
    for lane, count in Counter(row[1] for row in rows).items():
        store.execute(COUNT, (count, lane))
    before = store.connection.total_changes
    try:
        store.executemany(statement, rows)
    except sqlite3.IntegrityError as error:
        if "lastcall_job.id" not in str(error):
            raise
        guilty = rows[store.connection.total_changes - before]
        raise KeyConflict(
            f"a job with the id {guilty[0]!r} exists; nothing was written. Every submit needs an id of its own"
        ) from error
