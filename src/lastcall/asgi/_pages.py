"""What the pages of the face are made of: an answer, and the query parameters they share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ._types import ASGIApp, Receive, Scope


class BadQuery(ValueError):
    """A query parameter of the face that cannot be understood."""


class Answer(NamedTuple):
    """What a page says: a status, JSON, and headers of its own."""

    status: int
    content: Any
    headers: Iterable[tuple[bytes, bytes]] = ()


Page = Callable[[Scope, Receive], Awaitable["Answer | ASGIApp"]]
"""A page gives its answer, or, where it answers bit by bit, what does so."""

Pages = Mapping[str, Page]
"""The pages of one path, by method."""


def whole_number(
    query: Mapping[str, list[str]], name: str, default: int, *, least: int, most: int | None = None
) -> int:
    """The last value of a parameter, at most `most`. Raises `BadQuery`."""
    if name not in query:
        return default
    value = query[name][-1]
    if not (value.isascii() and value.isdigit() and len(value) <= 15 and int(value) >= least):
        bounds = f"{least} or more" if most is None else f"from {least} to {most}"
        raise BadQuery(f"{name} must be a whole number, {bounds}, got {value!r}")
    return int(value) if most is None else min(int(value), most)
