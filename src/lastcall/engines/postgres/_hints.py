"""News of what other engines have written: told by NOTIFY, heard by LISTEN, and looked for now and then beneath.

Who calls it: the engine, on its loop. After commits it tells others, at most every few milliseconds: a NOTIFY holds a
lock over all commits of the database, so there is one for many commits, and never one for each token. The number of
changes is drawn from a sequence with it. None of that waits for the disk: the lock would be held as long, and a server
that crashes has lost all listeners anyway. Looking at the number is the truth beneath: a hint may be lost with its
connection, and behind a pooler nobody can listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

from ..._core._roster import logger
from ...exceptions import EngineUnavailable
from ._database import Database
from ._driver import Connection
from ._pool import terminate
from ._store import Store, Texts

POLL_SECONDS = 1.0
POLL_WITHOUT_LISTEN_SECONDS = 0.05
# How soon after one notification comes the next one.
_QUIET_SECONDS = 0.01
_AGAIN_SECONDS = (0.05, 2.0)
# How long those that listen and tell may take to end.
_PATIENCE_SECONDS = 2.0

_TELL = """SELECT nextval('lastcall.news')
    FROM (SELECT pg_notify($1, $2), set_config('synchronous_commit', 'off', true)) AS told"""
_LOOK = "SELECT last_value FROM lastcall.news"


class Hints:
    """The listeners of one engine. They may come before it is open, and stay when it is closed."""

    def __init__(self, texts: Texts) -> None:
        # PostgreSQL cuts names at 63 bytes, and so would a channel's.
        self.channel = f"lastcall {texts.schema}"[:60]
        self._me = f"{random.getrandbits(64):016x}"
        self._listeners: dict[object, Callable[[], None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._database: Database | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()
        self._telling: asyncio.Task[None] | None = None
        self._dirty = False
        self._seen: int | None = None
        self._own: set[int] = set()
        self._told_so = False

    def listen(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Returns what ends the listening."""
        token = object()
        self._listeners[token] = on_change
        self._watch()

        def end() -> None:
            if self._listeners.pop(token, None) is not None and not self._listeners:
                self._unwatch()

        return end

    def start(self, loop: asyncio.AbstractEventLoop, database: Database) -> None:
        self._loop, self._database = loop, database
        self._seen = None
        self._watch()

    async def stop(self) -> None:
        """Tell what is still to be told, and hear nothing more."""
        self._unwatch()
        tasks = self._leaving if self._telling is None else {*self._leaving, self._telling}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_PATIENCE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        self._loop = self._database = None

    def abandon(self) -> None:
        """The loop is gone."""
        self._tasks.clear()
        self._leaving.clear()
        self._telling = None
        self._loop = self._database = None

    # --- telling ---------------------------------------------------------------------------------------

    def written(self) -> None:
        """We have committed something that others may wait for."""
        self._dirty = True
        if self._telling is None and self._loop is not None:
            self._telling = asyncio.Task(self._tell(), loop=self._loop, name="lastcall-postgres-tell")

    async def _tell(self) -> None:
        try:
            while self._dirty and self._database is not None:
                self._dirty = False
                try:
                    number = await self._database.read(self._notify)
                except Exception:
                    return  # those who look by themselves find it
                self._own.add(number)
                await asyncio.sleep(_QUIET_SECONDS)
        finally:
            self._telling = None

    async def _notify(self, store: Store) -> int:
        return int(await store.value(_TELL, self.channel, self._me))

    # --- hearing ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._loop is None or self._database is None or self._tasks or not self._listeners:
            return
        loop = self._loop
        self._over = over = asyncio.Event()
        poll = self._poll(self._database, over)
        self._tasks = [asyncio.Task(poll, loop=loop, name="lastcall-postgres-poll")]
        if self._database.pooled:
            self._say_so(self._database)
        else:
            hear = self._hear(self._database)
            self._tasks.append(asyncio.Task(hear, loop=loop, name="lastcall-postgres-listen"))

    def _say_so(self, database: Database) -> None:
        if not self._told_so:
            self._told_so = True
            logger.warning(
                "the database %s is behind a pooler, where nobody can listen: what other processes write is noticed "
                "by looking every %g ms",
                database.address.shown,
                POLL_WITHOUT_LISTEN_SECONDS * 1000,
            )

    def _unwatch(self) -> None:
        """Hear nothing more. The tasks that did take a moment to end; `stop` waits for them.

        The one that polls ends by itself. To cancel a statement that is under way takes a connection more, and behind
        some poolers it takes as long as the statement may: a close took forty seconds now and then.
        """
        tasks, self._tasks = self._tasks, []
        if self._loop is not None and not self._loop.is_closed():
            self._over.set()
            for task in tasks:
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
            for task in tasks[1:]:  # the first one polls
                task.cancel()

    def _changed(self) -> None:
        """Each listener in a turn of its own: one that raises silences no other."""
        if self._loop is not None and not self._loop.is_closed():
            for token in list(self._listeners):
                self._loop.call_soon(self._call, token)

    def _call(self, token: object) -> None:
        on_change = self._listeners.get(token)
        if on_change is not None:
            on_change()

    async def _hear(self, database: Database) -> None:
        """A connection of its own that listens, for as long as it lives; then another one."""
        pause, longest = _AGAIN_SECONDS
        while not _is_cancelled():
            try:
                connection = await database.connect()
            except EngineUnavailable:
                if _is_cancelled():
                    return
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, longest)
                continue
            gone = asyncio.Event()
            try:
                connection.add_termination_listener(lambda _, gone=gone: gone.set())
                await connection.add_listener(self.channel, self._heard)
                pause = _AGAIN_SECONDS[0]
                self._changed()  # whatever came while nobody listened
                await gone.wait()
            except Exception as error:
                logger.debug("listening to the database failed, and is tried again: %s", error)
            finally:
                await _let_go(connection)

    def _heard(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        if payload != self._me:
            self._changed()

    async def _poll(self, database: Database, over: asyncio.Event) -> None:
        """Look at the number of changes; those that are not ours are news."""
        pause = POLL_WITHOUT_LISTEN_SECONDS if database.pooled else POLL_SECONDS
        while not over.is_set():
            try:
                number = await database.read(_look)
            except Exception:
                self._seen = None
            else:
                if not over.is_set() and self._is_news(number):
                    self._changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await over.wait()

    def _is_news(self, number: int) -> bool:
        seen, self._seen = self._seen, number
        if seen is None:
            self._own.clear()
            return True
        own = {one for one in self._own if seen < one <= number}
        self._own = {one for one in self._own if one > number}
        return number - seen != len(own)


def _is_cancelled() -> bool:
    """Whether this task was told to end. The driver may have met that with an error of its own in its place."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _look(store: Store) -> int:
    return int(await store.value(_LOOK))


async def _let_go(connection: Connection) -> None:
    if connection.is_closed():
        return
    try:
        await asyncio.wait_for(connection.close(), 1.0)
    except Exception:
        terminate(connection)
    finally:
        terminate(connection)
