"""Waiter: a call that waits for news of a log, and for its client to leave, with one future and one helper.

Who calls it: the readers of logs, which are waiters. Whoever has news completes the future: the log's tail, the helper,
a timer, the shutdown.
"""

from __future__ import annotations

import asyncio
import logging

from ._types import Receive

logger = logging.getLogger("lastcall.asgi")


class Waiter:
    """`gone`: the client has left. `wrote_at`: the loop's time of the last write."""

    __slots__ = ("_fresh", "_waiting", "gone", "wrote_at")

    def __init__(self) -> None:
        self._fresh = True
        self._waiting: asyncio.Future[None] | None = None
        self.gone = False
        self.wrote_at = asyncio.get_running_loop().time()

    def wake(self) -> None:
        """There may be something new, of whatever kind."""
        self._fresh = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, seconds: float | None = None) -> None:
        """Until something has changed since the last wait, at most `seconds`."""
        if not self._fresh:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, self.wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
        self._fresh = False

    async def watch_client(self, receive: Receive) -> None:
        """Return when the client has left."""
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except Exception as error:
            logger.debug("cannot watch for the client leaving: %r", error)
            return
        self.gone = True
        self.wake()
