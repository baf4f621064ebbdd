"""What every contender can do."""

from collections.abc import Callable, Coroutine
from typing import Any

Body = Callable[[], Coroutine[Any, Any, Any]]


class Contender:
    """One way of starting tasks.

    `open` and `close` are never timed: a service opens its manager once and keeps it.
    `batch` starts `size` coroutines and returns when all have ended and, where the library
    can, their results were taken. `hold` starts `count` coroutines that wait for long;
    `stop` cancels all of them and returns when the last one has ended.
    """

    async def open(self) -> None:
        return

    async def batch(self, body: Body, size: int) -> None:
        raise NotImplementedError

    async def hold(self, body: Body, count: int) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        return
