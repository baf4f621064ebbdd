"""Between a client and PostgreSQL: a proxy that cuts connections, and a pooler in transaction mode."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _through(url: str, port: int) -> str:
    """The same database behind another port of this machine."""
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    return parts._replace(netloc=f"{user}127.0.0.1:{port}").geturl()


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 5432


@asynccontextmanager
async def _serving(handle: Callable[[Streams], Awaitable[None]]) -> AsyncIterator[int]:
    """A server on a free port; what it still does at the end of the block is broken off."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle((reader, writer))
        except (asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Cutter:
    """A proxy that is told after how many requests, of all that come from now on, to cut the connection.

    `late`: the request reaches the server and is carried out, and its answer is lost; otherwise it never arrives.
    """

    def __init__(self, url: str) -> None:
        self._place = _place(url)
        self._server_url = url
        self.url = ""
        self._left: int | None = None
        self._late = False
        self._holding = b""
        self.cuts = 0
        self.requests = 0

    def arm(self, requests: int, *, late: bool, holding: bytes = b"") -> None:
        """Cut at that one of the requests that follow, counted from 1; of those that hold these bytes, if they are
        given, because an engine has connections of its own that speak whenever they like."""
        self._left, self._late, self._holding = requests, late, holding

    def disarm(self) -> None:
        self._left = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Cutter]:
        async with _serving(self._handle) as port:
            self.url = _through(self._server_url, port)
            yield self

    async def _handle(self, client: Streams) -> None:
        server = await asyncio.open_connection(*self._place)
        answering = asyncio.create_task(_pump(server[0], client[1]))
        try:
            while data := await client[0].read(1 << 20):
                self.requests += 1
                if self._left is not None and self._holding in data:
                    self._left -= 1
                if self._left == 0:
                    await self._cut(server, data, answering)
                    return
                server[1].write(data)
                await server[1].drain()
        finally:
            answering.cancel()
            await asyncio.wait([answering])
            server[1].close()

    async def _cut(self, server: Streams, data: bytes, answering: asyncio.Task[None]) -> None:
        self._left = None
        self.cuts += 1
        if self._late:
            answering.cancel()
            await asyncio.wait([answering])
            server[1].write(data)
            await server[0].read(1)  # it has been carried out


class Silencer:
    """A proxy whose connections can go silent, as behind a firewall that has forgotten them: nothing arrives any more,
    in either direction, and nobody is told. Those that are made later work."""

    def __init__(self, url: str) -> None:
        self._server_url = url
        self.url = ""
        self._open: dict[asyncio.Event, list[asyncio.Task[None]]] = {}

    def silence(self) -> int:
        """All that are open now, for good; how many those are."""
        silenced = [connection for connection in self._open if not connection.is_set()]
        for connection in silenced:
            connection.set()
        return len(silenced)

    def hang_up(self) -> None:
        """Whoever still waits on a silent connection hears that it is gone; at the end of a test."""
        for connection, pumps in self._open.items():
            if connection.is_set():
                for pump in pumps:
                    pump.cancel()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Silencer]:
        async with _serving(self._handle) as port:
            self.url = _through(self._server_url, port)
            yield self

    async def _handle(self, client: Streams) -> None:
        server = await asyncio.open_connection(*_place(self._server_url))
        silent = asyncio.Event()
        pumps = self._open[silent] = [
            asyncio.create_task(_pump_until(silent, *ends))
            for ends in ((client[0], server[1]), (server[0], client[1]))
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._open[silent]
            server[1].close()  # before any wait, which may be broken off
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)


async def _pump_until(
    silent: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 20):
            if not silent.is_set():
                writer.write(data)
                await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(1 << 20):
                writer.write(data)
                await writer.drain()
    except asyncio.CancelledError:
        raise  # whoever cuts a connection decides when its client hears of it
    else:
        writer.close()  # also after a reset, as by a server that was killed: its client would wait for ever


@asynccontextmanager
async def of_version(url: str, version: str) -> AsyncIterator[str]:
    """The same server, which says that it is of another version."""

    async def handle(client: Streams) -> None:
        server = await asyncio.open_connection(*_place(url))
        asking = asyncio.create_task(_pump(client[0], server[1]))
        try:
            while True:
                kind, body = await _read_message(server[0])
                if kind == b"S" and body.startswith(b"server_version\0"):
                    body = b"server_version\0" + version.encode() + b"\0"
                client[1].write(_message(kind, body))
                await client[1].drain()
        finally:
            asking.cancel()
            await asyncio.wait([asking])
            server[1].close()

    async with _serving(handle) as port:
        yield f"{_through(url, port)}?sslmode=disable"


