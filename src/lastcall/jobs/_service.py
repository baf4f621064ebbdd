"""The shape that a worker's services share: a loop that is asked to stop, and stops where it is safe.

A loop cut in the middle of a write would leave it open what was written. So a service is told, and it is waited for;
only one that overstays is cancelled. Stopping before the start, and stopping twice, are fine.
"""

from __future__ import annotations

import asyncio
from typing import Final

from .._core._roster import logger
from ..exceptions import EngineUnavailable

_PATIENCE_SECONDS: Final = 5.0


class Service:
    """Subclasses implement `run_once`: one round, and how many seconds to wait for the next (None: until `wake`)."""

    name = "service"

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Event | None = None
        self._stopping = False
        self._failures = 0

    def start(self) -> None:
        """Begin, on the running loop."""
        if self._task is None:
            self._stopping = False
            self._wake = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._task = asyncio.Task(self._run(self._wake), loop=loop, name=f"lastcall {self.name}")

    def wake(self) -> None:
        """There may be something to do."""
        if self._wake is not None:
            self._wake.set()

    def tell_to_stop(self) -> None:
        """End after the round that runs now."""
        self._stopping = True
        self.wake()

    async def stop(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Tell it, and wait for its end."""
        self.tell_to_stop()
        task, self._task = self._task, None
        if task is None:
            return
        _, late = await asyncio.wait({task}, timeout=patience_seconds)
        if late:
            task.cancel()
            await asyncio.wait({task}, timeout=patience_seconds)

    @property
    def stopping(self) -> bool:
        return self._stopping

    async def run_once(self) -> float | None:
        """One round."""
        raise NotImplementedError

    async def _run(self, wake: asyncio.Event) -> None:
        while not self._stopping:
            wake.clear()
            pause = await self._run_guarded()
            if pause == 0 or self._stopping:
                continue
            try:
                async with asyncio.timeout(pause):
                    await wake.wait()
            except TimeoutError:
                pass

    async def _run_guarded(self) -> float | None:
        """A store that is away pauses the service, longer each time, and the first failure is told."""
        try:
            pause = await self.run_once()
        except EngineUnavailable as error:
            if self._failures == 0:
                logger.warning("the %s pauses: %s", self.name, error, extra={"event": "store.away"})
        except Exception:
            logger.exception("the %s failed, and goes on", self.name, extra={"event": "store.failed"})
        else:
            if self._failures:
                logger.info("the %s goes on", self.name, extra={"event": "store.back"})
            self._failures = 0
            return pause
        self._failures += 1
        return min(2.0, 0.1 * 2.0 ** min(self._failures, 6))
