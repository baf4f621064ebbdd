"""The verbs of the port over plain rows: what every store does inside one transaction.

Who calls it: `_memory`, and the SQLite engine in its threads. What it owns: nothing; it reads and writes `Rows`, which
are of the store's own transaction. So both stores cannot but behave alike, and a store that is not transactional by
itself (memory) is, because nothing here waits and everything is checked before the first row is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ._policy import (
    BYTES,
    Span,
    due_at,
    is_as_asked,
    is_expired,
    is_json,
    is_worth_touching,
    judge,
    media_type,
    span_of,
)
from ._port import (
    START,
    EntryRow,
    Fork,
    Head,
    NewStream,
    Outcome,
    Page,
    Position,
    Producer,
    StreamRow,
    Write,
    Written,
)

# So many expired streams are deleted beside each write that creates one.
_SWEEP = 10


class Rows(Protocol):
    """A store's rows, within a transaction."""

    def named(self, name: str) -> StreamRow | None: ...

    def numbered(self, id: int) -> StreamRow | None: ...

    def has_room(self, entries: Sequence[bytes], *, new: bool) -> bool: ...

    def new_id(self) -> int: ...

    def insert(self, row: StreamRow) -> None: ...

    def update(self, row: StreamRow) -> None: ...

    def remove(self, id: int) -> None:
        """The stream, its entries, its producers."""

    def expired(self, now: float, limit: int) -> Sequence[StreamRow]:
        """Some that have expired, and are not gone yet."""

    def heads(self, span: Span, now: float, limit: int) -> Sequence[Head]:
        """The first of the span by their names, but for those that are gone or have expired."""

    def written_at(self, id: int, seq: int) -> float | None:
        """When this one of the stream's own entries was written, if there is such a one."""

    def entries(self, id: int, after: int, upto: int, limit: int) -> Sequence[EntryRow]:
        """The stream's own."""

    def add(self, id: int, entries: Sequence[EntryRow]) -> None: ...

    def first_kept(self, id: int, after: int, end: int, at: float) -> int | None:
        """The first of the stream's own entries behind `after` that ends behind `end` and is no older than `at`."""

    def drop(self, id: int, before: int) -> None:
        """The stream's own entries before this one."""

    def producer(self, id: int, producer: str) -> Producer | None: ...

    def set_producer(self, id: int, producer: Producer) -> None: ...


# --- creating ------------------------------------------------------------------------------------------


class _Origin(NamedTuple):
    """Where a new stream begins: nowhere, or in another one. `piece`: the part of an entry that it takes over."""

    source: StreamRow | None = None
    at: Position = START
    piece: bytes | None = None


def create(rows: Rows, now: float, new: NewStream) -> Written:
    """See `StreamStore.create`."""
    sweep(rows, now, _SWEEP)
    existing = rows.named(new.name)
    if existing is not None and is_expired(existing, now) and not existing.forks:
        _end(rows, existing)
        existing = None
    if existing is not None:
        if existing.gone or is_expired(existing, now):
            return Written(Outcome.CONFLICT, existing)
        return Written(Outcome.EXISTS if is_as_asked(existing, new) else Outcome.CONFLICT, existing)
    origin = _Origin()
    if new.fork is not None:
        found = _origin(rows, now, new.fork, new.content_type)
        if isinstance(found, Outcome):
            return Written(found)
        origin = found
    entries = [*([] if origin.piece is None else [origin.piece]), *new.entries]
    if not rows.has_room(entries, new=True):
        return Written(Outcome.FULL)
    row = _new_row(rows, now, new, origin)
    rows.insert(row)
    if origin.source is not None:
        rows.update(origin.source._replace(forks=origin.source.forks + 1))
    if origin.piece is not None:
        row = _add(rows, now, row, [origin.piece])
    row = _add(rows, now, row, new.entries)
    row = row._replace(closed=bool(new.closed))
    rows.update(row)
    return Written(Outcome.CREATED, row)


def _new_row(rows: Rows, now: float, new: NewStream, origin: _Origin) -> StreamRow:
    source = origin.source
    ttl_seconds, expires_at = new.ttl_seconds, new.expires_at
    if source is not None and ttl_seconds is None and expires_at is None:
        ttl_seconds, expires_at = source.ttl_seconds, source.expires_at
    return StreamRow(
        id=rows.new_id(),
        name=new.name,
        content_type=new.content_type or (BYTES if source is None else source.content_type),
        created_at=now,
        ttl_seconds=ttl_seconds,
        expires_at=expires_at,
        due=due_at(ttl_seconds, expires_at, now),
        closed=False,
        first=1 if source is None else min(source.first, origin.at.seq + 1),
        last=origin.at.seq,
        tail=origin.at.end,
        writer_seq=None,
        parent=None if source is None else source.id,
        inherited=origin.at.seq,
        fork=new.fork,
        forks=0,
        gone=False,
    )


