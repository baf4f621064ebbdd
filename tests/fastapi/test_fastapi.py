"""FastAPI: one line, and existing code is tracked, merged, told and drained."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterable
from typing import Any

import fastapi.dependencies.utils
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

from lastcall import InstallError, ManagerState, ShutdownPlan, TaskManager, current_shutdown
from lastcall.fastapi import ManagerDep, StreamResponse, install
from tests.asgi.driver import Request, get, running, until, within
from tests.asgi.driver import WebSocket as Socket
from tests.asgi.testclient import TestClient


def make_app(**options: Any) -> tuple[FastAPI, TaskManager]:
    app = FastAPI()
    manager = install(app, TaskManager(plan=ShutdownPlan(drain=30), **options))
    return app, manager


async def test_injected_tasks_are_tracked_without_a_change() -> None:
    """`background_tasks.add_task` as everybody writes it: a named task of the manager each, in order, isolated."""
    seen: list[str] = []
    errors: list[str] = []
    app, manager = make_app(
        on_error=lambda info, error: errors.append(f"{info.name.rpartition('.')[2]}: {error}")
    )

    async def fails() -> None:
        raise RuntimeError("smtp")

    def blocking(word: str) -> None:
        seen.append(word)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> dict[str, bool]:
        tasks.add_task(fails)
        tasks.add_task(blocking, word="after")
        return {"ok": True}

    async with running(app):
        assert (await get(app, "/", method="POST")).json() == {"ok": True}
        assert [task.status for task in manager.tasks(group="background")] == ["failed", "completed"]
    assert (seen, errors) == (["after"], ["fails: smtp"])


async def test_injected_tasks_are_merged_into_a_response_with_its_own() -> None:
    """FastAPI drops the injected list if the returned response has a background; both run, the response's first."""
    seen: list[str] = []
    app, _ = make_app()

    async def step(name: str) -> None:
        seen.append(name)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> JSONResponse:
        tasks.add_task(step, "injected 1")
        tasks.add_task(step, "injected 2")
        return JSONResponse({}, background=BackgroundTask(step, "own"))

    async with running(app):
        await get(app, "/")
        await get(app, "/")
    assert seen == ["own", "injected 1", "injected 2"] * 2


async def test_list_made_by_the_endpoint_and_thrown_away_stays_so() -> None:
    """A BackgroundTasks that the endpoint made itself and did not use is not run behind its back."""
    seen: list[str] = []
    app, _ = make_app()

    async def step(name: str) -> None:
        seen.append(name)

    @app.get("/")
    async def endpoint() -> JSONResponse:
        BackgroundTasks().add_task(step, "thrown away")
        return JSONResponse({}, background=BackgroundTask(step, "own"))

    async with running(app):
        await get(app, "/")
    assert seen == ["own"]


async def test_tasks_added_before_an_http_exception_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """FastAPI does not run them, and neither do we; but they are not lost without a word."""
    seen: list[str] = []
    app, manager = make_app()

    async def charge_card() -> None:
        seen.append("ran")

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(charge_card)
        raise HTTPException(409, "conflict")

    async with running(app):
        assert (await get(app, "/")).status == 409
        assert not manager.tasks()
    assert not seen
    [message] = [record.getMessage() for record in caplog.records if "charge_card" in record.getMessage()]
    assert "GET /" in message and "not run" in message


async def test_dependencies_share_the_injected_list() -> None:
    """A dependency and the endpoint add to one list, and each task runs once."""
    from fastapi import Depends

    seen: list[str] = []
    app, _ = make_app()

    async def step(name: str) -> None:
        seen.append(name)

    def dependency(tasks: BackgroundTasks) -> None:
        tasks.add_task(step, "dependency")

    @app.get("/", dependencies=[Depends(dependency)])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(step, "endpoint")

    async with running(app):
        await get(app, "/")
    assert seen == ["dependency", "endpoint"]


async def test_manager_as_a_dependency() -> None:
    """ManagerDep is the app's manager, in endpoints of the app, of routers and of mounted apps."""
    app, manager = make_app()
    router = APIRouter()
    inner = FastAPI()
    seen: list[TaskManager] = []

    async def endpoint(found: ManagerDep) -> dict[str, str]:
        seen.append(found)
        task = found.create_task(asyncio.sleep(0), name="made in an endpoint")
        return {"id": found.info(task).id}

    app.get("/")(endpoint)
    router.get("/routed")(endpoint)
    inner.get("/inner")(endpoint)
    app.include_router(router)
    app.mount("/mounted", inner)
    async with running(app):
        for path in ("/", "/routed", "/mounted/inner"):
            id = (await get(app, path)).json()["id"]
            assert manager.info(id).name == "made in an endpoint"
    assert seen == [manager] * 3


