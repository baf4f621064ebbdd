"""Starlette: install lastcall into an app, track its BackgroundTasks, stream responses that end properly or resume.

The only file that imports starlette.

    app = Starlette(routes=[...])
    manager = install(app)
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.background import BackgroundTask as _BackgroundTask
from starlette.background import BackgroundTasks as _BackgroundTasks
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._core._manager import TaskManager
from .asgi import Lastcall
from .asgi._access import Access as Access
from .asgi._access import Allow
from .asgi._background import (
    BackgroundJob,
    background_manager,
    chained,
    job_name,
    run_background,
)
from .asgi._bounded import run_bounded
from .asgi._calls import Call, current_call
from .asgi._framing import Event as Event
from .asgi._log_response import HasLog
from .asgi._log_response import LogResponse as _PlainLogResponse
from .asgi._stream import StreamFormat, run_stream
from .asgi._stream import StreamResponse as _PlainStreamResponse
from .dashboard import Dashboard
from .exceptions import InstallError
from .streams import Log

if TYPE_CHECKING:
    from .asgi._durable_streams import DurableStreams
    from .jobs import Jobs
    from .streams import Streams

_SOURCE_CLOSE_SECONDS = 2.0

__all__ = ["Access", "BackgroundTask", "BackgroundTasks", "Event", "LogResponse", "StreamResponse", "install"]


def install(
    app: Starlette,
    manager: TaskManager | None = None,
    *,
    prefix: str = "/lastcall",
    stream_grace_seconds: float = 5.0,
    retry_after_seconds: int = 5,
    allow: Allow | Access | None = None,
    jobs: Jobs | None = None,
    streams: Streams | DurableStreams | None = None,
    metrics: ASGIApp | None = None,
    dashboard: bool = True,
) -> TaskManager:
    """Give `app` graceful shutdown; returns the manager (a new one, if none is given).

    Whatever middleware is added later, lastcall stays outermost. The manager is `app.state.lastcall`; it opens before
    the app's startup and drains before its shutdown. `BackgroundTask`s of responses become tasks of the manager
    without a change of code. `jobs`: opened before the startup, closed after all work, shown below the prefix.
    `dashboard` False: the page at the prefix is left out, and everything else is there. For the other parameters see
    `lastcall.asgi.Lastcall`.

    Raises `InstallError` if the app has lastcall already, has started, or has a route on one of the face's paths
    (checked again at startup, for routes added later); `TypeError` if `app` is no Starlette app. The app is
    unchanged then.

        manager = install(app, TaskManager(plan=ShutdownPlan(drain=20)))
    """
    return install_with(
        app,
        manager,
        track_background,
        prefix=prefix,
        stream_grace_seconds=stream_grace_seconds,
        retry_after_seconds=retry_after_seconds,
        allow=allow,
        jobs=jobs,
        streams=streams,
        metrics=metrics,
        dashboard=Dashboard() if dashboard else None,
    )


def install_with(
    app: Starlette,
    manager: TaskManager | None,
    track: Callable[[], AbstractContextManager[None]],
    **options: Any,
) -> TaskManager:
    """`install`, with the framework's own way to track background tasks."""
    if not isinstance(app, Starlette):
        raise TypeError(
            f"install needs a Starlette or FastAPI app, got {app!r}; wrap any other ASGI app: Lastcall(app, manager)"
        )
    if getattr(app.state, "lastcall", None) is not None:
        raise InstallError("lastcall is installed in this app already; install it once, in the outermost app")
    if app.middleware_stack is not None:
        raise InstallError("the app has started already; call install right after the app was made")
    manager = TaskManager() if manager is None else manager

    @contextmanager
    def around() -> Iterator[None]:
        check_routes(app.routes, middleware)
        with track():
            yield

    async def not_built(scope: Scope, receive: Receive, send: Send) -> None:
        raise InstallError("the middleware stack of the app has not been built")

    middleware = Lastcall(not_built, manager, around=around, **options)
    check_routes(app.routes, middleware)
    build = app.build_middleware_stack

    def build_with_lastcall() -> ASGIApp:
        middleware.app = build()
        return middleware

    # On the instance, so that it wraps whatever the stack will be when the app starts.
    app.build_middleware_stack = build_with_lastcall  # type: ignore[method-assign]
    app.state.lastcall = manager
    return manager


