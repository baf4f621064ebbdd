"""The HTTP face: liveness, readiness, and what the process does, as JSON. It works while everything else drains.

Who calls it: `_middleware`, before the app. What it owns: everything at and below the prefix. Its order for a request:
may this client come in, may it do that from there, which page, what was asked, the answer; whatever goes wrong on that
way is a problem document, and never a traceback.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from .._core._manager import TaskManager
from .._core._state import ManagerState
from .._version import __version__
from ..streams._streams import Streams
from . import _examples as examples
from . import _models as models
from ._access import Access, Challenge, is_form, is_from_elsewhere
from ._answers import answer_json, encode, refusal_headers
from ._body import BodyTooLarge, BodyTooSlow, ClientLeft
from ._drain_face import DrainFace
from ._durable_streams import DurableStreams
from ._history import History
from ._jobs_face import JobsFace
from ._live import Feed
from ._live_face import LiveFace
from ._openapi import document
from ._overview_face import OverviewFace
from ._pages import Answer, Request, Route, Routes, Says, protocol_of, read_query
from ._places import Places
from ._problems import EXPECTED, problem, status_of
from ._redact import Redactor
from ._shutdowns_face import ShutdownsFace
from ._streams_face import StreamsFace
from ._tasks_face import TasksFace
from ._types import ASGIApp, Headers, Message, Receive, Scope, Send, app_path, get_header, is_http1

if TYPE_CHECKING:
    from ..jobs import Jobs

logger = logging.getLogger("lastcall.asgi")

LIVEZ = "/livez"
READYZ = "/readyz"

_READING = ("GET", "HEAD")
_SAFE = (*_READING, "OPTIONS")

# On everything below the prefix: it is what it says it is, and no page of another site may have it.
_GUARDS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]


class Face:
    """Answers the probes, and whatever is at or below the prefix. See `Route`s of the pages for what there is."""

    def __init__(
        self,
        manager: TaskManager,
        prefix: str,
        retry_after_seconds: int,
        access: Access,
        jobs: Jobs | None = None,
        streams: Streams | DurableStreams | None = None,
        metrics: ASGIApp | None = None,
        dashboard: ASGIApp | None = None,
    ) -> None:
        check_prefix(prefix)
        self._manager = manager
        self.prefix = prefix
        self._retry_after_seconds = retry_after_seconds
        self._access = access
        self._redactor = redactor = Redactor(access.redact)
        self._places = Places(access.live_readers, access.live_readers_per_client)
        self.jobs = None if jobs is None else JobsFace(jobs, prefix, redactor, self._places)
        self.drain = DrainFace(manager, redactor)
        self._metrics = metrics
        self._dashboard = dashboard
        self._streams = DurableStreams(streams) if isinstance(streams, Streams) else streams
        if self._streams is None and jobs is not None:
            self._streams = DurableStreams(None)  # the logs of jobs alone
        self._live = frozenset({LIVEZ, prefix + LIVEZ})
        self._ready = frozenset({READYZ, prefix + READYZ})
        self._history = History(manager, jobs)
        self.routes = Routes(self._all_routes())

    def _all_routes(self) -> list[Route]:
        tasks = TasksFace(self._manager, self._redactor)
        overview = None if self.jobs is None else OverviewFace(self.jobs)
        feed = Feed(self._manager, tasks, self.drain, overview, self._history, self.meta)
        routes = [
            Route("GET", "livez", self._page_live, "Alive.", _HEALTH),
            Route("GET", "readyz", self._page_ready, "Takes new work.", _HEALTH, refuses=(503,)),
            Route(
                "GET",
                "meta",
                self._meta,
                "What this process is, and what its pages offer.",
                {200: Says("this process", models.Meta, examples.META)},
            ),
            Route(
                "GET",
                "openapi.json",
                self._openapi,
                "This document.",
                {200: Says("OpenAPI 3.1", dict[str, Any], {"openapi": "3.1.0"})},
            ),
            *tasks.routes(),
            *self.drain.routes(),
            *LiveFace(self._manager, feed, self._history, self._places).routes(),
        ]
        if self.jobs is not None and overview is not None:
            shutdowns = ShutdownsFace(self.jobs, self._redactor)
            routes += [*overview.routes(), *shutdowns.routes(), *self.jobs.routes()]
        if self._streams is not None:
            seconds, jobs = self._retry_after_seconds, self.jobs
            routes += StreamsFace(self._streams, self.prefix, seconds, jobs, self._places).routes()
        if self._metrics is not None:
            says = {200: Says("metrics for Prometheus", media=("text/plain",))}
            routes.append(Route("GET", "metrics", self._metrics_page, "Metrics.", says, checks_query=False))
        return routes

    def example_paths(self) -> list[tuple[str, str]]:
        """One method and path of each kind that it owns, to look for collisions with routes of the app."""
        paths = [("GET", path) for path in sorted(self._live | self._ready)]
        for route in self.routes.all:
            words = ("x" if word.startswith("{") else word for word in route.path.split("/"))
            paths.append((route.method, f"{self.prefix}/{'/'.join(words)}"))
        return [*paths, ("GET", self.prefix)]

    def is_call(self, scope: Scope) -> bool:
        """Whether this is a request to one of our pages that may take its time: such a one is held in the drain."""
        routes, _ = self.routes.find(self._split(app_path(scope)))
        route = routes.get(scope["method"]) or protocol_of(routes)
        return route is not None and route.takes_time(scope)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer the request if its path is one of ours; whether it was."""
        path = app_path(scope)
        if path in self._live:
            await self._answer_probe(scope, send, self._health(200, "alive"))
        elif path in self._ready:
            await self._answer_probe(scope, send, self._readiness(scope))
        elif path == self.prefix or path.startswith(f"{self.prefix}/"):
            await _Guarded(self, scope, receive, send).answer(self._split(path))
        else:
            return False
        return True

    def _split(self, path: str) -> list[str]:
        return path[len(self.prefix) + 1 :].split("/") if path.startswith(self.prefix + "/") else []

    # --- probes: for everybody --------------------------------------------------------------------------

    async def _answer_probe(self, scope: Scope, send: Send, answer: Answer) -> None:
        if scope["method"] not in _READING:
            answer = _wrong_method(scope, ["GET"])
        await answer_json(
            scope, send, answer.status, answer.content, answer.headers, media_type=answer.media_type
        )

    def _health(self, status: int, word: str, headers: Headers | None = None) -> Answer:
        return Answer(status, {"status": word, "state": self._manager.state.value}, headers or [])

    def _readiness(self, scope: Scope) -> Answer:
        if self._manager.ready:
            return self._health(200, "ready")
        return self._health(503, "not ready", refusal_headers(scope, self._retry_after_seconds))

    async def _page_live(self, request: Request) -> Answer:
        return self._health(200, "alive")

    async def _page_ready(self, request: Request) -> Answer:
        return self._readiness(request.scope)

    # --- pages of its own -------------------------------------------------------------------------------

    async def _meta(self, request: Request) -> Answer:
        return Answer(200, self.meta())

    async def _openapi(self, request: Request) -> Answer:
        prefix = request.scope.get("root_path", "") + self.prefix
        return Answer(200, document(self.routes.all, prefix, __version__), tagged=True)

    def meta(self) -> dict[str, Any]:
        """What this process is."""
        return {
            "name": self._manager.name,
            "version": __version__,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "state": self._manager.state.value,
            "now": time.time(),
            "prefix": self.prefix,
            "read_only": self._access.read_only,
            "has_jobs": self.jobs is not None,
            "has_streams": self._streams is not None and self._streams.streams is not None,
            "has_metrics": self._metrics is not None,
        }

    async def _metrics_page(self, request: Request) -> ASGIApp:
        assert self._metrics is not None
        return self._metrics


