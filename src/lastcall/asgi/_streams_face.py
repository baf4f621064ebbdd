"""PREFIX/streams: which free-standing streams there are; and below it the Durable Streams protocol, for each of them.

Who calls it: `_face`, where streams are served. What it owns: the list. The protocol is spoken by `_durable_streams`;
its routes stand in the table so that the table is whole.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from ..streams import StreamInfo, Streams
from ..streams._port import Position
from . import _examples as examples
from . import _models as models
from ._cursor import make_cursor, read_cursor
from ._durable_routes import protocol_routes
from ._durable_streams import JOBS, DurableStreams
from ._durable_words import format_offset, path_of
from ._jobs_face import JobsFace
from ._pages import Answer, Param, Request, Route, Says
from ._places import Places
from ._tasks_face import LINK
from ._types import ASGIApp, Receive, Scope, Send

_LIMIT, _MAX_LIMIT = 50, 1000

_FILTERS = (
    Param(
        "prefix",
        "only those whose names begin so",
        example="chat/",
        other={"pattern": "^[^\\u0000-\\u001f\\u007f]*$", "maxLength": 1024},
    ),
    Param("limit", f"how many; {_LIMIT} if it is not given", least=1, most=_MAX_LIMIT, example=20),
    Param("cursor", "the `next` of the page before"),
)


class StreamsFace:
    """The pages. `jobs`: whose logs are streams, too, and whose store may be where the streams are."""

    def __init__(
        self,
        durable: DurableStreams,
        prefix: str,
        retry_after_seconds: int,
        jobs: JobsFace | None,
        places: Places,
    ) -> None:
        self._durable = durable
        self._base = f"{prefix}/streams"
        self._retry_after_seconds = retry_after_seconds
        self._jobs = jobs
        self._places = places

    def routes(self) -> list[Route]:
        free = self._durable.streams
        protocol = protocol_routes(self._protocol, free=free is not None, jobs=self._jobs is not None)
        if free is None:
            return protocol
        listing = Route(
            "GET",
            "streams",
            partial(self._list, free),
            "The free-standing streams by their names. To be listed prolongs no stream's life.",
            {200: Says("one page", models.StreamPage, examples.STREAM_PAGE, headers=LINK)},
            query=_FILTERS,
            refuses=(422, 503),
        )
        return [listing, *protocol]

    # --- the list ---------------------------------------------------------------------------------------

    async def _list(self, streams: Streams, request: Request) -> Answer:
        limit = request.number("limit", _LIMIT)
        cursor = request.one("cursor")
        after = "" if cursor is None else read_cursor("streams", cursor)
        with self._store():
            # With one more than is shown: so `next` is certain.
            found = await streams.find(prefix=request.one("prefix") or "", after=after, limit=limit + 1)
        root = request.scope.get("root_path", "")
        following = make_cursor("streams", found[limit - 1].name) if len(found) > limit else None
        items = [self._show(root, info) for info in found[:limit]]
        content = {"items": items, "shown": len(items), "next": following}
        return Answer(200, content, request.next_link(following))

    def _store(self) -> AbstractContextManager[object]:
        # The streams may be those of the jobs, which a page that is asked for too late would open again.
        return nullcontext() if self._jobs is None else self._jobs.store()

    def _show(self, root: str, info: StreamInfo) -> dict[str, Any]:
        # Where there are jobs, this is the place of their logs.
        is_hidden = self._jobs is not None and info.name.startswith(JOBS)
        url = None if is_hidden else path_of(f"{root}{self._base}/", info.name)
        return {"name": info.name, "url": url, **show_stream(info)}

    # --- the protocol -----------------------------------------------------------------------------------

    async def _protocol(self, request: Request) -> ASGIApp:
        return self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        job_log = None if self._jobs is None else self._jobs.log
        is_live = b"live=" in scope.get("query_string", b"")
        with self._places.take(scope) if is_live else nullcontext():
            await self._durable.answer(scope, receive, send, self._base, self._retry_after_seconds, job_log)


def show_stream(info: StreamInfo) -> dict[str, Any]:
    """A stream as JSON, as the command line shows it, too, which has no URL for it."""
    return {
        "name": info.name,
        "content_type": info.content_type,
        "closed": info.closed,
        "entries": info.entries,
        "first": info.first,
        "last": info.last,
        "bytes": info.bytes,
        "next_offset": format_offset(Position(info.last, info.bytes)),
        "created_at": info.created_at,
        "updated_at": info.updated_at,
        "ttl_seconds": info.ttl_seconds,
        "expires_at": info.due,
        "forked_from": info.forked_from,
        "inherited": info.inherited,
    }
