"""Streams and Stream: free-standing streams, as programs use them.

Who makes `Streams`: the user, over a `MemoryStore`; `jobs.streams`, over the jobs' engine. What it owns: the limits,
and how answers of the store become errors. A `Stream` is a handle: a name, nothing more.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Any, NamedTuple, NoReturn, cast

from .._core._clock import check_seconds
from ..exceptions import (
    BadArguments,
    BadCursor,
    BadDeclaration,
    EngineUnavailable,
    EntriesGone,
    PayloadTooLarge,
    StreamClosed,
    StreamConflict,
    UnknownStream,
)
from ._log import Entry, LogPage, follow
from ._memory import MemoryStore
from ._policy import JSON, is_json, media_type
from ._port import (
    EntryRow,
    Fork,
    Head,
    NewStream,
    Outcome,
    Page,
    Producer,
    StreamRow,
    StreamStore,
    Write,
    Written,
)

MAX_APPEND_BYTES = 4 * 1024 * 1024
MAX_NAME_BYTES = 1024

# A page of a read: enough that a long stream is read in few, and that a thousand readers' pages fit into memory.
PAGE_BYTES = 1024 * 1024
_MOST_LISTED = 1_000_000

_OF_PRODUCER = {
    Outcome.OLD_EPOCH: "the producer {0.id!r} writes with epoch {0.epoch}, and {1} has the newer one {2.epoch}",
    Outcome.BAD_EPOCH: "the producer {0.id!r} must begin its new epoch {0.epoch} with number 0, not {0.seq}",
    Outcome.SEQ_GAP: "the producer {0.id!r} sent number {0.seq}, and {1} expects {2.seq}: one before it is missing",
}


class StreamInfo(NamedTuple):
    """A stream as it stands. `first` and `last`: the oldest and the newest entry to be read (`last` + 1: none).
    `bytes`: written so far. `ttl_seconds`: it expires so long after it was last used; `expires_at`: at that time.

    `due`: when it expires as things stand, None: never. `updated_at`: when its newest entry was written, `created_at`
    if it has none of its own. `forked_from`: whose entries it begins with, up to the one of number `inherited`.
    """

    name: str
    content_type: str
    created_at: float
    ttl_seconds: int | None
    expires_at: float | None
    closed: bool
    first: int
    last: int
    bytes: int
    due: float | None
    updated_at: float
    forked_from: str | None
    inherited: int

    @property
    def entries(self) -> int:
        """How many can be read."""
        return self.last - self.first + 1


class Streams:
    """Named streams: logs that any number of readers read by number, each at its own pace.

    `store`: where they are; without one in memory, until the process ends. `keep_bytes`, `keep_seconds`: what a stream
    keeps; older entries go when new ones are written, and who still wants them is told (`EntriesGone`). By default
    all are kept. `max_append_bytes`: of one write, 4 MiB by default.
    Raises `BadDeclaration` for limits that are none.

        streams = Streams()
        stream = await streams.create("chat/42", ttl_seconds=3600)
        await stream.append_json({"role": "user", "text": "Hello"})
        async for entry in stream.follow(): ...
    """

    def __init__(
        self,
        store: StreamStore | None = None,
        *,
        keep_bytes: int | None = None,
        keep_seconds: float | None = None,
        max_append_bytes: int = MAX_APPEND_BYTES,
    ) -> None:
        for name, value in (("keep_bytes", keep_bytes), ("max_append_bytes", max_append_bytes)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise BadDeclaration(f"Streams({name}) must be a whole number above 0, not {value!r}")
        self.store: StreamStore = MemoryStore() if store is None else store
        self.keep_bytes = keep_bytes
        self.keep_seconds = (
            None if keep_seconds is None else check_seconds("Streams(keep_seconds)", keep_seconds)
        )
        self.max_append_bytes = max_append_bytes

    def open(self, name: str) -> Stream:
        """A handle of a stream, whether there is one or not. Raises `BadArguments` for what is no name."""
        return Stream(self, check_name(name))

    async def create(
        self,
        name: str,
        *,
        content_type: str = JSON,
        ttl_seconds: int | None = None,
        expires_at: float | None = None,
    ) -> Stream:
        """Create a stream, or find the one that is there, open or closed, if it is just like this one.

        `content_type`: of JSON (the default), each entry is one value; of anything else, some bytes.
        `ttl_seconds`: it expires so long after the last write or read. `expires_at`: then, seconds since the epoch.
        Raises `StreamConflict` if there is another one, also one that is deleted and has forks; `BadArguments` for an
        option that cannot be; `EngineUnavailable` if there is no room.
        """
        new = NewStream(
            check_name(name),
            _check_content_type(content_type),
            *_check_end(ttl_seconds, expires_at),
            None,
            None,
            (),
        )
        _expect(name, await self.store.create(new))
        return Stream(self, name)

    async def find(self, *, prefix: str = "", after: str = "", limit: int = 50) -> list[StreamInfo]:
        """The streams whose names begin with `prefix`, in the order of their names' characters; the next page:
        `after=` the last one's name. None that is deleted or has expired is among them. To be listed prolongs no life.

        A page costs by its `limit` (50), not by how many streams there are. Raises `BadArguments` for a prefix that no
        name has and for an `after` that is no name, `BadDeclaration` for an impossible limit.

            for info in await jobs.streams.find(prefix="chat/"):
                print(info.name, info.entries, info.closed)
        """
        for text in (prefix, after):
            if text != "":
                check_name(text)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= _MOST_LISTED:
            raise BadDeclaration(
                f"find(limit) must be a whole number from 1 to {_MOST_LISTED}, not {limit!r}"
            )
        return [_info(head) for head in await self.store.heads(prefix, after, limit)]

    def check_size(self, entries: list[bytes]) -> list[bytes]:
        """The entries of one write themselves. Raises `PayloadTooLarge`."""
        size = sum(map(len, entries))
        if size > self.max_append_bytes:
            raise PayloadTooLarge(
                f"{size} bytes in one write, and {self.max_append_bytes} is the most (max_append_bytes)"
            )
        return entries


class Stream:
    """One stream, by its name. It is a `Log`: whatever serves a job's events also serves this.

    All verbs raise `UnknownStream` if there is none (any more).
    """

    def __init__(self, streams: Streams, name: str) -> None:
        self.name = name
        self._streams = streams
        self._store = streams.store

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}>"

    # --- writing ---------------------------------------------------------------------------------------

    async def append(self, data: bytes | str, *, producer: Producer | None = None) -> int:
        """Add bytes (or a text, as UTF-8) to a stream that is not of JSON; gives the entry's number.

        With a `producer` a write sent again is written once. Raises `StreamClosed`, `StreamConflict` (a stream of
        JSON; a producer that is shut out, or has left something out), `PayloadTooLarge`, `BadArguments` for nothing.
        """
        content = data.encode() if isinstance(data, str) else bytes(data)
        if not content:
            raise BadArguments(
                f"nothing to be added to the stream {self.name!r}; give bytes or a text that is not empty"
            )
        return await self._append([content], None, producer)

    async def append_json(self, *values: Any, producer: Producer | None = None) -> int:
        """Add JSON values, each an entry of its own, all or none; gives the number of the last one.

        Raises `BadArguments` for what is not JSON, `StreamConflict` for a stream of bytes, and as `append` does.
        """
        if not values:
            raise BadArguments(f"nothing to be added to the stream {self.name!r}; give at least one value")
        return await self._append([_json(self.name, value) for value in values], JSON, producer)

    async def _append(self, entries: list[bytes], content_type: str | None, producer: Producer | None) -> int:
        written = await self.write(entries, content_type=content_type, producer=producer)
        return _expect(self.name, written, producer).last

    async def write(
        self,
        entries: list[bytes],
        *,
        content_type: str | None = None,
        close: bool = False,
        writer_seq: str | None = None,
        producer: Producer | None = None,
    ) -> Written:
        """What all of the above do, with the store's own answer. For wire formats. Raises `PayloadTooLarge`."""
        streams = self._streams
        self._streams.check_size(entries)
        return await self._store.append(
            Write(
                self.name,
                entries,
                content_type,
                close,
                writer_seq,
                producer,
                streams.keep_bytes,
                streams.keep_seconds,
            )
        )

    async def close(self) -> None:
        """Nothing more is written; readers come to an end. Closing again is harmless."""
        _expect(self.name, await self.write([], close=True))

    async def delete(self) -> None:
        """Delete it. Its forks stay, and as long as there are any, its name is taken."""
        _expect(self.name, await self._store.delete(self.name))

    async def fork(self, name: str, *, after: int | None = None, ttl_seconds: int | None = None) -> Stream:
        """Create another stream that begins with the entries of this one, up to `after` (None: all there are now).

        The two go their own ways from there; nothing is copied. Raises `BadCursor` for an entry that is not there,
        `StreamConflict` for a name that is taken.
        """
        at = None
        if after is not None:
            page = await self._page(after, 1)
            at = page.start
        fork = Fork(self.name, at, 0)
        new = NewStream(check_name(name), None, *_check_end(ttl_seconds, None), None, fork, ())
        _expect(name, await self._store.create(new))
        return Stream(self._streams, name)

    # --- reading ---------------------------------------------------------------------------------------

    async def info(self) -> StreamInfo:
        """How it stands, without prolonging its life."""
        page = await self._store.find(self.name)
        row = _found(self.name, page)
        return _info(Head(row, row.created_at if page.updated_at is None else page.updated_at))

    async def read(self, after: int, limit: int) -> LogPage:
        """Up to `limit` entries behind `after`, in order. Raises `BadCursor`, `EntriesGone`.

        The type of an entry is `message` (JSON), `text` (bytes of a `text/` type that are UTF-8), or `bytes`, whose
        `data` is a text of base64.
        """
        page = await self._page(after, limit)
        row = _found(self.name, page)
        entries = [_entry(row.content_type, entry) for entry in page.entries]
        return LogPage(entries, row.first, row.last, row.closed)

    async def follow(self, after: int = 0) -> AsyncGenerator[Entry, None]:
        """The entries behind `after`, then those that come, until it is closed. Raises as `read`, also later."""
        # Closed here: left to the collector, it would stay among those who wait.
        async with aclosing(cast("AsyncGenerator[list[Entry], None]", follow(self, after))) as pages:
            async for entries in pages:
                for entry in entries:
                    yield entry

    async def snapshot(self) -> dict[str, Any]:
        """How it stands, as JSON."""
        info = await self.info()
        return {
            "stream": info.name,
            "content_type": info.content_type,
            "closed": info.closed,
            "last": info.last,
        }

    def watch(self) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        """See `Log.watch`."""
        return self._store.watch(self.name)

    async def _page(self, after: int, limit: int) -> Page:
        if after < 0:
            raise BadCursor(f"a cursor is the number of an entry, or 0 for all of them, not {after}")
        page = await self._store.read(self.name, after, limit, PAGE_BYTES)
        row = _found(self.name, page)
        if page.outcome is Outcome.ENTRIES_GONE:
            raise EntriesGone(
                f"the stream {self.name!r} keeps entries from {row.first} on; read after {row.first - 1}",
                first=row.first,
            )
        if page.outcome is Outcome.BAD_CURSOR:
            raise BadCursor(
                f"the cursor {after} is ahead of the end of the stream {self.name!r}, {row.last}; begin at 0"
            )
        return page


