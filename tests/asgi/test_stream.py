"""StreamResponse: every stream ends properly, whatever its source, its client or its process do."""

import asyncio
import dataclasses
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lastcall import ShutdownPlan, StopReason, TaskManager, TaskStatus, current_shutdown
from lastcall.asgi import Event, Lastcall, StreamResponse
from tests.asgi.driver import Request, get, running, until, within


def stream_app(make: Any, manager: TaskManager | None = None, **options: Any) -> Lastcall:
    """An app whose every call streams what `make()` gives."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await StreamResponse(make(), **options)(scope, receive, send)

    return Lastcall(app, TaskManager() if manager is None else manager)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def endless(closed: asyncio.Event) -> AsyncIterator[str]:
    try:
        yield "first"
        while True:
            await asyncio.sleep(3600)
    finally:
        closed.set()


def end_of(request: Request) -> dict[str, str]:
    event = request.events()[-1]
    assert event["event"] == "end"
    return json.loads(event["data"])


async def test_sse_ends_with_its_terminal_event() -> None:
    """A source that ends by itself: all its items in order, then `completed`."""
    async with running(app := stream_app(lambda: numbers(3))):
        request = await get(app, "/")
    assert [event["data"] for event in request.events()[:-1]] == ["0", "1", "2"]
    assert end_of(request) == {"type": "end", "reason": "completed"}
    assert request.headers["content-type"].startswith("text/event-stream")
    assert request.headers["x-accel-buffering"] == "no" and request.headers["cache-control"] == "no-store"
    assert request.complete


async def test_ndjson_ends_with_its_terminal_line() -> None:
    """Each line is JSON, the last one says why it ended."""
    async with running(app := stream_app(lambda: numbers(2), format="ndjson")):
        request = await get(app, "/")
    assert [json.loads(line) for line in request.body.splitlines()] == [
        0,
        1,
        {"type": "end", "reason": "completed"},
    ]


async def test_text_stays_as_written() -> None:
    """A completed text is exactly what its source wrote, bytes and str."""

    async def words() -> AsyncIterator[Any]:
        yield "Grüße, "
        yield b"world"

    async with running(app := stream_app(words, format="text")):
        request = await get(app, "/")
    assert request.body == "Grüße, world".encode()


async def test_text_that_breaks_says_so() -> None:
    """A text whose source fails ends with the reason as its last line."""

    async def words() -> AsyncIterator[str]:
        yield "half a sen"
        raise RuntimeError("model gone")

    errors: list[str] = []
    manager = TaskManager(on_error=lambda info, error: errors.append(f"{info.name}: {error}"))
    async with running(app := stream_app(words, manager, format="text")):
        request = await get(app, "/")
    text, _, last = request.body.decode().strip().rpartition("\n")
    assert text == "half a sen" and json.loads(last) == {"type": "end", "reason": "error"}
    assert errors == ["stream GET /: model gone"]


async def test_failing_source_is_reported_once_and_not_leaked() -> None:
    """The client hears `error` without the message; the manager reports the exception once."""

    async def source() -> AsyncIterator[str]:
        yield "a"
        raise RuntimeError("secret path /srv")

    errors: list[BaseException] = []
    manager = TaskManager(on_error=lambda info, error: errors.append(error))
    async with running(app := stream_app(source, manager)):
        request = await get(app, "/")
        assert manager.stats().failed == 1
    assert end_of(request) == {"type": "end", "reason": "error"}
    assert b"secret" not in request.body
    assert len(errors) == 1


async def test_item_that_cannot_be_written_is_an_error_of_the_source() -> None:
    """A source that yields something JSON cannot hold ends with `error`, and its source is closed."""
    closed = asyncio.Event()

    async def source() -> AsyncIterator[Any]:
        try:
            yield math.nan
        finally:
            closed.set()

    errors: list[BaseException] = []
    manager = TaskManager(on_error=lambda info, error: errors.append(error))
    async with running(app := stream_app(source, manager)):
        request = await get(app, "/")
    assert end_of(request)["reason"] == "error" and closed.is_set() and len(errors) == 1


async def test_shutdown_tells_the_source_which_ends_itself() -> None:
    """The source sees the stop at once, writes a last item, and the client gets `shutdown`."""

    async def source() -> AsyncIterator[str]:
        shutdown = current_shutdown()
        yield "working"
        await shutdown.wait()
        yield f"stopping for {shutdown.reason}"

    manager = TaskManager(plan=ShutdownPlan(drain=30))
    async with running(app := stream_app(source, manager)) as lifespan:
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        await lifespan.stop()
        await request.done()
    assert [event["data"] for event in request.events()[:-1]] == ["working", "stopping for shutdown"]
    assert end_of(request) == {"type": "end", "reason": "shutdown"}
    assert manager.report is not None and manager.report.clean


async def test_endless_source_is_cut_after_its_grace() -> None:
    """A source that does not listen is cancelled after `grace_seconds`, closed, and the client gets `shutdown`."""
    closed = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(drain=30))
    async with running(app := stream_app(lambda: endless(closed), manager, grace_seconds=0.05)) as lifespan:
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        await lifespan.stop()
        await request.done()
    assert end_of(request) == {"type": "end", "reason": "shutdown"}
    assert closed.is_set() and request.complete


async def test_grace_beyond_the_plan_is_cut_with_a_proper_end() -> None:
    """A grace longer than the drain: the stream still ends with its event, before the call is cancelled."""
    closed = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(drain=0.2, cancel=1))
    async with running(app := stream_app(lambda: endless(closed), manager, grace_seconds=60)) as lifespan:
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        await lifespan.stop()
        await request.done()
    assert end_of(request)["reason"] == "shutdown" and closed.is_set()


async def test_force_cuts_the_stream_with_a_proper_end() -> None:
    """The second signal in the middle of a long grace: the client still gets its terminal event."""
    closed = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(drain=60))
    async with running(app := stream_app(lambda: endless(closed), manager, grace_seconds=60)) as lifespan:
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        manager.begin_shutdown()
        manager.force()
        await lifespan.stop()
        await request.done()
    assert end_of(request)["reason"] == "shutdown" and closed.is_set() and request.complete


async def test_client_that_left_stops_the_source_with_its_reason() -> None:
    """The source is told `disconnect`, cancelled and closed; nobody waits for it any longer."""
    reasons: list[Any] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "hello"
            await asyncio.sleep(3600)
        finally:
            reasons.append(current_shutdown().reason)

    async with running(app := stream_app(source)):
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        request.leave()
        await request.done()
        assert reasons == [StopReason.DISCONNECT]


async def test_cleanup_of_a_cut_source_may_await() -> None:
    """The source's `finally` awaits after its cancel: it is left in peace to its end."""
    closed = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            yield "hello"
            await asyncio.sleep(3600)
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            closed.set()

    async with running(app := stream_app(source)):
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        request.leave()
        await request.done()
        assert closed.is_set()


