"""FastAPI: one line for graceful shutdown.

The only file that imports fastapi.

    app = FastAPI()
    manager = install(app)

    @app.post("/reports")
    async def make_report(manager: ManagerDep) -> dict[str, str]:
        task = manager.create_task(render(), name="report")
        return {"id": manager.info(task).id}
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import fastapi.dependencies.utils
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.requests import HTTPConnection

from ._core._manager import TaskManager
from .asgi._access import Access as Access
from .asgi._access import Allow
from .asgi._background import chained
from .asgi._calls import current_call
from .dashboard import Dashboard
from .exceptions import InstallError
from .starlette import Event as Event
from .starlette import LogResponse as LogResponse
from .starlette import StreamResponse as StreamResponse
from .starlette import chain_tasks_class, install_with, track_background

if TYPE_CHECKING:
    from .asgi._durable_streams import DurableStreams
    from .asgi._types import ASGIApp
    from .jobs import Jobs
    from .streams import Streams

__all__ = ["Access", "Event", "LogResponse", "ManagerDep", "StreamResponse", "install"]

logger = logging.getLogger("lastcall.asgi")


def install(
    app: FastAPI,
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

    The manager opens before the app's lifespan starts and drains before it ends, so what the lifespan opened outlives
    the work. Requests, streams and WebSockets drain under the manager's plan; `BackgroundTasks` code is tracked
    without a change: in order, isolated, and not dropped where a response carries tasks of its own. `/livez`,
    `/readyz` and the tasks below `prefix` are answered. `jobs`: durable jobs, opened before the lifespan starts, closed
    after all work, and shown below `prefix`; a worker for them is `async with jobs.worker(...)` in the lifespan.
    `dashboard` False: the page at `prefix` is left out, and everything else is there. For the other parameters see
    `lastcall.asgi.Lastcall`.

    Raises `InstallError` if the app has lastcall already, has started, or has a route on one of those paths
    (checked again at startup, for routes added later). The app is unchanged then.

        manager = install(app, TaskManager(plan=ShutdownPlan(notice=2, drain=20)))
    """
    return install_with(
        app,
        manager,
        _track_fastapi_background,
        prefix=prefix,
        stream_grace_seconds=stream_grace_seconds,
        retry_after_seconds=retry_after_seconds,
        allow=allow,
        jobs=jobs,
        streams=streams,
        metrics=metrics,
        dashboard=Dashboard() if dashboard else None,
    )


def _manager_of(connection: HTTPConnection) -> TaskManager:
    # The call knows it even inside a mounted app, whose own state does not.
    call = current_call.get()
    manager: TaskManager | None = (
        call.manager if call is not None else getattr(connection.app.state, "lastcall", None)
    )
    if manager is None:
        raise InstallError(
            "ManagerDep found no manager: call `install(app)` once, right after the app was made"
        )
    return manager


ManagerDep = Annotated[TaskManager, Depends(_manager_of)]
"""The app's TaskManager as a parameter of an endpoint or dependency: `async def endpoint(manager: ManagerDep)`."""


@contextmanager
def _track_fastapi_background() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(track_background())
        if "__call__" in vars(BackgroundTasks):
            stack.enter_context(chain_tasks_class(BackgroundTasks))
        # The name FastAPI makes the injected list from. Only by that name can it be told from a list which an
        # endpoint made for itself, and perhaps threw away.
        if vars(fastapi.dependencies.utils).get("BackgroundTasks") is None:
            logger.warning(
                "this FastAPI makes its injected BackgroundTasks elsewhere; they are not merged into responses"
            )
        else:
            stack.enter_context(chained(fastapi.dependencies.utils, "BackgroundTasks", _make_injected))
        yield


def _make_injected(original: type[BackgroundTasks]) -> type[BackgroundTasks]:
    class InjectedBackgroundTasks(original):  # type: ignore[valid-type, misc]  # its base is known at run time only
        """The list that FastAPI injects; the call knows it, in case its response carries another one."""

        def __init__(self) -> None:
            super().__init__()
            call = current_call.get()
            if call is not None:
                call.leftovers.append(self)

    return InjectedBackgroundTasks
