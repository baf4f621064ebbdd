"""anyio's task group, one per batch. `start_soon` gives no result back, so none is taken."""

import anyio
from anyio.abc import TaskGroup

from .base import Body, Contender


class AnyioTaskGroup(Contender):
    def __init__(self) -> None:
        self._group: TaskGroup | None = None

    async def batch(self, body: Body, size: int) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(size):
                group.start_soon(body)

    async def hold(self, body: Body, count: int) -> None:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        for _ in range(count):
            self._group.start_soon(body)

    async def stop(self) -> None:
        assert self._group is not None
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
