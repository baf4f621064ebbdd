"""A few connections of our own, opened when needed and kept.

Who calls it: the database. asyncpg's own pool resets a connection after every use, which is one more round trip for
every statement, and our statements leave nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ...exceptions import EngineUnavailable
from ._driver import Connection

_WAIT_SECONDS = 10.0
# How long a server that refused another connection is not asked for one.
_REFUSED_SECONDS = 1.0


class Pool:
    """At most `size` connections; `connect` opens one. Belongs to one loop."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening = 0
        self._refused_until = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> Connection:
        """A connection that is open as far as we know. Raises `EngineUnavailable`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _WAIT_SECONDS
        while True:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self.drop(connection)
            may_add = not self._open or loop.time() >= self._refused_until
            if may_add and len(self._open) + self._opening < self._size:
                try:
                    return await self._add()
                except EngineUnavailable:
                    # The server may have no connection left for us but those that we have.
                    if not self._open:
                        raise
                    self._refused_until = loop.time() + _REFUSED_SECONDS
                    continue  # one may have come free meanwhile, and have told nobody
            await self._wait(deadline)

    def give_back(self, connection: Connection) -> None:
        """After use. One that is in doubt is dropped instead."""
        if connection in self._open and not connection.is_closed():
            self._idle.append(connection)
            self._wake()
        else:
            self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Let go of it without a word."""
        self._open.discard(connection)
        terminate(connection)
        self._wake()

    def drop_idle(self) -> None:
        """After one was lost the others probably are, too, and say so only when used."""
        while self._idle:
            self.drop(self._idle.pop())

    async def close(self) -> None:
        """Close those that are not in use; the others are dropped."""
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

    async def _add(self) -> Connection:
        self._opening += 1
        try:
            connection = await self._connect()
        finally:
            self._opening -= 1
            self._wake()
        self._open.add(connection)
        return connection

    async def _wait(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        try:
            done, _ = await asyncio.wait({waiter}, timeout=max(0.0, deadline - loop.time()))
        except asyncio.CancelledError:
            if waiter.done():
                self._wake()  # it was told of a connection that now is the next one's
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if not done:
            raise EngineUnavailable(f"no connection to the database came free within {_WAIT_SECONDS:g} s")

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


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
