"""What a browser's `EventSource` does, so that five hundred of them fit into one process (WHATWG HTML, section 9.2).

It comes back after every end of a connection and after every failure to connect, with the last id it has seen. A status
other than 200 ends it for good, which is why a server that stops must not answer one.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import h11

_BUFFER = 65536
_PATIENCE_SECONDS = 60.0


class EventSource:
    """Reads one path until the event `end`.

    `refused_with`: the status that ended it. `entries`: what came with a number. `connections`: how often it
    connected. `gaps_seconds`: from each loss of a connection to the next entry.
    """

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self.connections = 0
        self.ended = False
        self.refused_with: int | None = None
        self.gaps_seconds: list[float] = []
        self._lost_at: float | None = None
        self._last_id = ""
        self._retry_seconds = 0.5

    async def run(self) -> None:
        while not self.ended:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._connect()
            except (OSError, h11.RemoteProtocolError, TimeoutError):
                pass
            if not self.ended:
                self._lost_at = self._lost_at or time.monotonic()
                await asyncio.sleep(self._retry_seconds)

    async def _connect(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=_BUFFER)
        try:
            self.connections += 1
            connection = h11.Connection(h11.CLIENT)
            headers = [("Host", f"127.0.0.1:{self.port}"), ("Accept", "text/event-stream")]
            if self._last_id:
                headers.append(("Last-Event-ID", self._last_id))
            request = connection.send(h11.Request(method="GET", target=self.path, headers=headers))
            writer.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
            async for told in _events(connection, reader):
                if isinstance(told, int):
                    self.ended = True
                    self.refused_with = None if told == 204 else told
                else:
                    self._dispatch(told)
        finally:
            writer.close()

    def _dispatch(self, lines: list[str]) -> None:
        kind, data = "message", []
        for line in lines:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "event":
                    kind = value
                case "data":
                    data.append(value)
                case "id":
                    self._last_id = value
                case "retry" if value.isdecimal():
                    self._retry_seconds = int(value) / 1000
        if data:
            told = json.loads("\n".join(data))
            if "seq" in told:
                self.entries.append(told)
                if self._lost_at is not None:
                    self.gaps_seconds.append(time.monotonic() - self._lost_at)
                    self._lost_at = None
            elif kind == "end":
                self.ended = True


async def _events(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[list[str] | int]:
    """The lines of each event; or a status that a browser does not come back after."""
    pending = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_BUFFER))
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                yield event.status_code
                return
        elif isinstance(event, h11.Data):
            *whole, pending = (pending + bytes(event.data)).split(b"\n\n")
            for block in whole:
                yield block.decode().split("\n")
        else:
            return
