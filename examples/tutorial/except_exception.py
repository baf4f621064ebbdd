"""`except Exception` does not catch a cancellation; a bare `except`, `except BaseException` and `pass` do."""

import asyncio
import logging

import lastcall

log = logging.getLogger("shop")


async def proof() -> None:
    async def careful() -> str:
        try:
            await asyncio.sleep(60)
        except Exception:
            return "caught"
        return "slept"

    async def careless() -> str:
        try:
            await asyncio.sleep(60)
        except BaseException:  # as does a bare `except:`
            return "caught"
        return "slept"

    tasks = [asyncio.create_task(careful()), asyncio.create_task(careless())]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    assert not issubclass(asyncio.CancelledError, Exception)
    assert tasks[0].cancelled()
    assert not tasks[1].cancelled() and tasks[1].result() == "caught"


async def work() -> None:
    raise OSError("the line is down")


# What to write instead: nothing about CancelledError, where there is nothing to clean up.
async def poll() -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("one round failed")
        await asyncio.sleep(1)


async def plain() -> None:
    task = asyncio.create_task(poll())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()


# With lastcall a task that swallows its cancel is counted, and named in the log.
async def with_lastcall() -> None:
    async with lastcall.TaskManager() as manager:

        async def stubborn() -> None:
            try:
                await asyncio.sleep(60)
            except BaseException:
                pass

        task = manager.create_task(stubborn(), name="stubborn")
        await asyncio.sleep(0)
        assert await manager.cancel_task(task) == "ended"
        assert manager.info(task).swallowed_cancel
        assert manager.stats().swallowed == 1


async def main() -> None:
    logging.getLogger("shop").disabled = True
    logging.getLogger("lastcall").disabled = True
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
