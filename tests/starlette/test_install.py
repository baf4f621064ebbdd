"""install: outermost whatever comes later, once, and all or nothing."""

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from lastcall import InstallError, ManagerState, ShutdownPlan, TaskManager, current_shutdown
from lastcall.starlette import install
from tests.asgi.driver import Lifespan, Request, get, running, until
from tests.asgi.testclient import TestClient


async def hello(request: Any) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def test_user_lifespan_outlives_the_drain() -> None:
    """What the app's lifespan opened is there until the last task has ended."""
    log: list[str] = []
    manager = TaskManager(plan=ShutdownPlan(drain=30))

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> Any:
        manager.create_task(work())
        log.append("opened")
        yield {"pool": "pool"}
        log.append("closed")

    async def work() -> None:
        await current_shutdown().wait()
        log.append("finished")

    app = Starlette(routes=[Route("/", hello)], lifespan=lifespan)
    assert install(app, manager) is manager
    async with running(app) as server:
        assert server.state == {"pool": "pool"}
        assert (await get(app, "/")).body == b"hello"
    assert log == ["opened", "finished", "closed"]


async def test_outermost_whatever_is_added_later() -> None:
    """A middleware added after install, which would answer everything itself, does not hide the health pages."""
    app = Starlette(routes=[Route("/", hello)])
    install(app)

    class Wall(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return PlainTextResponse("closed for everybody", status_code=401)

    app.add_middleware(Wall)
    async with running(app):
        assert (await get(app, "/")).status == 401
        assert (await get(app, "/livez")).status == 200


def test_twice_is_refused() -> None:
    """The second install says so and changes nothing."""
    app = Starlette()
    manager = install(app)
    with pytest.raises(InstallError, match="already"):
        install(app, TaskManager())
    assert app.state.lastcall is manager


async def test_after_the_start_is_refused() -> None:
    """Too late to be outermost: a clear error, and the app is unchanged."""
    app = Starlette(routes=[Route("/", hello)])
    await get(app, "/")
    with pytest.raises(InstallError, match="started"):
        install(app)
    assert not hasattr(app.state, "lastcall")


@pytest.mark.parametrize(
    "route",
    [
        Route("/livez", hello),
        Route("/readyz", hello),
        Route("/lastcall/tasks", hello),
        Route("/lastcall/tasks/{id}", hello),
        Route("/lastcall/{page}", hello),
        Mount("/lastcall", app=Router([Route("/x", hello)])),
        Mount("/lastcall", routes=[Route("/stats", hello, methods=["POST"])]),
    ],
    ids=lambda route: type(route).__name__ + route.path,
)
async def test_colliding_routes_are_refused(route: Any) -> None:
    """A route made for one of the face's paths: refused at install, or at startup if it is added later."""
    app = Starlette(routes=[route])
    with pytest.raises(InstallError, match="collides"):
        install(app)
    assert not hasattr(app.state, "lastcall") and "build_middleware_stack" not in vars(app)
    if route.path.startswith("/lastcall"):
        install(app, prefix="/work")

    late = Starlette()
    manager = install(late)
    late.router.routes.append(route)
    answer = await Lifespan(late).start()
    assert answer["type"] == "lifespan.startup.failed" and "collides" in answer["message"]
    assert manager.state is ManagerState.NEW


@pytest.mark.parametrize(
    "route",
    [Route("/{path:path}", hello), Mount("/", app=Router()), Route("/{name}", hello)],
    ids=["path", "mount", "name"],
)
async def test_catch_all_routes_are_no_collision(route: Any) -> None:
    """A frontend mounted at the root matches every path and is still welcome."""
    app = Starlette(routes=[route])
    install(app)
    async with running(app):
        assert (await get(app, "/livez")).json()["status"] == "alive"


def test_only_starlette_apps() -> None:
    """Any other ASGI app is pointed to Lastcall."""
    with pytest.raises(TypeError, match="Lastcall"):
        install(object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"prefix": "x"}, {"stream_grace_seconds": -1}, {"retry_after_seconds": 0.5}]
)
def test_bad_settings_leave_the_app_alone(options: dict[str, Any]) -> None:
    """A wrong prefix or number: an error that names it, and an app that can still be installed into."""
    app = Starlette()
    with pytest.raises(ValueError, match=next(iter(options))):
        install(app, **options)
    install(app)


def test_test_client_twice() -> None:
    """TestClient runs the app in a thread without signals, and may do so again with the same app."""
    app = Starlette(routes=[Route("/", hello)])
    manager = install(app)
    for _ in range(2):
        with TestClient(app, client=("127.0.0.1", 1), base_url="http://localhost") as client:
            assert client.get("/").text == "hello"
            assert client.get("/lastcall/stats").json()["state"] == "open"
        assert manager.state is ManagerState.CLOSED


def test_test_client_without_its_lifespan_is_told() -> None:
    """TestClient(app) without `with` never opens the manager; the error says what to write."""
    app = Starlette(routes=[Route("/", hello)])
    install(app)
    with pytest.raises(RuntimeError, match="with TestClient"):
        TestClient(app).get("/")


async def test_two_apps_in_one_process() -> None:
    """Two installed apps side by side, with managers of their own: one drains, the other serves on."""
    first, second = Starlette(routes=[Route("/", hello)]), Starlette(routes=[Route("/", hello)])
    install(first, TaskManager(name="first"))
    install(second, TaskManager(name="second"))
    async with running(second):
        async with running(first):
            assert (await get(first, "/")).status == 200
        assert (await get(first, "/")).status == 503
        assert (await get(second, "/")).status == 200


async def test_two_apps_may_share_one_manager() -> None:
    """Two apps with one manager in one process: both serve, and the first end drains both."""
    manager = TaskManager(plan=ShutdownPlan(drain=30))
    release = asyncio.Event()

    async def wait(request: Any) -> PlainTextResponse:
        await release.wait()
        return PlainTextResponse("waited")

    first, second = Starlette(routes=[Route("/", wait)]), Starlette(routes=[Route("/", hello)])
    install(first, manager)
    install(second, manager)
    async with running(first) as server, running(second):
        request = Request(first, "/")
        await until(manager.calls)
        assert (await get(second, "/")).status == 200
        release.set()
        await request.done()
        await server.stop()
        assert (await get(second, "/")).status == 503
