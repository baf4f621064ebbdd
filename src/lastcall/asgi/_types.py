"""The words of the ASGI interface, as types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]


def is_http1(scope: Scope) -> bool:
    """Whether connection headers mean something here; HTTP/2 and 3 forbid them."""
    return str(scope.get("http_version", "1.1")).startswith("1")


def app_path(scope: Scope) -> str:
    """The path as the app sees it: without the prefix under which a server or an outer app mounted it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def get_header(headers: Headers, name: bytes) -> bytes | None:
    """The first header of that (lower-case) name."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None