def check_routes(routes: list[BaseRoute], middleware: Lastcall) -> None:
    """Raises `InstallError` if a route was made for a path of the face; catch-all routes were not."""
    prefix = middleware.face.prefix
    for route in routes:
        path = getattr(route, "path", "")
        if path == prefix or path.startswith(f"{prefix}/"):
            raise InstallError(
                f"the route {path!r} of the app collides with {prefix!r}, below which lastcall answers everything; "
                "choose another prefix= or rename the route"
            )
    for method, path in middleware.face.example_paths():
        # The same shape of path with other words; what matches this as well was not made for the face.
        other = "/".join(uuid4().hex if word else "" for word in path.split("/"))
        for route in routes:
            if _matches(route, method, path) and not _matches(route, method, other):
                where = getattr(route, "path", None) or path
                raise InstallError(
                    f"the route {where!r} of the app collides with {path!r}, which lastcall answers; "
                    "choose another prefix= or rename the route"
                )


def _matches(route: BaseRoute, method: str, path: str) -> bool:
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "headers": [],
        "query_string": b"",
    }
    match, _ = route.matches(scope)
    return match is not Match.NONE


# --- background tasks -----------------------------------------------------------------------------------


class BackgroundTask(_BackgroundTask):
    """Starlette's BackgroundTask as a task of the manager, for code that wants to name it so.

    After `install`, Starlette's own class behaves the same. Outside a call of an installed app it does what
    Starlette's does.
    """

    async def __call__(self) -> None:
        await call_task(_BackgroundTask.__call__, self)


