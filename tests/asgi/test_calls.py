"""Calls in flight: held in the drain, told, ended properly at their deadline, refused while draining."""

import asyncio
from typing import Any

import pytest

from lastcall import Kind, ShutdownPlan, StopReason, TaskManager, current_shutdown
from lastcall.asgi import Lastcall
from tests.asgi.driver import Request, get, running, until, within


def http_app(handler: Any) -> Any:
    """An app without a lifespan of its own."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await handler(scope, receive, send)

    return app


async def start(send: Any, content_type: bytes = b"text/plain", *headers: tuple[bytes, bytes]) -> None:
    all_headers = [(b"content-type", content_type), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": all_headers})


async def body(send: Any, data: bytes, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def test_call_in_flight_is_held_and_told() -> None:
    """A request in flight at the stop sees it, finishes its answer, and only then the drain is over."""
    reasons: list[Any] = []

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await current_shutdown().wait()
        reasons.append(current_shutdown().reason)
        await start(send)
        await body(send, b"done", False)

    manager = TaskManager(plan=ShutdownPlan(drain=30))
    app = Lastcall(http_app(handler), manager)
    async with running(app) as lifespan:
        request = Request(app, "/work")
        await until(manager.calls)
        assert [(call.name, call.kind) for call in manager.calls()] == [("GET /work", Kind.REQUEST)]
        await lifespan.stop()
        await request.done()
    assert reasons == [StopReason.SHUTDOWN] and request.body == b"done"
    assert request.headers["connection"] == "close"
    assert manager.report is not None and manager.report.clean


async def test_call_past_its_deadline_gets_503() -> None:
    """A request that has sent nothing when its time is over: cancelled once, and the client gets a proper 503."""
    cleaned = asyncio.Event()

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    app = Lastcall(
        http_app(handler), TaskManager(plan=ShutdownPlan(drain=0.05, cancel=5)), retry_after_seconds=7
    )
    async with running(app) as lifespan:
        request = Request(app, "/")
        await until(app.manager.calls)
        await lifespan.stop()
        await request.done()
    assert request.status == 503 and request.headers["retry-after"] == "7" and cleaned.is_set()
    assert request.task.cancelling() == 0


@pytest.mark.parametrize(
    ("content_type", "complete"),
    [
        (b"text/event-stream; charset=utf-8", True),
        (b"application/x-ndjson", True),
        (b"application/zip", False),
        (b"", False),
    ],
)
async def test_cut_body_ends_cleanly_only_where_that_is_true(content_type: bytes, complete: bool) -> None:
    """A cut event stream gets a clean end; half an archive stays visibly unfinished."""

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await start(send, content_type)
        await body(send, b"data: 1\n\n", True)
        await asyncio.sleep(3600)

    app = Lastcall(http_app(handler), TaskManager(plan=ShutdownPlan(drain=0.05)))
    async with running(app) as lifespan:
        request = Request(app, "/")
        await request.until(lambda r: r.chunks)
        await lifespan.stop()
        await request.done()
    assert request.complete is complete


async def test_announced_length_is_never_completed_short() -> None:
    """A text with a content-length that is cut must not be ended as if it were whole."""

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await start(send, b"text/plain", (b"content-length", b"100"))
        await body(send, b"half", True)
        await asyncio.sleep(3600)

    app = Lastcall(http_app(handler), TaskManager(plan=ShutdownPlan(drain=0.05)))
    async with running(app) as lifespan:
        request = Request(app, "/")
        await request.until(lambda r: r.chunks)
        await lifespan.stop()
        await request.done()
    assert not request.complete


async def test_event_stream_of_any_framework_has_its_own_grace() -> None:
    """An endless event stream ends after `stream_grace_seconds`, long before the drain's end, and with a clean end."""

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await start(send, b"text/event-stream")
        while True:
            await body(send, b"data: x\n\n", True)

    manager = TaskManager(plan=ShutdownPlan(drain=3600))
    app = Lastcall(http_app(handler), manager, stream_grace_seconds=0.05)
    async with running(app) as lifespan:
        request = Request(app, "/")
        await request.until(lambda r: len(r.chunks) > 3)
        await within(lifespan.stop())
        await request.done()
    assert request.complete and request.chunks[-1] == b""