async def test_cancel_of_the_call_by_a_server_still_closes_the_source() -> None:
    """A server that cancels the call (hypercorn's limit): the source closes, the end is written, the cancel goes on."""
    closed = asyncio.Event()
    async with running(app := stream_app(lambda: endless(closed))):
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        request.task.cancel()
        await asyncio.wait({request.task})
        assert request.task.cancelled() and closed.is_set()
    assert end_of(request)["reason"] == "cancelled"


async def test_source_that_never_awaits_cannot_hang_the_loop() -> None:
    """An async generator without any await: others run on, and the client that leaves ends it."""
    closed = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    async with running(app := stream_app(source)):
        request = Request(app, "/")
        await request.until(lambda r: len(r.body) > 1000)
        assert (await get(app, "/livez")).status == 200
        request.leave()
        await request.done()
        assert closed.is_set()


async def test_slow_client_slows_the_source() -> None:
    """A client that does not read: the source waits behind a bounded buffer instead of filling the memory."""
    produced = 0

    async def source() -> AsyncIterator[int]:
        nonlocal produced
        for produced in range(10_000):
            yield produced

    async with running(app := stream_app(source)):
        request = Request(app, "/", reading=False)
        await until(lambda: produced > 5)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert produced < 100
        request.read_on()
        await request.done()
    assert len(request.events()) == 10_001


async def test_client_that_never_reads_cannot_hold_the_shutdown() -> None:
    """A stuck client and an endless source: the plan goes on without them."""
    closed = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(drain=0.3, cancel=2))
    async with running(app := stream_app(lambda: endless(closed), manager, grace_seconds=0.1)) as lifespan:
        request = Request(app, "/", reading=False)
        await until(lambda: request.status)
        await within(lifespan.stop())
        await request.done()
        assert closed.is_set()


