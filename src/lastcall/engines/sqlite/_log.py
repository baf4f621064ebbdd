"""The logs of jobs: entries are appended, numbered, and trimmed when there are too many or too old ones.

Who calls it: `append_events`, with what others write; and the store, before each commit, with what the engine itself
has told meanwhile (`Store.tell`). That is gathered and comes last, as if it had happened after the rest of the commit.
`upto` of an entry: how many bytes the log has had up to and including it, so that nobody has to add anything up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
_APPEND = """INSERT INTO lastcall_event (job, seq, attempt, step, type, at, data, upto)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_APPEND_ALL = """INSERT INTO lastcall_event (job, seq, attempt, step, type, at, data, upto)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?, value ->> 5, value ->> 6
    FROM json_each(?)"""
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


def write_told(store: Store) -> None:
    """Append what the engine has told since the last time. Whoever deletes a job, or asks whether its log is empty,
    must call this first."""
    told, store.told = store.told, []
    if told:
        numbers = json.dumps(list({entry.n for entry in told}))
        found = json.loads(store.execute(_HEADS, (numbers,)).fetchone()[0])
        append(store, told, {row[0]: _head(*row) for row in found})


def append(store: Store, entries: Sequence[Entry], heads: dict[int, Head]) -> None:
    """Append in this order, each to the log of its job; `heads` are the logs' ends before, and then behind them."""
    before = {entry.n: heads[entry.n] for entry in entries}
    rows = []
    for n, attempt, event in entries:
        head = heads[n]
        heads[n] = head = head._replace(seq=head.seq + 1, upto=head.upto + size_of(event))
        type, data, step = event
        rows.append((n, head.seq, attempt, step, type, data, head.upto))
    _insert(store, rows)
    for n, head in before.items():
        _trim(store, head, heads[n])


def _insert(store: Store, rows: list[tuple[int, int, int, str | None, str, str, int]]) -> None:
    now = store.now
    if len(rows) >= FEW:
        store.execute(_APPEND_ALL, (now, json.dumps(rows, ensure_ascii=False)))
        return
    for n, seq, attempt, step, type, data, upto in rows:
        store.execute(_APPEND, (n, seq, attempt, step, type, now, data, upto))


def _trim(store: Store, before: Head, after: Head) -> None:
    n, _, upto, max_bytes, max_age_seconds = after
    up_to = trimmed_up_to(before.upto, upto, max_bytes)
    if up_to is not None:
        store.execute(_TRIM_SIZE, (n, n, up_to))
    if max_age_seconds is not None:
        store.execute(_TRIM_AGE, (n, n, store.now - max_age_seconds))


def _head(n: int, seq: int, upto: int | None, max_bytes: int | None, max_age_seconds: float | None) -> Head:
    return Head(n, seq, upto or 0, DEFAULT_LOG_MAX_BYTES if max_bytes is None else max_bytes, max_age_seconds)
