"""WebSockets: told at the stop, closed with 1012 after their grace, cancelled at the deadline."""

import asyncio
from typing import Any

import pytest

from lastcall import ShutdownPlan, StopReason, TaskManager, current_shutdown
from lastcall.asgi import Lastcall, WebSocketClosed
from tests.asgi.driver import WebSocket, running, until, within


def socket_app(handler: Any) -> Any:
    """An app that accepts and then runs the handler."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await handler(receive, send)

    return app


class Disconnect(Exception):
    """What frameworks raise for a disconnect."""

    def __init__(self, code: int) -> None:
        self.code = code


async def test_handler_is_told_and_says_goodbye() -> None:
    """A handler that listens ends itself with its own close, before anybody closes for it."""

    async def handler(receive: Any, send: Any) -> None:
        await current_shutdown().wait()
        await send({"type": "websocket.send", "text": "bye"})
        await send({"type": "websocket.close", "code": 1001})

    app = Lastcall(socket_app(handler), TaskManager(plan=ShutdownPlan(drain=30)))
    async with running(app) as lifespan:
        socket = WebSocket(app, "/ws")
        await socket.until_sent(1)
        await within(lifespan.stop())
        await socket.done()
    assert socket.types() == ["websocket.accept", "websocket.send", "websocket.close"]
    assert socket.sent[-1]["code"] == 1001


async def test_blocked_receive_gets_a_disconnect_after_the_grace() -> None:
    """A handler blocked in receive gets `websocket.disconnect` 1012, the client a close 1012; nobody is cancelled."""
    got: list[Any] = []

    async def handler(receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        got.append((message["code"], current_shutdown().reason))
        got.append((await receive())["type"])
        raise Disconnect(message["code"])

    manager = TaskManager(plan=ShutdownPlan(drain=30))
    app = Lastcall(socket_app(handler), manager, stream_grace_seconds=0.05)
    async with running(app) as lifespan:
        socket = WebSocket(app, "/ws")
        await socket.until_sent(1)
        await within(lifespan.stop())
        await socket.done()  # the framework's exception for our own disconnect is no error of the server
    assert got == [(1012, StopReason.SHUTDOWN), "websocket.disconnect"]
    assert socket.sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "shutting down"}
    assert manager.report is not None and manager.report.clean


async def test_sending_after_the_close_is_an_os_error() -> None:
    """A handler that only pushes learns of the close by an OSError, as ASGI says, and ends by it quietly."""
    raised: list[BaseException] = []

    async def handler(receive: Any, send: Any) -> None:
        pending = asyncio.ensure_future(receive())
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0)
        except OSError as error:
            raised.append(error)
            raise
        finally:
            await asyncio.wait({pending})

    app = Lastcall(socket_app(handler), TaskManager(plan=ShutdownPlan(drain=30)), stream_grace_seconds=0.02)
    async with running(app) as lifespan:
        socket = WebSocket(app, "/ws")
        await socket.until_sent(3)
        await within(lifespan.stop())
        await socket.done()
    assert isinstance(raised[0], WebSocketClosed)
    assert socket.sent[-1]["code"] == 1012


async def test_deaf_handler_is_cancelled_at_the_deadline() -> None:
    """A handler that neither receives nor listens: cancelled once, and the client still gets its 1012."""

    async def handler(receive: Any, send: Any) -> None:
        await asyncio.sleep(3600)

    app = Lastcall(socket_app(handler), TaskManager(plan=ShutdownPlan(drain=0.05)))
    async with running(app) as lifespan:
        socket = WebSocket(app, "/ws")
        await socket.until_sent(1)
        await within(lifespan.stop())
        await socket.done()
    assert socket.sent[-1]["code"] == 1012


async def test_message_is_not_lost_when_the_app_stops_waiting() -> None:
    """A timeout around receive must not swallow the message that comes after it."""
    got: list[str] = []

    async def handler(receive: Any, send: Any) -> None:
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await send({"type": "websocket.send", "text": "gave up"})
        got.append((await receive())["text"])

    app = Lastcall(socket_app(handler), TaskManager())
    async with running(app):
        socket = WebSocket(app, "/ws")
        await socket.until_sent(2)
        socket.say("hello")
        await socket.done()
    assert got == ["hello"]


async def test_new_websocket_in_the_drain_is_refused() -> None:
    """Before the accept: a real 503 where the server can send one, else close code 1012."""
    release = asyncio.Event()

    async def handler(receive: Any, send: Any) -> None:
        await release.wait()

    app = Lastcall(socket_app(handler), TaskManager(plan=ShutdownPlan(drain=30)))
    async with running(app) as lifespan:
        first = WebSocket(app, "/ws")
        await first.until_sent(1)
        app.manager.begin_shutdown()
        plain = await WebSocket(app, "/ws").done()
        assert plain.sent == [{"type": "websocket.close", "code": 1012, "reason": "shutting down"}]
        able = await WebSocket(app, "/ws", extensions={"websocket.http.response": {}}).done()
        assert able.sent[0]["status"] == 503 and (b"retry-after", b"5") in able.sent[0]["headers"]
        release.set()
        await within(lifespan.stop())


async def test_client_that_left_is_told_as_such() -> None:
    """The handler sees `disconnect`; its exception for it is the server's, as without lastcall."""
    reasons: list[Any] = []

    async def handler(receive: Any, send: Any) -> None:
        message = await receive()
        reasons.append(current_shutdown().reason)
        raise Disconnect(message["code"])

    app = Lastcall(socket_app(handler), TaskManager())
    async with running(app):
        socket = WebSocket(app, "/ws")
        await socket.until_sent(1)
        socket.leave()
        with pytest.raises(Disconnect):
            await socket.done()
    assert reasons == [StopReason.DISCONNECT]


async def test_websocket_is_listed_while_it_lives() -> None:
    """It counts as a call of its kind, and is gone afterwards."""
    app = Lastcall(socket_app(lambda receive, send: receive()), TaskManager())
    async with running(app):
        socket = WebSocket(app, "/ws")
        await socket.until_sent(1)
        [call] = app.manager.calls()
        assert (call.name, call.kind) == ("WS /ws", "websocket")
        socket.say("x")
        await socket.done()
        await until(lambda: not app.manager.calls())
