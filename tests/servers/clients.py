"""Clients that can tell how a response really ended.

Each runs in a thread of its own and only writes down what it saw: the tests judge.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import h11
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

OPEN = "open"  # nothing has ended it yet
CLEAN = "clean"  # with a final chunk, or all of the announced length
CUT = "cut"  # end of file in the middle of the body
RESET = "reset"  # by an error of the connection
REFUSED = "no response"  # before the head of a response

_SECONDS = 40.0  # an upper bound for every wait on a socket; the runs themselves end far below it


class Client(threading.Thread):
    """What all clients note: `opened` when the work has visibly begun, `ending` and `ended_at`."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(daemon=True, name=f"client {path}")
        self.port = port
        self.path = path
        self.opened = threading.Event()
        self.ending = OPEN
        self.detail = ""
        self.ended_at: float | None = None

    def run(self) -> None:
        try:
            self.talk()
        except (ConnectionError, TimeoutError, h11.RemoteProtocolError) as error:
            self.detail = repr(error)
            if self.ending == OPEN:
                self.ending = RESET
        finally:
            self.ended_at = time.monotonic()
            self.opened.set()

    def talk(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of a connection that is kept open."""


class HttpClient(Client):
    """One request, to the real end of its response."""

    def __init__(self, port: int, path: str, *, method: str = "GET", keep_open: bool = False) -> None:
        super().__init__(port, path)
        self.method = method
        self.keep_open = keep_open
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self._socket: socket.socket | None = None

    def talk(self) -> None:
        connection = h11.Connection(h11.CLIENT)
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=_SECONDS)
        headers = [("Host", f"127.0.0.1:{self.port}"), ("Content-Length", "0")]
        request = h11.Request(method=self.method, target=self.path, headers=headers)
        self._socket.sendall(connection.send(request) + connection.send(h11.EndOfMessage()))
        self.ending = REFUSED
        self._receive(connection, self._socket)
        if not self.keep_open or self.ending != CLEAN:
            self.close()

    def _receive(self, connection: h11.Connection, stream: socket.socket) -> None:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = stream.recv(65536)
                if not data and connection.their_state is h11.SEND_RESPONSE:
                    return  # not one byte of a response: `ending` still says so
                if not data:
                    self.ending = CUT
                connection.receive_data(data)
            elif isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = {name.decode(): value.decode() for name, value in event.headers}
                self.ending = OPEN
            elif isinstance(event, h11.Data):
                self.body += bytes(event.data)
                self.opened.set()
            elif isinstance(event, h11.EndOfMessage):
                self.ending = CLEAN
                return
            elif isinstance(event, h11.ConnectionClosed):
                return

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    @property
    def events(self) -> list[Any]:
        """The `data:` of each server-sent event, from its JSON."""
        lines = self.body.decode(errors="replace").splitlines()
        return [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]


class WebSocketClient(Client):
    """Reads messages until the other side closes."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(port, path)
        self.code: int | None = None  # as received in a close frame; None: there was no close frame
        self.reason = ""
        self._connection: ClientConnection | None = None

    def talk(self) -> None:
        address = f"ws://127.0.0.1:{self.port}{self.path}"
        with connect(address, open_timeout=_SECONDS, ping_interval=None) as self._connection:
            try:
                while True:
                    self._connection.recv(timeout=_SECONDS)
                    self.opened.set()
            except ConnectionClosed as closed:
                self.ending = CLEAN if closed.rcvd is not None else CUT
                if closed.rcvd is not None:
                    self.code, self.reason = closed.rcvd.code, closed.rcvd.reason


def fetch(port: int, path: str, *, method: str = "GET") -> HttpClient:
    """One request, now; the client holds what came back."""
    client = HttpClient(port, path, method=method)
    client.start()
    client.join(_SECONDS)
    return client


def wait_until_served(port: int, path: str, *, seconds: float, alive: Any) -> None:
    """Ask for `path` until it is answered with 200; stop early when `alive()` turns false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not alive():
            raise RuntimeError("the server ended before it answered")
        if fetch(port, path).status == 200:
            return
        time.sleep(0.02)
    raise TimeoutError(f"the server did not answer {path} within {seconds} s")
