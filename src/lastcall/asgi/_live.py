"""The live feed: what a page that is left open shows, told to all who look, from one producer.

Who calls it: `_live_face`. What it owns: one task, there only while somebody reads, which looks at most once a second
(more often only at a shutdown, whose budget runs) and writes each event once for everybody. A reader has no queue: it
is given the newest of each kind, so a slow one misses what is old already, and costs nobody anything; one that takes
nothing for ten seconds is let go.

A reader is no held call, as one who follows a drain: it stays until the report is there. What can go wrong: a browser
that is stuck at the very end; it is waited for a second more.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from .._core._manager import TaskManager
from .._core._state import ManagerState
from ..exceptions import LastcallError
from ._answers import event
from ._drain_face import DrainFace
from ._history import History
from ._overview_face import OverviewFace
from ._tasks_face import TasksFace
from ._types import Send

logger = logging.getLogger("lastcall.asgi")

_LOOK_SECONDS = 1.0
_STORE_SECONDS = 2.0
# Jobs that are queued are counted one by one, a million in some 70 ms: such a store is looked at less often.
_STORE_PAUSE_FACTOR = 50.0
_STATE_SECONDS = 0.2
_KEEP_ALIVE_SECONDS = 10.0
STUCK_SECONDS = 10.0
LAST_SECONDS = 1.0
_LIVING, _ENDED = 50, 20
_LATEST_POINTS = 12

# What says no more than when it was said is no news.
_VOLATILE = ("now", "lease_left_seconds")


def pause_seconds(took_seconds: float) -> float:
    """From one look at the store to the next one, when the first took so long."""
    return max(_STORE_SECONDS, _STORE_PAUSE_FACTOR * took_seconds)


class Feed:
    """The producer and its readers."""

    def __init__(
        self,
        manager: TaskManager,
        tasks: TasksFace,
        drain: DrainFace,
        overview: OverviewFace | None,
        history: History,
        meta: Callable[[], dict[str, Any]],
    ) -> None:
        self._manager = manager
        self._tasks = tasks
        self._drain = drain
        self._overview = overview
        self._history = history
        self._meta = meta
        self._readers: set[Reader] = set()
        self._producer: asyncio.Task[None] | None = None
        self._frames: dict[str, tuple[int, bytes]] = {}
        self._told: dict[str, object] = {}
        self._version = 0
        self._store_due_at = 0.0
        self.is_over = False

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """One more reader, while the block lasts. The first one begins the producing, the last one ends it."""
        reader = Reader(self)
        self._readers.add(reader)
        if self._producer is None or self._producer.done():
            self._frames.clear()
            self._told.clear()
            self._store_due_at, self.is_over = 0.0, False
            # In an empty context: it belongs to none of its readers.
            self._producer = asyncio.get_running_loop().create_task(
                self._produce(), name="lastcall: the live feed", context=contextvars.Context()
            )
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            if not self._readers and self._producer is not None:
                self._producer.cancel()
                self._producer = None

    def newer_than(self, version: int) -> list[tuple[str, int, bytes]]:
        """The events that are newer, in the order in which they were written."""
        found = [(name, at, frame) for name, (at, frame) in self._frames.items() if at > version]
        return sorted(found, key=lambda one: one[1])

    def whole_history(self) -> bytes:
        """All points there are, for a reader that comes."""
        return event("history", {"points": self._history.points()})

    # --- producing --------------------------------------------------------------------------------------

    async def _produce(self) -> None:
        looked_at = float("-inf")
        loop = asyncio.get_running_loop()
        while not self.is_over:
            try:
                state = self._manager.state
                if state is ManagerState.CLOSED or loop.time() - looked_at >= _LOOK_SECONDS:
                    looked_at = loop.time()
                    await self._look()
                # After the look: it may have taken its time.
                self._tell_shutdown()
            except Exception:
                logger.exception("the live feed cannot look; it tries again")
            if not self.is_over:
                await asyncio.sleep(_STATE_SECONDS)

    async def _look(self) -> None:
        self._history.look()
        self._publish("meta", self._meta())
        self._publish("tasks", self._look_at_tasks())
        if self._overview is not None and self._manager.state is not ManagerState.CLOSED:
            await self._look_at_store(self._overview)
        self._publish("history", {"points": self._history.points(_LATEST_POINTS)})

    def _look_at_tasks(self) -> dict[str, Any]:
        # Not by `manager.tasks()`, which makes a list of ten thousand each second for the fifty that are shown.
        roster = self._manager._roster
        living = [roster.info(record) for record in islice(roster.live.values(), _LIVING)]
        ended = [roster.info(record) for record in islice(reversed(roster.memory.ended), _ENDED)]
        show = self._tasks.show
        return {
            "stats": self._tasks.stats(),
            "tasks": [show(info) for info in living],
            "ended": [show(info) for info in ended],
        }

    async def _look_at_store(self, overview: OverviewFace) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began < self._store_due_at:
            return
        try:
            shown = await overview.look()
        except LastcallError as error:
            self._publish("overview", {"available": False, "detail": str(error)})
            return
        finally:
            self._store_due_at = began + pause_seconds(loop.time() - began)
        self._history.note_store(shown["jobs"])
        self._publish("overview", {"available": True, **shown})

    def _tell_shutdown(self) -> None:
        state = self._manager.state
        if state is ManagerState.CLOSED:
            self._publish("report", self._drain.stand())
            self._finish()
        elif state is not ManagerState.OPEN or "shutdown" not in self._frames:
            self._publish("shutdown", self._drain.stand())

    def _publish(self, name: str, content: dict[str, Any]) -> None:
        lasting = _without(content, _VOLATILE)
        if self._told.get(name) == lasting:
            return
        self._told[name] = lasting
        self._version += 1
        self._frames[name] = self._version, event(name, content)
        for reader in self._readers:
            reader.wake()

    def _finish(self) -> None:
        self.is_over = True
        for reader in self._readers:
            reader.hurry()


class Reader:
    """One who reads the feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._news = asyncio.Event()
        self._version = 0
        self._sending: asyncio.Timeout | None = None

    def wake(self) -> None:
        self._news.set()

    def hurry(self) -> None:
        """It is over: what is on its way has a second more."""
        self._news.set()
        if self._sending is not None and not self._sending.expired():
            self._sending.reschedule(asyncio.get_running_loop().time() + LAST_SECONDS)

    async def run(self, send: Send, leaving: asyncio.Future[Any]) -> None:
        """Send what there is, and what comes, until it is over or the client has left. Raises TimeoutError for a client
        that does not read."""
        await self._send(send, b"retry: 2000\n\n", more=True)
        is_first = True
        while not leaving.done():
            self._news.clear()
            is_over = self._feed.is_over
            body = self._take(is_first)
            if body or is_over:
                is_first = is_first and not body
                await self._send(send, body, more=not is_over)
            if is_over:
                return
            if not await _first(leaving, self._news.wait, _KEEP_ALIVE_SECONDS):
                await self._send(send, b": the tap runs\n\n", more=True)

    def _take(self, is_first: bool) -> bytes:
        news = self._feed.newer_than(self._version)
        if not news:
            return b""
        self._version = news[-1][1]
        return b"".join(
            self._feed.whole_history() if is_first and name == "history" else frame for name, _, frame in news
        )

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        seconds = LAST_SECONDS if self._feed.is_over else STUCK_SECONDS
        async with asyncio.timeout(seconds) as self._sending:
            await send({"type": "http.response.body", "body": body, "more_body": more})
        self._sending = None


async def _first(leaving: asyncio.Future[Any], wait: Callable[[], Awaitable[Any]], seconds: float) -> bool:
    """Until there is news or the client has left; False if the time is over before."""
    news = asyncio.ensure_future(wait())
    try:
        done, _ = await asyncio.wait({leaving, news}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        news.cancel()


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _without(child, names) for name, child in value.items() if name not in names}
    return [_without(child, names) for child in value] if isinstance(value, list) else value
