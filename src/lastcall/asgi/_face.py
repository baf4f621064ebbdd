"""The HTTP face: liveness, readiness, and the manager's tasks as JSON. It works while everything else drains."""

from __future__ import annotations

import inspect
import logging
import reprlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from .._core._manager import TaskManager
from .._core._record import TaskInfo
from .._core._state import CancelAnswer, ManagerState, TaskStatus
from ..exceptions import (
    BadArguments,
    BadDeclaration,
    BadResult,
    EngineUnavailable,
    KeyConflict,
    NotOpen,
    PayloadTooLarge,
    SchemaTooNew,
    UnknownJob,
    UnknownTask,
    UnknownTaskName,
)
from ..streams._streams import Streams
from ._access import allow_local
from ._answers import answer_json, refusal_headers
from ._body import BadBody, BodyTooLarge, BodyTooSlow, ClientLeft, UnfitBody
from ._drain_face import DrainFace
from ._durable_streams import DurableStreams
from ._jobs_face import JobsFace
from ._overview_face import OverviewFace
from ._pages import Answer, BadQuery, Pages, whole_number
from ._types import ASGIApp, Headers, Receive, Scope, Send, app_path, is_http1

if TYPE_CHECKING:
    from ..jobs import Jobs

logger = logging.getLogger("lastcall.asgi")

Allow = Callable[[Scope], "bool | Awaitable[bool]"]

LIVEZ = "/livez"
READYZ = "/readyz"
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000
_MAX_REPR = 1000

# 400: it cannot be understood. 422: it is understood, and cannot be done. 503: later, perhaps.
_STATUS_OF: Mapping[type[Exception], int] = {
    BadQuery: 400,
    BadBody: 400,
    UnknownTask: 404,
    UnknownJob: 404,
    UnknownTaskName: 404,
    BodyTooSlow: 408,
    KeyConflict: 409,
    BodyTooLarge: 413,
    PayloadTooLarge: 413,
    UnfitBody: 422,
    BadArguments: 422,
    BadDeclaration: 422,
    BadResult: 422,
    NotOpen: 503,
    EngineUnavailable: 503,
    SchemaTooNew: 503,
}
_EXPECTED = tuple(_STATUS_OF)


