"""MemoryStore: streams in the memory of this process, for programs without a database, and for tests.

Who makes it: `Streams()`. What it owns: everything, until the process ends. Bounded: what does not fit is refused, and
what is there stays.
"""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from heapq import heappop, heappush
from operator import attrgetter

from . import _verbs
from ._policy import Span, is_expired, is_worth_touching
from ._port import EntryRow, Head, NewStream, Outcome, Page, Position, Producer, StreamRow, Write, Written
from ._wakeups import Wakeups

MAX_STREAMS = 10_000
MAX_BYTES = 256 * 1024 * 1024

# What an entry takes beside its data, about.
_ENTRY_BYTES = 150
_PRODUCER_BYTES = 300
# All news is told at once, but that a stream has expired.
_WATCH_SECONDS = 15.0

_seq = attrgetter("seq")


class _Held:
    """What belongs to one stream."""

    __slots__ = ("entries", "producers")

    def __init__(self) -> None:
        self.entries: list[EntryRow] = []
        self.producers: dict[str, Producer] = {}

    def size(self) -> int:
        """Bytes, about."""
        return _size(entry.data for entry in self.entries) + len(self.producers) * _PRODUCER_BYTES


def _size(entries: Iterable[bytes]) -> int:
    return sum(len(data) + _ENTRY_BYTES for data in entries)


class _MemoryRows:
    """`_verbs.Rows` in dictionaries."""

    def __init__(self, max_streams: int, max_bytes: int) -> None:
        self._max_streams = max_streams
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: dict[int, StreamRow] = {}
        self._ids: dict[str, int] = {}
        self._names: list[str] = []  # in order
        self._held: dict[int, _Held] = {}
        self._dues: list[tuple[float, int]] = []

    def named(self, name: str) -> StreamRow | None:
        id = self._ids.get(name)
        return None if id is None else self._rows[id]

    def numbered(self, id: int) -> StreamRow | None:
        return self._rows.get(id)

    def has_room(self, entries: Sequence[bytes], *, new: bool) -> bool:
        if new and len(self._rows) >= self._max_streams:
            return False
        return self._bytes + _size(entries) <= self._max_bytes

    def new_id(self) -> int:
        # Not counted: after a restart of the process a cache must not take another stream for the one it knows.
        return secrets.randbits(62)

    def insert(self, row: StreamRow) -> None:
        self._ids[row.name] = row.id
        insort(self._names, row.name)
        self._held[row.id] = _Held()
        self.update(row)

    def update(self, row: StreamRow) -> None:
        before = self._rows.get(row.id)
        self._rows[row.id] = row
        if row.due is not None and (before is None or before.due != row.due):
            heappush(self._dues, (row.due, row.id))
            if len(self._dues) > 64 + 4 * len(self._rows):
                self._dues = sorted((row.due, row.id) for row in self._rows.values() if row.due is not None)

    def remove(self, id: int) -> None:
        row = self._rows.pop(id)
        del self._ids[row.name]
        del self._names[bisect_left(self._names, row.name)]
        self._bytes -= self._held.pop(id).size()

    def expired(self, now: float, limit: int) -> Sequence[StreamRow]:
        found: list[StreamRow] = []
        while self._dues and self._dues[0][0] <= now and len(found) < limit:
            due, id = heappop(self._dues)
            row = self._rows.get(id)
            if row is not None and row.due == due and not row.gone:
                found.append(row)
        return found

    def heads(self, span: Span, now: float, limit: int) -> Sequence[Head]:
        names, found = self._names, list[Head]()
        begin = (bisect_left if span.is_in else bisect_right)(names, span.first)
        end = len(names) if span.end is None else bisect_left(names, span.end)
        for index in range(begin, end):
            if len(found) == limit:
                break
            row = self._rows[self._ids[names[index]]]
            if not row.gone and not is_expired(row, now):
                written_at = self.written_at(row.id, row.last)
                found.append(Head(row, row.created_at if written_at is None else written_at))
        return found

    def written_at(self, id: int, seq: int) -> float | None:
        found = self.entries(id, seq - 1, seq, 1)
        return found[0].at if found else None

    def entries(self, id: int, after: int, upto: int, limit: int) -> Sequence[EntryRow]:
        entries = self._held[id].entries
        begin = bisect_right(entries, after, key=_seq)
        end = bisect_right(entries, upto, lo=begin, key=_seq)
        return entries[begin : min(end, begin + limit)]

    def add(self, id: int, entries: Sequence[EntryRow]) -> None:
        self._held[id].entries += entries
        self._bytes += _size(entry.data for entry in entries)

    def first_kept(self, id: int, after: int, end: int, at: float) -> int | None:
        entries = self._held[id].entries
        for index in range(bisect_right(entries, after, key=_seq), len(entries)):
            if entries[index].end > end and entries[index].at >= at:
                return entries[index].seq
        return None

    def drop(self, id: int, before: int) -> None:
        entries = self._held[id].entries
        end = bisect_right(entries, before - 1, key=_seq)
        self._bytes -= _size(entry.data for entry in entries[:end])
        del entries[:end]

    def producer(self, id: int, producer: str) -> Producer | None:
        return self._held[id].producers.get(producer)

    def set_producer(self, id: int, producer: Producer) -> None:
        producers = self._held[id].producers
        if producer.id not in producers:
            self._bytes += _PRODUCER_BYTES
        producers[producer.id] = producer


class MemoryStore:
    """Streams in memory. `max_streams` and `max_bytes` (10 000 and 256 MiB): what is beyond is refused.

    `clock`: seconds since the epoch, for tests.
    """

    def __init__(
        self,
        *,
        max_streams: int = MAX_STREAMS,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows = _MemoryRows(max_streams, max_bytes)
        self._clock = clock
        self._wakeups = Wakeups(_WATCH_SECONDS)

    async def create(self, new: NewStream) -> Written:
        return _verbs.create(self._rows, self._clock(), new)

    async def append(self, write: Write) -> Written:
        written = _verbs.append(self._rows, self._clock(), write)
        if written.outcome is Outcome.APPLIED:
            self._wakeups.wake(write.name)
        return written

    async def delete(self, name: str) -> Written:
        written = _verbs.delete(self._rows, self._clock(), name)
        self._wakeups.wake(name)
        return written

    async def read(self, name: str, after: Position | int, limit: int, max_bytes: int) -> Page:
        now = self._clock()
        page = _verbs.read(self._rows, now, name, after, limit, max_bytes)
        if page.outcome is Outcome.FOUND and page.row is not None and is_worth_touching(page.row, now):
            _verbs.touch(self._rows, now, name)
        return page

    async def find(self, name: str) -> Page:
        return _verbs.find(self._rows, self._clock(), name)

    async def heads(self, prefix: str, after: str, limit: int) -> Sequence[Head]:
        return _verbs.heads(self._rows, self._clock(), prefix, after, limit)

    def watch(self, name: str) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        return self._wakeups.watch(name)
