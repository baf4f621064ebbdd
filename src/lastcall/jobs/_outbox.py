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
from ._rows import AttemptEnd, HandedOver
from ._state import JobStatus

_AFTER_BUG_SECONDS = 0.5
_NAMED = 20

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

    async def close(self) -> list[AttemptEnd]:
        """Give up what could not be written, and tell what: its attempts are handed over with the lease, or lost with
        it."""
        writing = self._writing
        if writing is not None:
            writing.cancel()
            await asyncio.wait({writing})
        unwritten, self._ends = self._ends, []
        return unwritten

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


def tell_unwritten(ends: list[AttemptEnd], lease_seconds: float, *, resigned: bool) -> str:
    """Log what becomes of jobs whose ends were given up. The same in one line for the report; "": nothing was lost.

    A hand-over that was not written is what a resignation does. A store that hung may have taken a write after all that
    nobody waits for any more.
    """
    ends = [end for end in ends if not (resigned and isinstance(end.outcome, HandedOver))]
    fate = (
        "was handed over, and runs again on another worker"
        if resigned
        else f"loses its attempt when the lease of {lease_seconds:g} s is over, and runs again on another worker"
    )
    for end in ends:
        logger.error(
            "the end of %s was not written in time; unless the store takes it after all, the job %s",
            _shown(end),
            fate,
            extra={"event": "attempt.end_not_written", "job_id": end.id, "attempt": end.attempt},
        )
    if not ends:
        return ""
    more = f" and {len(ends) - _NAMED} more" if len(ends) > _NAMED else ""
    named = ", ".join(map(_shown, ends[:_NAMED]))
    return f"the end of {named}{more} was not written in time; unless the store takes it after all, each job {fate}"


def _shown(end: AttemptEnd) -> str:
    return f"job {end.id} (attempt {end.attempt}, {type(end.outcome).__name__})"
