"""Both of the tutorial's ways to keep tasks hide their errors: one until the garbage collector comes, one for ever."""

import asyncio
import gc
from typing import Any

import lastcall


async def fails() -> None:
    raise OSError("the disk is full")


async def proof() -> None:
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context["message"]))

    # A set, and discard when done.
    active: set[asyncio.Task[None]] = set()
    task = asyncio.create_task(fails())
    active.add(task)
    task.add_done_callback(active.discard)
    await asyncio.wait({task}, timeout=5)
    await asyncio.sleep(0)
    assert active == set() and said == [], "it has failed, and nobody is told"
    del task
    gc.collect()
    assert said == ["Task exception was never retrieved"], "until its memory is taken back, some time"

    # A dictionary of records, as in the TaskManager.
    said.clear()
    records: dict[str, asyncio.Task[None]] = {}
    for number in range(1000):
        records[f"task-{number}"] = asyncio.create_task(fails())
    await asyncio.wait(records.values(), timeout=5)
    gc.collect()
    assert said == [], "a thousand have failed, and nobody is told"
    assert len(records) == 1000, "and they stay in memory as long as the process does"
    for record in records.values():
        record.exception()
    asyncio.get_running_loop().set_exception_handler(None)


# What to write instead: the callback that forgets a task also looks at how it ended.
def forget(tasks: set[asyncio.Task[Any]], errors: list[str], task: asyncio.Task[Any]) -> None:
    tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        errors.append(f"{task.get_name()}: {error}")  # log.error(..., exc_info=error)


async def plain() -> None:
    tasks: set[asyncio.Task[Any]] = set()
    errors: list[str] = []
    task = asyncio.create_task(fails(), name="backup")
    tasks.add(task)
    task.add_done_callback(lambda task: forget(tasks, errors, task))
    await asyncio.wait({task}, timeout=5)
    await asyncio.sleep(0)
    assert errors == ["backup: the disk is full"] and not tasks


# With lastcall each error is reported once, at once, unless somebody awaits the task; what has ended is kept for an
# hour, a thousand at most.
async def with_lastcall() -> None:
    errors: list[str] = []
    async with lastcall.TaskManager(
        on_error=lambda info, error: errors.append(f"{info.name}: {error}")
    ) as manager:
        for number in range(2000):
            manager.create_task(fails(), name=f"backup {number}")
        async with asyncio.timeout(10):
            while len(errors) < 2000:
                await asyncio.sleep(0.01)
        assert errors[0] == "backup 0: the disk is full"
        assert len(manager.tasks()) <= 1000
        assert manager.stats().failed == 2000


async def main() -> None:
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
