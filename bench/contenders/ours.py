"""lastcall, with its defaults: every task has an id, a name, a record, and is remembered when it has ended."""

from lastcall import ShutdownPlan, TaskGroup, TaskManager

from .base import Body, Contender

GROUP_LIMIT = 100


def new_manager() -> TaskManager:
    """A manager which cancels at once when stopped, and has time enough for a hundred thousand tasks to end."""
    return TaskManager(plan=ShutdownPlan(notice=0, drain=0, cancel=120, close=5))


class Manager(Contender):
    def __init__(self) -> None:
        self.manager = new_manager()

    async def open(self) -> None:
        await self.manager.__aenter__()

    async def batch(self, body: Body, size: int) -> None:
        create_task = self.manager.create_task
        tasks = [create_task(body()) for _ in range(size)]
        for task in tasks:
            await task

    async def hold(self, body: Body, count: int) -> None:
        for _ in range(count):
            self.manager.create_task(body())

    async def stop(self) -> None:
        await self.manager.shutdown()

    async def close(self) -> None:
        await self.manager.__aexit__(None, None, None)


class ManagerGroup(Manager):
    """`manager.group()`, one per batch; stopped with the manager."""

    limit: int | None = None

    async def batch(self, body: Body, size: int) -> None:
        async with self.manager.group(limit=self.limit) as group:
            for _ in range(size):
                group.create_task(body())

    async def hold(self, body: Body, count: int) -> None:
        group = self.manager.group("held", on_error="isolate")
        for _ in range(count):
            group.create_task(body())


class ManagerGroupLimited(ManagerGroup):
    limit = GROUP_LIMIT


class StandaloneGroup(Contender):
    """`lastcall.TaskGroup` in place of asyncio's, with no manager in sight."""

    def __init__(self) -> None:
        self._group: TaskGroup | None = None

    async def batch(self, body: Body, size: int) -> None:
        async with TaskGroup() as group:
            for _ in range(size):
                group.create_task(body())

    async def hold(self, body: Body, count: int) -> None:
        self._group = TaskGroup()
        await self._group.__aenter__()
        for _ in range(count):
            self._group.create_task(body())

    async def stop(self) -> None:
        assert self._group is not None
        await self._group.shutdown(timeout=0)
        await self._group.__aexit__(None, None, None)
