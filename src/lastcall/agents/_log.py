"""MemoryLog: the events of a run that lives in this process, as a log that readers follow.

Who calls it: `_memory` writes, readers of `Run.events()` and the wire formats read. What it owns: the entries, as many
as fit; a reader that was away for too long is told so (`EntriesGone`), like one of a stored log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from time import time
from typing import Any

from ..exceptions import StreamClosed
from ..jobs._codec import dump_plain
from ..streams import Entry, LogPage

# What an entry costs beside its data.
_ENTRY_BYTES = 200


class MemoryLog:
    """A `Log` in memory. `most_bytes`: the oldest entries go when it holds more."""

    def __init__(self, run_id: str, snapshot: Callable[[], dict[str, Any]], most_bytes: int) -> None:
        self.id = run_id
        self._entries: list[Entry] = []
        self._snapshot = snapshot
        self._most_bytes = most_bytes
        self._last = 0
        self._closed = False
        self._waiting: set[asyncio.Future[None]] = set()
        self.bytes = 0

    # --- writing ---------------------------------------------------------------------------------------

    def append(self, type: str, data: Any, step: str | None = None) -> int:
        """Write an entry; its `seq`. Raises `BadResult` for data that JSON cannot hold, `StreamClosed`."""
        if self._closed:
            raise StreamClosed(f"the run has ended; the event {type!r} was not written")
        text = dump_plain(data, f"the event {type!r}")
        self._last += 1
        self._entries.append(Entry(self._last, type, text, 1, step, time()))
        self.bytes += len(text) + _ENTRY_BYTES
        if self.bytes > self._most_bytes:
            self._drop_oldest()
        self._tell()
        return self._last

    def _drop_oldest(self) -> None:
        # A quarter at once, because taking from the front of a list moves the rest.
        dropped = self._entries[: max(1, len(self._entries) // 4)]
        if len(dropped) < len(self._entries):
            del self._entries[: len(dropped)]
            self.bytes -= sum(len(entry.data) + _ENTRY_BYTES for entry in dropped)

    def close(self) -> None:
        """Nothing more is written."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # --- reading ---------------------------------------------------------------------------------------

    async def read(self, after: int, limit: int) -> LogPage:
        """Up to `limit` entries behind `after`; with 0 only where the log stands."""
        first = self._entries[0].seq if self._entries else self._last + 1
        skip = max(0, after + 1 - first)
        return LogPage(self._entries[skip : skip + limit], first, self._last, self._closed)

    async def snapshot(self) -> dict[str, Any]:
        """What is known of the run now."""
        return self._snapshot()

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Gives what waits until something was written since the block began."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(change)

        async def changed() -> None:
            await asyncio.wait({change})

        try:
            yield changed
        finally:
            self._waiting.discard(change)
