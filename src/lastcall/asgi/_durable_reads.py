"""Reading by the Durable Streams protocol: what is there (catch-up), and what comes (long-poll and SSE).

Who calls it: `_durable_streams`. A live reader waits for three things at once: news, its client's leaving, the drain.
In the drain a long-poll is answered at once and an SSE response ends; both tell where to go on, and clients do so
elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from .._core._scope import current_shutdown
from ..exceptions import LastcallError
from ..streams._policy import is_json, media_type
from ..streams._port import Position
from ._durable_body import join
from ._durable_sources import Reading, Refused, Source
from ._durable_words import format_offset, next_cursor
from ._types import Headers, Receive, Send

logger = logging.getLogger("lastcall.asgi")

KEEP_ALIVE_SECONDS: Final = 15.0

_LINE_BREAK = re.compile(rb"\r\n|\r|\n")


# --- catch-up ------------------------------------------------------------------------------------------


async def catch_up(
    source: Source, at: Position | None, if_none_match: str | None
) -> tuple[int, Headers, bytes]:
    """Status, headers and body."""
    reading = await source.read(at)
    headers = _reading_headers(reading)
    if at is None:
        # Where the end is now is nothing to be kept.
        return 200, [*headers, (b"cache-control", b"no-store")], join(reading.content_type, ())
    etag = _etag(reading)
    headers += [(b"etag", etag.encode()), (b"cache-control", b"private, no-cache")]
    if if_none_match is not None and etag in (word.strip() for word in if_none_match.split(",")):
        return 304, headers, b""
    return 200, headers, join(reading.content_type, reading.entries)


def _etag(reading: Reading) -> str:
    mark = ":closed" if reading.at_end else ""
    return f'"{reading.tag}:{format_offset(reading.start)}:{format_offset(reading.next)}{mark}"'


def _reading_headers(reading: Reading) -> Headers:
    headers: Headers = [
        (b"content-type", reading.content_type.encode("latin-1")),
        (b"stream-next-offset", format_offset(reading.next).encode()),
    ]
    if reading.up_to_date:
        headers.append((b"stream-up-to-date", b"true"))
    if reading.at_end:
        headers.append((b"stream-closed", b"true"))
    return headers


# --- waiting -------------------------------------------------------------------------------------------


class _Patience:
    """How long a live reader waits, and what ends its waiting for good: its time, its client's leaving, the stop."""

    def __init__(self, seconds: float, ends: set[asyncio.Task[object]]) -> None:
        self._until = asyncio.get_running_loop().time() + seconds
        self._ends = ends

    @property
    def is_over(self) -> bool:
        """Nothing more is to be waited for."""
        return any(end.done() for end in self._ends) or asyncio.get_running_loop().time() >= self._until

    async def wait(self, changed: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Wait for news, `seconds` at most."""
        loop = asyncio.get_running_loop()
        news: asyncio.Task[object] = loop.create_task(_until(changed))
        try:
            await asyncio.wait(
                {news, *self._ends},
                timeout=max(0.0, min(self._until - loop.time(), seconds)),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            news.cancel()


@asynccontextmanager
async def _patience(receive: Receive, seconds: float) -> AsyncIterator[_Patience]:
    """Watches the client and the stop of this call for as long as the block lasts."""
    loop = asyncio.get_running_loop()
    ends: set[asyncio.Task[object]] = {
        loop.create_task(_until_gone(receive)),
        loop.create_task(_until(current_shutdown().wait)),
    }
    try:
        yield _Patience(seconds, ends)
    finally:
        for end in ends:
            end.cancel()


async def _until(changed: Callable[[], Awaitable[object]]) -> None:
    await changed()


async def _until_gone(receive: Receive) -> None:
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except Exception as error:  # whatever the server's receive may raise
        logger.debug("cannot watch for the client leaving: %r", error)
        await asyncio.get_running_loop().create_future()


# --- long-poll -----------------------------------------------------------------------------------------


async def long_poll(
    source: Source, at: Position | None, cursor: str | None, receive: Receive, seconds: float
) -> tuple[int, Headers, bytes]:
    """Status, headers and body: as soon as there is something behind `at`, or the stream is closed there, or after
    `seconds`."""
    async with _patience(receive, seconds) as patience:
        while True:
            with source.watch() as changed:
                reading = await source.read(at)
                if at is not None and reading.entries:
                    return 200, _live_headers(reading, cursor), join(reading.content_type, reading.entries)
                at = reading.next
                if reading.at_end or patience.is_over:
                    return 204, _live_headers(reading, cursor), b""
                await patience.wait(changed, seconds)


def _live_headers(reading: Reading, cursor: str | None) -> Headers:
    return [
        *_reading_headers(reading),
        (b"stream-cursor", next_cursor(cursor, time.time(), random.random()).encode()),
        (b"cache-control", b"no-store"),
    ]


# --- SSE -----------------------------------------------------------------------------------------------


async def stream_events(
    source: Source,
    at: Position | None,
    cursor: str | None,
    receive: Receive,
    send: Send,
    seconds: float,
    headers: Headers,
) -> None:
    """Answer with events until the stream is closed, the client leaves, the process stops, or for `seconds`.

    Raises `Refused` before the answer has begun; what happens to the stream later ends the answer.
    """
    with source.watch():
        reading = await source.read(at)
    encode = _encoder(reading.content_type)
    if encode is _as_base64:
        headers = [*headers, (b"stream-sse-data-encoding", b"base64")]
    headers = [
        *headers,
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-store"),
        (b"x-accel-buffering", b"no"),
    ]
    position = reading.start if at is not None else reading.next
    async with _patience(receive, seconds) as patience:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await _tell(source, position, reading.tag, cursor, encode, patience, send)
        except (Refused, LastcallError) as error:
            # Deleted, expired, trimmed under a slow reader, or the store is away: it asks again, and is told.
            logger.debug("the events of a stream end: %s", error)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _tell(
    source: Source,
    position: Position,
    tag: str,
    cursor: str | None,
    encode: Callable[[Reading], bytes],
    patience: _Patience,
    send: Send,
) -> None:
    """Tell what is there and what comes, until the stream's end or the reader's."""
    loop = asyncio.get_running_loop()
    last_told: tuple[Position, bool, bool] | None = None
    quiet_since = loop.time()
    while True:
        with source.watch() as changed:
            reading = await source.read(position)
            if reading.tag != tag:
                return  # another stream of the same name
            position = reading.next
            told = (position, reading.up_to_date, reading.at_end)
            chunk = b""
            if told != last_told:
                cursor = next_cursor(cursor, time.time(), random.random())
                chunk = _events(reading, encode, cursor)
                last_told = told
            elif loop.time() - quiet_since >= KEEP_ALIVE_SECONDS:
                chunk = b": keep-alive\n\n"
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                quiet_since = loop.time()
            if reading.at_end or patience.is_over:
                return
            if reading.up_to_date:
                await patience.wait(changed, quiet_since + KEEP_ALIVE_SECONDS - loop.time())


def _events(reading: Reading, encode: Callable[[Reading], bytes], cursor: str) -> bytes:
    """What was read, if anything, and where the reader stands now."""
    control: dict[str, object] = {"streamNextOffset": format_offset(reading.next)}
    if reading.at_end:
        control["streamClosed"] = True
    else:
        control["streamCursor"] = cursor
        if reading.up_to_date:
            control["upToDate"] = True
    data = _event(b"data", encode(reading)) if reading.entries else b""
    return data + _event(b"control", json.dumps(control).encode())


def _event(name: bytes, data: bytes) -> bytes:
    # A line break in the data would end a line of the event, and two of them the event: each begins a new line.
    lines = b"".join(b"data:" + _guarded(line) + b"\n" for line in _LINE_BREAK.split(data))
    return b"event: " + name + b"\n" + lines + b"\n"


def _guarded(line: bytes) -> bytes:
    # A reader takes away the first space of a line: where the data has one of its own, another goes before it.
    return b" " + line if line.startswith(b" ") else line


def _encoder(content_type: str) -> Callable[[Reading], bytes]:
    if is_json(content_type):
        return _as_json
    return _as_text if media_type(content_type).startswith("text/") else _as_base64


def _as_json(reading: Reading) -> bytes:
    return join(reading.content_type, reading.entries)


def _as_text(reading: Reading) -> bytes:
    return b"".join(reading.entries).decode(errors="replace").encode()


def _as_base64(reading: Reading) -> bytes:
    return base64.b64encode(b"".join(reading.entries))
