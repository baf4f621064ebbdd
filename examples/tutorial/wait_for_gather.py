"""`wait_for(gather(...))` cancels by itself when its time is over, and then waits, without a limit."""

import asyncio
import logging
import time
from collections.abc import Iterable

import lastcall

told: list[str] = []


async def cleans_up(seconds: float) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        told.append("cancelled")
        await asyncio.sleep(seconds)
        told.append("cleaned up")
        raise


async def goes_on(seconds: float) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(seconds)  # swallowed: it runs on


async def proof() -> None:
    told.clear()
    task = asyncio.create_task(cleans_up(0.3))
    await asyncio.sleep(0)
    begun = time.monotonic()
    try:
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), timeout=0.05)
    except TimeoutError:
        told.append("timed out")
    assert told == ["cancelled", "cleaned up", "timed out"], "the cancel came before the TimeoutError"
    assert task.done(), "so the loop after it that cancels `what is not done` never finds anything"
    assert time.monotonic() - begun > 0.3, "and the limit of 0.05 s was none"

    task = asyncio.create_task(goes_on(0.5))
    await asyncio.sleep(0)
    begun = time.monotonic()
    try:
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), timeout=0.05)
    except TimeoutError:
        pass
    assert time.monotonic() - begun > 0.5, "who swallows the cancel is waited for as long as it likes"


# What to write instead: `asyncio.wait` cancels nothing, raises nothing, and comes back on time.
async def end(tasks: Iterable[asyncio.Task[None]], drain: float, cancel: float) -> set[asyncio.Task[None]]:
    """Let them end, then cancel once, then wait again; what is still there is the caller's to name."""
    left = set(tasks)
    if left:
        _, left = await asyncio.wait(left, timeout=drain)
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=cancel)
    return left


async def plain() -> None:
    told.clear()
    stubborn = asyncio.create_task(goes_on(0.5))
    tidy = asyncio.create_task(cleans_up(0.05))
    await asyncio.sleep(0)
    begun = time.monotonic()
    assert await end({stubborn, tidy}, drain=0.05, cancel=0.2) == {stubborn}
    assert time.monotonic() - begun < 0.5
    assert told == ["cancelled", "cleaned up"]
    await asyncio.wait({stubborn})


async def with_lastcall() -> None:
    plan = lastcall.ShutdownPlan(drain=0.05, cancel=0.2, close=1)
    async with lastcall.TaskManager(plan=plan) as manager:
        task = manager.create_task(goes_on(0.5), name="stubborn")
        await asyncio.sleep(0)
        report = await manager.shutdown()
    assert [refused.name for refused in report.left_behind] == ["stubborn"]
    assert "goes_on" in "".join(report.left_behind[0].stack)
    await asyncio.wait({task}, timeout=5)


async def main() -> None:
    logging.getLogger("lastcall").disabled = True
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
