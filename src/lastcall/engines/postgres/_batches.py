"""What is called together is written together: the calls of a verb that come while others of it are on their way.

Who makes it: the engine, one for each verb of which many come at once. No timer: the first call goes at once, and what
arrives meanwhile is the next batch. If a batch fails for a call's own fault, each is made alone, so that only the
guilty one fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from ...exceptions import EngineUnavailable

Call = TypeVar("Call")
Answer = TypeVar("Answer")

# So many calls at most share a statement, so that none takes longer than a blink.
_MOST = 1000


class Batches(Generic[Call, Answer]):
    """`write` answers a list of calls, all of them or none. Belongs to one loop."""

    def __init__(self, name: str, write: Callable[[Sequence[Call]], Awaitable[Sequence[Answer]]]) -> None:
        self._name = name
        self._write = write
        self._waiting: list[tuple[Call, asyncio.Future[Answer]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, call: Call) -> Answer:
        """Take a call; its answer. A caller that is cancelled does not take it back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((call, future))
        if self._writing is None:
            self._writing = asyncio.Task(self._run(), loop=loop, name=f"lastcall-postgres-{self._name}")
        return await future

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        return [] if self._writing is None else [self._writing]

    def abandon(self) -> None:
        """The loop is gone, and whoever waited with it."""
        self._waiting = []
        self._writing = None

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._carry_out(batch)
        finally:
            self._writing = None

    async def _carry_out(self, batch: list[tuple[Call, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._write([call for call, _ in batch])
        except EngineUnavailable as error:
            for _, future in batch:
                _fail(future, error)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            for one in batch:
                await self._carry_out([one])
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if future.done():
        return
    try:
        # An error of its own for each caller: raised in many tasks, one would gather all their tracebacks.
        own = type(error)(*error.args)
        own.__cause__ = error.__cause__
    except TypeError:
        own = error
    future.set_exception(own)
