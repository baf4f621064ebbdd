"""SqliteStreams: free-standing streams in the file of the jobs. Their writes share the jobs' commits.

Who makes it: the engine. What it owns: what is asked for in this turn of the loop, so that a thousand readers of the
same place that wake together cost one reading.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ...streams import _verbs
from ...streams._policy import is_worth_touching
from ...streams._port import Head, NewStream, Outcome, Page, Position, Write, Written
from .._stream_news import StreamNews
from ._clock import Clock
from ._store import Store, Verb, each
from ._stream_news import read_heads
from ._stream_rows import SqlRows


def _create(store: Store, new: NewStream) -> Written:
    return _verbs.create(SqlRows(store.connection), store.now, new)


def _append(store: Store, write: Write) -> Written:
    return _verbs.append(SqlRows(store.connection), store.now, write)


def _delete(store: Store, name: str) -> Written:
    return _verbs.delete(SqlRows(store.connection), store.now, name)


def _touch(store: Store, name: str) -> None:
    _verbs.touch(SqlRows(store.connection), store.now, name)


def _sweep(store: Store, limit: int) -> int:
    return _verbs.sweep(SqlRows(store.connection), store.now, limit)


_CREATE = Verb(0, each(_create))
_APPEND = Verb(1, each(_append))
_DELETE = Verb(3, each(_delete))
_TOUCH = Verb(3, each(_touch))
_SWEEP = Verb(3, each(_sweep))


def _read(
    connection: sqlite3.Connection, now: float, name: str, after: Position | int, limit: int, max_bytes: int
) -> Page:
    return _verbs.read(SqlRows(connection), now, name, after, limit, max_bytes)


def _find(connection: sqlite3.Connection, now: float, name: str) -> Page:
    return _verbs.find(SqlRows(connection), now, name)


def _heads_of(
    connection: sqlite3.Connection, now: float, prefix: str, after: str, limit: int
) -> Sequence[Head]:
    return _verbs.heads(SqlRows(connection), now, prefix, after, limit)


class SqliteStreams:
    """A `StreamStore`. `write` and `read`: the engine's ways into its threads."""

    def __init__(
        self,
        write: Callable[[Verb[Any, Any], Any], asyncio.Future[Any]],
        read: Callable[..., asyncio.Future[Any]],
        listen: Callable[[Callable[[], None]], Callable[[], None]],
        clock: Clock,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._news = StreamNews(listen, self._heads)
        self._asked: dict[tuple[str, Position | int, int, int], asyncio.Task[Page]] = {}

    async def _heads(self, names: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
        heads: dict[str, tuple[int, int, int, int]] = await self._read(read_heads, names)
        return heads

    async def create(self, new: NewStream) -> Written:
        written: Written = await self._write(_CREATE, new)
        return written

    async def append(self, write: Write) -> Written:
        future = self._write(_APPEND, write)
        # Not by this task: cancelled, it would leave the readers without the news.
        future.add_done_callback(lambda _: self._news.changed(write.name))
        written: Written = await asyncio.shield(future)
        return written

    async def delete(self, name: str) -> Written:
        future = self._write(_DELETE, name)
        future.add_done_callback(lambda _: self._news.changed(name))
        written: Written = await asyncio.shield(future)
        return written

    async def sweep(self, limit: int) -> int:
        """Delete streams that have expired; how many. The others are deleted beside later creations."""
        swept: int = await self._write(_SWEEP, limit)
        return swept

    async def find(self, name: str) -> Page:
        page: Page = await self._read(_find, self._clock.wall(), name)
        return page

    async def heads(self, prefix: str, after: str, limit: int) -> Sequence[Head]:
        found: Sequence[Head] = await self._read(_heads_of, self._clock.wall(), prefix, after, limit)
        return found

    async def read(self, name: str, after: Position | int, limit: int, max_bytes: int) -> Page:
        key = (name, after, limit, max_bytes)
        reading = self._asked.get(key)
        if reading is None:
            reading = asyncio.get_running_loop().create_task(self._reading(key), name="lastcall-stream-read")
            reading.add_done_callback(_retrieve)
            self._asked[key] = reading
        # One that is cancelled does not take the reading from the others.
        return await asyncio.shield(reading)

    async def _reading(self, key: tuple[str, Position | int, int, int]) -> Page:
        # Whoever asks in this turn of the loop shares the reading, which begins after it. One that had begun before
        # somebody asked might not show what that one has just been told is written.
        await asyncio.sleep(0)
        del self._asked[key]
        now = self._clock.wall()
        page: Page = await self._read(_read, now, *key)
        if page.outcome is Outcome.FOUND and page.row is not None and is_worth_touching(page.row, now):
            await self._write(_TOUCH, page.row.name)
        return page

    def watch(self, name: str) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        return self._news.watch(name)


def _retrieve(reading: asyncio.Task[Page]) -> None:
    if not reading.cancelled():
        reading.exception()  # told to whoever still waits, not to the loop's handler if nobody does
