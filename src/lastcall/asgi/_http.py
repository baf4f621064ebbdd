"""One HTTP request in flight: held by the manager, ended properly when its time is over."""

from __future__ import annotations

import asyncio
import logging

from .._core._group import TaskGroup
from .._core._hold import Hold
from .._core._manager import TaskManager
from .._core._state import Kind, ManagerState, StopReason
from ._answers import refuse_http
from ._bounded import run_bounded
from ._calls import Call, CallOptions, absorb_cancel, current_call
from ._types import ASGIApp, Headers, Message, Receive, Scope, Send, get_header, is_http1

logger = logging.getLogger("lastcall.asgi")

_LAST_WRITE_SECONDS = 1.0

# Media types whose reader can tell a whole record from a cut one, or shows text as it comes. Any other body
# that we have to cut is left visibly unfinished: half an archive must not look like a whole one.
_CUT_CLEANLY = (
    b"text/event-stream",
    b"text/plain",
    b"application/x-ndjson",
    b"application/jsonl",
    b"application/json-seq",
)


class HttpCall(Call):
    """Wraps `receive` and `send` of one request, and completes its response if the app was cut off."""

    __slots__ = ("_app_receive", "_app_send", "_cut_cleanly", "_ending", "_finished", "_scope", "_started")

    def __init__(
        self,
        manager: TaskManager,
        background: TaskGroup,
        hold: Hold,
        name: str,
        options: CallOptions,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(manager, background, hold, name, options)
        self._scope = scope
        self._app_receive = receive
        self._app_send = send
        self._started = False  # the head of the response was sent
        self._ending = False  # its last body chunk was handed to the server
        self._finished = False  # ... and the server took it
        self._cut_cleanly = False

    async def run(self, app: ASGIApp) -> None:
        """Run the app on this call; returns normally if it was cut off by us."""
        token = current_call.set(self)
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self.hold.cancelled:
                raise
            await self._complete()
            if not absorb_cancel(self.hold):
                raise  # the server cancelled the call as well; that one is not ours to swallow
        except BaseException:
            if self.hold.cancelled:
                await self._complete()  # the cut reached the app, which made an error of it
            raise
        else:
            if self.hold.cancelled:
                await self._complete()
        finally:
            current_call.reset(token)

    async def receive(self) -> Message:
        message = await self._app_receive()
        if message["type"] == "http.disconnect" and not self._ending and self.hold.reason is None:
            self.hold.stop(StopReason.DISCONNECT)
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._on_start(message)
            self._started = True
            await self._app_send(message)
            return
        if kind != "http.response.body":
            await self._app_send(message)
            return
        if not message.get("more_body", False):
            self._ending = True
            await self._app_send(message)
            self._finished = True
            return
        await self._app_send(message)
        # A generator that never awaits would otherwise hold the whole server (every call, every signal)
        # for as long as it runs.
        await asyncio.sleep(0)

    def _on_start(self, message: Message) -> None:
        headers: Headers = list(message.get("headers", ()))
        content_type = (get_header(headers, b"content-type") or b"").lower()
        if content_type.startswith(b"text/event-stream") and not self.ends_itself:
            self.hold.kind = Kind.STREAM
            self.hold.grace_seconds = self.options.stream_seconds
        self._cut_cleanly = (
            content_type.startswith(_CUT_CLEANLY) and get_header(headers, b"content-length") is None
        )
        if self.manager.state is not ManagerState.OPEN and is_http1(self._scope):
            headers = [(key, value) for key, value in headers if key.lower() != b"connection"]
            message["headers"] = [*headers, (b"connection", b"close")]

    async def _complete(self) -> None:
        """Send what the app did not get to, so that the client sees an end instead of a broken connection."""
        if self._finished:
            return
        if not self._started:
            coro = refuse_http(self._scope, self._app_send, self.options.retry_after_seconds)
        elif self._cut_cleanly:
            coro = self._send_last()
        else:
            logger.info("%s was cut off in the middle of its body", self.name)
            return
        await run_bounded(coro, _LAST_WRITE_SECONDS, what=f"the end of {self.name}")
        self._finished = True

    async def _send_last(self) -> None:
        await self._app_send({"type": "http.response.body", "body": b"", "more_body": False})
