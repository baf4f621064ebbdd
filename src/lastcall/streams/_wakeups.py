"""Who waits for news of which stream, in this process.

Who calls it: the stores. Not for threads: it belongs to the loop of its store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Wakeups:
    """Waiters by the name of what they wait for. `seconds`: how long one waits without news at most; news is a hint,
    and what ends by the clock (an expired stream) makes none."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def watch(self, name: str) -> Iterator[Callable[[], Awaitable[None]]]:
        """See `StreamStore.watch`."""
        event = asyncio.Event()
        self._waiting.setdefault(name, set()).add(event)

        async def changed() -> None:
            try:
                async with asyncio.timeout(self._seconds):
                    await event.wait()
            except TimeoutError:
                return
            event.clear()

        try:
            yield changed
        finally:
            waiting = self._waiting[name]
            waiting.discard(event)
            if not waiting:
                del self._waiting[name]

    def names(self) -> list[str]:
        """What is waited for."""
        return list(self._waiting)

    def is_last(self, name: str) -> bool:
        """Whether one alone waits for this one."""
        return len(self._waiting.get(name, ())) == 1

    def wake(self, name: str) -> None:
        """Something has happened to this one."""
        for event in self._waiting.get(name, ()):
            event.set()
