"""Lastcall: the outermost ASGI middleware. It opens the manager, holds every call, and drains before the app ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from .._core._clock import check_seconds
from .._core._group import TaskGroup
from .._core._manager import TaskManager
from .._core._roster import Roster
from .._core._scope import Shutdown
from .._core._state import Kind, ManagerState
from ..exceptions import InvalidPlan, NotOpen
from ..streams._streams import Streams
from ._access import Access, Allow, access_of
from ._answers import refuse_http, refuse_websocket
from ._background import log_leftovers, make_background_group
from ._calls import CallOptions, call_name, current_call
from ._durable_streams import DurableStreams
from ._face import Face
from ._http import HttpCall
from ._lifespan import Lifespan
from ._log_readers import Readers
from ._servers import Server, call_limit
from ._types import ASGIApp, Receive, Scope, Send, app_path
from ._websocket import WebSocketCall

if TYPE_CHECKING:
    from ..jobs import Jobs

_SERVING = (ManagerState.OPEN, ManagerState.NOTICE)


class Lastcall:
    """Graceful shutdown for any ASGI app: `app = Lastcall(app, manager)`, outermost.

    The manager is opened before the app starts and drained before the app's own shutdown, so the app's
    resources outlive its work. Every request and WebSocket is held in the drain: told at the signal
    (`current_shutdown()` works in handlers), ended properly at its deadline. New calls in the drain get
    `503`, `Retry-After` and `Connection: close`. `/livez` stays 200, `/readyz` turns 503 at the signal; the
    tasks can be seen and cancelled below `prefix`, by clients on this machine unless `allow` says otherwise.

    `stream_grace_seconds` (5): event streams and WebSockets end this long after the drain began;
    other calls have the plan's whole drain.
    `retry_after_seconds` (5): what refused calls are told.
    `allow`: a function of the ASGI scope, sync or async; True lets the client see and cancel tasks and jobs. Or an
    `Access`, which can also make the pages read-only, hide what must not be seen, and limit the readers.
    `jobs`: durable jobs, opened before the app's startup, closed after all work, and shown below `prefix`. No worker
    runs by itself: put `async with jobs.worker(concurrency=...)` into the app's lifespan, or start `lastcall worker`.
    `streams`: free-standing streams (`Streams()` in memory, `jobs.streams` in the jobs' store), which clients write and
    read below `prefix` by the Durable Streams protocol. The logs of jobs are read so in any case.

    `metrics`: what answers PREFIX/metrics, also in the drain: `lastcall.prometheus.Metrics(manager, jobs=jobs)`.
    `dashboard`: what answers PREFIX/ and PREFIX/assets/NAME: `lastcall.dashboard.Dashboard()`.

    Raises `ValueError` for a prefix that is no path, `InvalidPlan` for negative or NaN seconds.
    Frameworks have an `install` of their own, which also tracks their BackgroundTasks:
    `lastcall.fastapi.install`, `lastcall.starlette.install`.

        app = Lastcall(app, TaskManager(plan=ShutdownPlan(drain=20)))
    """

    def __init__(
        self,
        app: ASGIApp,
        manager: TaskManager,
        *,
        prefix: str = "/lastcall",
        stream_grace_seconds: float = 5.0,
        retry_after_seconds: int = 5,
        allow: Allow | Access | None = None,
        jobs: Jobs | None = None,
        streams: Streams | DurableStreams | None = None,
        metrics: ASGIApp | None = None,
        dashboard: ASGIApp | None = None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.app = app
        self.manager = manager
        grace = check_seconds("Lastcall(stream_grace_seconds)", stream_grace_seconds)
        if check_seconds("Lastcall(retry_after_seconds)", retry_after_seconds) != int(retry_after_seconds):
            raise InvalidPlan(
                f"Lastcall(retry_after_seconds) must be whole seconds, got {retry_after_seconds!r}"
            )
        self._options = CallOptions(grace, int(retry_after_seconds))
        access = access_of(allow)
        self.face = Face(manager, prefix, int(retry_after_seconds), access, jobs, streams, metrics, dashboard)
        self._around = around
        self._background: TaskGroup | None = None
        self._background_roster: Roster | None = None
        self._readers: Readers | None = None
        self._readers_roster: Roster | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._route_http(scope, receive, send)
            case "websocket":
                await self._serve_websocket(scope, receive, send)
            case "lifespan":
                jobs = self.face.jobs
                lifespan = Lifespan(
                    self.manager,
                    receive,
                    send,
                    around=self._around,
                    on_open=self._on_open,
                    store=None if jobs is None else partial(jobs.opened, self.manager),
                    on_serving=None if jobs is None else partial(jobs.on_serving, self.manager),
                )
                await lifespan.run(self.app, scope)
            case _:
                await self.app(scope, receive, send)

    async def _route_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.face.is_call(scope) and self.manager.state is not ManagerState.NEW:
            await self._serve_http(self._answer_face, scope, receive, send)
        elif not await self.face.answer(scope, receive, send):
            await self._serve_http(self.app, scope, receive, send)

    async def _answer_face(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.face.answer(scope, receive, send)

    async def _serve_http(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_nested():
            await app(scope, receive, send)
        elif not self._accepts():
            await refuse_http(scope, send, self._options.retry_after_seconds)
        else:
            name = call_name("http", scope["method"], app_path(scope))
            with self.manager.hold(
                name, kind=Kind.REQUEST, grace_seconds=self._options.call_limit_seconds
            ) as hold:
                call = HttpCall(
                    self.manager, self._background_group(), hold, name, self._options, scope, receive, send
                )
                call.readers = self._shared_readers()
                try:
                    await call.run(app)
                finally:
                    log_leftovers(call)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_nested():
            await self.app(scope, receive, send)
        elif not self._accepts():
            await refuse_websocket(scope, receive, send, self._options.retry_after_seconds)
        else:
            name = call_name("websocket", None, app_path(scope))
            with self.manager.hold(
                name, kind=Kind.WEBSOCKET, grace_seconds=self._options.call_limit_seconds
            ) as hold:
                call = WebSocketCall(
                    self.manager, self._background_group(), hold, name, self._options, scope, receive, send
                )
                await call.run(self.app)

    def _is_nested(self) -> bool:
        """A mounted app with the same manager: the outer one holds this call already."""
        outer = current_call.get()
        return outer is not None and outer.manager is self.manager

    def _accepts(self) -> bool:
        state = self.manager.state
        if state is ManagerState.NEW:
            raise NotOpen(
                f"a call reached the app before its lifespan opened the manager {self.manager.name!r}. Run the "
                "server with lifespan on (uvicorn --lifespan on; in tests: `with TestClient(app)`); install only the "
                "outermost app, since the lifespan of a mounted one never runs"
            )
        return state in _SERVING

    def _on_open(self, server: Server) -> None:
        self.face.drain.on_open(server)
        options = self._options
        self._options = CallOptions(
            options.stream_grace_seconds, options.retry_after_seconds, call_limit(server)
        )
        self._background_group()

    def _background_group(self) -> TaskGroup:
        """Made anew whenever the manager was opened, also by somebody else than our lifespan."""
        roster = self.manager._roster
        if self._background is None or self._background_roster is not roster:
            self._background, self._background_roster = make_background_group(self.manager), roster
        return self._background

    def _shared_readers(self) -> Readers:
        """As the background group: of one opening of the manager."""
        roster = self.manager._roster
        if self._readers is None or self._readers_roster is not roster:
            self._readers, self._readers_roster = Readers(Shutdown(roster, None)), roster
        return self._readers
