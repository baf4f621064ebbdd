"""How one item of a stream, its keep-alive and its end are written: SSE, NDJSON or plain text."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

# The line ends of the SSE format. `str.splitlines` knows more (U+2028, form feed) and would cut data the
# client does not cut.
_LINE_END = re.compile(r"\r\n|\r|\n")


class EndReason(StrEnum):
    """Why a stream ended, as its terminal event says it."""

    COMPLETED = "completed"
    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event with its fields; yield it where plain data is not enough.

    `data` is written as it is if it is a string, as JSON otherwise. `retry_milliseconds` tells the browser
    how long to wait before it comes back. Raises `ValueError` for an event name or id with a line end in it.

        yield Event({"step": 3}, event="progress", id="42")
    """

    data: Any = ""
    event: str | None = None
    id: str | None = None
    retry_milliseconds: int | None = None

    def __post_init__(self) -> None:
        for name in ("event", "id"):
            value = getattr(self, name)
            if value is not None and (_LINE_END.search(value) or "\0" in value):
                raise ValueError(f"Event.{name} must be one line without NUL, got {value!r}")


class Framing(Protocol):
    """What the stream needs to know of a format."""

    media_type: str
    keep_alive: bytes | None

    def item(self, item: object) -> bytes: ...

    def end(self, reason: EndReason) -> bytes: ...


class ServerSentEvents:
    media_type = "text/event-stream; charset=utf-8"
    keep_alive: bytes | None = b": keep-alive\n\n"

    def item(self, item: object) -> bytes:
        event = item if isinstance(item, Event) else Event(item)
        lines = []
        if event.event is not None:
            lines.append(f"event: {event.event}")
        if event.id is not None:
            lines.append(f"id: {event.id}")
        if event.retry_milliseconds is not None:
            lines.append(f"retry: {event.retry_milliseconds:d}")
        lines.extend(f"data: {line}" for line in _LINE_END.split(_text(event.data)))
        return ("\n".join(lines) + "\n\n").encode()

    def end(self, reason: EndReason) -> bytes:
        return self.item(Event(_end(reason), event="end"))


class NewlineJson:
    media_type = "application/x-ndjson"
    # An empty line between records is not valid everywhere NDJSON is read.
    keep_alive: bytes | None = None

    def item(self, item: object) -> bytes:
        return _json(item).encode() + b"\n"

    def end(self, reason: EndReason) -> bytes:
        return self.item(_end(reason))


class PlainText:
    media_type = "text/plain; charset=utf-8"
    keep_alive: bytes | None = None

    def item(self, item: object) -> bytes:
        if isinstance(item, str):
            return item.encode()
        if isinstance(item, bytes | bytearray | memoryview):
            return bytes(item)
        raise TypeError(f"a text stream yields str or bytes, got {type(item).__name__}: {item!r}")

    def end(self, reason: EndReason) -> bytes:
        # Text has no frames: a whole text stays as its source wrote it, a broken one says so in its last line.
        return b"" if reason is EndReason.COMPLETED else b"\n" + _json(_end(reason)).encode() + b"\n"


def framing(name: str) -> Framing:
    """The framing of that name. Raises `ValueError` for an unknown one."""
    match name:
        case "sse":
            return ServerSentEvents()
        case "ndjson":
            return NewlineJson()
        case "text":
            return PlainText()
    raise ValueError(f"unknown stream format {name!r}; use 'sse', 'ndjson' or 'text'")


def _end(reason: EndReason) -> dict[str, str]:
    return {"type": "end", "reason": reason.value}


def _text(data: object) -> str:
    if isinstance(data, str):
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data).decode()
    return _json(data)


def _json(item: object) -> str:
    # pydantic models write themselves (dates, nested models); the name is their documented face.
    dump = getattr(item, "model_dump_json", None)
    if callable(dump):
        return str(dump())
    return json.dumps(item, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise TypeError(
        f"{type(value).__name__} cannot be written as JSON; yield str, dict, list, a dataclass or a pydantic model"
    )
