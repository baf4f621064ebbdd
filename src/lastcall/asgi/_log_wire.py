"""How a log is written: entries, and what stands around them, as SSE and as lines of JSON. Pure.

An entry has one form everywhere, so that one function of a browser handles them all:

    {"seq": 7, "type": "stream.text", "attempt": 1, "step": "answer", "at": 1764000000.5, "data": {...}}

In SSE its `seq` is also the event's id and its `type` the event's name. Around the entries stand `snapshot` (first, on
every connection), `end` (the log is closed and was read to its end) and `gone` (the reader was too slow for what is
kept). These have no `seq`, by which they are told from a user's entry of the same type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from ..streams import Entry, LogPage

# The line ends of SSE. In JSON text they can only stand between tokens, where a blank does as well.
_LINE_END = re.compile(r"\r\n|\r|\n")
_RETRY_MILLISECONDS = (500, 3000)


class LogEnd(StrEnum):
    """Why there are no more entries. `closed`: there will never be more. `shutdown`: this process ends, and the log,
    which it alone has, with it."""

    CLOSED = "closed"
    SHUTDOWN = "shutdown"


def entry_json(entry: Entry) -> str:
    """An entry as one line of JSON. Its data is JSON already, and is not read again."""
    step = "null" if entry.step is None else json.dumps(entry.step)
    data = _one_line(entry.data)
    return (
        f'{{"seq":{entry.seq},"type":{json.dumps(entry.type)},"attempt":{entry.attempt},'
        f'"step":{step},"at":{entry.at!r},"data":{data}}}'
    )


class Frame:
    """One entry, written at most once per format, however many readers get it."""

    __slots__ = ("_ndjson", "_sse", "entry")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._sse: bytes | None = None
        self._ndjson: bytes | None = None

    @property
    def size(self) -> int:
        """About how much memory it holds, in bytes."""
        return len(self.entry.data) + 200

    @property
    def sse(self) -> bytes:
        if self._sse is None:
            entry = self.entry
            kind = _one_line(entry.type)
            self._sse = _bytes(f"id: {entry.seq}\nevent: {kind}\ndata: {entry_json(entry)}\n\n")
        return self._sse

    @property
    def ndjson(self) -> bytes:
        if self._ndjson is None:
            self._ndjson = _bytes(entry_json(self.entry) + "\n")
        return self._ndjson


class LogWire(Protocol):
    """A format in which a log is streamed."""

    media_type: str
    keep_alive: bytes | None

    def entry(self, frame: Frame) -> bytes: ...

    def snapshot(self, after: int, page: LogPage, snapshot: Mapping[str, Any], luck: float) -> bytes:
        """What stands first on a connection whose reader has everything up to `after`."""

    def end(self, reason: LogEnd, page: LogPage, snapshot: Mapping[str, Any]) -> bytes:
        """The last thing that is said of a log."""

    def gone(self, first: int, last: int) -> bytes:
        """The reader was too slow: what it needs next is not kept any more."""

    def away(self, luck: float) -> bytes:
        """Not the end of the log, but of this connection: come back, to another process perhaps."""


class LogEvents:
    """SSE, for a browser's `EventSource`."""

    media_type = "text/event-stream; charset=utf-8"
    keep_alive: bytes | None = b": keep-alive\n\n"

    def entry(self, frame: Frame) -> bytes:
        return frame.sse

    def snapshot(self, after: int, page: LogPage, snapshot: Mapping[str, Any], luck: float) -> bytes:
        # With the cursor as its id: a browser that is cut off before the first entry comes back with it. Not as an
        # event of its own with an id and nothing else: a browser passes over that, but other clients hand it on as an
        # event without data, on which `JSON.parse` fails.
        head = f"retry: {retry_milliseconds(luck)}\nid: {after}\n"
        return _bytes(f"{head}event: snapshot\ndata: {_json(_stand(page, snapshot))}\n\n")

    def end(self, reason: LogEnd, page: LogPage, snapshot: Mapping[str, Any]) -> bytes:
        return _bytes(f"event: end\ndata: {_json({'reason': reason, **_stand(page, snapshot)})}\n\n")

    def gone(self, first: int, last: int) -> bytes:
        return _bytes(f"event: gone\ndata: {_json({'first': first, 'last': last})}\n\n")

    def away(self, luck: float) -> bytes:
        return _bytes(f"retry: {retry_milliseconds(luck)}\n: this server stops, come back\n\n")


class LogLines:
    """NDJSON: the same, one JSON object a line."""

    media_type = "application/x-ndjson"
    # An empty line between records is not valid everywhere NDJSON is read.
    keep_alive: bytes | None = None

    def entry(self, frame: Frame) -> bytes:
        return frame.ndjson

    def snapshot(self, after: int, page: LogPage, snapshot: Mapping[str, Any], luck: float) -> bytes:
        return _line({"type": "snapshot", **_stand(page, snapshot)})

    def end(self, reason: LogEnd, page: LogPage, snapshot: Mapping[str, Any]) -> bytes:
        return _line({"type": "end", "reason": reason, **_stand(page, snapshot)})

    def gone(self, first: int, last: int) -> bytes:
        return _line({"type": "gone", "first": first, "last": last})

    def away(self, luck: float) -> bytes:
        return _line({"type": "retry", "milliseconds": retry_milliseconds(luck)})


def page_json(after: int, page: LogPage, snapshot: Mapping[str, Any]) -> bytes:
    """A page: its entries, where to read on (`next`), where the log stands, what it is about."""
    entries = ",".join(map(entry_json, page.entries))
    following = page.entries[-1].seq if page.entries else after
    rest = _json({"shown": len(page.entries), "next": following, **_stand(page, snapshot)})
    return _bytes(f'{{"events":[{entries}],{rest[1:]}')


def retry_milliseconds(luck: float) -> int:
    """When to come back; `luck` from 0 to 1, so that a thousand readers of one server do not come at once."""
    least, most = _RETRY_MILLISECONDS
    return round(least + (most - least) * luck)


def _stand(page: LogPage, snapshot: Mapping[str, Any]) -> dict[str, Any]:
    return {"first": page.first, "last": page.last, "closed": page.closed, "snapshot": snapshot}


def _one_line(text: str) -> str:
    return _LINE_END.sub(" ", text) if "\n" in text or "\r" in text else text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _line(value: object) -> bytes:
    return _bytes(_json(value) + "\n")


def _bytes(text: str) -> bytes:
    # Half a surrogate pair is no text, and must not end the stream of everybody who reads it.
    return text.encode(errors="replace")
