"""The ends of attempts on their way to the engine: written in batches, and written for certain.

Who calls it: the executor, at the end of every attempt. A batch is whatever has gathered while the one before it was
being written; it goes out in the same turn of the loop in which the freed slots are claimed again, so that both share
one commit. While the store is away the ends wait here: the work is done, and must not be done again for a full disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .._core._roster import logger
from ._attempt import persist
from ._engine import Engine
from ._rows import AttemptEnd
from ._state import JobStatus

_AFTER_BUG_SECONDS = 0.5

OnWritten = Callable[[list[AttemptEnd], list[JobStatus | None]], None]


class Outbox:
    """`add` is all a caller needs; `flush` waits until everything is written."""

    def __init__(self, engine: Engine, on_written: OnWritten) -> None:
        self._engine = engine
        self._on_written = on_written
        self._ends: list[AttemptEnd] = []
        self._writing: asyncio.Task[None] | None = None

    def add(self, end: AttemptEnd) -> None:
        """Take an end to be written."""
        self._ends.append(end)
        if self._writing is None:
            loop = asyncio.get_running_loop()
            self._writing = asyncio.Task(self._write(), loop=loop, name="write the ends of attempts")

    @property
    def is_empty(self) -> bool:
        return not self._ends and self._writing is None

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything is written, at most so long. Whether it is."""
        writing = self._writing
        if writing is not None:
            await asyncio.wait({writing}, timeout=timeout_seconds)
        return self.is_empty

    async def close(self) -> None:
        """Give up what could not be written: its attempts are handed over with the lease, or lost with it."""
        writing = self._writing
        if writing is not None:
            writing.cancel()
            await asyncio.wait({writing})
        for end in self._ends:
            logger.error(
                "the end of job %s (attempt %d, %s) could not be written; the attempt will be repeated",
                end.id,
                end.attempt,
                type(end.outcome).__name__,
                extra={"event": "attempt.end_not_written", "job_id": end.id, "attempt": end.attempt},
            )
        self._ends = []

    async def _write(self) -> None:
        batch: list[AttemptEnd] = []
        try:
            while self._ends:
                batch, self._ends = self._ends, []
                statuses = await self._finish(batch)
                self._on_written(batch, statuses)
                batch = []
        finally:
            self._ends[:0] = batch
            self._writing = None

    async def _finish(self, batch: list[AttemptEnd]) -> list[JobStatus | None]:
        what = f"the end of {len(batch)} attempts"
        told = False
        while True:
            try:
                return await persist(lambda: self._engine.finish(batch), what)
            except Exception:
                # Whatever it is, giving up here would leave jobs that have ended as running, until this worker ends.
                if not told:
                    logger.exception(
                        "%s could not be written, and is tried again", what, extra={"event": "store.failed"}
                    )
                told = True
                await asyncio.sleep(_AFTER_BUG_SECONDS)
