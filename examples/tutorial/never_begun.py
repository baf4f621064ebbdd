"""A task that is cancelled before its first step runs none of its code: no `except`, no `finally`, no bookkeeping."""

import asyncio
import gc
import logging
import warnings
from collections.abc import Coroutine
from typing import Any

import lastcall

status: dict[str, str] = {}


async def wrapper(id: str, coro: Coroutine[Any, Any, None]) -> None:
    """The tutorial's bookkeeping: a coroutine around the coroutine."""
    try:
        await coro
        status[id] = "completed"
    except asyncio.CancelledError:
        status[id] = "cancelled"
        raise
    finally:
        status.pop("in flight", None)


async def work() -> None:
    await asyncio.sleep(60)


async def proof() -> None:
    status.update({"t-1": "running", "in flight": "t-1"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = asyncio.create_task(wrapper("t-1", work()))
        task.cancel()  # in the same step: a shutdown, a group that fails
        await asyncio.wait({task}, timeout=5)
        assert task.cancelled()
        del task
        gc.collect()
    assert status == {"t-1": "running", "in flight": "t-1"}, (
        "for ever: neither `except` nor `finally` has run"
    )
    assert any("was never awaited" in str(warning.message) for warning in caught)


# What to write instead: a callback runs whatever becomes of the task.
def track(id: str, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    status[id] = "running"

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            status[id] = "cancelled"
        else:
            status[id] = "failed" if task.exception() else "completed"

    task = asyncio.create_task(coro)
    task.add_done_callback(ended)
    return task


async def plain() -> None:
    task = track("t-2", work())
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    await asyncio.sleep(0)
    assert status["t-2"] == "cancelled"


async def with_lastcall() -> None:
    async with lastcall.TaskManager() as manager:
        task = manager.create_task(work(), name="work")
        assert await manager.cancel_task(task) == "ended"
        assert manager.info(task).status == "cancelled"
        assert manager.info(task).reason == "user"
        assert manager.stats().cancelled == 1


async def main() -> None:
    logging.getLogger("lastcall").disabled = True
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
