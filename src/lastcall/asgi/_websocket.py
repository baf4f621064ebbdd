"""One WebSocket in flight: told, closed with 1012 after its grace, cancelled at the deadline."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from .._core._group import TaskGroup
from .._core._hold import Hold
from .._core._manager import TaskManager
from .._core._state import StopReason
from ._answers import SERVICE_RESTART
from ._bounded import run_bounded
from ._calls import Call, CallOptions, absorb_cancel, current_call
from ._types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("lastcall.asgi")

_CLOSE_SECONDS = 1.0
_DISCONNECT_MARGIN_SECONDS = 0.5  # between the disconnect a handler sees and its cancel


class WebSocketClosed(ConnectionError):
    """Sent on a WebSocket that this process has closed for its shutdown."""


class WebSocketCall(Call):
    """Wraps `receive` and `send` of one WebSocket.

    A handler blocked in `receive()` cannot look at `current_shutdown()`; after the grace it gets the
    `websocket.disconnect` its framework knows how to handle.
    """

    __slots__ = (
        "_app_receive",
        "_app_send",
        "_closed",
        "_closer",
        "_disconnect_code",
        "_incoming",
        "_scope",
        "_sends",
        "_we_closed",
    )

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
        self._incoming: asyncio.Future[Message] | None = None
        self._closer: asyncio.Task[None] | None = None
        self._closed = False
        self._we_closed = False
        self._sends: set[asyncio.Timeout] = set()
        self._disconnect_code: int | None = None  # of the disconnect the app was given

    async def run(self, app: ASGIApp) -> None:
        """Run the app on this WebSocket; returns normally if it ended because we closed it."""
        token = current_call.set(self)
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self.hold.cancelled:
                raise
            await run_bounded(self._close(), _CLOSE_SECONDS, what=f"closing {self.name}")
            if not absorb_cancel(self.hold):
                raise
        except Exception as error:
            # Servers log what a handler raises as an error; that it ended by the disconnect of a shutdown is none.
            if self.hold.reason is not StopReason.SHUTDOWN or not self._is_disconnect(error):
                raise
            logger.debug("%s ended by its disconnect: %r", self.name, error)
        finally:
            current_call.reset(token)
            await self._stop_helpers()

    async def receive(self) -> Message:
        if self._we_closed:
            return self._disconnect()
        loop = asyncio.get_running_loop()
        if self._closer is None:
            self._closer = loop.create_task(self._close_after_grace(), name=f"lastcall: closing {self.name}")
        # Kept over calls: an app that gives up waiting (a timeout around receive) must not lose the message.
        if self._incoming is None:
            self._incoming = asyncio.ensure_future(self._app_receive())
        waiting: set[asyncio.Future[Any]] = {self._incoming, self._closer}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not self._incoming.done():
            return self._disconnect()
        incoming, self._incoming = self._incoming, None
        message = incoming.result()
        if message["type"] == "websocket.disconnect":
            self._closed = True
            self._disconnect_code = message.get("code", 1005)
            if self.hold.reason is None:
                self.hold.stop(StopReason.DISCONNECT)
        return message

    async def send(self, message: Message) -> None:
        if self._we_closed:
            raise WebSocketClosed(
                f"{self.name} was closed with code {SERVICE_RESTART}: the process is shutting down"
            )
        if message["type"] in ("websocket.close", "websocket.http.response.start"):
            self._closed = True
        sending = asyncio.timeout(None)
        try:
            async with sending:
                self._sends.add(sending)
                try:
                    await self._app_send(message)
                finally:
                    self._sends.discard(sending)
        except TimeoutError:
            if not sending.expired():
                raise
            raise WebSocketClosed(f"{self.name} was not taken by the server any more") from None

    async def _close_after_grace(self) -> None:
        shutdown = self.hold.shutdown
        await shutdown.wait()
        if shutdown.reason is StopReason.DISCONNECT:
            await asyncio.get_running_loop().create_future()  # the app hears of it from the server
        latest = max(0.0, shutdown.remaining - _DISCONNECT_MARGIN_SECONDS)
        await asyncio.sleep(min(self.options.stream_seconds, latest))
        await run_bounded(self._close(), _CLOSE_SECONDS, what=f"closing {self.name}")
        # granian drops a WebSocket at the signal and never answers what is being sent on it.
        self._we_closed = True
        for sending in tuple(self._sends):
            sending.reschedule(asyncio.get_running_loop().time())

    async def _close(self) -> None:
        if not self._closed:
            self._closed = self._we_closed = True
            await self._app_send(
                {"type": "websocket.close", "code": SERVICE_RESTART, "reason": "shutting down"}
            )

    async def _stop_helpers(self) -> None:
        helpers = {
            helper for helper in (self._incoming, self._closer) if helper is not None and not helper.done()
        }
        for helper in helpers:
            helper.cancel()
        if helpers:
            await asyncio.wait(helpers, timeout=_CLOSE_SECONDS)
        incoming = self._incoming
        if (
            incoming is not None
            and incoming.done()
            and not incoming.cancelled()
            and incoming.exception() is not None
        ):
            logger.debug("%s: %r after its end", self.name, incoming.exception())

    def _disconnect(self) -> Message:
        self._disconnect_code = SERVICE_RESTART
        return {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "shutting down"}

    def _is_disconnect(self, error: BaseException | None) -> bool:
        """Whether a framework raised this for a disconnect it was given (`WebSocketDisconnect` has its code)."""
        while error is not None:
            code = getattr(error, "code", None)
            if isinstance(error, WebSocketClosed) or (code is not None and code == self._disconnect_code):
                return True
            error = error.__cause__ or error.__context__
        return False
