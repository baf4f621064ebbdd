"""Tail: one log, followed once for all of its readers in this process.

Who calls it: `_log_readers`, which makes one for each log that is being read, and the readers. What it owns: the newest
entries, a bounded number of bytes, each written once per format for everybody. A reader that is further behind reads
the log by itself, at its own pace, so a slow one costs the others nothing. What can go wrong: a store that is away
(tried again), and a log that does not exist any more (`error`: its readers leave).

This is what makes idle readers cheap: a thousand of them are one task that waits for news, and no timers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from ..exceptions import EngineUnavailable, EntriesGone, LastcallError, StreamError
from ..streams import Entry, Log
from ..streams._log import check_cursor
from ._log_wire import Frame

logger = logging.getLogger("lastcall.asgi")

_WINDOW_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_FIRST_LIMIT, _MAX_LIMIT = 16, 512
AWAY_SECONDS = 1.0
"""How long a store that is away is left alone."""


class Tail:
    """The end of one log. `end`: the newest entry that is known; at first what its first reader has seen of it."""

    def __init__(self, log: Log, end: int) -> None:
        self.log = log
        self.end = end
        self.closed = False
        self.error: LastcallError | None = None
        self._frames: deque[Frame] = deque()
        self._held_bytes = 0
        self._limit = _FIRST_LIMIT
        self._wakes: set[Callable[[], None]] = set()

    def join(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever there may be something new."""
        self._wakes.add(wake)

    def leave(self, wake: Callable[[], None]) -> bool:
        """Do not, any longer; whether somebody else still reads."""
        self._wakes.discard(wake)
        return bool(self._wakes)

    def behind(self, after: int, limit_bytes: int) -> Sequence[Frame] | None:
        """The next entries behind `after`, about `limit_bytes` of them; empty: wait. None: not here, read the log."""
        if after >= self.end:
            return ()
        skipped = after + 1 - (self.end + 1 - len(self._frames))
        if skipped < 0:
            return None
        found: list[Frame] = []
        size = 0
        for frame in islice(self._frames, skipped, None):
            found.append(frame)
            size += frame.size
            if size >= limit_bytes:
                break
        return found

    async def follow(self) -> None:
        """Look for news until cancelled, or until the log cannot be read any more."""
        while self.error is None:
            try:
                # The outer one keeps the log followed between two looks, so that its owner need not begin anew.
                with self.log.watch():
                    await self._watch()
            except EngineUnavailable as error:
                logger.warning("the store of a log cannot be read: %s; trying again", error)
                await asyncio.sleep(AWAY_SECONDS)
            except LastcallError as error:
                self._lose(error)
            except Exception as error:
                logger.exception("a log cannot be read: %r", self.log)
                self._lose(StreamError(f"the log cannot be read: {error!r}"))

    async def _watch(self) -> None:
        while True:
            with self.log.watch() as changed:
                await self._look()
                await changed()

    def _lose(self, error: LastcallError) -> None:
        self.error = error
        self._tell()

    async def _look(self) -> None:
        while True:
            try:
                page = await self.log.read(self.end, self._limit)
                check_cursor(page, self.end)
            except EntriesGone as gone:
                # So much was written and dropped between two looks: each reader finds out what it has missed.
                self._forget()
                self.end = gone.first - 1
                self._tell()
                continue
            for entry in page.entries:
                self._keep(entry)
            if page.entries or page.closed != self.closed:
                self.closed = page.closed
                self._tell()
            self._limit = next_limit(self._limit, page.entries)
            if self.end >= page.last or not page.entries:
                return
            # A log in memory never makes us wait, and the readers must have their turn.
            await asyncio.sleep(0)

    def _keep(self, entry: Entry) -> None:
        frame = Frame(entry)
        self._frames.append(frame)
        self._held_bytes += frame.size
        self.end = entry.seq
        while self._held_bytes > _WINDOW_BYTES and len(self._frames) > 1:
            self._held_bytes -= self._frames.popleft().size

    def _forget(self) -> None:
        self._frames.clear()
        self._held_bytes = 0

    def _tell(self) -> None:
        for wake in tuple(self._wakes):
            wake()


def next_limit(limit: int, entries: Sequence[Entry]) -> int:
    """How many entries to ask for next, so that a read holds a bounded number of bytes though entries differ."""
    size = sum(len(entry.data) for entry in entries)
    if size > _READ_BYTES:
        return max(1, limit * _READ_BYTES // size)
    if len(entries) < limit or size * 2 > _READ_BYTES:
        return limit
    return min(limit * 2, _MAX_LIMIT)
