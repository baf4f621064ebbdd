"""LogResponse: any log over HTTP, for readers that come back.

Who calls it: the face, for jobs' events, and routes of users, with their own checks of who may read. What it owns: the
order of one answer: understand, look where the log stands, then a page, a stream, or the status that says why not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from .._core._clock import check_seconds
from .._core._scope import current_shutdown
from .._core._state import StopReason
from ..exceptions import InstallError, NotOpen, ShuttingDown
from ..streams import Log, LogPage
from ..streams._log import check_cursor
from ._answers import answer_json
from ._calls import current_call
from ._log_page import PageReader, read_page
from ._log_problem import LogProblem, answer_problem
from ._log_reader import LogReader
from ._log_readers import Readers, log_key
from ._log_request import LogFormat, LogRequest, read_request
from ._log_wire import LogEvents, LogLines, LogWire, page_json
from ._types import Headers, Receive, Scope, Send

if TYPE_CHECKING:
    from .._core._manager import TaskManager

_DEFAULT_RETRY_SECONDS = 5
# Against what proxies do to a stream: store it, compress it (which collects it), or collect it (nginx).
_STREAM_HEADERS: Headers = [(b"cache-control", b"no-store, no-transform"), (b"x-accel-buffering", b"no")]

_WIRES: dict[LogFormat, LogWire] = {LogFormat.SSE: LogEvents(), LogFormat.NDJSON: LogLines()}


class HasLog(Protocol):
    """Something with a log: a job."""

    def log(self) -> Log: ...


class LogResponse:
    """An ASGI response that serves a log to readers which may leave, come back, and miss nothing.

    `source`: a `Log`, or a job. What the reader gets is its own choice: server-sent events
    (`Accept: text/event-stream`, or `?format=sse`), lines of JSON (`application/x-ndjson`), or one page of JSON, which
    with `?wait=seconds` waits for the next entry. It begins behind its cursor: `Last-Event-ID`, else `?after=` (or
    `?starting_after=`), the number of the last entry it has.

    A stream begins with `snapshot`, has every entry once and in order, and ends with `end` when the log is closed.
    When the process stops it ends without one, and says when to come back. Answers: 204 when the log is closed and the
    reader has all of it, 400 for a cursor that is none, 404, and 410 for one older than what is kept.

    `cancel_after_seconds`: so long after the last reader has left, the job is cancelled, with the reason `disconnect`;
    None (default): it goes on. Never while the process drains. `cancel`: what to call in place of the job's own
    `cancel`; needed for a log that is no job's. `durable`: False for a log that only this process has; its readers then
    stay in the drain, for `stream_grace_seconds`.

    Raises `InvalidPlan` for negative seconds, `TypeError` for what is no log, or has nothing to cancel.

        async def app(scope, receive, send):
            await LogResponse(jobs.job(job_id), cancel_after_seconds=30)(scope, receive, send)
    """

    def __init__(
        self,
        source: Log | HasLog,
        *,
        cancel_after_seconds: float | None = None,
        cancel: Callable[[], Awaitable[Any]] | None = None,
        durable: bool = True,
    ) -> None:
        if cancel_after_seconds is not None:
            check_seconds("LogResponse(cancel_after_seconds)", cancel_after_seconds)
            cancel = cancel or _cancel_of(source)
        self._log = _log_of(source)
        self._key = log_key(self._log)
        self._cancel_after_seconds = cancel_after_seconds
        self._cancel = cancel
        self._durable = durable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        abandon = self._abandon()
        try:
            request = read_request(scope)
            if request.format is LogFormat.JSON:
                await self._answer_page(request, scope, receive, send, abandon)
                return
            page = await self._log.read(request.after, 0)
            check_cursor(page, request.after)
            snapshot = await self._log.snapshot()
        except LogProblem as error:
            call = current_call.get()
            retry = _DEFAULT_RETRY_SECONDS if call is None else call.options.retry_after_seconds
            await answer_problem(scope, send, error, retry)
            return
        if page.closed and request.comes_back and request.after >= page.last:
            await send({"type": "http.response.start", "status": 204, "headers": _STREAM_HEADERS[:1]})
            await send({"type": "http.response.body", "body": b""})
            return
        wire = _WIRES[request.format]
        headers = [(b"content-type", wire.media_type.encode()), *_STREAM_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope.get("method") == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        readers = _readers()
        with readers.audience.reading(self._key, self._cancel_after_seconds, abandon):
            reader = LogReader(self._log, wire, request.after, send, readers, durable=self._durable)
            await reader.run(page, snapshot, receive)

    async def _answer_page(
        self,
        request: LogRequest,
        scope: Scope,
        receive: Receive,
        send: Send,
        abandon: Callable[[], None] | None,
    ) -> None:
        page: LogPage | None
        if request.wait_seconds:
            readers = _readers()
            with readers.audience.reading(self._key, self._cancel_after_seconds, abandon):
                page = await PageReader().run(
                    self._log, request.after, request.limit, request.wait_seconds, receive, readers
                )
        else:
            page = await read_page(self._log, request.after, request.limit)
        if page is not None:
            await answer_json(scope, send, 200, page_json(request.after, page, await self._log.snapshot()))

    def _abandon(self) -> Callable[[], None] | None:
        """What is done when nobody reads any more, in a task of the app's manager."""
        cancel = self._cancel
        if self._cancel_after_seconds is None or cancel is None:
            return None
        call = current_call.get()
        if call is None:
            raise InstallError(
                "LogResponse(cancel_after_seconds=...) counts the readers of an app: install lastcall in it"
            )
        manager: TaskManager = call.manager

        async def run() -> None:
            await cancel()

        def abandon() -> None:
            with contextlib.suppress(ShuttingDown, NotOpen):
                manager.create_task(run(), name=f"cancel {self._log!r}: nobody reads it"[:200])

        return abandon


def _readers() -> Readers:
    """What the readers of this app share; without lastcall around the app, this reader is alone."""
    call = current_call.get()
    if call is not None and call.readers is not None:
        return call.readers
    return Readers(current_shutdown())


def _log_of(source: Log | HasLog) -> Log:
    if callable(getattr(source, "read", None)) and callable(getattr(source, "watch", None)):
        return cast(Log, source)
    make = getattr(source, "log", None)
    if not callable(make):
        raise TypeError(f"LogResponse serves a Log, or a job, not {source!r}")
    return cast(Log, make())


def _cancel_of(source: Log | HasLog) -> Callable[[], Awaitable[Any]]:
    cancel = getattr(source, "cancel", None)
    if not callable(cancel):
        raise TypeError(
            "LogResponse(cancel_after_seconds=...) needs something to cancel: serve a job, or give cancel="
        )
    return lambda: cast(Awaitable[Any], cancel(StopReason.DISCONNECT))
