"""A shutdown that waits for a snapshot of its tasks does not wait for those that are born meanwhile."""

import asyncio
import logging

import lastcall

told: list[str] = []


class TaskGroup:
    """The tutorial's, shortened."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def create_task(self, coro: "asyncio._CoroutineLike[None]") -> asyncio.Task[None]:
        task = asyncio.create_task(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def shutdown(self, timeout: float) -> None:
        if self.tasks:
            _, pending = await asyncio.wait(self.tasks, timeout=timeout)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)


async def mail(connected: asyncio.Event) -> None:
    await connected.wait()
    told.append("mail sent")


async def proof() -> None:
    told.clear()
    group, connected = TaskGroup(), asyncio.Event()

    async def order() -> None:
        await asyncio.sleep(0.05)
        group.create_task(mail(connected))  # the last thing an order does

    group.create_task(order())
    await asyncio.sleep(0)
    await group.shutdown(timeout=5)
    assert told == [] and len(group.tasks) == 1, "`closed`, and the mail is still on its way"
    group.create_task(mail(connected))
    assert len(group.tasks) == 2, "and a group that is closed takes new work"
    connected.set()
    await asyncio.wait(group.tasks, timeout=5)


# What to write instead: look again until there is nothing left.
async def drain(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
        await asyncio.wait(tasks, timeout=left)


async def plain() -> None:
    told.clear()
    group, connected = TaskGroup(), asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, connected.set)

    async def order() -> None:
        group.create_task(mail(connected))

    group.create_task(order())
    await drain(group.tasks, seconds=5)
    assert told == ["mail sent"]


# With lastcall: children of what still drains are taken and waited for, everybody else is refused.
async def with_lastcall() -> None:
    told.clear()
    connected = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, connected.set)
    async with lastcall.TaskManager() as manager:

        async def order() -> None:
            await asyncio.sleep(0.05)
            manager.create_task(mail(connected), name="mail")

        manager.create_task(order(), name="order")
        await asyncio.sleep(0)
        manager.begin_shutdown()
        try:
            manager.create_task(mail(connected), name="too late")
            raise AssertionError("unreachable")
        except lastcall.ShuttingDown:
            pass
    assert told == ["mail sent"]


async def main() -> None:
    logging.getLogger("lastcall").disabled = True
    await proof()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
