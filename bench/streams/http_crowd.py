"""Readers by the thousand against one server: `python -m bench.streams.http_crowd NAME '{"readers": ...}'`.

The crowd lives in this process, the server in one of its own, so that its memory and its CPU time are its alone. A
reader of the crowd looks at nothing but the number of the last entry in what it is sent.
"""

import asyncio
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CONNECT_AT_ONCE = 100
WAIT_SECONDS = 240
_ID = re.compile(rb"id: (\d+)")
_OPENED = re.compile(rb"hello|event: snapshot")
_TICKS = os.sysconf("SC_CLK_TCK")


class Reader(asyncio.Protocol):
    """Asks, and notes how far it is."""

    def __init__(self, last: int, done: asyncio.Event, left: list[int]) -> None:
        self._last = last
        self._done = done
        self._left = left
        self._tail = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        if not self.opened.done() and _OPENED.search(self._tail + data):
            self.opened.set_result(None)
        # The last entry is near the end of what came; what was cut off in the middle comes with the next.
        self._tail = (self._tail + data)[-600:]
        if self._last and any(int(seq) == self._last for seq in _ID.findall(self._tail)):
            self._last = 0
            self._left[0] -= 1
            if not self._left[0]:
                self._done.set()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(f"a reader was turned away: {error!r} {self._tail!r}"))


class Crowd:
    """So many readers of one server."""

    def __init__(self, port: int, readers: int, last: int = 0) -> None:
        self._port = port
        self._count = readers
        self._last = last
        self._left = [readers]
        self.done = asyncio.Event()
        self.readers: list[Reader] = []

    async def come(self) -> None:
        loop = asyncio.get_running_loop()
        for first in range(0, self._count, CONNECT_AT_ONCE):
            several = [self._one(loop) for _ in range(min(CONNECT_AT_ONCE, self._count - first))]
            self.readers += await asyncio.gather(*several)

    async def _one(self, loop: asyncio.AbstractEventLoop) -> Reader:
        _, reader = await loop.create_connection(
            lambda: Reader(self._last, self.done, self._left), "127.0.0.1", self._port
        )
        await reader.opened
        return reader

    def leave(self) -> None:
        for reader in self.readers:
            reader.transport.abort()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def idle(port: int, pid: int, readers: int, seconds: float) -> dict[str, float]:
    """What a reader to whom nothing is said takes: memory, and CPU time, keep-alives included."""
    warm = Crowd(port, 100)
    await warm.come()
    warm.leave()
    await asyncio.sleep(min(1.0, seconds))
    before = resident_bytes(pid)
    crowd = Crowd(port, readers)
    await crowd.come()
    await asyncio.sleep(min(1.0, seconds))
    grown = resident_bytes(pid) - before
    cpu, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    used = (cpu_seconds(pid) - cpu) / (time.perf_counter() - began)
    crowd.leave()
    return {"bytes": grown / readers, "cpu_us": used / readers * 1e6}


async def fan_out(port: int, pid: int, readers: int, count: int) -> dict[str, float]:
    """Entries that reach readers, per second: from the first write until the last reader has the last one."""
    crowd = Crowd(port, readers, count)
    await crowd.come()
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST /write?count={count} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
    )
    await reader.readline()
    async with asyncio.timeout(WAIT_SECONDS):
        await crowd.done.wait()
    seconds = time.perf_counter() - began
    crowd.leave()
    writer.close()
    return {"rate": readers * count / seconds}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_open(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the server does not come up")


def main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[2])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    needed = order["readers"] + 200
    if most < needed:
        raise SystemExit(f"only {most} files may be open, {needed} are needed: raise the limit (ulimit -n)")
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "bench.streams.http_serving", order.pop("contender"), str(port)]
    ) as server:
        try:
            wait_until_open(port, server)
            work = {"idle": idle, "fan_out": fan_out}[sys.argv[1]]
            answer = asyncio.run(work(port, server.pid, **order))
        finally:
            server.kill()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
