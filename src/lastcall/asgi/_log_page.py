"""A page of a log as JSON, at once or when there is something (long-poll).

Who calls it: `_log_response`. A page that waits is a call like any other: the stop ends its waiting, and it answers
with what there is, so that its client asks again, somewhere else perhaps.
"""

from __future__ import annotations

import asyncio

from .._core._scope import current_shutdown
from ..streams import Entry, Log, LogPage
from ..streams._log import check_cursor
from ._log_readers import Readers
from ._log_waiter import Waiter
from ._types import Receive

_PAGE_BYTES = 1 << 20


async def read_page(log: Log, after: int, limit: int) -> LogPage:
    """What there is behind `after`: at most `limit` entries, and about a megabyte, but one at least.

    Raises `BadCursor`, `EntriesGone`, and what the log's owner raises.
    """
    page = await log.read(after, limit)
    check_cursor(page, after)
    entries: list[Entry] = []
    size = 0
    for entry in page.entries:
        size += len(entry.data)
        if entries and size > _PAGE_BYTES:
            break
        entries.append(entry)
    return page._replace(entries=entries)


class PageReader(Waiter):
    """Waits for something behind a cursor, for at most so many seconds."""

    __slots__ = ("_is_late",)

    def __init__(self) -> None:
        super().__init__()
        self._is_late = False

    async def run(
        self, log: Log, after: int, limit: int, seconds: float, receive: Receive, readers: Readers
    ) -> LogPage | None:
        """The page, as soon as it has an entry, or the log is closed, or the time is over. None: the client left."""
        shutdown = current_shutdown()
        loop = asyncio.get_running_loop()
        page = await read_page(log, after, limit)
        if page.entries or page.closed:
            return page
        readers.join(self, log, page.last, keep_alive=False)
        timer = loop.call_later(seconds, self._on_late)
        watcher = loop.create_task(self.watch_client(receive))
        try:
            while not self.gone:
                # Once more, and not at the wait: something may have come before we were joined.
                page = await read_page(log, after, limit)
                if page.entries or page.closed or self._is_late or shutdown.requested:
                    return page
                await self.wait()
            return None
        finally:
            timer.cancel()
            watcher.cancel()
            readers.leave(self, log)

    def keep_alive(self) -> None:
        """Nothing can be said before the answer; the wait is bounded instead."""

    def _on_late(self) -> None:
        self._is_late = True
        self.wake()
