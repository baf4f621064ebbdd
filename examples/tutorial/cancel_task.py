"""To cancel a task and await it swallows the caller's own cancellation, and raises the task's errors."""

import asyncio
import logging

import lastcall


async def cancel_task(task: asyncio.Task[None]) -> None:
    """As the tutorial has it."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


async def needs(seconds: float) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(seconds)
        raise


async def fails() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise OSError("the clean-up failed")


async def proof() -> None:
    task = asyncio.create_task(needs(60))
    await asyncio.sleep(0)
    caller = asyncio.create_task(cancel_task(task))
    await asyncio.sleep(0.01)
    caller.cancel()  # somebody has no time to wait for this
    await asyncio.wait({caller}, timeout=5)
    assert not caller.cancelled(), "the caller was cancelled, and went on as if it had not been"

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    try:
        await cancel_task(task)
        raise AssertionError("unreachable")
    except OSError as error:
        assert str(error) == "the clean-up failed", "the task's error is the caller's now"


# What to write instead.
async def cancel_and_wait(task: asyncio.Task[None], timeout: float) -> bool:
    """Whether it has ended. The caller's own cancellation stays the caller's."""
    task.cancel()
    await asyncio.wait({task}, timeout=timeout)
    return task.done()


async def plain() -> None:
    task = asyncio.create_task(needs(60))
    await asyncio.sleep(0)
    caller = asyncio.create_task(cancel_and_wait(task, timeout=60))
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.wait({caller}, timeout=5)
    assert caller.cancelled()
    assert not task.done(), "it still cleans up, and the caller did not wait for that"
    task.cancel()
    await asyncio.wait({task}, timeout=5)


async def with_lastcall() -> None:
    plan = lastcall.ShutdownPlan(drain=0, cancel=0.2, close=1)
    async with lastcall.TaskManager(plan=plan, on_error=lambda info, error: None) as manager:
        quick = manager.create_task(needs(0), name="quick")
        slow = manager.create_task(needs(60), name="slow")
        failing = manager.create_task(fails(), name="failing")
        await asyncio.sleep(0)
        assert await manager.cancel_task(quick) == "ended"
        assert await manager.cancel_task(quick) == "already_ended"
        assert await manager.cancel_task(slow, timeout=0.05) == "refused"
        assert await manager.cancel_task(failing) == "ended"
        assert str(manager.info(failing).error) == "the clean-up failed"
        slow.cancel()


async def main() -> None:
    logging.getLogger("lastcall").disabled = True
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
