"""Readers: what the readers of logs in one app share, so that an idle one costs next to nothing.

Who calls it: `_log_reader` and `_log_page` join and leave; `_middleware` makes one per opened manager and hands it to
each call. What it owns: a task per log that is read (`Tail`), one that waits for the shutdown, one timer for all
keep-alives, and the audience. All of it is there only while somebody reads.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Hashable
from typing import Any, Protocol, cast

from .._core._scope import Shutdown
from ..streams import Log, Stream
from ._log_audience import Audience
from ._log_keep_alive import KeepAlive, Quiet
from ._log_tail import Tail


class Reading(Quiet, Protocol):
    """One reader, as it is seen from here."""

    def wake(self) -> None: ...


class Readers:
    """Joins readers with the tails of their logs. `shutdown`: the stop that all of them hear of."""

    def __init__(self, shutdown: Shutdown) -> None:
        self.audience = Audience(lambda: shutdown.requested)
        self._shutdown = shutdown
        self._keep_alive = KeepAlive()
        self._tails: dict[Hashable, tuple[Tail, asyncio.Task[None]]] = {}
        self._readers: set[Reading] = set()
        self._watch: asyncio.Task[None] | None = None

    def join(self, reader: Reading, log: Log, last: int, *, keep_alive: bool) -> Tail:
        """From now on the reader is woken: by news of the log, by the shutdown, and told when to keep alive.

        `log`: this reader's own, or one that all of its readers have. The first one's is followed for everybody, from
        `last` on, the newest entry that this reader knows of.
        """
        key = log_key(log)
        if self._watch is None or self._watch.done():
            self._watch = _start(self._watch_shutdown(), "wait for the stop of all readers")
        if key not in self._tails:
            tail = Tail(log, last)
            self._tails[key] = tail, _start(tail.follow(), f"follow {log!r}"[:200])
        tail, _ = self._tails[key]
        tail.join(reader.wake)
        self._readers.add(reader)
        if keep_alive:
            self._keep_alive.join(reader)
        return tail

    def leave(self, reader: Reading, log: Log) -> None:
        """The reader wants to hear no more. The last one of a log ends its tail."""
        self._readers.discard(reader)
        self._keep_alive.leave(reader)
        key = log_key(log)
        if key in self._tails:
            tail, task = self._tails[key]
            if not tail.leave(reader.wake):
                task.cancel()
                del self._tails[key]
        if not self._readers and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _watch_shutdown(self) -> None:
        await self._shutdown.wait()
        for reader in tuple(self._readers):
            reader.wake()
        # It stays, so that no later reader starts another one that would find the same.
        await asyncio.get_running_loop().create_future()


def log_key(log: Log) -> Hashable:
    """Which log it is: handles are made for each request, and their readers still share one tail."""
    if isinstance(log, Stream):
        return id(log._store), log.name
    name = getattr(log, "id", None)
    return cast(Hashable, log) if name is None else (type(log), name)


def _start(coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    # In an empty context: it belongs to none of its readers, and outlives the one that came first.
    return asyncio.get_running_loop().create_task(coro, name=name, context=contextvars.Context())
