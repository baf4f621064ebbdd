"""The promise to every reader: each entry once, in order, without a gap, or it is told what is gone.

Random schedules of writes, reads, stalls, disconnects, returns and retention, over LogResponse and the driver; what the
reader shows is put together as a browser does it, from the ids and the events.
"""

import asyncio
import json
import unittest.mock
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcall import TaskManager
from lastcall.asgi import Lastcall, LogResponse, _log_tail
from tests.asgi.driver import Request, running, within
from tests.asgi.memory_log import MemoryLog
from tests.support.loops import FACTORIES

HOST = (b"host", b"localhost")


class Reader:
    """A client that keeps what it has seen, comes back with its cursor, and is told what it missed."""

    def __init__(self, app: Any, format: str) -> None:
        self.app = app
        self.format = format
        self.shown: list[int] = []
        self.gaps: list[tuple[int, int]] = []  # (what was expected next, what is kept) as it was told
        self.ended = False
        self.cursor = 0
        self.request: Request | None = None

    def connect(self, *, reading: bool) -> None:
        if self.request is not None or self.ended:
            return
        headers = [HOST]
        query = f"format={self.format}"
        if self.format == "sse":
            headers.append((b"last-event-id", str(self.cursor).encode()))
        else:
            query += f"&after={self.cursor}"
        self.request = Request(self.app, "/log", query=query, headers=headers, reading=reading)

    async def leave(self) -> None:
        if self.request is not None:
            request = self.request
            request.read_on()
            request.leave()
            await request.done()
            self.digest()

    def digest(self) -> None:
        """Take what the connection has brought, up to its last whole event; the rest of it is lost with it."""
        request, self.request = self.request, None
        assert request is not None
        if request.status == 204:
            self.ended = True
        elif request.status == 410:
            if request.body:  # else it left before it was told
                self.skip_to(request.json()["first"])
        elif request.status == 200:
            for told in self.told(request.body):
                if "seq" in told:
                    self.shown.append(told["seq"])
                    self.cursor = told["seq"]
                elif "reason" in told:
                    self.ended = True
        else:
            assert request.status is None, request.status

    def told(self, body: bytes) -> list[dict[str, Any]]:
        if self.format == "ndjson":
            return [json.loads(line) for line in body.split(b"\n")[:-1]]
        whole = [part for part in body.decode().split("\n\n")[:-1] if "data: " in part]
        return [json.loads(part.partition("data: ")[2]) for part in whole]

    def skip_to(self, first: int) -> None:
        self.gaps.append((self.cursor + 1, first))
        self.cursor = first - 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 40), st.sampled_from([5, 3000, 70_000])),
        st.tuples(st.just("connect"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("leave"), st.integers(0, 2), st.none()),
        st.tuples(st.just("read on"), st.integers(0, 2), st.none()),
        st.tuples(st.just("keep"), st.integers(0, 30), st.none()),
        st.tuples(st.just("turns"), st.integers(1, 30), st.none()),
    ),
    max_size=25,
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("format", ["sse", "ndjson"])
@pytest.mark.parametrize("window_bytes", [1 << 20, 4000])
@settings(max_examples=60)
@given(steps=STEPS)
def test_each_entry_once_in_order_or_told(
    format: str, window_bytes: int, steps: list[tuple[str, int, Any]]
) -> None:
    """Three readers of one log, whatever happens to them and to it; also with next to nothing kept for all of them."""

    async def run() -> None:
        log = MemoryLog()

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            await LogResponse(log)(scope, receive, send)

        async with running(app := Lastcall(serve, TaskManager())):
            readers = [Reader(app, format) for _ in range(3)]
            for step in steps:
                await take(step, log, readers)
            log.close()
            for reader in readers:
                await read_to_the_end(reader)
            for reader in readers:
                check(reader, log)
            assert log.watchers == 0

    with (
        unittest.mock.patch.object(_log_tail, "_WINDOW_BYTES", window_bytes),
        asyncio.Runner(loop_factory=FACTORIES["asyncio"]) as runner,
    ):
        runner.run(within(run(), 60))


async def take(step: tuple[str, int, Any], log: MemoryLog, readers: list[Reader]) -> None:
    match step:
        case "write", count, size:
            for _ in range(count):
                log.write("x" * size)
        case "connect", number, reading:
            readers[number].connect(reading=reading)
        case "leave", number, _:
            await readers[number].leave()
        case "read on", number, _:
            if (request := readers[number].request) is not None:
                request.read_on()
        case "keep", count, _:
            log.keep(min(count, len(log.entries)))
        case "turns", count, _:
            for _ in range(count):
                await asyncio.sleep(0)


async def read_to_the_end(reader: Reader) -> None:
    for _ in range(10):
        if reader.ended:
            return
        reader.connect(reading=True)
        assert reader.request is not None
        reader.request.read_on()
        await reader.request.done()
        reader.digest()
    raise AssertionError(f"it never comes to the end: {reader.cursor}, {reader.gaps}")


def check(reader: Reader, log: MemoryLog) -> None:
    expected = 1
    gaps = dict(reader.gaps)
    for seq in reader.shown:
        while expected in gaps and gaps[expected] != expected:
            expected = gaps[expected]
        assert seq == expected, (seq, expected, reader.gaps)
        expected = seq + 1
    while expected in gaps and gaps[expected] != expected:
        expected = gaps[expected]
    assert expected == log.last + 1, (expected, log.last, reader.gaps)
