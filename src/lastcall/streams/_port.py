"""The port between free-standing streams and where they are stored, and the values that cross it.

Who calls it: `_streams` and the wire formats. Who implements it: `_memory`, and the engines. The rules:

- A mutation is atomic: it happened and was answered, or it did not and the answer says why. Only what no answer could
  tell is raised: the store is away, or the caller misuses it.
- Entries are numbered from 1. What was written in one call, its *batch*, stands together or not at all.
- `end` is how many bytes were written up to and including an entry; entry and `end` together are a *position*, which
  tells a cursor of this stream from most cursors of others.
- A fork shows the entries of its source up to where it left it, and then its own. So a deleted or expired stream that
  has forks is only *gone*: its name is not free and its entries stay, until the last fork is.
- A producer's numbers and the entries are written together.
- A stream that has expired is as if deleted; to read or write moves the end of one with a `ttl_seconds`, to look at it
  does not.
- A name that begins with a control character is lastcall's own: no user can have it, and no list shows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import NamedTuple, Protocol


class Outcome(StrEnum):
    """What became of a call. The first five: what was asked for is so. All others: nothing was written."""

    CREATED = "created"
    EXISTS = "exists"
    APPLIED = "applied"
    DUPLICATE = "duplicate"
    FOUND = "found"
    UNKNOWN = "unknown"
    GONE = "gone"
    CONFLICT = "conflict"
    CLOSED = "closed"
    WRONG_TYPE = "wrong_type"
    OLD_SEQ = "old_seq"
    OLD_EPOCH = "old_epoch"
    BAD_EPOCH = "bad_epoch"
    SEQ_GAP = "seq_gap"
    BAD_FORK = "bad_fork"
    UNKNOWN_SOURCE = "unknown_source"
    SOURCE_GONE = "source_gone"
    BAD_CURSOR = "bad_cursor"
    ENTRIES_GONE = "entries_gone"
    FULL = "full"


class Position(NamedTuple):
    """Behind the entry `seq`, whose `end` it also names; (0, 0) is before the first one."""

    seq: int
    end: int


START = Position(0, 0)


class Fork(NamedTuple):
    """Where a stream left another one: behind a position of it (None: its end), and so much further into the batch
    (of JSON messages) or the entry (of bytes) that follows."""

    source: str
    at: Position | None
    further: int


class Producer(NamedTuple):
    """A writer that numbers its writes from 0, so that one sent twice is written once. A larger epoch shuts out the
    writers of the smaller ones."""

    id: str
    epoch: int
    seq: int


class StreamRow(NamedTuple):
    """A stream, without its entries.

    `id`: of this stream, not of another that has or had its name. `first`: the oldest entry that can be read (`last +
    1`: none). `tail`: bytes written so far, that is the `end` of `last`. `ttl_seconds` and `expires_at` as declared;
    `due`: when it expires as things stand. `writer_seq`: the last sequence word of its writers. Entries up to
    `inherited` are `parent`'s. `forks`: how many have this one as their parent.
    """

    id: int
    name: str
    content_type: str
    created_at: float
    ttl_seconds: int | None
    expires_at: float | None
    due: float | None
    closed: bool
    first: int
    last: int
    tail: int
    writer_seq: str | None
    parent: int | None
    inherited: int
    fork: Fork | None
    forks: int
    gone: bool

    @property
    def position(self) -> Position:
        """The end."""
        return Position(self.last, self.tail)


class EntryRow(NamedTuple):
    """One entry: a JSON text, or the bytes of one write. `batch`: the first entry of the same write."""

    seq: int
    batch: int
    end: int
    at: float
    data: bytes


class NewStream(NamedTuple):
    """A stream to be created, or to be found as it is asked for. `content_type` None: that of the source, or bytes.
    `closed` None: created open, found either way."""

    name: str
    content_type: str | None
    ttl_seconds: int | None
    expires_at: float | None
    closed: bool | None
    fork: Fork | None
    entries: Sequence[bytes]


class Write(NamedTuple):
    """Entries to be added, in one batch, and whether the stream is closed with them. `content_type` None: any but JSON.

    `keep_bytes` and `keep_seconds`: older entries than these may go, whole entries only, the newest one never.
    """

    name: str
    entries: Sequence[bytes]
    content_type: str | None
    close: bool
    writer_seq: str | None
    producer: Producer | None
    keep_bytes: int | None
    keep_seconds: float | None


class Written(NamedTuple):
    """The answer to a mutation. `row`: the stream as it stands now, if there is one. `producer`: what is known of the
    producer now, or, for SEQ_GAP, what was expected."""

    outcome: Outcome
    row: StreamRow | None = None
    producer: Producer | None = None


class Page(NamedTuple):
    """The answer to a read, all of one moment: FOUND, UNKNOWN, GONE, BAD_CURSOR or ENTRIES_GONE (the last two with the
    row). `start` and `next`: the positions before and behind the entries. `updated_at`, of `find` alone: see `Head`."""

    outcome: Outcome
    row: StreamRow | None = None
    entries: Sequence[EntryRow] = ()
    start: Position = START
    next: Position = START
    updated_at: float | None = None


class Head(NamedTuple):
    """A stream, and when its own newest entry was written: `created_at`, if it has none of its own."""

    row: StreamRow
    updated_at: float


class StreamStore(Protocol):
    """Where streams are. Belongs to one event loop."""

    async def create(self, new: NewStream) -> Written:
        """CREATED; EXISTS, if there is one just like it; CONFLICT, WRONG_TYPE, BAD_FORK, UNKNOWN_SOURCE, SOURCE_GONE,
        FULL."""

    async def append(self, write: Write) -> Written:
        """APPLIED; DUPLICATE, if this producer has written it before, or to close what is closed; UNKNOWN, GONE,
        CLOSED, WRONG_TYPE, OLD_SEQ, OLD_EPOCH, BAD_EPOCH, SEQ_GAP, FULL."""

    async def delete(self, name: str) -> Written:
        """APPLIED, UNKNOWN, GONE."""

    async def read(self, name: str, after: Position | int, limit: int, max_bytes: int) -> Page:
        """Entries behind a position, or behind a number alone, at most `limit` and about `max_bytes` of them, but one
        if there is one. With a limit of 0 only where the stream stands; that is a read too."""

    async def find(self, name: str) -> Page:
        """Where the stream stands, without prolonging its life."""

    async def heads(self, prefix: str, after: str, limit: int) -> Sequence[Head]:
        """The first `limit` streams whose names begin with `prefix` and come behind `after`, by their names' characters
        (code points), all of one moment; without prolonging any life. Those that are gone or have expired are none.
        `prefix` and `after` are names or beginnings of names, or empty."""

    def watch(self, name: str) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        """Gives what waits until the stream may have changed since the block began, or for some seconds."""
