"""JobLog: a job's events as a log that readers follow.

Who calls it: `job.events()`, `job.text()`, and the wire formats. What it owns: nothing; what is new lies in `_tails`,
everything older is read from the engine. One object for each reader: it knows whether this reader follows, and a
follower waits for a store that is away, where one that only looks is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ..exceptions import EngineUnavailable, UnknownJob
from ..streams import LogPage
from ._client import Client
from ._info import info_of
from ._rows import ReadFrom
from ._tails import entry_of

_AWAY_SECONDS = 0.5


class JobLog:
    """The log of one job: `Log` of `lastcall.streams`. Every verb raises `UnknownJob`, and `EngineUnavailable`."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.id = job_id
        self._client = client
        self._tail = client.tail(job_id)
        self._follows = 0

    async def read(self, after: int, limit: int) -> LogPage:
        """Up to `limit` events behind `after`; with 0 only where the log stands."""
        while True:
            try:
                page = await self._client.tails.page(self._tail, after, limit)
                return await self._read(after, limit) if page is None else page
            except EngineUnavailable:
                if not self._follows or not self._client.is_open:
                    raise
            await asyncio.sleep(_AWAY_SECONDS)

    async def _read(self, after: int, limit: int) -> LogPage:
        engine = await self._client.ready()
        (page,) = await engine.read_events((ReadFrom(self.id, after),), limit)
        if page is None:
            raise UnknownJob(f"there is no job {self.id} (any more)")
        return LogPage([entry_of(event) for event in page.events], page.first, page.last, page.status.final)

    async def snapshot(self) -> dict[str, Any]:
        """What is known of the job now, but for its arguments."""
        info = info_of(await self._client.get(self.id)).to_json()
        del info["args"]
        return info

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Gives what waits until the log may have changed since the block began."""
        self._follows += 1
        try:
            with self._client.tails.follow(self._tail, self._client.ready) as changed:
                yield changed
        finally:
            self._follows -= 1
