"""The logs of jobs: entries are appended, numbered, and trimmed when there are too many or too old ones.

Who calls it: the verbs of steps and events, with what they append at once; and the writer, before each commit, with
what the engine has told of statuses meanwhile (`Store.tell`). That is gathered, and comes last.
`upto` of an entry: how many bytes the log has had up to and including it, so that nobody has to add anything up.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ...jobs._events import size_of, trimmed_up_to
from ...jobs._rows import DEFAULT_LOG_MAX_BYTES
from ._store import FEW, Entry, Store

_HEAD = """n, (SELECT ifnull(max(seq), 0) FROM lastcall_event WHERE job = n),
    (SELECT ifnull(upto, 0) FROM lastcall_event WHERE job = n ORDER BY seq DESC LIMIT 1),
    log_max_bytes, log_max_age_seconds"""
_HEAD_OF = f"SELECT {_HEAD} FROM lastcall_job WHERE id = ?"
_FENCED_HEAD = f"{_HEAD_OF} AND attempt = ? AND status = 'running'"
# One text for all of them, and one step for all rows: see `_writer`.
_HEADS = f"""SELECT json_group_array(json_array({_HEAD})) FROM lastcall_job
    WHERE n IN (SELECT value FROM json_each(?))"""
_HEADS_OF = f"""SELECT json_group_object(id, json_array({_HEAD})) FROM lastcall_job
    WHERE id IN (SELECT value FROM json_each(?))"""
_APPEND = """INSERT INTO lastcall_event (job, seq, attempt, step, type, at, data, upto)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_APPEND_ALL = """INSERT INTO lastcall_event (job, seq, attempt, step, type, at, data, upto)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), json_extract(value, '$[4]'), ?, json_extract(value, '$[5]'),
    json_extract(value, '$[6]') FROM json_each(?)"""
# Each walks over what it deletes, and one entry further.
_TRIM_SIZE = """DELETE FROM lastcall_event WHERE job = ? AND seq <
    (SELECT seq FROM lastcall_event WHERE job = ? AND upto > ? ORDER BY seq LIMIT 1)"""
_TRIM_AGE = """DELETE FROM lastcall_event WHERE job = ? AND seq <
    (SELECT seq FROM lastcall_event WHERE job = ? AND at >= ? ORDER BY seq LIMIT 1)"""


class Head(NamedTuple):
    """Where a log ends: its last `seq` (0: it is empty), its length in bytes; and how much of it is kept."""

    n: int
    seq: int
    upto: int
    max_bytes: int
    max_age_seconds: float | None


def head_of(store: Store, job_id: str, attempt: int | None) -> Head | None:
    """Of one job's log. None: lost, or unknown."""
    if attempt is None:
        row = store.execute(_HEAD_OF, (job_id,)).fetchone()
    else:
        row = store.execute(_FENCED_HEAD, (job_id, attempt)).fetchone()
    return None if row is None else _head(*row)


def heads_of(store: Store, job_ids: Sequence[str]) -> dict[str, Head]:
    """Of the logs of jobs that exist."""
    found = json.loads(store.execute(_HEADS_OF, (json.dumps(job_ids),)).fetchone()[0])
    return {job_id: _head(*row) for job_id, row in found.items()}


def write_told(store: Store) -> None:
    """Append what the engine has told since the last time. Whoever deletes a job, or asks whether its log is empty,
    must call this first."""
    told, store.told = store.told, []
    if told:
        numbers = json.dumps(list({entry.n for entry in told}))
        found = json.loads(store.execute(_HEADS, (numbers,)).fetchone()[0])
        append(store, told, [_head(*row) for row in found])


def append(store: Store, entries: Sequence[Entry], heads: Collection[Head]) -> None:
    """Append in this order, each to the log of its job; `heads` are the ends of these logs."""
    ends = {head.n: [head.seq, head.upto] for head in heads}
    rows = []
    for n, attempt, event in entries:
        end = ends[n]
        end[0] += 1
        end[1] += size_of(event)
        type, data, step = event
        rows.append((n, end[0], attempt, step, type, data, end[1]))
    _insert(store, rows)
    for head in heads:
        _trim(store, head, ends[head.n][1])


def _insert(store: Store, rows: list[tuple[int, int, int, str | None, str, str, int]]) -> None:
    now = store.now
    if len(rows) >= FEW:
        store.execute(_APPEND_ALL, (now, json.dumps(rows, ensure_ascii=False)))
        return
    for n, seq, attempt, step, type, data, upto in rows:
        store.execute(_APPEND, (n, seq, attempt, step, type, now, data, upto))


def _trim(store: Store, head: Head, upto: int) -> None:
    n, _, before, max_bytes, max_age_seconds = head
    if upto == before:
        return
    up_to = trimmed_up_to(before, upto, max_bytes)
    if up_to is not None:
        store.execute(_TRIM_SIZE, (n, n, up_to))
    if max_age_seconds is not None:
        store.execute(_TRIM_AGE, (n, n, store.now - max_age_seconds))


def _head(n: int, seq: int, upto: int | None, max_bytes: int | None, max_age_seconds: float | None) -> Head:
    return Head(n, seq, upto or 0, DEFAULT_LOG_MAX_BYTES if max_bytes is None else max_bytes, max_age_seconds)