class Face:
    """Answers the paths it owns, and only those.

    GET  /livez, /readyz                the same below the prefix
    GET  PREFIX/, PREFIX/assets/{name}  the dashboard, where there is one
    GET  PREFIX/tasks?status=&group=&limit=
    GET  PREFIX/tasks/{id}
    POST PREFIX/tasks/{id}/cancel
    GET  PREFIX/stats
    GET  PREFIX/drain, POST PREFIX/drain    see `DrainFace`
    and, where there are durable jobs, PREFIX/overview and PREFIX/jobs: see `OverviewFace`, `JobsFace`; where there are
    streams, PREFIX/streams: see `DurableStreams`
    """

    def __init__(
        self,
        manager: TaskManager,
        prefix: str,
        retry_after_seconds: int,
        allow: Allow | None,
        jobs: Jobs | None = None,
        streams: Streams | DurableStreams | None = None,
        metrics: ASGIApp | None = None,
        dashboard: ASGIApp | None = None,
    ) -> None:
        check_prefix(prefix)
        self._manager = manager
        self._prefix = prefix
        self._retry_after_seconds = retry_after_seconds
        self._allow = allow or allow_local
        self.jobs = None if jobs is None else JobsFace(jobs, f"{prefix}/jobs")
        self.drain = DrainFace(manager)
        self._metrics = metrics
        self._dashboard = dashboard
        self._streams = DurableStreams(streams) if isinstance(streams, Streams) else streams
        if self._streams is None and jobs is not None:
            self._streams = DurableStreams(None)  # the logs of jobs alone
        self._live = frozenset({LIVEZ, prefix + LIVEZ})
        self._ready = frozenset({READYZ, prefix + READYZ})

    def example_paths(self) -> list[tuple[str, str]]:
        """One method and path of each kind that it owns, to look for collisions with routes of the app."""
        paths = [("GET", path) for path in sorted(self._live | self._ready)]
        prefix = self._prefix
        task = f"{prefix}/tasks/t-1"
        return [
            *paths,
            ("GET", f"{prefix}/tasks"),
            ("GET", task),
            ("POST", f"{task}/cancel"),
            ("GET", f"{prefix}/stats"),
            ("GET", f"{prefix}/drain"),
            ("POST", f"{prefix}/drain"),
            *([] if self._metrics is None else [("GET", f"{prefix}/metrics")]),
            *([] if self._dashboard is None else [("GET", f"{prefix}/")]),
            *([] if self.jobs is None else [("GET", f"{prefix}/overview"), *self.jobs.example_paths()]),
            *([] if self._streams is None else [("PUT", f"{prefix}/streams/name")]),
        ]

    def is_call(self, scope: Scope) -> bool:
        """Whether this is a request to one of our pages that may take its time: such a one is held in the drain."""
        match self._split(app_path(scope)):
            case ["streams", _, *_]:
                return self._streams is not None
            case ["jobs", *rest] if self.jobs is not None:
                return self.jobs.is_call(scope, rest)
            case _:
                return False

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer the request if its path is one of ours; whether it was."""
        path = app_path(scope)
        if path in self._live:
            await self._answer_health(scope, send, 200, "alive")
            return True
        if path in self._ready:
            ready = self._manager.ready
            await self._answer_health(scope, send, 200 if ready else 503, "ready" if ready else "not ready")
            return True
        words = self._split(path)
        if self._streams is not None and len(words) > 1 and words[0] == "streams":
            await self._answer_streams(self._streams, scope, receive, send)
            return True
        pages = self._pages([""] if path == self._prefix else words)
        if not pages:
            return False
        await self._guarded(scope, receive, send, pages)
        return True

    def _split(self, path: str) -> list[str]:
        return path[len(self._prefix) + 1 :].split("/") if path.startswith(self._prefix + "/") else []

    def _pages(self, words: list[str]) -> Pages:
        match words:
            case ["tasks"]:
                return {"GET": self._tasks}
            case ["stats"]:
                return {"GET": self._stats}
            case ["drain"]:
                return self.drain.pages()
            case ["metrics"] if self._metrics is not None:
                return {"GET": partial(_handed_on, self._metrics)}
            case [""] | ["assets", _] if self._dashboard is not None:
                return {"GET": partial(_handed_on, self._dashboard)}
            case ["tasks", id] if id:
                return {"GET": partial(self._task, unquote(id))}
            case ["tasks", id, "cancel"] if id:
                return {"POST": partial(self._cancel, unquote(id))}
            case ["overview"] if self.jobs is not None:
                return OverviewFace(self.jobs).pages()
            case ["jobs", *rest] if self.jobs is not None:
                return self.jobs.pages(rest)
            case _:
                return {}

    async def _answer_health(self, scope: Scope, send: Send, status: int, word: str) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _answer_wrong_method(scope, send, ["GET"])
            return
        headers = [] if self._manager.ready else refusal_headers(scope, self._retry_after_seconds)
        await answer_json(scope, send, status, {"status": word, "state": self._manager.state.value}, headers)

    async def _lets_in(self, scope: Scope, send: Send) -> bool:
        allowed = self._allow(scope)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if not allowed:
            detail = "lastcall's pages answer local clients only; pass allow= to let others in"
            await answer_json(scope, send, 403, {"detail": detail})
        return allowed

    async def _answer_streams(
        self, streams: DurableStreams, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # A browser asks without credentials what it may ask; it learns nothing but our methods and headers.
        if scope["method"] == "OPTIONS" or await self._lets_in(scope, send):
            job_log = None if self.jobs is None else self.jobs.log
            base = f"{self._prefix}/streams"
            await streams.answer(scope, receive, send, base, self._retry_after_seconds, job_log)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, pages: Pages) -> None:
        if not await self._lets_in(scope, send):
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in pages:
            await _answer_wrong_method(scope, send, pages)
            return
        try:
            answer: Answer | ASGIApp = await pages[method](scope, receive)
        except ClientLeft:
            return
        except _EXPECTED as error:
            answer = self._refusal(scope, error)
        if isinstance(answer, Answer):
            await answer_json(scope, send, *answer)
        else:
            await answer(scope, receive, send)

    def _refusal(self, scope: Scope, error: Exception) -> Answer:
        status = next(status for kind, status in _STATUS_OF.items() if isinstance(error, kind))
        headers: Headers = []
        if status == 503:
            if not isinstance(error, NotOpen):
                logger.warning("%s %s: %s", scope["method"], app_path(scope), error)
            headers.append((b"retry-after", str(self._retry_after_seconds).encode()))
        rest_unread = isinstance(error, BodyTooLarge | BodyTooSlow)
        if is_http1(scope) and (rest_unread or self._manager.state is not ManagerState.OPEN):
            headers.append((b"connection", b"close"))
        return Answer(status, {"detail": str(error)}, headers)

    # --- the pages --------------------------------------------------------------------------------------

    async def _tasks(self, scope: Scope, receive: Receive) -> Answer:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        status = _status(query)
        limit = whole_number(query, "limit", _DEFAULT_LIMIT, least=1, most=_MAX_LIMIT)
        infos = self._manager.tasks(status=status, group=query["group"][-1] if "group" in query else None)
        shown = [show(info) for info in infos[-limit:]]
        return Answer(200, {"tasks": shown, "shown": len(shown), "total": len(infos)})

    async def _stats(self, scope: Scope, receive: Receive) -> Answer:
        manager = self._manager
        return Answer(200, {"name": manager.name, "state": manager.state.value, **manager.stats()._asdict()})

    async def _task(self, id: str, scope: Scope, receive: Receive) -> Answer:
        return Answer(200, show(self._manager.info(id)))

    async def _cancel(self, id: str, scope: Scope, receive: Receive) -> Answer:
        answer = await self._manager.cancel_task(id)
        if answer is CancelAnswer.UNKNOWN:
            return Answer(404, {"detail": f"there is no task {id!r}", "answer": answer.value})
        return Answer(200, {"id": id, "answer": answer.value})


async def _handed_on(app: ASGIApp, scope: Scope, receive: Receive) -> ASGIApp:
    return app


def check_prefix(prefix: str) -> None:
    """Raises `ValueError` for a prefix that is no absolute path, or that would cover the whole app."""
    if not prefix.startswith("/") or prefix.endswith("/") or any(mark in prefix for mark in "{}?# "):
        raise ValueError(
            f"the prefix must look like '/lastcall': a leading slash, no trailing one, got {prefix!r}"
        )


def show(info: TaskInfo) -> dict[str, Any]:
    """A task as JSON. Results and errors are shown, not sent: as their repr, cut to a bounded length."""
    return {
        "id": info.id,
        "name": info.name,
        "kind": info.kind.value,
        "group": info.group,
        "status": info.status.value,
        "labels": dict(info.labels),
        "daemon": info.daemon,
        "started_at": info.started_at,
        "ended_at": info.ended_at,
        "seconds": info.seconds,
        "result": None if info.result is None else _short(info.result),
        "error": None if info.error is None else _short(info.error),
        "reason": None if info.reason is None else info.reason.value,
        "swallowed_cancel": info.swallowed_cancel,
    }


def _short(value: object) -> str:
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = _MAX_REPR
    try:
        text = shortener.repr(value)
    except Exception as error:  # somebody's __repr__
        return f"<{type(value).__name__} whose repr failed: {type(error).__name__}>"
    return text if len(text) <= _MAX_REPR else text[: _MAX_REPR - 3] + "..."


def _status(query: Mapping[str, list[str]]) -> TaskStatus | None:
    if "status" not in query:
        return None
    value = query["status"][-1]
    try:
        return TaskStatus(value)
    except ValueError:
        raise BadQuery(f"unknown status {value!r}; use one of {', '.join(TaskStatus)}") from None


async def _answer_wrong_method(scope: Scope, send: Send, methods: Iterable[str]) -> None:
    allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in methods)
    detail = f"{scope['method']} is not possible here; use {allowed}"
    await answer_json(scope, send, 405, {"detail": detail}, [(b"allow", allowed.encode())])
