"""A small TCP balancer with health checks, and a constant load: what stands in front of a rolling restart.

The balancer never repeats a request, so that every one a restart loses is seen: a nicer one would hide it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

import h11

from .processes import free_port

POLL_SECONDS = 0.2
_BUFFER = 65536


class Balancer:
    """Round robin over the backends whose `/readyz` said 200 when it was last asked."""

    def __init__(self, backends: list[int], ready_path: str) -> None:
        self.port = free_port()
        self._backends = backends
        self._ready_path = ready_path
        self._healthy: dict[int, asyncio.Event] = {}
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Balancer:
        self._healthy = {port: asyncio.Event() for port in self._backends}
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._polls = [asyncio.create_task(self._poll(port)) for port in self._backends]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        for poll in self._polls:
            poll.cancel()
        for writer in list(self._writers):
            writer.close()  # its reader sees the end, and the task that copies ends by itself
        await asyncio.gather(*self._polls, *self._tasks, return_exceptions=True)

    async def wait_healthy(self, port: int) -> None:
        await asyncio.wait_for(self._healthy[port].wait(), 40)

    async def _poll(self, port: int) -> None:
        while True:
            try:
                async with asyncio.timeout(1):
                    status, _ = await exchange(Connection(port), "GET", self._ready_path)
            except (OSError, TimeoutError, h11.RemoteProtocolError):
                status = 0
            if status == 200:
                self._healthy[port].set()
            else:
                self._healthy[port].clear()
            await asyncio.sleep(POLL_SECONDS)

    def _choose(self) -> int | None:
        for _ in self._backends:
            self._next += 1
            port = self._backends[self._next % len(self._backends)]
            if self._healthy[port].is_set():
                return port
        return None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        port = self._choose()
        with self._closing(writer):
            if port is None:
                return
            try:
                near, far = await asyncio.open_connection("127.0.0.1", port)
                with self._closing(far):
                    await _both_ways(reader, far, near, writer)
            except OSError:
                pass  # the client sees a connection without an answer, and counts it

    @contextlib.contextmanager
    def _closing(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()


async def _both_ways(
    client: asyncio.StreamReader,
    to_backend: asyncio.StreamWriter,
    backend: asyncio.StreamReader,
    to_client: asyncio.StreamWriter,
) -> None:
    """Copy until either side ends: half-open connections are of no use to HTTP."""
    copies = [asyncio.create_task(_copy(client, to_backend)), asyncio.create_task(_copy(backend, to_client))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_BUFFER):
        writer.write(data)
        await writer.drain()


class Connection:
    """A client's connection, opened when it is first needed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.state = h11.Connection(h11.CLIENT)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
        self.state = h11.Connection(h11.CLIENT)


async def exchange(
    connection: Connection, method: str, path: str, *, keep: bool = False
) -> tuple[int, bytes]:
    """One request on a connection, which stays open only if both sides want it to."""
    try:
        reader, writer = await connection.streams()
        body = b"ping" if method == "POST" else b""
        headers = [("Host", "test"), ("Content-Length", str(len(body)))]
        state = connection.state
        writer.write(state.send(h11.Request(method=method, target=path, headers=headers)) or b"")
        writer.write((state.send(h11.Data(data=body)) or b"") + (state.send(h11.EndOfMessage()) or b""))
        status, received = 0, b""
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(await reader.read(_BUFFER))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                received += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise h11.RemoteProtocolError("the connection was closed without a response")
    except BaseException:
        connection.close()
        raise
    if keep and state.our_state is h11.DONE and state.their_state is h11.DONE:
        state.start_next_cycle()
    else:
        connection.close()
    return status, received


@dataclass
class Load:
    """Clients that ask without a pause worth the name, until they are told to stop."""

    port: int
    asked: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _stop: bool = False

    async def run(self, clients_per_kind: int = 2) -> None:
        kinds = [(method, keep) for method in ("GET", "POST") for keep in (False, True)]
        await asyncio.gather(
            *(self._client(method, keep) for method, keep in kinds for _ in range(clients_per_kind))
        )

    def stop(self) -> None:
        self._stop = True

    async def _client(self, method: str, keep: bool) -> None:
        kind = f"{method} on a {'kept' if keep else 'new'} connection"
        connection = Connection(self.port)
        with contextlib.closing(connection):
            while not self._stop:
                self.asked[kind] += 1
                try:
                    async with asyncio.timeout(10):
                        status, _ = await exchange(connection, method, "/echo", keep=keep)
                    if status != 200:
                        self.failures.append(f"{kind}: status {status}")
                except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
                    self.failures.append(f"{kind}: {error!r}")
                await asyncio.sleep(0.02)
