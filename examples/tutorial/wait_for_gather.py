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


async def goes_on(release: asyncio.Event) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await release.wait()  # swallowed: it runs on


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

    release = asyncio.Event()
    task = asyncio.create_task(goes_on(release))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(
        asyncio.wait_for(asyncio.gather(task, return_exceptions=True), timeout=0.05)
    )
    await asyncio.wait({waiting}, timeout=0.5)
    assert not waiting.done(), "who swallows the cancel is waited for as long as it likes"
    release.set()
    await asyncio.wait({waiting}, timeout=5)
    assert isinstance(waiting.exception(), TimeoutError)


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
    release = asyncio.Event()
    stubborn = asyncio.create_task(goes_on(release))
    tidy = asyncio.create_task(cleans_up(0))
    await asyncio.sleep(0)
    assert await end({stubborn, tidy}, drain=0.05, cancel=0.5) == {stubborn}
    assert told == ["cancelled", "cleaned up"]
    release.set()
    await asyncio.wait({stubborn}, timeout=5)


async def with_lastcall() -> None:
    release = asyncio.Event()
    plan = lastcall.ShutdownPlan(drain=0.05, cancel=0.2, close=1)
    async with lastcall.TaskManager(plan=plan) as manager:
        task = manager.create_task(goes_on(release), name="stubborn")
        await asyncio.sleep(0)
        report = await manager.shutdown()
    assert [refused.name for refused in report.left_behind] == ["stubborn"]
    assert "goes_on" in "".join(report.left_behind[0].stack)
    release.set()
    await asyncio.wait({task}, timeout=5)


async def main() -> None:
    logging.getLogger("lastcall").disabled = True
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
