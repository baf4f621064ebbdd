"""A log, as whoever reads it sees it: entries numbered from 1 without gaps, of which the oldest may be gone.

Who calls it: the wire formats (`asgi`), `job.events()`, and `Stream.read()`. Who implements it: a job's events
(`lastcall.jobs`) and a free-standing stream (`_streams`), over whatever store holds them. What can go wrong: a reader
that was away for longer than entries are kept (`EntriesGone`), and one that asks for what was never written
(`BadCursor`); both are told, never skipped over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from ..exceptions import BadCursor, EntriesGone

# At most so many entries are in memory for one reader.
_AT_ONCE = 500


class Entry(NamedTuple):
    """One entry. `seq` counts from 1. `attempt` 0: written from outside a job. `data` is a JSON text, as it was stored:
    most readers pass it on. `at`: seconds since the epoch."""

    seq: int
    type: str
    data: str
    attempt: int
    step: str | None
    at: float


class LogPage(NamedTuple):
    """What a read found, all of one moment.

    `first`: the oldest entry that is kept (`last + 1`: none is). `last`: the newest, 0 before the first one. `closed`:
    nothing will be written any more. Fewer entries than asked for does not mean that there are no more: `last` does.
    """

    entries: list[Entry]
    first: int
    last: int
    closed: bool


class Log(Protocol):
    """Entries to be read by number, and news of more. One that does not exist (any more) raises what its owner raises
    for that: `UnknownJob`, `UnknownStream`."""

    async def read(self, after: int, limit: int) -> LogPage:
        """Up to `limit` entries with `seq > after`, in order; with a limit of 0 only where the log stands."""

    async def snapshot(self) -> dict[str, Any]:
        """What the log is about now, as plain JSON values, for a reader that comes in the middle: a job's status,
        progress and result. Never older than what was read before it was asked for."""

    def watch(self) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        """Gives what waits until the log may have changed since the block began, or for some seconds: so look inside
        the block, and look again afterwards."""


def check_cursor(page: LogPage, after: int) -> int:
    """`after` itself, if everything behind it can be read.

    Raises `BadCursor` for one that is negative or ahead of the end, `EntriesGone` for one older than what is kept.
    """
    if after < 0:
        raise BadCursor(f"a cursor is the number of an entry, or 0 for all of them, not {after}")
    if after > page.last:
        raise BadCursor(
            f"the cursor {after} is ahead of the end, {page.last}: it belongs to another stream, or to one that was "
            "deleted and written anew; begin at 0"
        )
    # What was trimmed a moment ago may still be in somebody's memory.
    if after + 1 < page.first and not (page.entries and page.entries[0].seq == after + 1):
        raise EntriesGone(
            f"the entries {after + 1} to {page.first - 1} are not kept any more; read after {page.first - 1}, "
            "and take what was before from the snapshot",
            first=page.first,
        )
    return after


async def follow(log: Log, after: int = 0, *, at_once: int = _AT_ONCE) -> AsyncIterator[list[Entry]]:
    """What is there behind `after`, and then what comes, until the log is closed and read to its end.

    Entries that were written together come together, at most `at_once`; none twice, none left out.
    Raises `BadCursor` for a cursor that is none, and `EntriesGone`, also later, for a reader slower than the retention.

        async for entries in follow(log, after=last_seen): ...
    """
    with (
        log.watch()
    ):  # of no use by itself: it keeps the log followed between two looks, which would begin anew
        while True:
            with log.watch() as changed:
                while True:
                    page = await log.read(after, at_once)
                    check_cursor(page, after)
                    if not page.entries:
                        break
                    after = page.entries[-1].seq
                    yield page.entries
                    if after >= page.last:
                        break
                if page.closed and after >= page.last:
                    return
                await changed()
