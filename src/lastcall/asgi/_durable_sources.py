"""What the Durable Streams protocol can read: a free-standing stream, or the log of a job.

Who calls it: the reading half of the face. A source that is not there (any more) raises `Refused` with the protocol's
own status.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from ..exceptions import BadCursor, EntriesGone, UnknownJob, UnknownStream
from ..streams import Entry, Log
from ..streams._log import check_cursor
from ..streams._policy import JSON
from ..streams._port import Outcome, Page, Position, StreamStore
from ..streams._streams import PAGE_BYTES
from ._durable_words import format_offset
from ._types import Headers

_AT_ONCE = 1000


class Refused(Exception):
    """The answer to a request that is not carried out."""

    def __init__(self, status: int, detail: str, headers: Headers | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers: Headers = headers or []


class Reading(NamedTuple):
    """What was found behind an offset. `tag`: tells this source from others that have or had its name."""

    content_type: str
    entries: Sequence[bytes]
    start: Position
    next: Position
    up_to_date: bool
    closed: bool
    tag: str

    @property
    def at_end(self) -> bool:
        """Nothing more will come."""
        return self.closed and self.up_to_date


class Source(Protocol):
    """Something to read. `at` None: its end."""

    async def read(self, at: Position | None) -> Reading: ...

    def watch(self) -> AbstractContextManager[Callable[[], Awaitable[None]]]: ...


class StreamSource:
    """A free-standing stream."""

    def __init__(self, store: StreamStore, name: str) -> None:
        self._store = store
        self._name = name

    async def read(self, at: Position | None) -> Reading:
        if at is None:
            page = await self._store.read(self._name, 0, 0, PAGE_BYTES)
        else:
            page = await self._store.read(self._name, at, _AT_ONCE, PAGE_BYTES)
        row = page.row
        if row is None or page.outcome is not Outcome.FOUND:
            raise _missing(self._name, page)
        return Reading(
            row.content_type,
            [entry.data for entry in page.entries],
            page.start,
            page.next,
            page.next.seq >= row.last,
            row.closed,
            f"{row.id:x}",
        )

    def watch(self) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        return self._store.watch(self._name)


def _missing(name: str, page: Page) -> Refused:
    row = page.row
    if row is not None and page.outcome is Outcome.ENTRIES_GONE:
        return Refused(
            410,
            f"the stream {name!r} does not keep what stands there any more; read from -1, or from now",
            [(b"stream-next-offset", format_offset(row.position).encode())],
        )
    if row is not None:
        return Refused(
            400, f"the offset is not one of the stream {name!r}: it is ahead of its end, or another one's"
        )
    return absent(name, page.outcome)


def absent(name: str, outcome: Outcome) -> Refused:
    """The answer when there is no such stream."""
    if outcome is Outcome.GONE:
        return Refused(410, f"the stream {name!r} is deleted or has expired; only its forks are left")
    return Refused(404, f"there is no stream {name!r}")


class LogSource:
    """A job's log, as a stream of JSON. Its offsets are numbers of events."""

    def __init__(self, name: str, log: Log) -> None:
        self._name = name
        self._log = log

    async def read(self, at: Position | None) -> Reading:
        if at is not None and at.end:
            raise Refused(400, f"the offset is not one of {self._name!r}: a job's log counts no bytes")
        try:
            if at is None:
                page = await self._log.read(0, 0)
                after = page.last
            else:
                after = at.seq
                page = await self._log.read(after, _AT_ONCE)
                check_cursor(page, after)
        except (UnknownJob, UnknownStream) as error:
            raise Refused(404, str(error)) from None
        except EntriesGone as error:
            raise Refused(410, str(error)) from None
        except BadCursor as error:
            raise Refused(400, str(error)) from None
        following = page.entries[-1].seq if page.entries and at is not None else after
        entries = [] if at is None else [show_entry(entry) for entry in page.entries]
        return Reading(
            JSON,
            entries,
            Position(after, 0),
            Position(following, 0),
            following >= page.last,
            page.closed,
            self._name,
        )

    def watch(self) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        return self._log.watch()


def show_entry(entry: Entry) -> bytes:
    """One event as JSON; its data goes in as it was stored."""
    head = json.dumps(
        {"seq": entry.seq, "type": entry.type, "attempt": entry.attempt, "step": entry.step, "at": entry.at},
        ensure_ascii=False,
    )
    return f'{head[:-1]}, "data": {entry.data}}}'.encode()
