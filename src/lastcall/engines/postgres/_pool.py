"""A few connections of our own, opened when needed and kept.

Who calls it: the database. asyncpg's own pool resets a connection after every use, which is one more round trip for
every statement, and our statements leave nothing behind.

Nobody waits for a new connection while another one comes free: to open one, with the first statements on it, takes as
long as ten on one that is warm. A new one is opened beside, and whoever is first in line gets what is there first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ...exceptions import EngineUnavailable
from ._driver import Connection

_WAIT_SECONDS = 10.0
# How long a server that refused another connection is not asked for one.
_REFUSED_SECONDS = 1.0


class Pool:
    """At most `size` connections; `connect` opens one. Belongs to one loop."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, Connection]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening: asyncio.Task[Connection] | None = None
        self._closed = False
        self._refused_until = 0.0
        self._waiting: deque[asyncio.Future[Connection]] = deque()

    async def take(self) -> Connection:
        """A connection that is open as far as we know. Raises `EngineUnavailable`."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self.drop(connection)
        if self._closed:
            raise EngineUnavailable("the connections to the database were closed")
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._grow()
        try:
            await asyncio.wait({waiter}, timeout=_WAIT_SECONDS)
        except BaseException:
            # It may have been given one in the same moment, which is nobody's then.
            if not waiter.cancel() and waiter.exception() is None:
                self.give_back(waiter.result())
            raise
        if waiter.cancel():
            raise EngineUnavailable(f"no connection to the database came free within {_WAIT_SECONDS:g} s")
        return waiter.result()

    def give_back(self, connection: Connection) -> None:
        """After use. One that is in doubt is dropped instead."""
        if connection not in self._open or connection.is_closed():
            self.drop(connection)
        elif self._somebody_waits():
            self._waiting.popleft().set_result(connection)
        else:
            self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """Let go of it without a word."""
        self._open.discard(connection)
        terminate(connection)
        self._grow()

    def drop_idle(self) -> None:
        """After one was lost the others probably are, too, and say so only when used."""
        while self._idle:
            self.drop(self._idle.pop())

    async def close(self) -> None:
        """Close those that are not in use; the others are dropped. Nobody gets one any more."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        self._refuse(EngineUnavailable("the connections to the database were closed"))
        idle, self._idle = self._idle, []
        for connection in idle:
            self._open.discard(connection)
            try:
                await connection.close(timeout=2.0)
            except Exception:
                terminate(connection)
        for connection in list(self._open):
            self.drop(connection)

    def abandon(self) -> None:
        """The loop is gone, and the connections with it."""
        for connection in self._open:
            terminate(connection)
        self._open.clear()
        self._idle.clear()
        self._opening = None

    # --- those who wait --------------------------------------------------------------------------------

    def _somebody_waits(self) -> bool:
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    def _grow(self) -> None:
        """Open one more if somebody waits; one after the other, for one may be enough for all."""
        if self._opening is not None or self._closed or len(self._open) >= self._size:
            return
        loop = asyncio.get_running_loop()
        # The server may have no connection left for us but those that we have.
        may_ask = not self._open or loop.time() >= self._refused_until
        if may_ask and self._somebody_waits():
            self._opening = asyncio.Task(self._connect(), loop=loop, name="lastcall-postgres-connect")
            self._opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening = None
        error = EngineUnavailable("connecting was cancelled") if opening.cancelled() else opening.exception()
        if error is None:
            self._open.add(opening.result())
            self.give_back(opening.result())
        elif self._open:
            self._refused_until = opening.get_loop().time() + _REFUSED_SECONDS
        else:
            self._refuse(error)
        self._grow()

    def _refuse(self, error: BaseException) -> None:
        """All who wait hear of it, each by an error of its own: raised in many tasks, one would gather all
        tracebacks."""
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                own = EngineUnavailable(*error.args) if isinstance(error, EngineUnavailable) else error
                own.__cause__ = error.__cause__
                waiter.set_exception(own)


def terminate(connection: Connection) -> None:
    """Let go of a connection at once, whatever state it is in."""
    transport: Any = getattr(connection, "_transport", None)
    try:
        connection.terminate()
    except RuntimeError:
        # Its loop is closed, and its socket is closed by nobody until it is collected. The server at least hears of it.
        # uvloop, which cannot do this, closes its sockets with the loop.
        with contextlib.suppress(OSError, AttributeError, TypeError):
            transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
