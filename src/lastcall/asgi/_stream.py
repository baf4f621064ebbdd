"""StreamResponse: any async iterator as a response which always ends properly.

Theory of operation. Two tasks share a small buffer:

    producer   owns the source: asks for items, frames them, waits while the buffer is full, closes the source
    forwarder  the call's own task: writes what is there, keep-alives when nothing is, the terminal event at the end

The source is touched by the producer alone, from its first `__anext__` to its `aclose()`. So a keep-alive
never cancels the source (PEP 789), cancel scopes inside it stay in one task, and when the server cancels the
call, the source is still closed in peace. Two helpers only watch: for a client that left, and for the stop.

The source is never gated on "draining": told to stop, it goes on within its grace and may write a last item.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Mapping
from typing import Any, Literal

from .._core._clock import check_seconds
from .._core._scope import current_shutdown
from .._core._state import StopReason
from ..exceptions import InvalidPlan, NotOpen, ShuttingDown
from ._bounded import run_bounded
from ._calls import Call, current_call
from ._framing import EndReason, Framing, framing
from ._types import Headers, Receive, Scope, Send

logger = logging.getLogger("lastcall.asgi")

StreamFormat = Literal["sse", "ndjson", "text"]

_BUFFER_FRAMES = 16
_CLOSE_SECONDS = 2.0  # for the source's cleanup after its cancel
_LAST_WRITE_SECONDS = 1.0  # for the terminal event, to a client that may not read
_DEFAULT_GRACE_SECONDS = 5.0  # outside of Lastcall, which has a setting for it


class StreamResponse:
    """An ASGI response that streams `source`, any async iterator (an LLM's `astream`), and always ends properly.

    The source is told when the process shuts down (`current_shutdown()` works inside it), has `grace_seconds`
    to end itself, is cancelled after that, and closed in any case. The client gets a terminal event
    `{"type": "end", "reason": "completed" | "shutdown" | "cancelled" | "error"}`: as `event: end` in SSE,
    as the last line in NDJSON, and as the last line of a text that could not be completed.
    A client that left stops the source with the reason `disconnect`. A failing source is reported once, through
    the manager; its message is not sent to the client.

    `format`: "sse" (default; items are text, anything JSON can hold, pydantic models, or `Event`), "ndjson" or "text".
    `keep_alive_seconds` (15): a comment is sent after so long without an event; SSE only, None for never.
    `grace_seconds`: from the shutdown to the cancel of the source; default is `stream_grace_seconds` of the app.
    A slow client slows the source: at most 16 items are waiting for it.

    Raises `TypeError` for a source that is no async iterator, `ValueError` for an unknown format,
    `InvalidPlan` for seconds that are negative or NaN.

        return StreamResponse(llm.astream(prompt), format="sse")
    """

    def __init__(
        self,
        source: AsyncIterable[Any],
        *,
        format: StreamFormat = "sse",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        keep_alive_seconds: float | None = 15.0,
        grace_seconds: float | None = None,
        media_type: str | None = None,
    ) -> None:
        self.framing = framing(format)
        if not isinstance(source, AsyncIterable):
            hint = "; call the generator function" if callable(source) else ""
            raise TypeError(f"StreamResponse streams an async iterator, got {source!r}{hint}")
        self.source = source
        self.status_code = status_code
        self.keep_alive_seconds = keep_alive_seconds
        if keep_alive_seconds is not None:
            self.keep_alive_seconds = check_seconds("StreamResponse(keep_alive_seconds)", keep_alive_seconds)
            if not self.keep_alive_seconds:
                raise InvalidPlan(
                    "StreamResponse(keep_alive_seconds) must be above 0, or None for no keep-alives"
                )
        self.grace_seconds = grace_seconds
        if grace_seconds is not None:
            self.grace_seconds = check_seconds("StreamResponse(grace_seconds)", grace_seconds)
        self.raw_headers = stream_headers(media_type or self.framing.media_type, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await run_stream(
            self.source,
            self.framing,
            scope,
            receive,
            send,
            start={"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers},
            keep_alive_seconds=self.keep_alive_seconds,
            grace_seconds=self.grace_seconds,
        )


def stream_headers(media_type: str, headers: Mapping[str, str] | None) -> Headers:
    """The headers that keep proxies from collecting or storing a stream, under those of the caller."""
    merged = {"content-type": media_type, "cache-control": "no-store", "x-accel-buffering": "no"}
    merged.update((name.lower(), value) for name, value in (headers or {}).items())
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in merged.items()]


async def run_stream(
    source: AsyncIterable[Any],
    frames: Framing,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    start: dict[str, Any],
    keep_alive_seconds: float | None,
    grace_seconds: float | None,
) -> None:
    """Stream `source` as the response of this call; returns when the source is closed and the end is written."""
    call = current_call.get()
    if grace_seconds is None:
        grace_seconds = _DEFAULT_GRACE_SECONDS if call is None else call.options.stream_seconds
    if call is not None:
        call.ends_itself = True
        # A backstop only: for a client that does not read, so that our own end cannot be written.
        call.hold.grace_seconds = grace_seconds + _CLOSE_SECONDS + _LAST_WRITE_SECONDS
    stream = _Stream(source, frames, call, receive, send, keep_alive_seconds, grace_seconds)
    if scope.get("method") == "HEAD":
        await send(start)
        await close_source(source)
        await send({"type": "http.response.body", "body": b""})
        return
    try:
        await send(start)
    except BaseException:
        await close_source(source)
        raise
    await stream.run(f"stream {scope.get('method', 'GET')} {scope.get('path', '')}"[:200])


async def close_source(source: object, iterator: object = None) -> None:
    """Close the iterator and what it came from: generators have `aclose`, LLM clients' streams often `close`."""
    for thing in (iterator, source) if iterator is not None and iterator is not source else (source,):
        close: Callable[[], Any] | None = getattr(thing, "aclose", None) or getattr(thing, "close", None)
        if close is not None:
            closing = close()
            if hasattr(closing, "__await__"):
                await closing


class _Stream:
    """One run of one stream."""

    def __init__(
        self,
        source: AsyncIterable[Any],
        frames: Framing,
        call: Call | None,
        receive: Receive,
        send: Send,
        keep_alive_seconds: float | None,
        grace_seconds: float,
    ) -> None:
        self._source = source
        self._framing = frames
        self._call = call
        self._receive = receive
        self._send = send
        self._keep_alive_seconds = keep_alive_seconds if frames.keep_alive is not None else None
        self._grace_seconds = grace_seconds
        self._shutdown = current_shutdown()
        self._buffer: deque[bytes] = deque()
        self._room = asyncio.Event()
        self._wake = asyncio.Event()
        self._quiet = False  # time for a keep-alive
        self._gone = False  # the client left
        self._over = False  # no use in waiting for the producer any longer

    async def run(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._producer = self._start(self._produce(), name)
        except (ShuttingDown, NotOpen):
            await close_source(self._source)
            await self._write_end(EndReason.SHUTDOWN)
            return
        self._producer.add_done_callback(lambda _: self._wake.set())
        helpers = {loop.create_task(self._watch_client()), loop.create_task(self._watch_shutdown())}
        try:
            await self._forward()
        except OSError:
            self._gone = True  # how servers of ASGI 2.4 say that the client left
        except asyncio.CancelledError:
            # By the deadline, by force, or by the server: there is still a moment for the source to close
            # and for the client to hear why.
            await self._stop_source(StopReason.SHUTDOWN if self._shutdown.requested else StopReason.USER)
            if not self._gone:
                await run_bounded(
                    self._write_end(self._reason()), _LAST_WRITE_SECONDS, what=f"the end of {name}"
                )
            raise
        finally:
            for helper in helpers:
                helper.cancel()
            await self._stop_source(StopReason.DISCONNECT if self._gone else StopReason.USER)
        if not self._gone:
            await self._write_end(self._reason())

    def _start(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._call is not None:
            return self._call.manager.create_task(coro, name=name)
        return asyncio.get_running_loop().create_task(coro, name=name)

    # --- the producer -----------------------------------------------------------------------------------

    async def _produce(self) -> None:
        iterator = aiter(self._source)
        try:
            async for item in iterator:
                frame = self._framing.item(item)
                while len(self._buffer) >= _BUFFER_FRAMES:
                    self._room.clear()
                    await self._room.wait()
                self._buffer.append(frame)
                self._wake.set()
                # A source that never awaits would otherwise keep the whole server from its work.
                await asyncio.sleep(0)
        finally:
            await close_source(self._source, iterator)

    # --- the forwarder ----------------------------------------------------------------------------------

    async def _forward(self) -> None:
        while not self._gone:
            self._wake.clear()
            if self._buffer:
                chunk = b"".join(self._buffer)
                self._buffer.clear()
                self._room.set()
                await self._write(chunk)
                if self._over and not self._producer.done():
                    return  # it refuses to end and goes on producing
            elif self._producer.done() or self._over:
                return
            elif self._quiet and self._framing.keep_alive is not None:
                self._quiet = False
                await self._write(self._framing.keep_alive)
            else:
                await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        if self._keep_alive_seconds is None:
            await self._wake.wait()
            return
        timer = asyncio.get_running_loop().call_later(self._keep_alive_seconds, self._on_quiet)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _on_quiet(self) -> None:
        self._quiet = True
        self._wake.set()

    async def _write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _write_end(self, reason: EndReason) -> None:
        try:
            await self._send(
                {"type": "http.response.body", "body": self._framing.end(reason), "more_body": False}
            )
        except OSError:
            self._gone = True

    def _reason(self) -> EndReason:
        producer = self._producer
        if producer.done() and not producer.cancelled() and (error := producer.exception()) is not None:
            if self._call is None:  # with a manager the failure is the manager's to report
                logger.error("%s failed: %r", producer.get_name(), error, exc_info=error)
            return EndReason.ERROR
        if self._shutdown.reason is StopReason.SHUTDOWN:
            return EndReason.SHUTDOWN
        if producer.done() and not producer.cancelled() and self._shutdown.reason is None:
            return EndReason.COMPLETED
        return EndReason.CANCELLED

    # --- the two that watch -----------------------------------------------------------------------------

    async def _watch_client(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception as error:
            logger.debug("%s: cannot watch for the client leaving: %r", self._producer.get_name(), error)
            return
        self._gone = True
        self._wake.set()

    async def _watch_shutdown(self) -> None:
        await self._shutdown.wait()
        reason = self._shutdown.reason
        if reason is None or reason is StopReason.DISCONNECT:
            return  # the other watcher's
        latest = self._shutdown.remaining - _CLOSE_SECONDS
        await asyncio.sleep(min(self._grace_seconds, max(0.0, latest)))
        await self._stop_source(reason)
        self._wake.set()

    async def _stop_source(self, reason: StopReason) -> None:
        """Tell, cancel once, wait for a bounded time. What refuses stays the manager's, which reports it."""
        producer = self._producer
        if producer.done() or self._over:
            return
        if self._call is not None:
            await self._call.manager.cancel_task(producer, timeout=_CLOSE_SECONDS, reason=reason)
        else:
            producer.cancel(msg=reason.value)
            await asyncio.wait({producer}, timeout=_CLOSE_SECONDS)
            if not producer.done():
                logger.warning("%s ignores its cancellation; going on without it", producer.get_name())
        self._over = True
