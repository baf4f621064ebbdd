"""Drives an ASGI app by hand: a lifespan, requests and WebSockets, without a server and without a network.

Every wait is for an event and bounded, so that a broken promise is a failure and not a hang.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

LIMIT_SECONDS = 10.0


async def within(awaitable: Any, seconds: float = LIMIT_SECONDS) -> Any:
    """Await it, but not for ever."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def until(condition: Callable[[], object], seconds: float = LIMIT_SECONDS) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)


class Lifespan:
    """The server's side of the lifespan protocol."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.sent: list[dict[str, Any]] = []
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._news = asyncio.Event()
        self.state: dict[str, Any] = {}
        self.task: asyncio.Task[None]

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self._news.set()

    async def start(self) -> dict[str, Any]:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self.task = asyncio.get_running_loop().create_task(self.app(scope, self._to_app.get, self._send))
        self.task.add_done_callback(lambda _: self._news.set())
        return await self._exchange("lifespan.startup")

    async def stop(self) -> dict[str, Any]:
        answer = await self._exchange("lifespan.shutdown")
        await asyncio.wait({self.task}, timeout=LIMIT_SECONDS)
        return answer

    async def _exchange(self, kind: str) -> dict[str, Any]:
        before = len(self.sent)
        self._to_app.put_nowait({"type": kind})
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self.sent) == before:
                self._news.clear()
                if self.task.done():
                    self.task.result()
                    raise AssertionError(f"the lifespan ended without an answer to {kind}")
                await self._news.wait()
        return self.sent[-1]


@contextlib.asynccontextmanager
async def running(app: Any) -> AsyncIterator[Lifespan]:
    """The app between startup and shutdown."""
    lifespan = Lifespan(app)
    assert (await lifespan.start())["type"] == "lifespan.startup.complete"
    try:
        yield lifespan
    finally:
        if not lifespan.task.done():
            await lifespan.stop()


class Request:
    """One HTTP request in flight."""

    def __init__(
        self,
        app: Any,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        headers: Iterable[tuple[bytes, bytes]] = ((b"host", b"localhost"),),
        client: tuple[str, int] | None = ("127.0.0.1", 50000),
        http_version: str = "1.1",
        spec_version: str = "2.3",
        reading: bool = True,
        root_path: str = "",
    ) -> None:
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": spec_version},
            "http_version": http_version,
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": root_path,
            "headers": list(headers),
            "client": client,
            "server": ("127.0.0.1", 80),
            "extensions": {},
        }
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.complete = False
        self._left = asyncio.Event()
        self._body_given = False
        self._reading = asyncio.Event()
        if reading:
            self._reading.set()
        self._news = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(app(self.scope, self._receive, self._send))
        self.task.add_done_callback(lambda _: self._news.set())

    async def _receive(self) -> dict[str, Any]:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert self.status is None, "a second head of a response"
            self.status = message["status"]
            self.headers = {key.decode().lower(): value.decode() for key, value in message.get("headers", ())}
        elif message["type"] == "http.response.body":
            assert self.status is not None, "a body without a head"
            if self._left.is_set():
                return
            await self._reading.wait()
            assert not self.complete, "a body after its end"
            self.chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                self.complete = True
                self._left.set()  # as servers do: after its end the app sees a disconnect
        self._news.set()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[dict[str, str]]:
        """The server-sent events of the body, comments left out."""
        return parse_events(self.body.decode())

    def leave(self) -> None:
        """The client closes its connection."""
        self._left.set()

    def read_on(self) -> None:
        """The client that did not read begins to."""
        self._reading.set()

    async def until(self, condition: Callable[["Request"], object]) -> "Request":
        async with asyncio.timeout(LIMIT_SECONDS):
            while not condition(self):
                self._news.clear()
                assert not self.task.done() or condition(self), f"the call is over, its body is {self.body!r}"
                await self._news.wait()
        return self

    async def done(self) -> "Request":
        """Until the app has returned; what it raised is raised here."""
        await asyncio.wait({self.task}, timeout=LIMIT_SECONDS)
        assert self.task.done(), f"the call does not end; so far it sent {self.body!r}"
        self.task.result()
        return self


async def get(app: Any, path: str, **options: Any) -> Request:
    """One whole request."""
    return await Request(app, path, **options).done()


def parse_events(text: str) -> list[dict[str, str]]:
    """A small reader of the SSE format, written from the standard and not from the code under test."""
    events, fields = [], {}
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line == "":
            if fields:
                events.append(fields)
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name:
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
    return events


class WebSocket:
    """One WebSocket in flight."""

    def __init__(self, app: Any, path: str, *, extensions: dict[str, Any] | None = None) -> None:
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "subprotocols": [],
            "extensions": extensions or {},
        }
        self.sent: list[dict[str, Any]] = []
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_app.put_nowait({"type": "websocket.connect"})
        self._news = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(app(scope, self._to_app.get, self._send))
        self.task.add_done_callback(lambda _: self._news.set())

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self._news.set()

    def say(self, text: str) -> None:
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": ""})

    def types(self) -> list[str]:
        return [message["type"] for message in self.sent]

    async def until_sent(self, count: int) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self.sent) < count:
                self._news.clear()
                assert not self.task.done(), f"the call is over, it sent {self.sent}"
                await self._news.wait()

    async def done(self) -> "WebSocket":
        await asyncio.wait({self.task}, timeout=LIMIT_SECONDS)
        assert self.task.done(), f"the call does not end; so far it sent {self.sent}"
        self.task.result()
        return self
