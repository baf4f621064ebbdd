"""What a reader of a log asks for: in which form, from where on, how long it would wait. Pure.

Who calls it: `_log_response`. What can go wrong: a cursor that is none (`BadCursor`), and other parameters that cannot
be understood (`BadQuery`); both are answered with 400, and nothing is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import parse_qs

from ..exceptions import BadCursor
from ._pages import BadQuery, whole_number
from ._types import Headers, Scope, get_header

PARAMETERS = ("format", "after", "starting_after", "limit", "wait")
"""The query parameters that are read here; others are the route's own."""

MAX_WAIT_SECONDS = 60.0
_LIMIT, _MAX_LIMIT = 100, 1000


class LogFormat(StrEnum):
    """How a log is written: as events for a browser, as lines, or as one page of JSON."""

    SSE = "sse"
    NDJSON = "ndjson"
    JSON = "json"


class LogRequest(NamedTuple):
    """`after`: the cursor, the last entry that the reader has, 0 for none. `comes_back`: it has told one. `limit`,
    `wait_seconds`: of a page only."""

    format: LogFormat
    after: int
    comes_back: bool
    limit: int
    wait_seconds: float


# `*/*` is what nearly everybody sends without meaning it: a page.
_FORMAT_OF = {
    "text/event-stream": LogFormat.SSE,
    "application/x-ndjson": LogFormat.NDJSON,
    "application/jsonl": LogFormat.NDJSON,
    "application/json": LogFormat.JSON,
    "application/*": LogFormat.JSON,
    "*/*": LogFormat.JSON,
}


def read_request(scope: Scope) -> LogRequest:
    """What this HTTP request asks of a log. Raises `BadCursor`, `BadQuery`."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    headers: Headers = list(scope.get("headers", ()))
    after = cursor(query, get_header(headers, b"last-event-id"))
    return LogRequest(
        chosen_format(query, get_header(headers, b"accept")),
        after or 0,
        after is not None,
        whole_number(query, "limit", _LIMIT, least=1, most=_MAX_LIMIT),
        wait_seconds(query),
    )


def takes_time(scope: Scope) -> bool:
    """Whether the answer may be a stream, or be waited for."""
    try:
        request = read_request(scope)
    except (BadCursor, BadQuery):
        return False
    return request.format is not LogFormat.JSON or request.wait_seconds > 0


def chosen_format(query: Mapping[str, list[str]], accept: bytes | None) -> LogFormat:
    """`?format=` if it is there, since a link cannot set headers; else what `Accept` likes best; else a page."""
    if "format" in query:
        name = query["format"][-1]
        try:
            return LogFormat(name)
        except ValueError:
            raise BadQuery(f"unknown format {name[:100]!r}; use {', '.join(LogFormat)}") from None
    best, chosen = 0.0, LogFormat.JSON
    for part in (accept or b"").decode("latin-1").split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = _weight(parameters)
        if kind in _FORMAT_OF and weight > best:
            best, chosen = weight, _FORMAT_OF[kind]
    return chosen


def cursor(query: Mapping[str, list[str]], last_event_id: bytes | None) -> int | None:
    """The number of the last entry that the reader has; None: it comes for the first time.

    `Last-Event-ID` comes first: a browser that reconnects asks for the same URL as at the beginning, `?after=` and all.
    """
    if last_event_id:
        return _cursor_of("Last-Event-ID", last_event_id.decode("latin-1").strip())
    for name in ("after", "starting_after"):
        if name in query:
            return _cursor_of(name, query[name][-1])
    return None


def wait_seconds(query: Mapping[str, list[str]]) -> float:
    """How long a page may wait for an entry, at most a minute."""
    if "wait" not in query:
        return 0.0
    text = query["wait"][-1]
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # NaN as well
        raise BadQuery(f"wait must be seconds, 0 or more, got {text[:100]!r}")
    return min(seconds, MAX_WAIT_SECONDS)


def _cursor_of(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadCursor(
            f"{name} must be the number of the last entry that was received, 0 for none, got {text[:100]!r}"
        )
    return int(text)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
