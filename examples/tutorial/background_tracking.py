"""A wrapper around BackgroundTasks tracks the request's task, and nothing of those that wait in line."""

import asyncio

from starlette.background import BackgroundTasks

tracked: set[asyncio.Task[None]] = set()
seen: list[str] = []


async def wrapped(name: str, seconds: float) -> None:
    """The tutorial's way: the wrapper puts the current task into a set."""
    task = asyncio.current_task()
    assert task is not None
    tracked.add(task)
    try:
        seen.append(f"{name} in {task.get_name()}")
        await asyncio.sleep(seconds)
    finally:
        tracked.discard(task)


async def request(client_has_read: asyncio.Event) -> None:
    """What a server runs in one task: the response, and then its background tasks, one after the other."""
    tasks = BackgroundTasks()
    tasks.add_task(wrapped, "first", 60)
    tasks.add_task(wrapped, "second", 60)
    await client_has_read.wait()  # a client that reads slowly
    await tasks()


async def proof() -> None:
    client_has_read = asyncio.Event()
    call = asyncio.create_task(request(client_has_read), name="the request")
    await asyncio.sleep(0.01)
    assert not tracked, "two tasks were added, and a shutdown that looks now finds nothing to wait for"
    client_has_read.set()
    async with asyncio.timeout(5):
        while not tracked:
            await asyncio.sleep(0.01)
    assert tracked == {call}, "what is tracked is the request itself"
    assert seen == ["first in the request"], "the second is not known to anybody"
    for task in list(tracked):
        task.cancel()
    await asyncio.wait({call}, timeout=5)
    assert call.cancelled(), "to cancel the first was to cancel the request"
    assert seen == ["first in the request"], "and the second has never run"


async def main() -> None:
    await proof()


if __name__ == "__main__":
    asyncio.run(main())
