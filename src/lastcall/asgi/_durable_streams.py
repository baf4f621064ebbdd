"""The Durable Streams protocol: PREFIX/streams/{name}, free-standing streams to be written and read, and jobs' logs.

Who calls it: `_face`, in a call that is held: in the drain new requests get 503 and readers are sent on. What it owns:
which words of the protocol mean what to a stream; the words themselves are in `_durable_words`, reading is in
`_durable_reads`.

A job's log is `streams/jobs/{id}`: JSON, read only. With jobs, no other stream has a name that begins with `jobs/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

from .._core._clock import check_seconds
from ..exceptions import (
    BadArguments,
    BadDeclaration,
    EngineUnavailable,
    InvalidPlan,
    NotOpen,
    PayloadTooLarge,
    SchemaTooNew,
    UnknownJob,
)
from ..streams import Log
from ..streams._policy import BYTES, media_type
from ..streams._port import NewStream, Outcome, StreamRow, Written
from ..streams._streams import Streams, check_name
from ._answers import PROBLEM, answer_json
from ._body import BadBody, BodyTooLarge, BodyTooSlow, ClientLeft, discard_body, read_body
from ._durable_body import split
from ._durable_reads import catch_up, long_poll, stream_events
from ._durable_sources import LogSource, Refused, Source, StreamSource, absent
from ._durable_words import (
    Malformed,
    format_offset,
    format_time,
    is_true,
    parse_end,
    parse_fork,
    parse_offset,
    parse_producer,
    path_of,
    query_of,
)
from ._types import Headers, Receive, Scope, Send, app_path, get_header, is_http1

LONG_POLL_SECONDS = 20.0
SSE_SECONDS = 60.0

_METHODS = ("PUT", "POST", "GET", "HEAD", "DELETE", "OPTIONS")
_READING_METHODS = ("GET", "HEAD", "OPTIONS")
JOBS = "jobs/"

_REQUEST_HEADERS = (
    "content-type, authorization, if-none-match, stream-seq, stream-ttl, stream-expires-at, stream-closed,"
    " stream-forked-from, stream-fork-offset, stream-fork-sub-offset, producer-id, producer-epoch, producer-seq"
)
_RESPONSE_HEADERS = (
    "etag, location, retry-after, stream-next-offset, stream-up-to-date, stream-closed, stream-cursor, stream-ttl,"
    " stream-expires-at, stream-sse-data-encoding, producer-epoch, producer-seq, producer-expected-seq,"
    " producer-received-seq"
)

# What happens below the protocol, by its status. 503: later, perhaps.
_STATUS_OF: Mapping[type[Exception], int] = {
    Malformed: 400,
    BadBody: 400,
    BadArguments: 400,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    PayloadTooLarge: 413,
    NotOpen: 503,
    EngineUnavailable: 503,
    SchemaTooNew: 503,
}
_EXPECTED = tuple(_STATUS_OF)


class _Plain(NamedTuple):
    """An answer that is there as a whole."""

    status: int
    headers: Headers
    body: bytes = b""


class DurableStreams:
    """Serves streams by the Durable Streams protocol; give it, or only the `Streams`, to `install(streams=...)`.

    `origins`: whose pages may use the streams from a browser beside our own, as `https://app.example`; `*` for all.
    `long_poll_seconds` (20): how long a long-poll waits for news. `sse_seconds` (60): when an answer of events ends, so
    that readers come back, perhaps to another replica. Who may do anything at all, `allow` decides; its default lets in
    no page of another origin, so `origins` needs an `allow` of your own.
    Raises `InvalidPlan` for seconds that are none, `BadDeclaration` for origins that are none.

        install(app, manager, streams=DurableStreams(Streams(), origins=["https://app.example"]))
    """

    def __init__(
        self,
        streams: Streams | None,
        *,
        origins: Sequence[str] = (),
        long_poll_seconds: float = LONG_POLL_SECONDS,
        sse_seconds: float = SSE_SECONDS,
    ) -> None:
        if isinstance(origins, str):
            raise BadDeclaration(f"DurableStreams(origins) is a list of origins, not the text {origins!r}")
        for name, seconds in (("long_poll_seconds", long_poll_seconds), ("sse_seconds", sse_seconds)):
            if not check_seconds(f"DurableStreams({name})", seconds):
                raise InvalidPlan(f"DurableStreams({name}) must be above 0")
        self.streams = streams
        self._origins = frozenset(origin.lower() for origin in origins)
        self._long_poll_seconds = long_poll_seconds
        self._sse_seconds = sse_seconds

    async def answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        base: str,
        retry_after_seconds: int,
        job_log: Callable[[str], Log] | None,
    ) -> None:
        """Answer a request for a path below `base`. `job_log`: finds the log of a job, where there are jobs."""
        request = _Request(self, scope, receive, send, base, job_log)
        try:
            await request.answer()
        except ClientLeft:
            return
        except Refused as refused:
            await request.refuse(refused.status, refused.detail, refused.headers)
        except _EXPECTED as error:
            status = next(status for kind, status in _STATUS_OF.items() if isinstance(error, kind))
            headers: Headers = [(b"retry-after", str(retry_after_seconds).encode())] if status == 503 else []
            try:
                rest_unread = isinstance(error, BodyTooSlow) or (
                    isinstance(error, BodyTooLarge) and error.rest_unread and not await discard_body(receive)
                )
            except ClientLeft:
                return
            if rest_unread and is_http1(scope):
                headers.append((b"connection", b"close"))
            await request.refuse(status, str(error), headers)

    def lets_in(self, origin: bytes | None) -> bool:
        """Whether pages of this origin may use the streams, beside our own."""
        told = None if origin is None else origin.decode("latin-1").lower()
        return "*" in self._origins or told in self._origins

    def common_headers(self, origin: str | None) -> Headers:
        """On every answer: it is what it says it is, and whose pages may read it."""
        headers: Headers = [(b"x-content-type-options", b"nosniff")]
        if not self._origins:
            return [*headers, (b"cross-origin-resource-policy", b"same-origin")]
        headers.append((b"cross-origin-resource-policy", b"cross-origin"))
        if "*" in self._origins:
            allowed = "*"
        elif origin is not None and origin.lower() in self._origins:
            headers.append((b"vary", b"origin"))
            allowed = origin
        else:
            return [*headers, (b"vary", b"origin")]
        return [
            *headers,
            (b"access-control-allow-origin", allowed.encode("latin-1")),
            (b"access-control-expose-headers", _RESPONSE_HEADERS.encode()),
        ]


class _Request:
    """One request."""

    def __init__(
        self,
        face: DurableStreams,
        scope: Scope,
        receive: Receive,
        send: Send,
        base: str,
        job_log: Callable[[str], Log] | None,
    ) -> None:
        self._face = face
        self._streams = face.streams
        self._scope = scope
        self._receive = receive
        self._send = send
        self._base = f"{base}/"
        self._root = scope.get("root_path", "")
        self._headers = {
            key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]
        }
        self._name = app_path(scope).removeprefix(self._base)
        self._job_log = job_log
        self._common = face.common_headers(self._headers.get("origin"))

    # --- which --------------------------------------------------------------------------------------------

    async def answer(self) -> None:
        name = check_name(self._name)
        is_job = self._job_log is not None and name.startswith(JOBS)
        method = self._scope["method"]
        methods = _READING_METHODS if is_job or self._streams is None else _METHODS
        if method == "OPTIONS":
            await self._write(self._options(methods))
        elif method not in methods:
            allowed = (b"allow", ", ".join(methods).encode())
            why = "a job's log is written by its job" if is_job else "nobody does that to a stream"
            raise Refused(405, f"{method} is not possible here: {why}", [allowed])
        elif method in ("GET", "HEAD"):
            await self._read(self._source(is_job))
        else:
            await self._write(
                await {"PUT": self._create, "POST": self._append, "DELETE": self._delete}[method]()
            )

    def _source(self, is_job: bool) -> Source:
        if is_job and self._job_log is not None:
            id = self._name.removeprefix(JOBS)
            try:
                return LogSource(self._name, self._job_log(id))
            except UnknownJob as error:
                raise Refused(404, str(error)) from None
        return StreamSource(self._opened().store, self._name)

    def _opened(self) -> Streams:
        if self._streams is None:
            raise absent(self._name, Outcome.UNKNOWN)
        return self._streams

    def _options(self, methods: Sequence[str]) -> _Plain:
        listed = ", ".join(methods).encode()
        return _Plain(
            204,
            [
                (b"allow", listed),
                (b"access-control-allow-methods", listed),
                (b"access-control-allow-headers", _REQUEST_HEADERS.encode()),
                (b"access-control-max-age", b"600"),
            ],
        )

    # --- reading ------------------------------------------------------------------------------------------

    async def _read(self, source: Source) -> None:
        if self._scope["method"] == "HEAD":
            await self._write(await self._head(source))
            return
        query = query_of(self._scope.get("query_string", b""))
        offset, live, cursor = (query.get(name, [None])[-1] for name in ("offset", "live", "cursor"))
        at = parse_offset(offset)
        if live is None:
            answer = await catch_up(source, at, self._headers.get("if-none-match"))
            await self._write(_Plain(*answer))
            return
        if offset is None:
            raise Malformed("a live reader says where to begin: give offset")
        if live == "long-poll":
            seconds = self._face._long_poll_seconds
            await self._write(_Plain(*await long_poll(source, at, cursor, self._receive, seconds)))
        elif live == "sse":
            seconds = self._face._sse_seconds
            await stream_events(source, at, cursor, self._receive, self._send, seconds, self._common)
        else:
            raise Malformed(f"live is long-poll or sse, not {live[:100]!r}")

    async def _head(self, source: Source) -> _Plain:
        if isinstance(source, StreamSource):
            page = await self._opened().store.find(self._name)
            if page.row is None:
                raise absent(self._name, page.outcome)
            return _Plain(200, [*_row_headers(page.row), (b"cache-control", b"no-store")])
        reading = await source.read(None)
        headers: Headers = [
            (b"content-type", reading.content_type.encode("latin-1")),
            (b"stream-next-offset", format_offset(reading.next).encode()),
            (b"cache-control", b"no-store"),
        ]
        return _Plain(200, [*headers, (b"stream-closed", b"true")] if reading.at_end else headers)

    # --- writing ------------------------------------------------------------------------------------------

    async def _create(self) -> _Plain:
        streams = self._opened()
        headers = self._headers
        ends = parse_end(headers.get("stream-ttl"), headers.get("stream-expires-at"))
        fork = parse_fork(
            headers.get("stream-forked-from"),
            headers.get("stream-fork-offset"),
            headers.get("stream-fork-sub-offset"),
            self._root + self._base,
        )
        content_type = headers.get("content-type")
        if content_type is not None:
            _check_content_type(content_type)
        body = await self._body(streams)
        kind = content_type or BYTES
        if content_type is None and fork is not None and body:
            page = await streams.store.find(fork.source)
            kind = BYTES if page.row is None else page.row.content_type
        entries = streams.check_size(split(kind, body))
        closed = is_true(headers, "stream-closed")
        new = NewStream(self._name, content_type, *ends, closed, fork, entries)
        written = await streams.store.create(new)
        row = written.row
        if row is None or written.outcome not in (Outcome.CREATED, Outcome.EXISTS):
            raise self._not_created(written)
        told = _row_headers(row)
        if written.outcome is Outcome.EXISTS:
            return _Plain(200, told)
        return _Plain(201, [*told, (b"location", self._location())])

    def _not_created(self, written: Written) -> Refused:
        name = self._name
        match written.outcome:
            case Outcome.UNKNOWN_SOURCE:
                return Refused(404, f"there is no stream for {name!r} to be forked from")
            case Outcome.SOURCE_GONE:
                return Refused(
                    409, f"the stream that {name!r} should be forked from is deleted or has expired"
                )
            case Outcome.BAD_FORK:
                return Refused(
                    400, f"{name!r} cannot be forked there: nothing of its source ends at that place"
                )
            case Outcome.WRONG_TYPE:
                return Refused(409, f"{name!r} and its source must have the same content type")
            case Outcome.FULL:
                return Refused(507, f"there is no room for the stream {name!r}")
            case _:
                why = "with another configuration, or deleted and with forks"
                return Refused(409, f"there is another stream {name!r}, {why}")

    async def _append(self) -> _Plain:
        streams = self._opened()
        headers = self._headers
        close = is_true(headers, "stream-closed")
        producer = parse_producer(
            headers.get("producer-id"), headers.get("producer-epoch"), headers.get("producer-seq")
        )
        body = await self._body(streams)
        content_type = headers.get("content-type")
        entries: list[bytes] = []
        if body:
            if content_type is None:
                raise Malformed("the request has a body and no Content-Type")
            entries = split(content_type, body)
        if not entries and not (close and not body):
            raise Malformed("there is nothing to be added; only a Stream-Closed: true needs no body")
        written = await streams.open(self._name).write(
            entries,
            content_type=content_type,
            close=close,
            writer_seq=headers.get("stream-seq"),
            producer=producer,
        )
        row = written.row
        if row is None or written.outcome not in (Outcome.APPLIED, Outcome.DUPLICATE):
            raise self._not_appended(written, None if producer is None else producer.seq)
        told: Headers = [(b"stream-next-offset", format_offset(row.position).encode())]
        if row.closed:
            told.append((b"stream-closed", b"true"))
        if written.producer is None:
            return _Plain(204, told)
        told.append((b"producer-epoch", str(written.producer.epoch).encode()))
        told.append((b"producer-seq", str(written.producer.seq).encode()))
        # 200 says: this is new. A mere close has nothing that could be.
        return _Plain(200 if written.outcome is Outcome.APPLIED and entries else 204, told)

    def _not_appended(self, written: Written, seq: int | None) -> Refused:
        name, row, producer = self._name, written.row, written.producer
        told: Headers = []
        if row is not None:
            told.append((b"stream-next-offset", format_offset(row.position).encode()))
            if row.closed:
                told.append((b"stream-closed", b"true"))
        match written.outcome:
            case Outcome.CLOSED:
                return Refused(409, f"the stream {name!r} is closed", told)
            case Outcome.WRONG_TYPE:
                return Refused(409, f"the stream {name!r} has another content type", told)
            case Outcome.OLD_SEQ:
                return Refused(409, f"Stream-Seq is not behind the last one of the stream {name!r}", told)
            case Outcome.OLD_EPOCH if producer is not None:
                told.append((b"producer-epoch", str(producer.epoch).encode()))
                return Refused(403, f"the producer {producer.id!r} has a newer epoch, {producer.epoch}", told)
            case Outcome.BAD_EPOCH:
                return Refused(400, "a new Producer-Epoch begins with a Producer-Seq of 0", told)
            case Outcome.SEQ_GAP if producer is not None:
                told.append((b"producer-expected-seq", str(producer.seq).encode()))
                told.append((b"producer-received-seq", str(seq).encode()))
                return Refused(409, f"the producer {producer.id!r} has left out {producer.seq}", told)
            case Outcome.FULL:
                return Refused(507, f"there is no room in the stream {name!r}", told)
            case _:
                return absent(name, written.outcome)

    async def _delete(self) -> _Plain:
        written = await self._opened().store.delete(self._name)
        if written.outcome is not Outcome.APPLIED:
            raise absent(self._name, written.outcome)
        return _Plain(204, [])

    async def _body(self, streams: Streams) -> bytes:
        # JSON loses its blanks and brackets when it is split; the entries are measured again.
        return await read_body(self._scope, self._receive, 2 * streams.max_append_bytes)

    def _location(self) -> bytes:
        scope = self._scope
        host = get_header(list(scope["headers"]), b"host")
        if host is None:
            server = scope.get("server") or ("localhost", None)
            host = f"{server[0]}{'' if server[1] is None else f':{server[1]}'}".encode()
        base = f"{self._root}{self._base}"
        path = path_of(base, self._name) or f"{quote(base)}{self._name}"
        return f"{scope.get('scheme', 'http')}://".encode() + host + path.encode()

    # --- answering ----------------------------------------------------------------------------------------

    async def _write(self, answer: _Plain) -> None:
        headers = [*self._common, *answer.headers]
        if answer.status not in (204, 304) and self._scope["method"] != "HEAD":
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def refuse(self, status: int, detail: str, headers: Headers) -> None:
        title = HTTPStatus(status).phrase
        content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        told = [*self._common, *headers]
        await answer_json(self._scope, self._send, status, content, told, media_type=PROBLEM)


def _row_headers(row: StreamRow) -> Headers:
    headers: Headers = [
        (b"content-type", row.content_type.encode("latin-1")),
        (b"stream-next-offset", format_offset(row.position).encode()),
    ]
    if row.ttl_seconds is not None:
        headers.append((b"stream-ttl", str(row.ttl_seconds).encode()))
    if row.expires_at is not None:
        headers.append((b"stream-expires-at", format_time(row.expires_at).encode()))
    if row.closed:
        headers.append((b"stream-closed", b"true"))
    return headers


def _check_content_type(content_type: str) -> None:
    main, slash, sub = media_type(content_type).partition("/")
    if not (main and slash and sub and content_type.isascii() and content_type.isprintable()):
        raise Malformed(f"Content-Type must look like text/plain, not {content_type[:100]!r}")
