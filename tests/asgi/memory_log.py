"""A log in memory for the tests: entries, a close, a retention, an outage, and news exactly when something happened."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from lastcall.exceptions import LastcallError
from lastcall.streams import Entry, LogPage


class MemoryLog:
    """`Log`, with the writer's verbs. `reads` counts how often its entries were asked for."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.entries: list[Entry] = []
        self.last = 0
        self.closed = False
        self.error: LastcallError | None = None
        self.state = {"status": "running"} if state is None else state
        self.reads = 0
        self._news: set[asyncio.Future[None]] = set()

    # --- who writes ---

    def write(self, data: Any, type: str = "word", *, attempt: int = 1, step: str | None = None) -> int:
        self.last += 1
        entry = Entry(self.last, type, json.dumps(data), attempt, step, 1764000000.25 + self.last)
        self.entries.append(entry)
        self.tell()
        return self.last

    def close(self, **state: Any) -> None:
        self.closed = True
        self.state.update(state)
        self.tell()

    def keep(self, newest: int) -> None:
        """Drop all but the newest."""
        self.entries = self.entries[len(self.entries) - newest :] if newest else []

    def tell(self) -> None:
        for waiter in self._news:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def watchers(self) -> int:
        return len(self._news)

    # --- who reads ---

    async def read(self, after: int, limit: int) -> LogPage:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.reads += bool(limit)
        first = self.last + 1 - len(self.entries)
        found = self.entries[max(0, after + 1 - first) :][:limit]
        return LogPage(found, first, self.last, self.closed)

    async def snapshot(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return dict(self.state, entries=self.last)

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[], Awaitable[None]]]:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news.add(change)

        async def changed() -> None:
            await change

        try:
            yield changed
        finally:
            self._news.discard(change)
