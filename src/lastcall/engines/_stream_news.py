"""News of free-standing streams: who waits in this process, and which streams other processes have changed.

Who calls it: an engine's store of streams, on the loop. A hint says only that somebody has committed something; so the
streams that are waited for are looked at, all in one reading, and only who waits for a changed one wakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from ..exceptions import EngineUnavailable, NotOpen
from ..streams._wakeups import Wakeups

# Hints are lossy, and a stream that expires makes none.
_WATCH_SECONDS = 5.0

# Where streams stand, by name: id, last, closed, gone.
Heads = dict[str, tuple[int, int, int, int]]


class StreamNews:
    """`listen`: the engine's hint. `look`: reads the heads of streams."""

    def __init__(
        self,
        listen: Callable[[Callable[[], None]], Callable[[], None]],
        look: Callable[[Sequence[str]], Awaitable[Heads]],
    ) -> None:
        self._listen = listen
        self._look = look
        self._wakeups = Wakeups(_WATCH_SECONDS)
        self._unlisten: Callable[[], None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._again = False
        self._heads: Heads = {}

    @contextmanager
    def watch(self, name: str) -> Iterator[Callable[[], Awaitable[None]]]:
        """See `StreamStore.watch`."""
        with self._wakeups.watch(name) as changed:
            if self._unlisten is None:
                self._unlisten = self._listen(self._on_hint)
            try:
                yield changed
            finally:
                if self._unlisten is not None and len(self._wakeups) <= 1 and self._wakeups.is_last(name):
                    self._unlisten()
                    self._unlisten = None
                    self._heads.clear()

    def changed(self, name: str) -> None:
        """Wake who waits for it."""
        self._wakeups.wake(name)

    # --- other processes -------------------------------------------------------------------------------

    def _on_hint(self) -> None:
        if self._looking is not None:
            self._again = True
            return
        self._looking = asyncio.get_running_loop().create_task(self._ask(), name="lastcall-stream-news")

    async def _ask(self) -> None:
        try:
            while True:
                self._again = False
                names = self._wakeups.names()
                heads = await self._look(names)
                for name in names:
                    if heads.get(name) != self._heads.get(name):
                        self.changed(name)
                self._heads = heads
                if not self._again:
                    return
        except (EngineUnavailable, NotOpen):
            # Whoever waits asks by itself before long, and is told.
            return
        finally:
            self._looking = None
