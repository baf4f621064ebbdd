"""Logs over real servers and sockets: readers of every kind at once, and servers that end under them.

The test itself is the worker that writes; the servers read the same file, in processes of their own.
"""

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lastcall import TaskManager
from lastcall.jobs import Context, Job, Jobs
from lastcall.streams import Entry, follow
from tests.asgi.driver import within
from tests.asgi.event_source import EventSource
from tests.servers.processes import ServerProcess, free_port
from tests.servers.setups import Setup

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.loops("asyncio")]


UVICORN = Setup("uvicorn", 1, "uvloop")
SETUPS = [UVICORN, Setup("hypercorn", 1, "asyncio"), Setup("granian", 1, "uvloop")]


class Writer:
    """A job whose events are written when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/jobs.db"
        self.jobs = Jobs(self.url)
        self.words: asyncio.Queue[Any] = asyncio.Queue()
        self.job: Job[None]

        @self.jobs.task(name="talk")
        async def talk(ctx: Context) -> None:
            while (word := await self.words.get()) is not None:
                await ctx.emit("word", word)

        self.talk = talk

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Writer"]:
        async with self.jobs, TaskManager() as manager, self.jobs.worker(manager=manager):
            self.job = await self.talk.submit()
            yield self
            self.words.put_nowait(None)
            await within(self.job.wait(), 30)

    @property
    def path(self) -> str:
        return f"/lastcall/jobs/{self.job.id}/events"

    async def entries(self) -> list[Entry]:
        """What was written, as its own store tells it."""
        return [entry async for entries in follow(self.job.log()) for entry in entries]


@contextmanager
def serving(folder: Path, writer: Writer, port: int, setup: Setup = UVICORN) -> Iterator[ServerProcess]:
    command = setup.command("tests.asgi.log_service:app", port)
    with ServerProcess(command, folder, {"LOG_STORE": writer.url}) as server:
        wait_until_ready(port, server)
        yield server


def wait_until_ready(port: int, server: ServerProcess) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.alive:
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(asking), contextlib.suppress(OSError, http.client.HTTPException):
            asking.request("GET", "/readyz")
            if asking.getresponse().status == 200:
                return
        time.sleep(0.02)
    raise TimeoutError("the server does not come up")


def check(sources: list[EventSource], written: list[Entry]) -> None:
    """Each reader has got exactly what was written."""
    expected = [(entry.seq, entry.type, json.loads(entry.data), entry.at) for entry in written]
    assert [seq for seq, *_ in expected] == list(range(1, len(expected) + 1))
    for source in sources:
        got = [(entry["seq"], entry["type"], entry["data"], entry["at"]) for entry in source.entries]
        assert got == expected, (len(got), len(expected), source.endings)
        assert source.ended and source.endings[-1] == "204"


async def test_readers_of_every_kind_at_once(tmp_path: Path) -> None:
    """Fifty at different paces, twenty that never read, garbage, half requests: all who read get everything, and those
    who do not cost no memory."""
    writer = Writer(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(writer.open())
        port = free_port()
        server = stack.enter_context(await asyncio.to_thread(start, tmp_path, writer, port))
        sources = [
            EventSource(
                port,
                writer.path,
                piece=4096 << (number % 6),
                pause_seconds=0.001 * (number % 5 == 0),
            )
            for number in range(50)
        ]
        readers = [asyncio.create_task(source.run()) for source in sources]
        deaf = [stack.enter_context(deaf_client(port, writer.path)) for _ in range(20)]
        memory_before = memory_bytes(server.pid)
        for number in range(400):
            writer.words.put_nowait({"n": number, "text": "é\n\r\u2028" * 10 if number % 3 else "x" * 20_000})
            if number % 40 == 0:
                await asyncio.to_thread(rude_client, port, writer.path, number)
        writer.words.put_nowait(None)
        await within(asyncio.gather(*readers), 60)
        check(sources, await writer.entries())
        grown = memory_bytes(server.pid) - memory_before
        assert grown < 40 << 20, (
            grown
        )  # the log of three megabytes, for each of those who do not read, is sixty
        assert server.alive and len(deaf) == 20
        server.signal_main(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait, 8) is not None  # nor do they hold the server up
        assert "Traceback" not in server.log


@pytest.mark.parametrize("setup", SETUPS, ids=str)
async def test_servers_that_end_under_their_readers(tmp_path: Path, setup: Setup) -> None:
    """One is stopped in good order, the next is killed, a third goes on: no entry is lost or doubled."""
    writer = Writer(tmp_path)
    async with writer.open():
        port = free_port()
        sources = [EventSource(port, writer.path) for _ in range(20)]
        readers: list[asyncio.Task[None]] = []
        writing = asyncio.create_task(write_on(writer))
        for end in (signal.SIGTERM, signal.SIGKILL, None):
            with await asyncio.to_thread(start, tmp_path, writer, port, setup) as server:
                readers = readers or [asyncio.create_task(source.run()) for source in sources]
                seen = [len(source.entries) for source in sources]
                await progress(sources, seen, 20)
                if end is None:
                    writing.cancel()
                    writer.words.put_nowait(None)
                    await within(asyncio.gather(*readers), 30)
                else:
                    (server.signal_group if end is signal.SIGKILL else server.signal_main)(end)
                    assert await asyncio.to_thread(server.wait, 8) is not None
                if end is signal.SIGTERM:
                    assert all(source.endings == ["clean"] for source in sources if len(source.endings) == 1)
                    sent_away = [source for source in sources if source.endings[:1] == ["clean"]]
                    assert len(sent_away) == len(sources)
                    assert not any(source.ended for source in sources)
                    assert len({source.retries[-1] for source in sources}) > 5
        check(sources, await writer.entries())
        assert all(source.snapshots >= 3 for source in sources)


def start(folder: Path, writer: Writer, port: int, setup: Setup = UVICORN) -> Any:
    """A server that is already up; leaving the block ends it."""
    stack = contextlib.ExitStack()
    server = stack.enter_context(serving(folder, writer, port, setup))
    held = stack.pop_all()

    @contextmanager
    def running() -> Iterator[ServerProcess]:
        with held:
            yield server

    return running()


async def write_on(writer: Writer) -> None:
    number = 0
    while True:
        number += 1
        writer.words.put_nowait({"n": number})
        await asyncio.sleep(0.005)


async def progress(sources: list[EventSource], seen: list[int], more: int) -> None:
    """Until each has got so many more entries."""
    async with asyncio.timeout(30):
        while any(len(source.entries) < before + more for source, before in zip(sources, seen, strict=True)):
            await asyncio.sleep(0.01)


@contextmanager
def deaf_client(port: int, path: str) -> Iterator[socket.socket]:
    """It asks, and never reads."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(f"GET {path}?format=sse HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        yield deaf


def rude_client(port: int, path: str, number: int) -> None:
    """It sends what is no request, or half of one, or leaves in the middle."""
    kinds = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 20,
        b"GET " + b"/" * 100_000,
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: ".encode(),
        f"GET {path}?format=sse HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: -1\r\n\r\n".encode(),
        f"GET {path}?format=sse HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as rude, contextlib.suppress(OSError):
        rude.sendall(kinds[number // 40 % len(kinds)])
        if number // 40 % len(kinds) >= 3:
            assert rude.recv(12).startswith((b"HTTP/1.1 400", b"HTTP/1.1 200"))


def memory_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")
