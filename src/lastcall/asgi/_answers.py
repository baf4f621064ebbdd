"""Whole answers which this layer gives by itself: JSON, and the refusal of new work in a drain."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from typing import Any

from ._types import Headers, Receive, Scope, Send, get_header, is_http1

PROBLEM = b"application/problem+json"  # RFC 9457
SERVICE_RESTART = 1012  # the WebSocket close code for "the server is restarting, come back"


async def answer_json(
    scope: Scope,
    send: Send,
    status: int,
    content: object,
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    media_type: bytes = b"application/json",
) -> None:
    """Send one JSON answer; to HEAD only its headers. `content`: what JSON can hold, or its text as bytes."""
    body = content if isinstance(content, bytes) else encode(content)
    all_headers: Headers = [
        (b"content-type", media_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


def encode(content: object) -> bytes:
    """JSON of whatever it is: what JSON does not know is shown as text."""
    try:
        return json.dumps(content, allow_nan=False, default=repr).encode()
    except ValueError:
        return json.dumps(_finite(content), allow_nan=False, default=repr).encode()


def event(name: str, content: object) -> bytes:
    """A server-sent event. JSON has no line end, so its data is one line."""
    return b"event: " + name.encode() + b"\ndata: " + encode(content) + b"\n\n"


def _finite(value: Any) -> Any:
    """NaN and the infinities, which JSON does not have, as words. A user's own model may have stored them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _finite(child) for name, child in value.items()}
    return [_finite(child) for child in value] if isinstance(value, list | tuple) else value


def refusal_headers(scope: Scope, retry_after_seconds: int) -> Headers:
    """Come back later, and over another connection: this one ends with the process."""
    headers: Headers = [(b"retry-after", str(retry_after_seconds).encode())]
    if is_http1(scope):
        headers.append((b"connection", b"close"))
    return headers


async def refuse_http(scope: Scope, send: Send, retry_after_seconds: int) -> None:
    """503: this process is shutting down. To a browser's `EventSource`, an empty stream that says when to come back."""
    if _is_event_source(scope):
        await _send_away(scope, send, retry_after_seconds)
        return
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "shutting down",
        "retry_after_seconds": retry_after_seconds,
    }
    headers = refusal_headers(scope, retry_after_seconds)
    await answer_json(scope, send, 503, content, headers, media_type=PROBLEM)


def _is_event_source(scope: Scope) -> bool:
    accept = get_header(list(scope.get("headers", ())), b"accept")
    return scope.get("method") == "GET" and accept is not None and accept.strip() == b"text/event-stream"


async def _send_away(scope: Scope, send: Send, retry_after_seconds: int) -> None:
    # A browser gives up for good at any status but 200, and comes back by itself from a stream that ends.
    milliseconds = round(retry_after_seconds * 1000 * (0.5 + random.random()))
    headers: Headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        *refusal_headers(scope, retry_after_seconds),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = f"retry: {milliseconds}\n: shutting down, come back\n\n".encode()
    await send({"type": "http.response.body", "body": body})


async def refuse_websocket(scope: Scope, receive: Receive, send: Send, retry_after_seconds: int) -> None:
    """Refuse the handshake: with a real 503 where the server can send one, else with close code 1012."""
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "shutting down"})
        return
    headers = [(b"content-length", b"0"), *refusal_headers(scope, retry_after_seconds)]
    await send({"type": "websocket.http.response.start", "status": 503, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b""})