def check_name(name: str) -> str:
    """The name itself. Raises `BadArguments` for one that nobody could ask for over HTTP."""
    if not isinstance(name, str) or not name:
        raise BadArguments(f"a stream's name is a text that is not empty, not {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadArguments(f"a stream's name is a text, and {name!r} has half a surrogate pair") from None
    if size > MAX_NAME_BYTES:
        raise BadArguments(f"a stream's name has at most {MAX_NAME_BYTES} bytes, not {size}")
    if any(ord(mark) < 32 or ord(mark) == 127 for mark in name):
        raise BadArguments(f"a stream's name has no control characters: {name!r}")
    return name


def _check_content_type(content_type: str) -> str:
    main, slash, sub = media_type(content_type).partition("/")
    if not (main and slash and sub) or not content_type.isascii() or not content_type.isprintable():
        raise BadArguments(f"a content type looks like 'text/plain', not {content_type!r}")
    return content_type


def _check_end(ttl_seconds: int | None, expires_at: float | None) -> tuple[int | None, float | None]:
    if ttl_seconds is not None and expires_at is not None:
        raise BadArguments("a stream has either ttl_seconds or expires_at")
    if ttl_seconds is not None and (
        isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int) or ttl_seconds < 0
    ):
        raise BadArguments(f"ttl_seconds must be a whole number, 0 or more, not {ttl_seconds!r}")
    return ttl_seconds, expires_at