def _origin(rows: Rows, now: float, fork: Fork, content_type: str | None) -> _Origin | Outcome:
    source = rows.named(fork.source)
    if source is None:
        return Outcome.UNKNOWN_SOURCE
    if source.gone or is_expired(source, now):
        return Outcome.SOURCE_GONE if source.forks else Outcome.UNKNOWN_SOURCE
    if content_type is not None and media_type(content_type) != media_type(source.content_type):
        return Outcome.WRONG_TYPE
    at = source.position if fork.at is None else fork.at
    if _fault(rows, source, at) is not None:
        return Outcome.BAD_FORK
    if not fork.further:
        return _Origin(source, at)
    further = _entries(rows, source, at.seq, fork.further if is_json(source.content_type) else 1)
    if not further:
        return Outcome.BAD_FORK
    if is_json(source.content_type):
        within = [entry for entry in further if entry.batch == further[0].batch]
        if len(within) < fork.further:
            return Outcome.BAD_FORK
        return _Origin(source, Position(within[-1].seq, within[-1].end))
    [entry] = further
    if fork.further > len(entry.data):
        return Outcome.BAD_FORK
    if fork.further == len(entry.data):
        return _Origin(source, Position(entry.seq, entry.end))
    return _Origin(source, at, entry.data[: fork.further])


# --- writing -------------------------------------------------------------------------------------------


def append(rows: Rows, now: float, write: Write) -> Written:
    """See `StreamStore.append`."""
    row = rows.named(write.name)
    if (missing := _missing(row, now)) is not None or row is None:
        return Written(missing or Outcome.UNKNOWN)
    producer = write.producer
    known = None if producer is None else rows.producer(row.id, producer.id)
    outcome = judge(row, known, write)
    if outcome is Outcome.SEQ_GAP and producer is not None:
        expected = 0 if known is None else known.seq + 1
        return Written(outcome, row, Producer(producer.id, producer.epoch, expected))
    if outcome is not Outcome.APPLIED:
        return Written(outcome, row, known)
    if not rows.has_room(write.entries, new=False):
        return Written(Outcome.FULL, row)
    row = _add(rows, now, row, write.entries)
    row = row._replace(
        closed=write.close,
        due=due_at(row.ttl_seconds, row.expires_at, now),
        writer_seq=row.writer_seq if write.writer_seq is None else write.writer_seq,
    )
    row = _trim(rows, now, row, write)
    rows.update(row)
    if producer is not None:
        rows.set_producer(row.id, producer)
    return Written(outcome, row, producer)


def _add(rows: Rows, now: float, row: StreamRow, entries: Sequence[bytes]) -> StreamRow:
    if not entries:
        return row
    added = []
    end = row.tail
    for seq, data in enumerate(entries, row.last + 1):
        end += len(data)
        added.append(EntryRow(seq, row.last + 1, end, now, data))
    rows.add(row.id, added)
    return row._replace(last=row.last + len(added), tail=end)


def _trim(rows: Rows, now: float, row: StreamRow, write: Write) -> StreamRow:
    if write.keep_bytes is None and write.keep_seconds is None:
        return row
    end = 0 if write.keep_bytes is None else row.tail - write.keep_bytes
    at = 0.0 if write.keep_seconds is None else now - write.keep_seconds
    first = row.last
    for id, after, upto in _segments(rows, row):
        kept = rows.first_kept(id, max(after, row.first - 1), end, at)
        if kept is not None and kept <= upto:
            first = kept
            break
    first = min(first, row.last) if row.last else 1
    if first > row.first and not row.forks:
        rows.drop(row.id, first)
    return row._replace(first=max(first, row.first))


def touch(rows: Rows, now: float, name: str) -> None:
    """The stream was read: it lives on."""
    row = rows.named(name)
    if row is not None and _missing(row, now) is None and is_worth_touching(row, now):
        rows.update(row._replace(due=due_at(row.ttl_seconds, row.expires_at, now)))


# --- ending --------------------------------------------------------------------------------------------


def sweep(rows: Rows, now: float, limit: int) -> int:
    """Delete streams that have expired; how many."""
    expired = rows.expired(now, limit)
    for row in expired:
        # Looked up again: the end of one may have changed or removed another.
        if (still := rows.numbered(row.id)) is not None:
            _end(rows, still)
    return len(expired)


