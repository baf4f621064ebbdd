"""The logs that are followed in this process, and what is new in them: asked for once, whoever many follow.

Who calls it: `_log`, for each reader; the client, with the news. What it owns: for each followed job a *tail*, its
newest entries in memory, and one task that asks the engine about all tails of which there is news, in one call. So a
thousand readers of one log cost one read, and ten thousand idle ones cost nothing but their place in a list.

What can go wrong: a reader that looks between a change and the news of it. It may be served from memory only if memory
was read after everything this process knows of; so news marks a tail *stale* at once, and whoever comes to a stale tail
waits for a round of asking that began later. A hint that is lost costs `_ASK_SECONDS`: then all tails are asked about.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Iterable, Iterator
from weakref import WeakValueDictionary

from .._core._roster import logger
from ..exceptions import EngineUnavailable, LastcallError, UnknownJob
from ..streams import Entry, LogPage
from ._engine import Engine
from ._rows import EventPage, EventRow, ReadFrom

_ASK_SECONDS = 2.0
# Ten thousand tails are asked about every ten seconds, which keeps the reading below some per cent of a core.
_ASK_SECONDS_PER_TAIL = 0.001

# How soon it is asked again while the store is away.
_AWAY_SECONDS = 0.5

_AT_ONCE = 500
_KEPT_ENTRIES = 1000
_KEPT_CHARACTERS = 1 << 20

# Where nothing can be found: only where the log stands is asked for.
_NOWHERE = 2**62


class Tail:
    """The end of one log. It is kept up to date while somebody follows it."""

    __slots__ = ("__weakref__", "_entries", "_size", "_waiting", "closed", "error", "first", "followers", "id",
                 "is_asked", "is_stale", "last", "round")  # fmt: skip

    def __init__(self, job_id: str) -> None:
        self.id = job_id
        self.followers = 0
        self.is_asked = False
        self.round: asyncio.Future[bool] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self.forget()

    def forget(self) -> None:
        """Nobody has followed: what is in memory is old."""
        self.first, self.closed = 0, False
        self.last: int | None = None
        self.error: LastcallError | None = None
        self.is_stale = True
        self._entries: list[Entry] = []
        self._size = 0

    def page(self, after: int, limit: int) -> LogPage | None:
        """From memory, if everything behind `after` is there."""
        if self.is_stale or self.is_asked or self.last is None or limit <= 0:
            return None
        entries = self._entries
        oldest = entries[0].seq if entries else self.last + 1
        if not oldest - 1 <= after <= self.last:
            return None
        begin = after + 1 - oldest
        return LogPage(entries[begin : begin + limit], self.first, self.last, self.closed)

    def take(self, page: EventPage) -> None:
        """What a round has found behind `last`."""
        entries = [entry_of(event) for event in page.events]
        news = self.last is None or page.last > self.last or page.status.final != self.closed
        contiguous = bool(entries) and self.last is not None and entries[0].seq == self.last + 1
        if self.last is not None and (page.last < self.last or (entries and not contiguous)):
            self._entries, self._size = [], 0  # written anew, or trimmed faster than it was read
        self._entries += entries
        self._size += sum(len(entry.data) for entry in entries)
        self.first, self.closed = page.first, page.status.final
        self.last = entries[-1].seq if entries else page.last
        if self.last < page.last:
            self.is_stale = True
        self._shrink()
        if news:
            self.tell()

    def _shrink(self) -> None:
        if len(self._entries) <= _KEPT_ENTRIES and self._size <= _KEPT_CHARACTERS:
            return
        # Down to the half, so that this is not done at every entry.
        keep = min(len(self._entries), _KEPT_ENTRIES // 2)
        size = sum(len(entry.data) for entry in self._entries[-keep:])
        while keep > 1 and size > _KEPT_CHARACTERS // 2:
            size -= len(self._entries[-keep].data)
            keep -= 1
        self._entries = self._entries[-keep:]
        self._size = size

    def end_round(self, is_read: bool) -> None:
        """Those who wait for a round of asking go on; False: they ask the engine themselves."""
        round, self.round = self.round, None
        if round is not None and not round.done():
            round.set_result(is_read)

    def tell(self) -> None:
        """Wake everybody who follows."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self) -> None:
        """Wait until `tell`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        finally:
            if waiter.cancelled() and waiter in self._waiting:
                self._waiting.remove(waiter)


class Tails:
    def __init__(self) -> None:
        self._tails: WeakValueDictionary[str, Tail] = WeakValueDictionary()
        self._followed: dict[str, Tail] = {}
        self._stale: dict[str, Tail] = {}
        self._asking: asyncio.Task[None] | None = None
        self._news: asyncio.Event | None = None

    def of(self, job_id: str) -> Tail:
        """The tail of this job, the same for everybody who has it."""
        tail = self._tails.get(job_id)
        if tail is None:
            tail = self._tails[job_id] = Tail(job_id)
        return tail

    @property
    def is_idle(self) -> bool:
        """Whether nobody follows anything."""
        return not self._followed

    # --- news ------------------------------------------------------------------------------------------

    def changed(self, job_ids: Iterable[str]) -> None:
        """This process has changed these jobs."""
        if self._followed:
            for job_id in job_ids:
                if (tail := self._followed.get(job_id)) is not None:
                    self._mark(tail)

    def all_changed(self) -> None:
        """Somebody else has changed something."""
        for tail in self._followed.values():
            self._mark(tail)

    def _mark(self, tail: Tail) -> None:
        tail.is_stale = True
        self._stale[tail.id] = tail
        if self._news is not None:
            self._news.set()

    # --- following -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def follow(
        self, tail: Tail, ready: Callable[[], Awaitable[Engine]]
    ) -> Iterator[Callable[[], Awaitable[None]]]:
        """Keep the tail up to date. Gives what waits for a change since the block began, and raises what ended it."""
        tail.followers += 1  # before anything is asked: an eager task asks at once
        if tail.followers == 1:
            tail.forget()
            self._followed[tail.id] = tail
            self._mark(tail)
            if self._asking is None or self._asking.done():
                self._news = asyncio.Event()
                self._news.set()
                # In an empty context: it outlives the follower that came first, and must not keep what is in its.
                self._asking = asyncio.get_running_loop().create_task(
                    self._ask(ready, self._news),
                    name="read the logs that are followed",
                    context=contextvars.Context(),
                )
        seen = (tail.last, tail.closed)

        async def changed() -> None:
            if tail.error is None and (tail.last, tail.closed) == seen:
                await tail.changed()
            if tail.error is not None:
                raise tail.error

        try:
            yield changed
        finally:
            tail.followers -= 1
            if not tail.followers and self._followed.get(tail.id) is tail:
                del self._followed[tail.id]
                self._stale.pop(tail.id, None)
                # Nobody asks about it any more, and somebody who only looks may wait for just that.
                tail.end_round(False)
                if not self._followed and self._news is not None:
                    self._news.set()

    async def page(self, tail: Tail, after: int, limit: int) -> LogPage | None:
        """From memory, when it holds everything this process has been told of. None: the engine must be asked.

        Raises what ended the tail.
        """
        while tail.followers and (tail.is_stale or tail.is_asked) and tail.error is None:
            if tail.round is None:
                tail.round = asyncio.get_running_loop().create_future()
            round = tail.round
            await asyncio.wait((round,))
            if not round.result():
                return None
        if tail.error is not None and tail.followers:
            raise tail.error
        return tail.page(after, limit) if tail.followers else None

    # --- asking ----------------------------------------------------------------------------------------

    async def _ask(self, ready: Callable[[], Awaitable[Engine]], news: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while self._followed:
            news.clear()
            began = loop.time()
            is_back = await self._round(ready) if self._stale else True
            if self._stale:
                news.set()
            # Whatever a round costs, at least half of the time is left for others.
            await asyncio.sleep(min(1.0, loop.time() - began) if is_back else _AWAY_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(_ASK_SECONDS, len(self._followed) * _ASK_SECONDS_PER_TAIL)):
                    await news.wait()
            if not news.is_set():
                self.all_changed()

    async def _round(self, ready: Callable[[], Awaitable[Engine]]) -> bool:
        """Whether the store could be read."""
        tails, self._stale = list(self._stale.values()), {}
        is_read = False
        for tail in tails:
            tail.is_stale, tail.is_asked = False, True
        try:
            engine = await ready()
            pages = await engine.read_events(
                [ReadFrom(tail.id, _NOWHERE if tail.last is None else tail.last) for tail in tails], _AT_ONCE
            )
            for tail, page in zip(tails, pages, strict=True):
                self._apply(tail, page)
            is_read = True
        except EngineUnavailable:
            for tail in tails:  # it may come back: asked again in the next round
                tail.is_stale = True
        except Exception as error:
            logger.exception(
                "the logs of %d jobs could not be read", len(tails), extra={"event": "store.failed"}
            )
            for tail in tails:
                self._end(tail, EngineUnavailable(f"the log of job {tail.id} could not be read: {error}"))
        finally:
            for tail in tails:
                tail.is_asked = False
                if tail.is_stale and tail.followers:
                    self._stale[tail.id] = tail
                tail.end_round(is_read)
        return is_read

    def _apply(self, tail: Tail, page: EventPage | None) -> None:
        if page is None:
            self._end(tail, UnknownJob(f"there is no job {tail.id} (any more)"))
        elif tail.followers:
            tail.take(page)

    def _end(self, tail: Tail, error: LastcallError) -> None:
        tail.error = error
        tail.tell()

    # --- closing ---------------------------------------------------------------------------------------

    async def close(self, why: LastcallError) -> None:
        """Nobody will tell those who follow anything any more: they are told so."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait({asking})
        for tail in list(self._followed.values()):
            tail.end_round(False)
            self._end(tail, why)
        self.abandon()

    def abandon(self) -> None:
        """Forget them all: the loop they belonged to is gone, or the engine is closed."""
        self._asking = self._news = None
        self._tails.clear()
        self._followed.clear()
        self._stale.clear()


def entry_of(event: EventRow) -> Entry:
    """An event of a job as an entry of a log."""
    seq, attempt, step, type, data, at = event
    return Entry(seq, type, data, attempt, step, at)