def _json(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadArguments(f"no JSON for the stream {name!r}: {error}") from error


def _entry(content_type: str, row: EntryRow) -> Entry:
    if is_json(content_type):
        return Entry(row.seq, "message", row.data.decode(), 0, None, row.at)
    if content_type.lower().startswith("text/"):
        try:
            return Entry(row.seq, "text", json.dumps(row.data.decode(), ensure_ascii=False), 0, None, row.at)
        except UnicodeDecodeError:
            pass  # a write may end within a character
    return Entry(row.seq, "bytes", json.dumps(base64.b64encode(row.data).decode()), 0, None, row.at)


def _info(head: Head) -> StreamInfo:
    row = head.row
    return StreamInfo(
        row.name,
        row.content_type,
        row.created_at,
        row.ttl_seconds,
        row.expires_at,
        row.closed,
        row.first,
        row.last,
        row.tail,
        row.due,
        head.updated_at,
        None if row.fork is None else row.fork.source,
        row.inherited,
    )


def _found(name: str, page: Page) -> StreamRow:
    if page.row is None:
        _refuse(name, Written(page.outcome), None)
    return page.row


def _expect(name: str, written: Written, producer: Producer | None = None) -> StreamRow:
    """The stream as it is after a mutation that did what it should."""
    if written.outcome in (Outcome.CREATED, Outcome.EXISTS, Outcome.APPLIED, Outcome.DUPLICATE):
        assert written.row is not None
        return written.row
    _refuse(name, written, producer)


def _refuse(name: str, written: Written, producer: Producer | None) -> NoReturn:
    outcome = written.outcome
    if producer is not None and written.producer is not None and outcome in _OF_PRODUCER:
        text = _OF_PRODUCER[outcome].format(producer, f"the stream {name!r}", written.producer)
        raise StreamConflict(f"{text}. Nothing was written")
    match outcome:
        case Outcome.UNKNOWN:
            raise UnknownStream(f"there is no stream {name!r}: never created, deleted, or expired")
        case Outcome.GONE:
            raise UnknownStream(f"the stream {name!r} is deleted or has expired; only its forks are left")
        case Outcome.UNKNOWN_SOURCE | Outcome.SOURCE_GONE:
            raise UnknownStream(f"the stream that {name!r} should fork does not exist (any more)")
        case Outcome.CLOSED:
            raise StreamClosed(f"the stream {name!r} is closed; nothing was written")
        case Outcome.WRONG_TYPE:
            kind = "another content type" if written.row is None else repr(written.row.content_type)
            raise StreamConflict(
                f"the stream {name!r} is of the content type {kind}; JSON is written by append_json, and all else"
                " by append. Nothing was written"
            )
        case Outcome.BAD_FORK:
            raise BadCursor(f"the stream {name!r} cannot fork its source there: nothing ends at that place")
        case Outcome.FULL:
            raise EngineUnavailable(
                f"there is no room for the stream {name!r}; delete others, or use a database"
            )
        case _:
            raise StreamConflict(
                f"there is another stream {name!r}, with another configuration, or deleted and with forks"
            )