class BackgroundTasks(_BackgroundTasks):
    """Starlette's BackgroundTasks, in order and isolated: a failing one is reported, and the next ones run."""

    def add_task(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.tasks.append(BackgroundTask(func, *args, **kwargs))

    async def __call__(self) -> None:
        await call_tasks(_BackgroundTasks.__call__, self)


@contextmanager
def track_background() -> Iterator[None]:
    """Make Starlette's own classes behave so, for as long as the app lives."""
    with ExitStack() as stack:
        stack.enter_context(chained(_BackgroundTask, "__call__", _chain(call_task)))
        stack.enter_context(chained(_BackgroundTasks, "__call__", _chain(call_tasks)))
        stack.enter_context(chained(StreamingResponse, "stream_response", _closing_its_source))
        yield


def chain_tasks_class(cls: type[_BackgroundTasks]) -> AbstractContextManager[None]:
    """The same for a framework's subclass that overrides `__call__`."""
    return chained(cls, "__call__", _chain(call_tasks))


def _chain(run: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def make(original: Any) -> Any:
        async def __call__(self: Any) -> None:
            await run(original, self)

        return __call__

    return make


def _closing_its_source(original: Any) -> Any:
    """Starlette leaves a generator that was cut off between two chunks to the garbage collector, whose turn may
    come after the app's resources have been closed."""

    async def stream_response(self: Any, send: Send) -> None:
        try:
            await original(self, send)
        except BaseException:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None and current_call.get() is not None:
                await run_bounded(close(), _SOURCE_CLOSE_SECONDS, what="closing the source of a response")
            raise

    return stream_response


async def call_task(original: Callable[[Any], Any], task: _BackgroundTask) -> None:
    """What a BackgroundTask does when it is called: by a response, inside a background task, or elsewhere."""
    call = current_call.get()
    if call is not None:
        await run_background(call, [_job(task), *_leftover_jobs(call, task)])
        return
    manager = background_manager.get()
    if manager is not None and not task.is_async:
        await manager._threads.call(partial(task.func, *task.args, **task.kwargs))
        return
    await original(task)


async def call_tasks(original: Callable[[Any], Any], tasks: _BackgroundTasks) -> None:
    """What a list of them does."""
    call = current_call.get()
    if call is None:
        await original(tasks)
    else:
        await run_background(call, [*_jobs(tasks), *_leftover_jobs(call, tasks)])


def _jobs(tasks: _BackgroundTasks) -> Iterator[BackgroundJob]:
    """One job per task. Each runs through the list's own `__call__`, as a list of one, so that what others
    have put around it (telemetry) still happens."""
    for task in tasks.tasks:
        if isinstance(task, _BackgroundTasks):
            yield from _jobs(task)
        else:
            single = copy.copy(tasks)
            single.tasks = [task]
            yield BackgroundJob(job_name(getattr(task, "func", task)), single.__call__)


def _job(task: _BackgroundTask) -> BackgroundJob:
    return BackgroundJob(job_name(getattr(task, "func", task)), task.__call__)


def _leftover_jobs(call: Call, running: _BackgroundTask) -> Iterator[BackgroundJob]:
    """Tasks that were injected into the endpoint while its response carries others of its own."""
    leftovers, call.leftovers = call.leftovers, []
    for leftover in leftovers:
        if leftover is not running and isinstance(leftover, _BackgroundTasks):
            yield from _jobs(leftover)


# --- streams --------------------------------------------------------------------------------------------


class StreamResponse(Response):
    """`lastcall.asgi.StreamResponse` as a Starlette response; `background` runs when the stream has ended.

    See there for the parameters, for what the client gets, and for what it raises.

        @app.get("/chat")
        async def chat(prompt: str) -> StreamResponse:
            return StreamResponse(llm.astream(prompt))
    """

    def __init__(
        self,
        source: AsyncIterable[Any],
        *,
        format: StreamFormat = "sse",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        keep_alive_seconds: float | None = 15.0,
        grace_seconds: float | None = None,
        media_type: str | None = None,
        background: _BackgroundTask | None = None,
    ) -> None:
        self._stream = _PlainStreamResponse(
            source,
            format=format,
            status_code=status_code,
            headers=headers,
            keep_alive_seconds=keep_alive_seconds,
            grace_seconds=grace_seconds,
            media_type=media_type,
        )
        self.status_code = status_code
        self.media_type = media_type or self._stream.framing.media_type
        self.background = background
        self.body = b""
        self.raw_headers = self._stream.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await run_stream(
            stream.source,
            stream.framing,
            scope,
            receive,
            send,
            start=start,
            keep_alive_seconds=stream.keep_alive_seconds,
            grace_seconds=stream.grace_seconds,
        )
        if self.background is not None:
            await self.background()


class LogResponse(Response):
    """`lastcall.asgi.LogResponse` as a Starlette response: a job's events, or any other log, for readers that return.

    See there for the parameters, for what the client gets, and for what it raises. Who may read, the route checks.

        @app.get("/chats/{id}/events")
        async def events(id: str) -> LogResponse:
            return LogResponse(jobs.job(id), cancel_after_seconds=30)
    """

    def __init__(
        self,
        source: Log | HasLog,
        *,
        cancel_after_seconds: float | None = None,
        cancel: Callable[[], Awaitable[Any]] | None = None,
        durable: bool = True,
        background: _BackgroundTask | None = None,
    ) -> None:
        self._response = _PlainLogResponse(
            source, cancel_after_seconds=cancel_after_seconds, cancel=cancel, durable=durable
        )
        self.status_code = 200  # the real one depends on what the client asks
        self.background = background
        self.body = b""
        self.raw_headers = []  # what the route adds: cookies, headers of its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_all(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self.raw_headers]}
            await send(message)

        await self._response(scope, receive, send_all)
        if self.background is not None:
            await self.background()
