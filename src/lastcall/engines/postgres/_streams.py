"""PostgresStreams: free-standing streams in the database of the jobs.

Who makes it: the engine. The verbs are those of `lastcall.streams`, plain functions over rows; each call runs them in a
thread and in a transaction. Who writes to a stream holds its lock; who creates or ends one holds all of them, because
forks lead from one to another. A reading is a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from ...streams import _verbs
from ...streams._policy import is_worth_touching
from ...streams._port import Head, NewStream, Outcome, Page, Position, Write, Written
from .._stream_news import Heads, StreamNews
from ._database import Database
from ._store import Store
from ._stream_rows import SqlRows
from ._threads import in_thread
from ._transact import TransactionConnection

_T = TypeVar("_T")

_HEADS = """SELECT name, id, last, closed::int, gone::int FROM lastcall.stream WHERE name = ANY($1::text[])"""


class PostgresStreams:
    """A `StreamStore`. `database`: the engine's, open; `do` and `written`: its ways to carry out a call."""

    def __init__(
        self,
        database: Callable[[], Database],
        do: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]],
        written: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]],
        listen: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self._database = database
        self._do = do
        self._written = written
        self._news = StreamNews(listen, self._heads)
        self._asked: dict[tuple[str, Position | int, int, int], asyncio.Task[Page]] = {}

    async def _heads(self, names: Sequence[str]) -> Heads:
        rows = await self._do(self._database().read(lambda store: store.rows(_HEADS, list(names))))
        return {name: (id, last, closed, gone) for name, id, last, closed, gone in rows}

    async def create(self, new: NewStream) -> Written:
        return await self._change(None, new.name, lambda rows, now: _verbs.create(rows, now, new))

    async def append(self, write: Write) -> Written:
        return await self._change(write.name, write.name, lambda rows, now: _verbs.append(rows, now, write))

    async def delete(self, name: str) -> Written:
        return await self._change(None, name, lambda rows, now: _verbs.delete(rows, now, name))

    async def sweep(self, limit: int) -> int:
        """Delete streams that have expired; how many. The others are deleted beside later creations."""
        # Looked first: who sweeps holds up whoever writes to any stream.
        if not await self._do(self._look(lambda rows, now: rows.expired(now, 1))):
            return 0
        return await self._change(None, "", lambda rows, now: _verbs.sweep(rows, now, limit))

    async def _change(self, locked: str | None, changed: str, verb: Callable[[SqlRows, float], _T]) -> _T:
        async def change(store: Store) -> _T:
            await (store.lock_streams() if locked is None else store.lock_stream(locked))
            return await _run(store, verb)

        async def telling() -> _T:
            answer = await self._database().transact(change)
            self._news.changed(changed)
            return answer

        answer: _T = await self._written(telling())
        return answer

    async def find(self, name: str) -> Page:
        page: Page = await self._do(self._look(lambda rows, now: _verbs.find(rows, now, name)))
        return page

    async def heads(self, prefix: str, after: str, limit: int) -> Sequence[Head]:
        found: Sequence[Head] = await self._do(
            self._look(lambda rows, now: _verbs.heads(rows, now, prefix, after, limit))
        )
        return found

    async def read(self, name: str, after: Position | int, limit: int, max_bytes: int) -> Page:
        key = (name, after, limit, max_bytes)
        reading = self._asked.get(key)
        if reading is None or reading.get_loop() is not asyncio.get_running_loop():
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
        name = key[0]
        read_at = 0.0

        def read(rows: SqlRows, now: float) -> Page:
            nonlocal read_at
            read_at = now
            return _verbs.read(rows, now, *key)

        page: Page = await self._do(self._look(read))
        if page.outcome is Outcome.FOUND and page.row is not None and is_worth_touching(page.row, read_at):
            await self._change(name, "", lambda rows, now: _verbs.touch(rows, now, name))
        return page

    async def _look(self, verb: Callable[[SqlRows, float], _T]) -> _T:
        async def look(store: Store) -> _T:
            async with store.snapshot():
                return await _run(store, verb)

        return await self._database().read(look)

    def watch(self, name: str) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        return self._news.watch(name)


async def _run(store: Store, verb: Callable[[SqlRows, float], _T]) -> _T:
    connection = TransactionConnection(store.connection, asyncio.get_running_loop(), "")
    rows, now = SqlRows(connection, store.terms.texts), store.now
    return await in_thread(lambda: verb(rows, now))


def _retrieve(reading: asyncio.Task[Page]) -> None:
    if not reading.cancelled():
        reading.exception()  # told to whoever still waits, not to the loop's handler if nobody does
