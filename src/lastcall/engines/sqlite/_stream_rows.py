"""The rows of free-standing streams in SQL, for the verbs of `lastcall.streams` in a transaction of one of the threads.

Who makes it: `_streams`, for each call. What it owns: nothing but the connection it was given.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from typing import Any

from ...streams._policy import Span
from ...streams._port import EntryRow, Fork, Head, Position, Producer, StreamRow

_COLUMNS = (
    "id, name, content_type, created_at, ttl_seconds, expires_at, due, closed, first, last, tail, writer_seq, parent,"
    " inherited, fork_source, fork_seq, fork_end, fork_further, forks, gone"
)
_SELECT = f"SELECT {_COLUMNS} FROM lastcall_stream"
_NAMED = f"{_SELECT} WHERE name = ?"
_NUMBERED = f"{_SELECT} WHERE id = ?"
_EXPIRED = f"{_SELECT} WHERE due <= ? AND gone = 0 ORDER BY due LIMIT ?"
_WRITTEN_AT = "SELECT at FROM lastcall_stream_entry WHERE stream = ? AND seq = ?"
_INSERT = f"INSERT INTO lastcall_stream ({_COLUMNS}) VALUES ({', '.join('?' * 20)})"
# What never changes is not written again.
_UPDATE = """UPDATE lastcall_stream SET due = ?, closed = ?, first = ?, last = ?, tail = ?, writer_seq = ?, forks = ?,
    gone = ? WHERE id = ?"""
_REMOVE = (
    "DELETE FROM lastcall_stream WHERE id = ?",
    "DELETE FROM lastcall_stream_entry WHERE stream = ?",
    "DELETE FROM lastcall_stream_producer WHERE stream = ?",
)
_ENTRIES = """SELECT seq, batch, upto, at, data FROM lastcall_stream_entry
    WHERE stream = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""
_ADD = "INSERT INTO lastcall_stream_entry (stream, seq, batch, upto, at, data) VALUES (?, ?, ?, ?, ?, ?)"
_FIRST_KEPT = """SELECT seq FROM lastcall_stream_entry
    WHERE stream = ? AND seq > ? AND upto > ? AND at >= ? ORDER BY seq LIMIT 1"""
_DROP = "DELETE FROM lastcall_stream_entry WHERE stream = ? AND seq < ?"
_PRODUCER = "SELECT id, epoch, seq FROM lastcall_stream_producer WHERE stream = ? AND id = ?"
_SET_PRODUCER = """INSERT INTO lastcall_stream_producer (stream, id, epoch, seq) VALUES (?, ?, ?, ?)
    ON CONFLICT (stream, id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq"""


class SqlRows:
    """`streams._verbs.Rows` over a connection, within its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def named(self, name: str) -> StreamRow | None:
        return _stream(self._connection.execute(_NAMED, (name,)).fetchone())

    def numbered(self, id: int) -> StreamRow | None:
        return _stream(self._connection.execute(_NUMBERED, (id,)).fetchone())

    def has_room(self, entries: Sequence[bytes], *, new: bool) -> bool:
        return True  # until the disk is full, which is an error like any other

    def new_id(self) -> int:
        return secrets.randbits(62)

    def insert(self, row: StreamRow) -> None:
        fork = (
            (None, None, None, None)
            if row.fork is None
            else (row.fork.source, *(row.fork.at or (None, None)), row.fork.further)
        )
        self._connection.execute(
            _INSERT,
            (*row[:7], int(row.closed), *row[8:14], *fork, row.forks, int(row.gone)),
        )

    def update(self, row: StreamRow) -> None:
        self._connection.execute(
            _UPDATE,
            (
                row.due,
                int(row.closed),
                row.first,
                row.last,
                row.tail,
                row.writer_seq,
                row.forks,
                int(row.gone),
                row.id,
            ),
        )

    def remove(self, id: int) -> None:
        for statement in _REMOVE:
            self._connection.execute(statement, (id,))

    def expired(self, now: float, limit: int) -> Sequence[StreamRow]:
        rows = self._connection.execute(_EXPIRED, (now, limit)).fetchall()
        return [row for found in rows if (row := _stream(found)) is not None]

    def heads(self, span: Span, now: float, limit: int) -> Sequence[Head]:
        end = () if span.end is None else (span.end,)
        found = self._connection.execute(heads_statement(span), (span.first, *end, now, limit))
        return [Head(row, at) for *values, at in found if (row := _stream(tuple(values))) is not None]

    def written_at(self, id: int, seq: int) -> float | None:
        found = self._connection.execute(_WRITTEN_AT, (id, seq)).fetchone()
        return None if found is None else float(found[0])

    def entries(self, id: int, after: int, upto: int, limit: int) -> Sequence[EntryRow]:
        return [EntryRow(*row) for row in self._connection.execute(_ENTRIES, (id, after, upto, limit))]

    def add(self, id: int, entries: Sequence[EntryRow]) -> None:
        if len(entries) == 1:
            self._connection.execute(_ADD, (id, *entries[0]))
        else:
            self._connection.executemany(_ADD, [(id, *entry) for entry in entries])

    def first_kept(self, id: int, after: int, end: int, at: float) -> int | None:
        found = self._connection.execute(_FIRST_KEPT, (id, after, end, at)).fetchone()
        return None if found is None else int(found[0])

    def drop(self, id: int, before: int) -> None:
        self._connection.execute(_DROP, (id, before))

    def producer(self, id: int, producer: str) -> Producer | None:
        found = self._connection.execute(_PRODUCER, (id, producer)).fetchone()
        return None if found is None else Producer(*found)

    def set_producer(self, id: int, producer: Producer) -> None:
        self._connection.execute(_SET_PRODUCER, (id, *producer))


def heads_statement(span: Span) -> str:
    """Streams by name, along the index of the names, from where the span begins to where it, or the page, ends."""
    behind = "" if span.end is None else "AND name < ?"
    return f"""SELECT {_COLUMNS}, COALESCE((SELECT at FROM lastcall_stream_entry AS entry
        WHERE entry.stream = lastcall_stream.id AND entry.seq = last), created_at)
    FROM lastcall_stream WHERE name {">=" if span.is_in else ">"} ? {behind}
        AND gone = 0 AND (due IS NULL OR due > ?) ORDER BY name LIMIT ?"""


def _stream(row: tuple[Any, ...] | None) -> StreamRow | None:
    if row is None:
        return None
    source, seq, end, further = row[14:18]
    fork = None if source is None else Fork(source, None if seq is None else Position(seq, end), further)
    return StreamRow._make((*row[:7], bool(row[7]), *row[8:14], fork, row[18], bool(row[19])))