async def test_keep_alives_do_not_touch_the_source() -> None:
    """While the source is quiet comments are sent; its pending `__anext__` is never cancelled."""
    go = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        await go.wait()
        yield "after the quiet"

    async with running(app := stream_app(source, keep_alive_seconds=0.001)):
        request = Request(app, "/")
        await request.until(lambda r: r.body.count(b": keep-alive\n\n") >= 3)
        go.set()
        await request.done()
    assert [event["data"] for event in request.events()[:-1]] == ["after the quiet"]


async def test_head_ends_without_running_the_source() -> None:
    """HEAD on an endless stream gets the headers and an end; the source never starts."""
    started = False

    async def source() -> AsyncIterator[str]:
        nonlocal started
        started = True
        yield "x"

    async with running(app := stream_app(source)):
        request = await get(app, "/", method="HEAD")
    assert request.status == 200 and request.body == b"" and request.complete and not started


async def test_upstream_with_a_close_method_is_closed() -> None:
    """An LLM client's stream, which iterates through a generator and has an async `close()`, is closed too."""

    class Upstream:
        closed = False

        async def __aiter__(self) -> AsyncIterator[str]:
            yield "token"

        async def close(self) -> None:
            self.closed = True

    upstream = Upstream()
    async with running(app := stream_app(lambda: upstream)):
        await get(app, "/")
    assert upstream.closed


async def test_cancelled_by_a_user_says_cancelled() -> None:
    """Somebody cancels the stream's task: the client reads `cancelled`, not `shutdown`."""
    closed = asyncio.Event()
    async with running(app := stream_app(lambda: endless(closed), manager := TaskManager())):
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        [info] = manager.tasks(status=TaskStatus.RUNNING)
        await manager.cancel_task(info.id)
        await request.done()
    assert end_of(request) == {"type": "end", "reason": "cancelled"}


async def test_source_that_refuses_its_cancel_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A source that swallows its cancel: the client gets its end on time, the refusal is logged with the name."""
    release = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "x"
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    manager = TaskManager(plan=ShutdownPlan(drain=30))
    async with running(app := stream_app(source, manager, grace_seconds=0)):
        try:
            request = Request(app, "/stubborn")
            await request.until(lambda r: r.events())
            manager.begin_shutdown()
            await request.done()
            assert end_of(request)["reason"] == "shutdown"
            assert any("stream GET /stubborn" in record.getMessage() for record in caplog.records)
        finally:
            release.set()


async def test_without_lastcall_it_is_a_plain_response() -> None:
    """StreamResponse in an app that has no manager streams and ends all the same."""
    request = await get(StreamResponse(numbers(2)), "/")
    assert [event["data"] for event in request.events()[:-1]] == ["0", "1"]
    assert end_of(request)["reason"] == "completed"


async def test_sse_fields_and_line_ends() -> None:
    """Data with every kind of line end arrives whole, ids and names are fields, and U+2028 is no line end."""

    @dataclasses.dataclass
    class Point:
        x: int

    async def source() -> AsyncIterator[Any]:
        yield Event("a\nb\r\nc\rd\u2028e", event="note", id="7", retry_milliseconds=10)
        yield {"point": Point(3), "text": "ü"}

    async with running(app := stream_app(source)):
        request = await get(app, "/")
    first, second, _ = request.events()
    assert first == {"event": "note", "id": "7", "retry": "10", "data": "a\nb\nc\nd\u2028e"}
    assert json.loads(second["data"]) == {"point": {"x": 3}, "text": "ü"}


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_event_fields_cannot_smuggle_lines(name: str, value: str) -> None:
    """An event name or id with a line end would forge other fields; it is refused."""
    with pytest.raises(ValueError, match=name):
        Event("x", **{name: value})


def test_bad_arguments_are_refused_at_once() -> None:
    """Not an async iterator, an unknown format, impossible seconds: a clear error before anything is sent."""
    with pytest.raises(TypeError, match="call the generator function"):
        StreamResponse(numbers)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async iterator"):
        StreamResponse([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="xml"):
        StreamResponse(endless(asyncio.Event()), format="xml")  # type: ignore[arg-type]
    for seconds in (-1, math.nan, 0):
        with pytest.raises(ValueError, match="keep_alive_seconds"):
            StreamResponse(endless(asyncio.Event()), keep_alive_seconds=seconds)
    with pytest.raises(ValueError, match="grace_seconds"):
        StreamResponse(endless(asyncio.Event()), grace_seconds=-1)
