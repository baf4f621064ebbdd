"""asyncio alone: the floor, the idiom of its documentation, and its TaskGroup."""

import asyncio
from typing import Any

from .base import Body, Contender


class Floor(Contender):
    """`create_task`, awaited; cancelled and gathered. Nothing is remembered but a list the caller has anyway."""

    def __init__(self) -> None:
        self._held: list[asyncio.Task[Any]] = []

    async def batch(self, body: Body, size: int) -> None:
        tasks = [asyncio.create_task(body()) for _ in range(size)]
        for task in tasks:
            await task

    async def hold(self, body: Body, count: int) -> None:
        self._held = [asyncio.create_task(body()) for _ in range(count)]

    async def stop(self) -> None:
        for task in self._held:
            task.cancel()
        await asyncio.gather(*self._held, return_exceptions=True)


class Idiom(Contender):
    """A set for the strong reference, and a done-callback that discards: no names, no status, no errors."""

    def __init__(self) -> None:
        self._live: set[asyncio.Task[Any]] = set()

    def _create_task(self, body: Body) -> asyncio.Task[Any]:
        task = asyncio.create_task(body())
        self._live.add(task)
        task.add_done_callback(self._live.discard)
        return task

    async def batch(self, body: Body, size: int) -> None:
        tasks = [self._create_task(body) for _ in range(size)]
        for task in tasks:
            await task

    async def hold(self, body: Body, count: int) -> None:
        for _ in range(count):
            self._create_task(body)

    async def stop(self) -> None:
        tasks = list(self._live)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class AsyncioTaskGroup(Contender):
    """`asyncio.TaskGroup`, one per batch. It is stopped the one way it knows: its owner is cancelled."""

    def __init__(self) -> None:
        self._owner: asyncio.Task[None] | None = None

    async def batch(self, body: Body, size: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(size):
                group.create_task(body())

    async def hold(self, body: Body, count: int) -> None:
        filled = asyncio.Event()

        async def own() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(body())
                filled.set()

        self._owner = asyncio.create_task(own())
        await filled.wait()

    async def stop(self) -> None:
        assert self._owner is not None
        self._owner.cancel()
        await asyncio.wait([self._owner])
