"""What the pages of the face are made of: routes with what they take, requests, answers.

A `Route` is the one place where a path stands: the face finds its page by it, the query is checked by it, and the
OpenAPI document is written from it. So the three cannot differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode

from ._types import ASGIApp, Headers, Receive, Scope, app_path

JSON = b"application/json"


class BadQuery(ValueError):
    """A query parameter of the face that cannot be understood."""


class Param(NamedTuple):
    """A query parameter. `choices`: the values there are; `least`, `most`: of a whole number; `many`: may come several
    times. `other`: a part of a JSON schema, for documents alone."""

    name: str
    about: str
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    many: bool = False
    example: Any = None
    other: Mapping[str, Any] = {}


class Says(NamedTuple):
    """One kind of answer: what it means, the model of its JSON (None: no body), an example of it, the media types if it
    is not JSON, and the headers worth knowing."""

    about: str
    model: Any = None
    example: Any = None
    media: tuple[str, ...] = ("application/json",)
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """One request: `words` are the parts of the path that the route leaves open, `query` what was checked by it."""

    scope: Scope
    receive: Receive
    words: Mapping[str, str]
    query: Mapping[str, list[str]]

    def one(self, name: str) -> str | None:
        """The last value of a parameter."""
        return self.query[name][-1] if name in self.query else None

    def number(self, name: str, default: int) -> int:
        """The last value of a parameter that is a whole number."""
        return int(self.query[name][-1]) if name in self.query else default

    def next_link(self, cursor: str | None) -> Headers:
        """The `Link` to the next page of this list: what was asked, with another cursor."""
        if cursor is None:
            return []
        scope = self.scope
        path = f"{scope.get('root_path', '')}{app_path(scope)}"
        asked = [(name, value) for name, values in self.query.items() for value in values if name != "cursor"]
        target = f"{quote(path)}?{urlencode([*asked, ('cursor', cursor)])}"
        return [(b"link", f'<{target}>; rel="next"'.encode())]


class Answer(NamedTuple):
    """What a page says: a status, JSON, and headers of its own. `tagged`: with an ETag, so that whoever asks again is
    told that it has not changed."""

    status: int
    content: Any
    headers: Iterable[tuple[bytes, bytes]] = ()
    media_type: bytes = JSON
    tagged: bool = False


Page = Callable[[Request], Awaitable["Answer | ASGIApp"]]
"""A page gives its answer, or, where it answers bit by bit, what does so."""


def _never(scope: Scope) -> bool:
    return False


class Route(NamedTuple):
    """One method of one path below the prefix, whose open words stand in braces.

    `says`: its good answers by status; `refuses`: the statuses of its problems, besides those that every page has, and
    `refusal_headers` what their headers tell.
    `body`: the model of what it takes. `takes_time`: whether a request is a call to be held, and refused in the drain.
    `checks_query` False: the page reads the query by itself. `is_protocol`: the page speaks a protocol of its own: its
    last open word is all the rest of the path, and it says itself which methods, queries and bodies there are.
    `body_media`: the types of its body, which need not be there. `words`: what is known of the path's open words.
    """

    method: str
    path: str
    page: Page
    about: str
    says: Mapping[int, Says]
    query: tuple[Param, ...] = ()
    body: Any = None
    body_example: Any = None
    refuses: tuple[int, ...] = ()
    takes_time: Callable[[Scope], bool] = _never
    headers: tuple[Param, ...] = ()
    checks_query: bool = True
    is_protocol: bool = False
    body_media: tuple[str, ...] = ()
    refusal_headers: Mapping[int, Mapping[str, str]] = {}
    words: tuple[Param, ...] = ()


class Routes:
    """All routes, to be found by path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.all = tuple(routes)
        self._paths: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in self.all:
            self._paths.setdefault(tuple(route.path.split("/")), {})[route.method] = route

    def find(self, words: list[str]) -> tuple[Mapping[str, Route], Mapping[str, str]]:
        """The routes of a path by method, and its open words; no routes if there is no such path."""
        for pattern, routes in self._paths.items():
            given = words
            if len(words) > len(pattern) and protocol_of(routes):
                given = [*words[: len(pattern) - 1], "/".join(words[len(pattern) - 1 :])]
            if len(pattern) == len(given) and all(map(_fits, pattern, given)):
                named = zip(pattern, given, strict=True)
                # A server has decoded the path once; what is quoted still is an id with a slash in it.
                return routes, {part[1:-1]: unquote(word) for part, word in named if part.startswith("{")}
        return {}, {}


def protocol_of(routes: Mapping[str, Route]) -> Route | None:
    """One of them, if these are the routes of a protocol."""
    return next((route for route in routes.values() if route.is_protocol), None)


def _fits(part: str, word: str) -> bool:
    return bool(word) if part.startswith("{") else part == word


def read_query(query_string: bytes, known: tuple[Param, ...]) -> dict[str, list[str]]:
    """The query by its parameters. Raises `BadQuery` for an unknown name and for a value that does not fit."""
    try:
        query = parse_qs(query_string.decode("latin-1"), keep_blank_values=True, errors="strict")
    except ValueError:  # not UTF-8, or more parameters than anybody needs
        raise BadQuery("the query cannot be read: it is not UTF-8, or far too long") from None
    params = {param.name: param for param in known}
    for name, values in query.items():
        if name not in params:
            names = f"use {', '.join(params)}" if params else "this page has none"
            raise BadQuery(f"unknown parameter {name[:100]!r}; {names}")
        for value in values:
            _check_value(params[name], value)
    return query


def _check_value(param: Param, value: str) -> None:
    if not value:
        raise BadQuery(f"{param.name} is empty")
    if param.choices and value not in param.choices:
        raise BadQuery(f"unknown {param.name} {value[:100]!r}; use {', '.join(param.choices)}")
    if param.least is not None:
        number = _number(param.name, value, param.least, param.most)
        if param.most is not None and number > param.most:
            raise _not_whole(param.name, value, param.least, param.most)


def whole_number(
    query: Mapping[str, list[str]], name: str, default: int, *, least: int, most: int | None = None
) -> int:
    """The last value of a parameter, at most `most`. Raises `BadQuery`."""
    if name not in query:
        return default
    number = _number(name, query[name][-1], least, most)
    return number if most is None else min(number, most)


def _number(name: str, value: str, least: int, most: int | None) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 15 and int(value) >= least):
        raise _not_whole(name, value, least, most)
    return int(value)


def _not_whole(name: str, value: str, least: int, most: int | None) -> BadQuery:
    bounds = f"{least} or more" if most is None else f"from {least} to {most}"
    return BadQuery(f"{name} must be a whole number, {bounds}, got {value[:100]!r}")