class _Guarded:
    """One request at or below the prefix."""

    def __init__(self, face: Face, scope: Scope, receive: Receive, send: Send) -> None:
        self._face = face
        self._scope = scope
        self._receive = receive
        self._app_send = send
        self._started = False

    async def answer(self, words: list[str]) -> None:
        try:
            answer = await self._found(words)
            if isinstance(answer, Answer):
                await self._write(answer)
            else:
                await answer(self._scope, self._receive, self._send)
        except ClientLeft:
            return
        except EXPECTED as error:
            if self._started:
                raise
            await self._write(self._refusal(error))
        except Exception:
            if self._started:
                raise
            logger.exception("%s %s failed", self._scope["method"], app_path(self._scope))
            await self._write(problem(500, "this page failed; the log of the process says why"))

    async def _found(self, words: list[str]) -> Answer | ASGIApp:
        """The answer, or what gives it: all that can be refused is refused here."""
        face, scope = self._face, self._scope
        routes, named = face.routes.find(words)
        protocol = protocol_of(routes)
        # A browser asks without credentials what it may ask of a stream; it learns nothing but methods and headers.
        asks_for_methods = protocol is not None and scope["method"] == "OPTIONS"
        streams = None if protocol is None else face._streams
        refused = None if asks_for_methods else await self._shut_out() or self._forbidden(streams)
        if refused is not None:
            return refused
        if protocol is not None:
            return await protocol.page(Request(scope, self._receive, named, {}))
        if not words or words == [""] or (words[0] == "assets" and len(words) == 2):
            return self._dashboard()
        if not routes:
            return problem(404, f"there is no page {app_path(scope)[:200]!r}")
        route = routes.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if route is None:
            return _wrong_method(scope, routes)
        if route.method != "GET" and is_form(scope):
            return problem(415, "a form is not understood here; send application/json")
        query = read_query(scope.get("query_string", b""), route.query) if route.checks_query else {}
        return await route.page(Request(scope, self._receive, named, query))

    async def _shut_out(self) -> Answer | None:
        try:
            allowed = self._face._access.allow(self._scope)
            if inspect.isawaitable(allowed):
                allowed = await allowed
        except Exception:
            logger.exception("allow= failed; nobody is let in")
            return problem(500, "who may come in cannot be told; the log of the process says why")
        if isinstance(allowed, Challenge):
            challenge = [(b"www-authenticate", allowed.scheme.encode("latin-1"))]
            return problem(401, "lastcall's pages ask who you are", challenge)
        if allowed:
            return None
        return problem(403, "lastcall's pages answer local clients only; pass allow= to let others in")

    def _forbidden(self, streams: DurableStreams | None) -> Answer | None:
        scope = self._scope
        if scope["method"] in _SAFE:
            return None
        if self._face._access.read_only:
            return problem(403, "read-only: nothing can be changed here")
        origin = get_header(list(scope.get("headers", ())), b"origin")
        if is_from_elsewhere(scope) and (streams is None or not streams.lets_in(origin)):
            return problem(403, "a page of another site must not change anything here")
        return None

    def _dashboard(self) -> Answer | ASGIApp:
        if self._face._dashboard is None:
            return problem(404, "there is no dashboard here")
        if self._scope["method"] not in _READING:
            return _wrong_method(self._scope, ["GET"])
        return self._face._dashboard

    def _refusal(self, error: Exception) -> Answer:
        scope, status = self._scope, status_of(error)
        headers: Headers = []
        if status == 503:
            logger.info("%s %s: %s", scope["method"], app_path(scope), error)
        if status in (429, 503):
            headers.append((b"retry-after", str(self._face._retry_after_seconds).encode()))
        rest_unread = isinstance(error, BodyTooLarge | BodyTooSlow)
        is_open = self._face._manager.state is ManagerState.OPEN
        if is_http1(scope) and (rest_unread or not is_open):
            headers.append((b"connection", b"close"))
        return problem(status, str(error), headers)

    # --- writing ----------------------------------------------------------------------------------------

    async def _write(self, answer: Answer) -> None:
        status, content, headers = answer.status, answer.content, list(answer.headers)
        if answer.tagged:
            content = encode(content)
            tag = b'"' + hashlib.blake2b(content, digest_size=12).hexdigest().encode() + b'"'
            headers.append((b"etag", tag))
            if _matches(tag, get_header(list(self._scope.get("headers", ())), b"if-none-match")):
                await self._send({"type": "http.response.start", "status": 304, "headers": headers})
                await self._send({"type": "http.response.body", "body": b""})
                return
        await answer_json(self._scope, self._send, status, content, headers, media_type=answer.media_type)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            headers: Headers = list(message.get("headers", ()))
            guards = [guard for guard in _GUARDS if get_header(headers, guard[0]) is None]
            message = {**message, "headers": [*headers, *guards]}
        await self._app_send(message)


_HEALTH = {200: Says("it does", models.Health, examples.HEALTH)}


def _matches(tag: bytes, asked: bytes | None) -> bool:
    if asked is None:
        return False
    tags = {one.strip().removeprefix(b"W/") for one in asked.split(b",")}
    return tag in tags or b"*" in tags


def _wrong_method(scope: Scope, methods: Any) -> Answer:
    allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in methods)
    detail = f"{scope['method'][:50]} is not possible here; use {allowed}"
    return problem(405, detail, [(b"allow", allowed.encode())])


def check_prefix(prefix: str) -> None:
    """Raises `ValueError` for a prefix that is no absolute path, or that would cover the whole app."""
    if not prefix.startswith("/") or prefix.endswith("/") or any(mark in prefix for mark in "{}?# "):
        raise ValueError(
            f"the prefix must look like '/lastcall': a leading slash, no trailing one, got {prefix!r}"
        )
