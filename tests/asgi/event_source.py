"""A client of server-sent events, written from the standard: comes back with `Last-Event-ID`, stops at 204.

It reads at a pace of its own, notes how every connection ended, and waits much shorter than it is told to.
"""

import asyncio
import contextlib
import json
from typing import Any

import h11

FASTER = 20  # the waits between connections are that much shorter than told


class Stopped(Exception):
    """The server has answered what an EventSource gives up at."""


class EventSource:
    """`entries`: what came, in order. `endings`: of each connection, `clean`, `cut`, `refused` or a status."""

    def __init__(self, port: int, path: str, *, piece: int = 65536, pause_seconds: float = 0.0) -> None:
        self.port = port
        self.path = path
        self.piece = piece
        self.pause_seconds = pause_seconds
        self.entries: list[dict[str, Any]] = []
        self.snapshots = 0
        self.ended = False
        self.endings: list[str] = []
        self.retries: list[int] = []
        self.last_id = ""
        self._retry_milliseconds = 3000
        self._fields: dict[str, str] = {}
        self._line = b""

    async def run(self) -> None:
        """Until the server says that there is no more to come."""
        while True:
            try:
                await self._connect()
            except Stopped as stopped:
                self.endings.append(str(stopped))
                return
            except OSError:
                self.endings.append("refused")
            await asyncio.sleep(self._retry_milliseconds / 1000 / FASTER)

    async def _connect(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=self.piece)
        try:
            connection = h11.Connection(h11.CLIENT)
            headers = [("Host", "localhost"), ("Accept", "text/event-stream")]
            if self.last_id:
                headers.append(("Last-Event-ID", self.last_id))
            request = h11.Request(method="GET", target=self.path, headers=headers)
            writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            await self._receive(connection, reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _receive(self, connection: h11.Connection, reader: asyncio.StreamReader) -> None:
        self._fields, self._line = {}, b""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                self.endings.append("cut")
                return
            if event is h11.NEED_DATA:
                await asyncio.sleep(self.pause_seconds)
                connection.receive_data(await reader.read(self.piece))
            elif isinstance(event, h11.Response):
                if event.status_code != 200:
                    raise Stopped(event.status_code)
            elif isinstance(event, h11.Data):
                self._feed(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self.endings.append("clean")
                return
            else:
                self.endings.append("refused")
                return

    def _feed(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            name, _, value = line.decode().partition(":")
            if not line:
                self._dispatch()
            elif name == "retry":
                self._retry_milliseconds = int(value)
                self.retries.append(int(value))
            elif name:
                self._fields[name] = value.removeprefix(" ")

    def _dispatch(self) -> None:
        fields, self._fields = self._fields, {}
        self.last_id = fields.get("id", self.last_id)
        if "data" not in fields:
            return
        told = json.loads(fields["data"])
        if "seq" in told:
            self.entries.append(told)
        elif fields["event"] == "snapshot":
            self.snapshots += 1
        else:
            self.ended = fields["event"] == "end"
