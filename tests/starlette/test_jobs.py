"""Durable jobs in a Starlette app, by `install`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lastcall import TaskGroup, TaskManager, current_shutdown
from lastcall.jobs import Context, Jobs
from lastcall.starlette import install
from tests.asgi.driver import get, running


async def test_a_worker_in_the_lifespan_drains_with_the_app(tmp_path: Path) -> None:
    """Submitted by an endpoint, run by the lifespan's worker, listed by the face, closed with the app."""
    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
    manager = TaskManager()

    @jobs.task(name="double")
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(await (await double.submit(request.path_params["n"])).result(timeout=10))

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with jobs.worker() as worker:
            assert worker.manager is manager
            yield

    app = Starlette(routes=[Route("/double/{n:int}", endpoint)], lifespan=lifespan)
    install(app, manager, jobs=jobs)
    async with running(app):
        assert (await get(app, "/double/21")).json() == 42
        assert [job["status"] for job in (await get(app, "/lastcall/jobs")).json()["jobs"]] == ["completed"]
    assert not jobs._client.is_open
    assert manager.report is not None and manager.report.clean


async def test_what_the_lifespan_starts_hears_of_the_stop() -> None:
    """A plain `asyncio.create_task` in the lifespan: `current_shutdown()` in it is the app's, not nobody's."""
    heard: list[str] = []

    async def listen() -> None:
        await current_shutdown().wait()
        heard.append("stop")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(listen())
        yield
        await task

    app = Starlette(lifespan=lifespan)
    install(app)
    async with running(app):
        assert heard == []
    assert heard == ["stop"]


async def test_the_shutdown_code_of_the_app_is_its_own() -> None:
    """After the drain the app closes its things, several at once, in a group: the closed manager does not refuse it."""
    closed: list[str] = []

    async def close(what: str) -> None:
        closed.append(what)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        yield
        async with TaskGroup() as group:
            group.create_task(close("cache"))
            group.create_task(close("database"))

    app = Starlette(lifespan=lifespan)
    manager = install(app)
    async with running(app):
        assert manager.stats().completed == 1
    assert sorted(closed) == ["cache", "database"]
