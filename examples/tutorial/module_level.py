"""The tutorial starts tasks and awaits shutdowns at the top of a module, where there is no event loop."""

import asyncio

import lastcall


async def background_worker() -> None:
    await asyncio.sleep(60)


def proof() -> None:
    coro = background_worker()
    try:
        asyncio.create_task(coro)
        raise AssertionError("unreachable")
    except RuntimeError as error:
        assert "no running event loop" in str(error)
    coro.close()
    try:
        compile("await worker_group.shutdown()", "a module", "exec")
        raise AssertionError("unreachable")
    except SyntaxError:
        pass


# What to write instead: one coroutine, in which everything begins and ends.
async def plain() -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(background_worker())
        await asyncio.sleep(0)
        task.cancel()


async def with_lastcall() -> None:
    async with lastcall.TaskManager() as manager:
        manager.create_task(background_worker(), name="worker", daemon=True)
    assert manager.report is not None and manager.report.clean


if __name__ == "__main__":
    proof()
    asyncio.run(plain())
    asyncio.run(with_lastcall())