async def test_manager_dependency_without_install_is_a_clear_error() -> None:
    """ManagerDep in an app that was never installed into says what to do."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(manager: ManagerDep) -> None: ...

    with pytest.raises(InstallError, match=r"install\(app\)"):
        await get(app, "/")


async def test_stream_response_from_an_endpoint() -> None:
    """A StreamResponse returned by an endpoint: told at the stop, ended with its event, injected tasks run after it."""
    seen: list[str] = []
    app, _manager = make_app()

    async def tokens() -> Any:
        yield {"token": "a"}
        await current_shutdown().wait()
        yield {"token": "b"}
        seen.append("source closed")

    async def bill() -> None:
        seen.append("billed")

    @app.get("/chat")
    async def chat(tasks: BackgroundTasks) -> StreamResponse:
        tasks.add_task(bill)
        return StreamResponse(tokens())

    async with running(app) as lifespan:
        request = Request(app, "/chat")
        await request.until(lambda r: r.events())
        await lifespan.stop()
        await request.done()
    data = [json.loads(event["data"]) for event in request.events()]
    assert data == [{"token": "a"}, {"token": "b"}, {"type": "end", "reason": "shutdown"}]
    assert seen == ["source closed", "billed"]


async def test_fastapis_own_event_stream_ends_with_its_grace() -> None:
    """An endless generator endpoint of FastAPI itself does not keep the process past its grace, and ends cleanly."""
    from fastapi.sse import EventSourceResponse

    app = FastAPI()
    install(app, TaskManager(plan=ShutdownPlan(drain=3600)), stream_grace_seconds=0.05)
    closed = asyncio.Event()

    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterable[dict[str, int]]:
        try:
            while True:
                yield {"tick": 1}
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async with running(app) as lifespan:
        request = Request(app, "/events")
        await request.until(lambda r: len(r.events()) > 1)
        await within(lifespan.stop())
        await request.done()
        gc.collect()  # FastAPI leaves the generator to it
        await within(closed.wait())
    assert request.complete


async def test_websocket_handler_written_as_in_the_manual() -> None:
    """A handler blocked in `receive_text()` ends by the disconnect it gets, and nothing is raised to the server."""
    app = FastAPI()
    install(app, TaskManager(plan=ShutdownPlan(drain=30)), stream_grace_seconds=0.02)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    async with running(app) as lifespan:
        socket = Socket(app, "/ws")
        await socket.until_sent(1)
        socket.say("echo")
        await socket.until_sent(2)
        await within(lifespan.stop())
        await socket.done()
    assert socket.sent[-1]["code"] == 1012


def test_sync_endpoint_sees_the_shutdown() -> None:
    """A `def` endpoint runs in FastAPI's thread and is told there: `wait_sync` wakes."""
    app, manager = make_app()
    seen: list[bool] = []

    @app.get("/")
    def endpoint(found: ManagerDep) -> None:
        found._roster.loop.call_soon_threadsafe(found.begin_shutdown)
        seen.append(current_shutdown().wait_sync(20))

    with TestClient(app) as client:
        assert client.get("/").status_code == 200
    assert seen == [True] and manager.state is ManagerState.CLOSED


async def test_dependencies_with_yield_are_closed_in_a_cut_call() -> None:
    """A call that is cut at its deadline still closes what its dependencies opened."""
    from fastapi import Depends

    app = FastAPI()
    install(app, TaskManager(plan=ShutdownPlan(drain=0.05, cancel=5)))
    closed = asyncio.Event()

    async def session() -> Any:
        try:
            yield "session"
        finally:
            await asyncio.sleep(0)
            closed.set()

    @app.get("/")
    async def endpoint(opened: str = Depends(session)) -> None:
        await asyncio.sleep(3600)

    async with running(app) as lifespan:
        request = Request(app, "/")
        await until(app.state.lastcall.calls)
        await lifespan.stop()
        await request.done()
    assert request.status == 503 and closed.is_set()


async def test_colliding_router_is_refused() -> None:
    """A route that comes with an included router collides as well."""
    router = APIRouter()

    @router.get("/tasks")
    async def tasks() -> None: ...

    app = FastAPI()
    app.include_router(router, prefix="/lastcall")
    with pytest.raises(InstallError, match="collides"):
        install(app)
    install(app, prefix="/work")


async def test_fastapi_is_given_back_as_it_was() -> None:
    """After the last app has ended, FastAPI's and Starlette's names are the originals."""
    before = (vars(BackgroundTasks)["__call__"], vars(fastapi.dependencies.utils)["BackgroundTasks"])
    app, _ = make_app()
    with contextlib.suppress(RuntimeError):
        async with running(app):
            assert vars(fastapi.dependencies.utils)["BackgroundTasks"] is not before[1]
            raise RuntimeError("the service breaks")
    assert before == (vars(BackgroundTasks)["__call__"], vars(fastapi.dependencies.utils)["BackgroundTasks"])
