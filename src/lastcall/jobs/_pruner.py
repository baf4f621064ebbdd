"""The pruner: deletes ended jobs whose retention is over, in small transactions.

While a batch comes back full it goes on, after as long a pause as the batch has taken: half of the store's time is left
to claims and ends, and it still deletes as fast as that allows. With a fixed pause, 2000 jobs a second at most, the
tables of a busier app grew without end.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from ._engine import Engine
from ._service import Service

_REST_SECONDS = 30.0
_LEAST = 200
_MOST = 2_000
# Others wait behind a batch that takes longer.
_LONG_SECONDS = 0.1


class Pace(NamedTuple):
    """How many jobs to ask for next, and when."""

    batch: int
    pause_seconds: float


def pace(asked: int, deleted: int, seconds: float) -> Pace:
    """What follows a batch that has taken so long. Pure."""
    if deleted < asked:
        return Pace(_LEAST, _REST_SECONDS)
    batch = asked * 2 if seconds < _LONG_SECONDS else asked // 2
    return Pace(min(_MOST, max(_LEAST, batch)), min(seconds, _REST_SECONDS))


class Pruner(Service):
    name = "pruner"

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._batch = _LEAST

    async def run_once(self) -> float | None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        deleted = await self._engine.prune(self._batch)
        self._batch, pause_seconds = pace(self._batch, deleted, loop.time() - began)
        return pause_seconds