class _End:
    """One end of a connection. What is being read goes on being read when nobody waits for it any more."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams
        self._reading: asyncio.Task[tuple[bytes, bytes]] | None = None

    def reading(self) -> asyncio.Task[tuple[bytes, bytes]]:
        if self._reading is None:
            self._reading = asyncio.create_task(_read_message(self._reader))
        return self._reading

    def read(self) -> tuple[bytes, bytes]:
        """The message that has been read."""
        assert self._reading is not None
        reading, self._reading = self._reading, None
        return reading.result()

    def write(self, kind: bytes, body: bytes) -> None:
        self._writer.write(_message(kind, body))

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            if not self._reading.cancelled():
                self._reading.exception()
        self._writer.close()


@asynccontextmanager
async def transaction_pooler(url: str, servers: int = 3) -> AsyncIterator[str]:
    """A pooler in transaction mode, as PgBouncer is: each transaction meets the next of its server connections.

    It refuses parameters of a session that it cannot keep, and makes up the process number that a client is told.
    """
    connections = [await _server_connection(url) for _ in range(servers)]
    free: asyncio.Queue[_End] = asyncio.Queue()
    live = {server for server, _ in connections}
    for each in live:
        free.put_nowait(each)
    numbers = itertools.count(1)

    async def handle(streams: Streams) -> None:
        parameters = await _startup(streams)
        client = _End(streams)
        extra = parameters.keys() - {"user", "database", "client_encoding", "application_name"}
        if extra:
            words = f"unsupported startup parameter: {sorted(extra)[0]}"
            client.write(b"E", f"SFATAL\0C08P01\0M{words}\0\0".encode())
            return
        for kind, body in connections[0][1]:
            client.write(kind, body)
        client.write(b"K", struct.pack("!ii", 900_000 + next(numbers), 1))
        client.write(b"Z", b"I")
        try:
            while True:
                await asyncio.wait([client.reading()])
                server = await free.get()
                ended = False
                try:
                    ended = await _transaction(client, server)
                except (OSError, asyncio.IncompleteReadError):
                    pass  # it left in the middle
                finally:
                    if not ended:
                        # In the middle, perhaps; nobody knows what it will still answer.
                        live.discard(server)
                        await server.close()
                if not ended:
                    server, _ = await _server_connection(url)
                    live.add(server)
                free.put_nowait(server)
                if not ended:
                    return
        finally:
            await client.close()

    async with _serving(handle) as port:
        yield _through(url, port)
    for each in live:
        await each.close()


async def _transaction(client: _End, server: _End) -> bool:
    """From a client's first message, which has been read, to the end of the transaction. False: it has left."""
    unanswered = 0
    while True:
        done, _ = await asyncio.wait(
            [client.reading(), server.reading()], return_when=asyncio.FIRST_COMPLETED
        )
        if client.reading() in done:
            kind, body = client.read()
            if kind == b"X":
                return False
            unanswered += kind in (b"Q", b"S")
            server.write(kind, body)
        if server.reading() in done:
            kind, body = server.read()
            client.write(kind, body)
            unanswered -= kind == b"Z"
            if kind == b"Z" and body == b"I" and not unanswered:
                return True


async def _server_connection(url: str) -> tuple[_End, list[tuple[bytes, bytes]]]:
    """A connection to the server, and what it told of itself."""
    server = await asyncio.open_connection(*_place(url))
    parts = urlsplit(url)
    names = {
        "user": parts.username or "postgres",
        "database": parts.path.strip("/"),
        "client_encoding": "UTF8",
    }
    words = "".join(f"{name}\0{value}\0" for name, value in names.items()).encode() + b"\0"
    server[1].write(struct.pack("!ii", len(words) + 8, 196608) + words)
    hello: list[tuple[bytes, bytes]] = []
    while True:
        kind, body = await _read_message(server[0])
        assert kind != b"E", body
        if kind in (b"R", b"S"):
            hello.append((kind, body))
        if kind == b"Z":
            return _End(server), hello


async def _startup(client: Streams) -> dict[str, str]:
    while True:
        (length, code) = struct.unpack("!ii", await client[0].readexactly(8))
        rest = await client[0].readexactly(length - 8)
        if code == 196608:
            words = rest.decode().split("\0")
            return {name: value for name, value in zip(words[::2], words[1::2], strict=False) if name}
        client[1].write(b"N")  # no TLS here


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
