"""A proxy before PostgreSQL that counts a client's messages, and does something at a chosen one of them.

It counts between two marks, statements of the client's with `/* begin */` and `/* end */` in them, over all its
connections. What it does at the chosen message, cut the connection or kill the client, happens before that message
arrives, or (`late`) when it has been carried out and its answer is lost.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from tests.support.pg_wire import Streams, _message, _place, _read_message, _serving, _through

BEGIN, END = "/* begin */", "/* end */"
_NAMES = {b"Q": "query", b"P": "parse", b"B": "bind", b"D": "describe", b"E": "execute", b"S": "sync", b"H": "flush",
          b"C": "close", b"X": "end", b"d": "rows", b"c": "end of rows"}  # fmt: skip
# What the server answers at once.
_ANSWERED = (b"Q", b"S", b"c")
# What it answers with when it is ready for more: for another statement, or for the rows of a COPY.
_READY = (b"Z", b"G")


class Message(NamedTuple):
    """One message of the client's, and the statement that it is about."""

    kind: str
    statement: str
    answered: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.statement}"


class Tripwire:
    """`act`: what is done at the chosen message; by default the connection is cut."""

    def __init__(self, url: str) -> None:
        self._place = _place(url)
        self._server_url = url
        self.url = ""
        self.passed: list[Message] = []
        self.tripped: Message | None = None
        self._counting = False
        self._at = 0
        self._late = False
        self._act: Callable[[], None] = lambda: None
        self._ports: set[int] = set()

    def arm(
        self, at: int, *, late: bool = False, at_once: bool = False, act: Callable[[], None] = lambda: None
    ) -> None:
        """At the message of this number, from 1 after the first mark, or from now on (`at_once`); 0: at none."""
        self._at, self._late, self._act = at, late, act
        self.passed, self.tripped, self._counting = [], None, at_once

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Tripwire]:
        async with _serving(self._handle) as port:
            self.url = _through(self._server_url, port)
            yield self

    @property
    def ports(self) -> list[int]:
        """By which the server knows the connections that there have been."""
        return sorted(self._ports)

    async def _handle(self, client: Streams) -> None:
        server = await asyncio.open_connection(*self._place)
        self._ports.add(server[1].get_extra_info("sockname")[1])
        connection = _Connection(client, server)
        answering = asyncio.create_task(connection.answer())
        try:
            await connection.begin()
            while True:
                kind, body = await _read_message(client[0])
                message = connection.read(kind, body)
                if self._counts(message):
                    await self._trip(connection, kind, body)
                    return
                server[1].write(_message(kind, body))
                await server[1].drain()
        finally:
            answering.cancel()
            await asyncio.wait([answering])
            server[1].close()

    def _counts(self, message: Message) -> bool:
        """Whether this is the one."""
        if BEGIN in message.statement or END in message.statement:
            if message.kind in ("query", "execute"):
                self._counting = BEGIN in message.statement and self.tripped is None
            return False
        if not self._counting:
            return False
        self.passed.append(message)
        if len(self.passed) != self._at:
            return False
        self.tripped, self._counting = message, False
        return True

    async def _trip(self, connection: _Connection, kind: bytes, body: bytes) -> None:
        # What is beside the chosen run may put another message in its place, to which the server answers nothing yet.
        if self._late and kind in _ANSWERED:
            await connection.carry_out(_message(kind, body))
        self._act()


class _Connection:
    def __init__(self, client: Streams, server: Streams) -> None:
        self._client, self._server = client, server
        self._statements: dict[bytes, str] = {}
        self._portal = ""
        self._held = False
        self._ready = asyncio.Event()

    async def begin(self) -> None:
        """The first message has no kind."""
        while True:
            head = await self._client[0].readexactly(8)
            length, code = struct.unpack("!ii", head)
            rest = await self._client[0].readexactly(length - 8)
            if code == 196608:
                self._server[1].write(head + rest)
                return
            self._client[1].write(b"N")  # neither TLS nor GSS here

    def read(self, kind: bytes, body: bytes) -> Message:
        statement = self._portal
        if kind == b"Q":
            statement = body[:-1].decode()
        elif kind == b"P":
            name, text = body.split(b"\0")[:2]
            statement = self._statements[name] = self._portal = text.decode()
        elif kind in (b"B", b"D"):
            name = body.split(b"\0")[1] if kind == b"B" else body[1:-1]
            statement = self._portal = self._statements.get(name, self._portal)
        return Message(_NAMES.get(kind, "other"), _shortened(statement), kind in _ANSWERED)

    async def answer(self) -> None:
        """The server's answers. While they are held, nobody hears of them but us."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, body = await _read_message(self._server[0])
                if not self._held:
                    self._client[1].write(_message(kind, body))
                    await self._client[1].drain()
                elif kind in _READY:
                    self._ready.set()
        self._ready.set()
        self._client[1].close()

    async def carry_out(self, message: bytes) -> None:
        self._held = True
        self._server[1].write(message)
        await self._ready.wait()


def _shortened(statement: str) -> str:
    """As much as tells it from others; what is different in every run is left out."""
    return re.sub(r"\s+", " ", re.sub(r"\b\w*\d\w*\b", "#", statement))[:70]