async def test_new_calls_in_the_drain_are_refused_with_advice() -> None:
    """503, Retry-After and Connection: close on HTTP/1.1; no connection header on HTTP/2, which forbids it."""
    gate = asyncio.Event()

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await start(send)
        await body(send, b"", False)

    manager = TaskManager(plan=ShutdownPlan(drain=30))
    app = Lastcall(http_app(handler), manager)
    async with running(app) as lifespan:
        first = Request(app, "/")
        await until(manager.calls)
        manager.begin_shutdown()
        refused = await get(app, "/")
        assert (refused.status, refused.headers["retry-after"], refused.headers["connection"]) == (
            503,
            "5",
            "close",
        )
        over_http2 = await get(app, "/", http_version="2")
        assert over_http2.status == 503 and "connection" not in over_http2.headers
        gate.set()
        await first.done()
        await lifespan.stop()
        assert (await get(app, "/")).status == 503, "also when all is over"


async def test_notice_keeps_serving_and_sends_clients_away() -> None:
    """In the notice phase calls are answered, with Connection: close, while readiness is 503."""

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await start(send, b"text/plain", (b"connection", b"keep-alive"))
        await body(send, b"served", False)

    manager = TaskManager(plan=ShutdownPlan(notice=30))
    app = Lastcall(http_app(handler), manager)
    async with running(app) as lifespan:
        assert (await get(app, "/")).headers["connection"] == "keep-alive"
        manager.begin_shutdown()
        request = await get(app, "/")
        assert (request.status, request.body, request.headers["connection"]) == (200, b"served", "close")
        assert (await get(app, "/readyz")).status == 503
        assert (await get(app, "/livez")).status == 200
        await within(lifespan.stop())  # the server stops: nobody is left to give notice to


async def test_client_that_left_is_told_as_such() -> None:
    """A handler that waits for the client sees `disconnect`, and not a shutdown."""
    reasons: list[Any] = []

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        reasons.append(current_shutdown().reason)

    app = Lastcall(http_app(handler), TaskManager())
    async with running(app):
        request = Request(app, "/")
        await until(app.manager.calls)
        request.leave()
        await request.done()
    assert reasons == [StopReason.DISCONNECT]


async def test_disconnect_after_the_answer_is_no_news() -> None:
    """Servers say `http.disconnect` after every finished answer; that tells nobody to stop."""
    reasons: list[Any] = []

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await start(send)
        await body(send, b"", False)
        assert (await receive())["type"] == "http.disconnect"
        reasons.append(current_shutdown().reason)

    app = Lastcall(http_app(handler), TaskManager())
    async with running(app):
        await get(app, "/")
    assert reasons == [None]


async def test_a_servers_own_cancel_is_not_swallowed() -> None:
    """A server that cancels the call itself gets its CancelledError."""

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(3600)

    app = Lastcall(http_app(handler), TaskManager())
    async with running(app):
        request = Request(app, "/")
        await until(app.manager.calls)
        request.task.cancel()
        await asyncio.wait({request.task})
        assert request.task.cancelled()
        assert not app.manager.calls()


async def test_error_of_the_app_reaches_the_server() -> None:
    """What the app raises is the server's to log; the call is released."""

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("boom")

    app = Lastcall(http_app(handler), TaskManager())
    async with running(app):
        with pytest.raises(KeyError, match="boom"):
            await get(app, "/")
        assert not app.manager.calls()


async def test_call_before_the_lifespan_is_a_clear_error() -> None:
    """A server with its lifespan off: the first request says what is missing, instead of hanging at shutdown."""
    app = Lastcall(http_app(None), TaskManager(name="orders"))
    with pytest.raises(RuntimeError, match="'orders'.*lifespan on"):
        await get(app, "/")
    assert (await get(app, "/livez")).status == 200


async def test_mounted_app_with_the_same_manager_holds_once() -> None:
    """Lastcall inside Lastcall with one manager: one call is listed, and the inner one is served."""
    manager = TaskManager()
    seen: list[int] = []

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        seen.append(len(manager.calls()))
        await start(send)
        await body(send, b"", False)

    app = Lastcall(Lastcall(http_app(handler), manager), manager)
    async with running(Lastcall(http_app(handler), manager)):
        await get(app, "/")
    assert seen == [1]
