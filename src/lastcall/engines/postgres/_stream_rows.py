"""The rows of free-standing streams in SQL, for the verbs of `lastcall.streams`, which are plain functions.

Who makes it: `_streams`, for each call, in whose thread the verbs run. What it owns: nothing but the connection it was
given.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from ...streams._policy import Span
from ...streams._port import EntryRow, Fork, Head, Position, Producer, StreamRow
from ._store import Texts
from ._transact import TransactionConnection

_COLUMNS = (
    "id, name, content_type, created_at, ttl_seconds, expires_at, due, closed, first, last, tail, writer_seq, parent,"
    " inherited, fork_source, fork_seq, fork_end, fork_further, forks, gone"
)
_SELECT = f"SELECT {_COLUMNS} FROM lastcall.stream"
_NAMED = f"{_SELECT} WHERE name = $1"
_NUMBERED = f"{_SELECT} WHERE id = $1"
_EXPIRED = f"{_SELECT} WHERE due <= $1 AND NOT gone ORDER BY due LIMIT $2"
_WRITTEN_AT = "SELECT at FROM lastcall.stream_entry WHERE stream = $1 AND seq = $2"
_INSERT = f"INSERT INTO lastcall.stream ({_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, 21))})"
# What never changes is not written again.
_UPDATE = """UPDATE lastcall.stream SET due = $1, closed = $2, first = $3, last = $4, tail = $5, writer_seq = $6,
    forks = $7, gone = $8 WHERE id = $9"""
_REMOVE = (
    "DELETE FROM lastcall.stream WHERE id = $1",
    "DELETE FROM lastcall.stream_entry WHERE stream = $1",
    "DELETE FROM lastcall.stream_producer WHERE stream = $1",
)
_ENTRIES = """SELECT seq, batch, upto, at, data FROM lastcall.stream_entry
    WHERE stream = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4"""
_ADD = """INSERT INTO lastcall.stream_entry (stream, seq, batch, upto, at, data)
    SELECT $1::bigint, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::float8[], $6::bytea[])"""
_FIRST_KEPT = """SELECT seq FROM lastcall.stream_entry
    WHERE stream = $1 AND seq > $2 AND upto > $3 AND at >= $4 ORDER BY seq LIMIT 1"""
_DROP = "DELETE FROM lastcall.stream_entry WHERE stream = $1 AND seq < $2"
_PRODUCER = "SELECT id, epoch, seq FROM lastcall.stream_producer WHERE stream = $1 AND id = $2"
_SET_PRODUCER = """INSERT INTO lastcall.stream_producer (stream, id, epoch, seq) VALUES ($1, $2, $3, $4)
    ON CONFLICT (stream, id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq"""


class SqlRows:
    """`streams._verbs.Rows` over a connection, within its transaction."""

    def __init__(self, connection: TransactionConnection, texts: Texts) -> None:
        self._connection = connection
        self._texts = texts

    def _rows(self, text: str, *values: Any) -> list[Any]:
        return self._connection.fetch(self._texts(text), *values)

    def _row(self, text: str, *values: Any) -> Any:
        rows = self._rows(text, *values)
        return rows[0] if rows else None

    def named(self, name: str) -> StreamRow | None:
        return _stream(self._row(_NAMED, name))

    def numbered(self, id: int) -> StreamRow | None:
        return _stream(self._row(_NUMBERED, id))

    def has_room(self, entries: Sequence[bytes], *, new: bool) -> bool:
        return True  # until the disk is full, which is an error like any other

    def new_id(self) -> int:
        return secrets.randbits(62)

    def insert(self, row: StreamRow) -> None:
        fork: tuple[Any, ...] = (None, None, None, None)
        if row.fork is not None:
            fork = (row.fork.source, *(row.fork.at or (None, None)), row.fork.further)
        self._rows(_INSERT, *row[:14], *fork, row.forks, row.gone)

    def update(self, row: StreamRow) -> None:
        changing = (row.due, row.closed, row.first, row.last, row.tail, row.writer_seq, row.forks, row.gone)
        self._rows(_UPDATE, *changing, row.id)

    def remove(self, id: int) -> None:
        for statement in _REMOVE:
            self._rows(statement, id)

    def expired(self, now: float, limit: int) -> Sequence[StreamRow]:
        return [row for found in self._rows(_EXPIRED, now, limit) if (row := _stream(found)) is not None]

    def heads(self, span: Span, now: float, limit: int) -> Sequence[Head]:
        end = () if span.end is None else (span.end,)
        found = self._rows(heads_statement(span), span.first, now, limit, *end)
        return [Head(row, at) for *values, at in found if (row := _stream(values)) is not None]

    def written_at(self, id: int, seq: int) -> float | None:
        found = self._row(_WRITTEN_AT, id, seq)
        return None if found is None else float(found[0])

    def entries(self, id: int, after: int, upto: int, limit: int) -> Sequence[EntryRow]:
        return [EntryRow(*row) for row in self._rows(_ENTRIES, id, after, upto, limit)]

    def add(self, id: int, entries: Sequence[EntryRow]) -> None:
        self._rows(_ADD, id, *(list(column) for column in zip(*entries, strict=True)))

    def first_kept(self, id: int, after: int, end: int, at: float) -> int | None:
        found = self._row(_FIRST_KEPT, id, after, end, at)
        return None if found is None else int(found[0])

    def drop(self, id: int, before: int) -> None:
        self._rows(_DROP, id, before)

    def producer(self, id: int, producer: str) -> Producer | None:
        found = self._row(_PRODUCER, id, producer)
        return None if found is None else Producer(*found)

    def set_producer(self, id: int, producer: Producer) -> None:
        self._rows(_SET_PRODUCER, id, *producer)


def heads_statement(span: Span) -> str:
    """Streams by name, along the index of the names, from where the span begins to where it, or the page, ends."""
    behind = "" if span.end is None else "AND name < $4"
    return f"""SELECT {_COLUMNS}, COALESCE((SELECT at FROM lastcall.stream_entry AS entry
        WHERE entry.stream = stream.id AND entry.seq = stream.last), created_at)
    FROM lastcall.stream WHERE name {">=" if span.is_in else ">"} $1 {behind}
        AND NOT gone AND (due IS NULL OR due > $2) ORDER BY name LIMIT $3"""


def _stream(row: Any) -> StreamRow | None:
    if row is None:
        return None
    source, seq, end, further = row[14:18]
    fork = None if source is None else Fork(source, None if seq is None else Position(seq, end), further)
    return StreamRow._make((*row[:14], fork, row[18], row[19]))
