"""Awaiting foreign code for a bounded time, without ever losing our own cancellation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger("lastcall.asgi")


async def run_bounded(coro: Coroutine[Any, Any, object], seconds: float, *, what: str) -> bool:
    """Run `coro` for at most `seconds`; whether it succeeded. Its failure is logged, never raised.

    The last bytes of an answer may block for ever on a client that does not read, so they run in a task
    of their own: cancelled once when the time is over, and left alone if it refuses.
    """
    task = asyncio.get_running_loop().create_task(coro, name=f"lastcall: {what}")
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        await asyncio.wait({task}, timeout=0.2)
    if not task.done():
        task.add_done_callback(_consume)
        logger.warning(
            "%s did not end within %.1f s and ignores its cancellation; going on without it", what, seconds
        )
        return False
    if task.cancelled():
        logger.debug("%s did not end within %.1f s", what, seconds)
        return False
    if (error := task.exception()) is not None:
        logger.debug("%s failed: %r", what, error)
        return False
    return True


def _consume(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.debug("%s failed late: %r", task.get_name(), error)