def delete(rows: Rows, now: float, name: str) -> Written:
    """See `StreamStore.delete`."""
    row = rows.named(name)
    if (missing := _missing(row, now)) is not None or row is None:
        return Written(missing or Outcome.UNKNOWN)
    _end(rows, row)
    return Written(Outcome.APPLIED, row)


def _end(rows: Rows, row: StreamRow) -> None:
    """Remove a stream, and those that were kept for its sake; or only mark it, if it is kept for others'."""
    while not row.forks:
        rows.remove(row.id)
        source = None if row.parent is None else rows.numbered(row.parent)
        if source is None:
            return
        row = source._replace(forks=source.forks - 1)
        rows.update(row)
        if not row.gone:
            return
    if not row.gone:
        rows.update(row._replace(gone=True))


# --- reading -------------------------------------------------------------------------------------------


def find(rows: Rows, now: float, name: str) -> Page:
    """See `StreamStore.find`."""
    row = rows.named(name)
    if (missing := _missing(row, now)) is not None or row is None:
        return Page(missing or Outcome.UNKNOWN)
    written_at = rows.written_at(row.id, row.last)
    updated_at = row.created_at if written_at is None else written_at
    return Page(Outcome.FOUND, row, (), row.position, row.position, updated_at)


def heads(rows: Rows, now: float, prefix: str, after: str, limit: int) -> Sequence[Head]:
    """See `StreamStore.heads`."""
    return rows.heads(span_of(prefix, after), now, limit)


def read(rows: Rows, now: float, name: str, after: Position | int, limit: int, max_bytes: int) -> Page:
    """See `StreamStore.read`; the stream's end is not moved here."""
    row = rows.named(name)
    if (missing := _missing(row, now)) is not None or row is None:
        return Page(missing or Outcome.UNKNOWN)
    if limit == 0:
        return Page(Outcome.FOUND, row, (), row.position, row.position)
    seq = after if isinstance(after, int) else after.seq
    if (fault := _out_of_reach(row, seq)) is not None:
        return Page(fault, row)
    entries = _bounded(_entries(rows, row, seq, limit), max_bytes)
    start = Position(seq, entries[0].end - len(entries[0].data) if entries else row.tail)
    if not isinstance(after, int) and after != start:
        return Page(Outcome.BAD_CURSOR, row)
    following = Position(entries[-1].seq, entries[-1].end) if entries else start
    return Page(Outcome.FOUND, row, entries, start, following)


def _missing(row: StreamRow | None, now: float) -> Outcome | None:
    """Why there is no such stream."""
    if row is None:
        return Outcome.UNKNOWN
    if row.gone or is_expired(row, now):
        return Outcome.GONE if row.forks else Outcome.UNKNOWN
    return None


def _fault(rows: Rows, row: StreamRow, at: Position) -> Outcome | None:
    """Why nobody can read on from a position."""
    if (fault := _out_of_reach(row, at.seq)) is not None:
        return fault
    # Told from the entry behind it: the one itself may be the last that is not kept any more.
    following = _entries(rows, row, at.seq, 1)
    end = following[0].end - len(following[0].data) if following else row.tail
    return None if at.end == end else Outcome.BAD_CURSOR


def _out_of_reach(row: StreamRow, seq: int) -> Outcome | None:
    if not 0 <= seq <= row.last:
        return Outcome.BAD_CURSOR
    return Outcome.ENTRIES_GONE if seq + 1 < row.first else None


def _segments(rows: Rows, row: StreamRow) -> list[tuple[int, int, int]]:
    """Whose entries the stream shows: (stream, behind this entry, up to that one), from the oldest."""
    segments = []
    upto = row.last
    current: StreamRow | None = row
    while current is not None:
        if current.inherited < upto:
            segments.append((current.id, current.inherited, upto))
            upto = current.inherited
        current = None if current.parent is None or not upto else rows.numbered(current.parent)
    return segments[::-1]


def _entries(rows: Rows, row: StreamRow, after: int, limit: int) -> list[EntryRow]:
    found: list[EntryRow] = []
    for id, behind, upto in _segments(rows, row):
        if after < upto and len(found) < limit:
            found += rows.entries(id, max(after, behind), upto, limit - len(found))
    return found


def _bounded(entries: list[EntryRow], max_bytes: int) -> list[EntryRow]:
    total = 0
    for count, entry in enumerate(entries):
        total += len(entry.data)
        if total > max_bytes and count:
            return entries[:count]
    return entries
