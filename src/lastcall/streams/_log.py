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


class LogState(NamedTuple):
    """What can be read now.

    `first`: the oldest entry that is kept (`last + 1`: none is). `last`: the newest, 0 before the first one. `closed`:
    nothing will be written any more. `snapshot`: what the log is about, as plain JSON values, for a reader that comes
    in the middle (a job's status, progress and result).
    """

    first: int
    last: int
    closed: bool
    snapshot: dict[str, Any]


class Log(Protocol):
    """Entries to be read by number, and news of more."""

    async def state(self) -> LogState:
        """Where the log stands. Raises what the log's owner raises for one that does not exist (any more)."""

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Entries with `seq > after` in order; fewer than `limit` does not mean that there are no more."""

    def watch(self) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        """Gives what waits until the log may have changed since the block began, or for some seconds: so look inside
        the block, and look again afterwards."""


def check_cursor(state: LogState, after: int) -> int:
    """`after` itself, if everything behind it can be read.

    Raises `BadCursor` for one that is ahead of the end, `EntriesGone` for one older than what is kept.
    """
    if after < 0:
        raise BadCursor(f"a cursor is the number of an entry, or 0 for all of them, not {after}")
    if after > state.last:
        raise BadCursor(
            f"the cursor {after} is ahead of the end, {state.last}: it belongs to another stream, or to one that was "
            "deleted and written anew; begin at 0"
        )
    if after + 1 < state.first:
        raise EntriesGone(
            f"the entries {after + 1} to {state.first - 1} are not kept any more; read after {state.first - 1}, "
            "and take what was before from the snapshot",
            first=state.first,
        )
    return after


async def follow(log: Log, after: int = 0, *, at_once: int = _AT_ONCE) -> AsyncIterator[list[Entry]]:
    """What is there behind `after`, and then what comes, until the log is closed and read to its end.

    Entries that were written together come together, at most `at_once`; none twice, none left out.
    Raises `BadCursor` at the start, and `EntriesGone`, also later, for a reader slower than the retention.
    """
    checked = False
    while True:
        with log.watch() as changed:
            # Where it ends is looked at before what is in it: what closes a log is written after its last entry.
            state = await log.state()
            if not checked:
                check_cursor(state, after)
                checked = True
            while after < state.last:
                entries = await log.read(after, at_once)
                if not entries or entries[0].seq != after + 1:
                    state = await log.state()
                    check_cursor(state, after)
                    if not entries:
                        break  # purged and written anew, or not visible yet; the next round tells
                    continue
                after = entries[-1].seq
                yield entries
            if state.closed and after >= state.last:
                return
            await changed()
