"""A flag between two sleeps is seen when the sleep is over, and a loop that breaks is not complete."""

import asyncio

import lastcall

told: list[str] = []


async def long_running(stop: asyncio.Event, pause: float) -> None:
    """As the tutorial has it."""
    for _ in range(100):
        if stop.is_set():
            break
        await asyncio.sleep(pause)
    told.append("complete")


async def proof() -> None:
    told.clear()
    stop = asyncio.Event()
    slow = asyncio.create_task(long_running(stop, pause=60))
    quick = asyncio.create_task(long_running(stop, pause=0.01))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait({slow, quick}, timeout=0.3)
    assert not slow.done(), "it hears of the stop in a minute"
    await asyncio.wait({quick}, timeout=5)
    assert told == ["complete"], "and of the other one a step of a hundred was done"
    slow.cancel()
    await asyncio.wait({slow}, timeout=5)


# What to write instead: sleep on the event itself, and tell the two ends apart.
async def steps(stop: asyncio.Event) -> None:
    for step in range(100):
        try:
            async with asyncio.timeout(60):
                await stop.wait()
            told.append(f"interrupted at step {step}")
            return
        except TimeoutError:
            pass
    told.append("complete")


async def plain() -> None:
    told.clear()
    stop = asyncio.Event()
    task = asyncio.create_task(steps(stop))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait({task}, timeout=20)
    assert task.done() and told == ["interrupted at step 0"]


async def with_lastcall() -> None:
    told.clear()

    async def steps() -> None:
        shutdown = lastcall.current_shutdown()
        for step in range(100):
            if await shutdown.sleep(60):  # the stop came first
                told.append(f"interrupted at step {step}: {shutdown.reason}")
                return
        told.append("complete")

    async with lastcall.TaskManager() as manager:
        manager.create_task(steps(), name="steps")
        await asyncio.sleep(0)
    assert told == ["interrupted at step 0: shutdown"]


async def main() -> None:
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
