"""The verbs of the Durable Streams protocol as routes of the face: what they take, answer and refuse. Pure.

Who calls it: `_streams_face`. What it owns: the words for documents; that they are true, Schemathesis tries.
"""

from __future__ import annotations

from typing import Any

from . import _examples as examples
from ._pages import Page, Param, Route, Says
from ._types import Scope

_PATH = "streams/{name}"
_ANY = ("application/json", "text/plain", "application/octet-stream")

_NAME = Param(
    "name",
    "its name, slashes and all, or as one quoted word; `jobs/ID` is the log of a job, JSON that is read only",
    example="chat/42",
    other={"pattern": "^[^\\u0000-\\u001f\\u007f]+$", "maxLength": 1024},
)

_OFFSETS = "^(-1|now|[0-9]{16}_[0-9]{16})$"
_OFFSET = "where the stream ends now: the offset to read on from"
_CLOSED = "`true`: nothing more will be written"
_NEXT = {"Stream-Next-Offset": _OFFSET, "Stream-Closed": _CLOSED}
_STREAM = {
    "Content-Type": "that of the stream",
    **_NEXT,
    "Stream-TTL": "it expires so many seconds after it was last used",
    "Stream-Expires-At": "it expires then",
}
_READ = {
    "Stream-Next-Offset": "the offset behind what was read",
    "Stream-Up-To-Date": "`true`: there is no more now",
    "Stream-Closed": "`true`: there is no more, and never will be",
    "Stream-Cursor": "of a live answer: the `cursor` of the next request",
    "Stream-SSE-Data-Encoding": "`base64`, in events of a type that is neither text nor JSON",
    "ETag": "of what was read, for If-None-Match",
}
_PRODUCER = {
    **_NEXT,
    "Producer-Epoch": "that of the producer now",
    "Producer-Seq": "the last number that was taken",
}

_NOT_APPENDED = {
    status: {
        **_NEXT,
        "Producer-Epoch": "403: the newer one, which shuts this one out",
        "Producer-Expected-Seq": "409: the number that is missing",
        "Producer-Received-Seq": "409: the number that came",
    }
    for status in (400, 403, 409, 507)
}

_CLOSE = Param(
    "stream-closed", "`true`: closed with this; anything else: not", example="false", other={"minLength": 0}
)
_CREATES = (
    Param("stream-ttl", "expires so many seconds after the last read or write", least=0, example=3600),
    Param(
        "stream-expires-at",
        "expires then, as 2030-01-31T12:00:00Z; not together with stream-ttl",
        other={"format": "date-time"},
    ),
    _CLOSE,
    Param("stream-forked-from", "the path or the name of the stream whose entries it begins with"),
    Param(
        "stream-fork-offset",
        "where it leaves that stream; if it is not given, at its end",
        other={"pattern": _OFFSETS},
    ),
    Param("stream-fork-sub-offset", "how much further within the write that follows", least=0),
)
_APPENDS = (
    _CLOSE,
    Param("stream-seq", "any text, behind the one of the write before; else 409", other={"minLength": 0}),
    Param("producer-id", "with the other two: sent again, it is written once", example="importer"),
    Param("producer-epoch", "a larger one shuts out the writers of the smaller ones", least=0, example=0),
    Param("producer-seq", "numbers the writes of an epoch, from 0", least=0, example=0),
)
_READS = (
    Param(
        "offset",
        "a Stream-Next-Offset, or -1 for the beginning, or now; needed for live answers",
        example="-1",
        other={"pattern": _OFFSETS},
    ),
    Param("live", "wait for what comes: one answer, or events that go on", ("long-poll", "sse")),
    Param("cursor", "the Stream-Cursor of the answer before", other={"minLength": 0}),
)
_IF_NONE_MATCH = Param(
    "if-none-match", "the ETag of the answer before", example='"2a:0:7"', other={"minLength": 0}
)


def _always(scope: Scope) -> bool:
    return True


def protocol_routes(page: Page, *, free: bool, jobs: bool) -> list[Route]:
    """The routes. `free`: there are free-standing streams; `jobs`: there are logs of jobs."""
    routes = [*_reading(page), *(_writing(page, (405,) if jobs else ()) if free else [])]
    return [
        route._replace(takes_time=_always, checks_query=False, is_protocol=True, words=(_NAME,))
        for route in routes
    ]


def _reading(page: Page) -> list[Route]:
    return [
        Route(
            "GET",
            _PATH,
            page,
            "Read a stream from an offset: what is there, the next news (long-poll), or events (sse).",
            {
                200: Says(
                    "what stands behind the offset, as the stream's own type",
                    list[Any],
                    examples.MESSAGES,
                    (*_ANY, "text/event-stream", "*/*"),
                    _READ,
                ),
                204: Says("no news in time; or the stream is closed, and read to its end", headers=_READ),
                304: Says("nothing new behind the offset", headers=_READ),
            },
            query=_READS,
            headers=(_IF_NONE_MATCH,),
            refuses=(404, 410, 429),
            refusal_headers={410: {"Stream-Next-Offset": _OFFSET}},
        ),
        Route(
            "HEAD",
            _PATH,
            page,
            "Where a stream stands. That prolongs no life.",
            {200: Says("it is there", headers=_STREAM)},
            refuses=(404, 410),
        ),
    ]


def _writing(page: Page, of_a_log: tuple[int, ...]) -> list[Route]:
    """`of_a_log`: what is said to whoever would write the log of a job."""
    return [
        Route(
            "PUT",
            _PATH,
            page,
            "Create a stream, with what is in it already; or find it, if it is just like that.",
            {
                201: Says("created", headers={**_STREAM, "Location": "its URL"}),
                200: Says("it was there", headers=_STREAM),
            },
            headers=_CREATES,
            body_media=_ANY,
            refuses=(*of_a_log, 404, 408, 409, 413, 507),
        ),
        Route(
            "POST",
            _PATH,
            page,
            "Append to a stream, or close it, or both. Of JSON, each element of an array is an entry.",
            {
                204: Says("written, or written before", headers=_PRODUCER),
                200: Says("written, for the producer the first time", headers=_PRODUCER),
            },
            headers=_APPENDS,
            body_media=_ANY,
            refuses=(*of_a_log, 404, 408, 409, 410, 413, 507),
            refusal_headers=_NOT_APPENDED,
        ),
        Route(
            "DELETE",
            _PATH,
            page,
            "Delete a stream. Its forks stay, and so long its name is taken.",
            {204: Says("deleted")},
            refuses=(*of_a_log, 404, 410),
        ),
    ]
