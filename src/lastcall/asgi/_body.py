"""Reading a request's body as JSON: bounded in size, time and depth, before anything is done with it.

Who calls it: the pages of the face that take a body. What can go wrong: a body that never ends, a client that leaves
in the middle, and JSON that Python reads but that cannot be written down again (NaN, half a surrogate pair,
a thousand brackets).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, NoReturn

from ._types import Receive, Scope, get_header

_BODY_SECONDS = 30.0
_DISCARD_BYTES = 64 * 1024 * 1024
_DISCARD_SECONDS = 30.0
_MAX_DEPTH = 100


class BadBody(ValueError):
    """The body is no JSON, or JSON that nobody could store."""


class UnfitBody(ValueError):
    """The body is JSON, and not what the page needs."""


class BodyTooLarge(ValueError):
    """The body is longer than what will be read. `rest_unread`: more of it may come."""

    def __init__(self, message: str, *, rest_unread: bool) -> None:
        super().__init__(message)
        self.rest_unread = rest_unread


class BodyTooSlow(ValueError):
    """The body has not come within its time."""


class ClientLeft(Exception):
    """The client has closed the connection before its request was complete; nobody waits for an answer."""


async def read_object(scope: Scope, receive: Receive, limit_bytes: int) -> dict[str, Any]:
    """The body as a JSON object. Raises the errors above; nothing of a body that is not whole is ever used."""
    value = parse(await read_body(scope, receive, limit_bytes))
    if not isinstance(value, dict):
        raise UnfitBody(f"the body must be a JSON object, not {type(value).__name__}")
    return value


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body. Raises `BodyTooLarge` (before reading, if its length says so), `BodyTooSlow`, `ClientLeft`."""
    announced = get_header(list(scope.get("headers", ())), b"content-length") or b""
    if announced.isdigit() and (len(announced) > 15 or int(announced) > limit_bytes):
        raise _too_large(limit_bytes, rest_unread=True)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                body += message.get("body", b"")
                if len(body) > limit_bytes:
                    raise _too_large(limit_bytes, rest_unread=message.get("more_body", False))
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise BodyTooSlow(f"the body has not come within {_BODY_SECONDS:g} s") from None


async def discard_body(receive: Receive) -> bool:
    """Take what is left of a body that will not be used, within reason; whether that was all of it.

    A connection closed while its client still sends is reset, and the client never sees why it was refused.
    """
    left = _DISCARD_BYTES
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        pass
    return False


def parse(body: bytes) -> Any:
    """The value that the JSON says. Raises `BadBody`."""
    try:
        text = body.decode()
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise BadBody("the body is nested too deeply") from None
    except ValueError as error:
        raise BadBody(f"the body is not JSON: {error}") from None
    if _is_too_deep(value):
        raise BadBody(f"the body is nested more than {_MAX_DEPTH} levels deep")
    if "\\ud" in text.lower():
        _check_surrogates(value)
    return value


def take(body: dict[str, Any], required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """The body itself, if it has all of the required fields and no unknown ones. Raises `UnfitBody`.

    A misspelled option that is passed over in silence would be a job that runs at the wrong time.
    """
    known = [*required, *optional]
    for name in required:
        if name not in body:
            raise UnfitBody(f"the body has no {name!r}; its fields are {', '.join(known)}")
    for name in body:
        if name not in known:
            raise UnfitBody(
                f"the body has an unknown field {name[:100]!r}; its fields are {', '.join(known)}"
            )
    return body


def _too_large(limit_bytes: int, *, rest_unread: bool) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is too large; at most {limit_bytes} bytes are read", rest_unread=rest_unread
    )


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for one in level for child in _children(one)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadBody(
            "the body has one half of a surrogate pair (\\ud800 to \\udfff), which is no text"
        ) from None
