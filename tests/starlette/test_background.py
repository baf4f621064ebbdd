"""Background tasks of Starlette apps: tracked without a change of code, in order, isolated, not lost with the call."""

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

import lastcall.starlette
from lastcall import ShutdownPlan, StopReason, TaskManager, TaskStatus, current_shutdown
from lastcall.starlette import StreamResponse, install
from tests.asgi.driver import Request, get, running, until, within

ORIGINALS = (BackgroundTask.__call__, BackgroundTasks.__call__)


def make_app(respond: Any, *, manager: TaskManager | None = None, middleware: Any = ()) -> Starlette:
    async def endpoint(request: Any) -> Any:
        return respond()

    app = Starlette(routes=[Route("/", endpoint)], middleware=list(middleware))
    install(app, TaskManager(plan=ShutdownPlan(drain=30)) if manager is None else manager)
    return app


def of(app: Starlette) -> TaskManager:
    manager: TaskManager = app.state.lastcall
    return manager


async def test_existing_code_is_tracked() -> None:
    """A plain Starlette BackgroundTask becomes a named task of the manager, in the group `background`."""
    seen: list[str] = []

    async def send_mail(to: str) -> None:
        seen.append(to)

    app = make_app(lambda: PlainTextResponse("ok", background=BackgroundTask(send_mail, to="ada")))
    async with running(app):
        assert (await get(app, "/")).body == b"ok"
        [info] = of(app).tasks()
    assert seen == ["ada"]
    assert (
        info.name.endswith("send_mail") and info.group == "background" and info.status is TaskStatus.COMPLETED
    )


async def test_list_runs_in_order_and_shows_what_waits() -> None:
    """Three tasks: the second starts after the first has ended; until then the rest is pending."""
    seen: list[int] = []
    gate = asyncio.Event()

    async def step(number: int) -> None:
        if number == 1:
            await gate.wait()
        seen.append(number)

    def respond() -> Any:
        tasks = BackgroundTasks()
        for number in (1, 2, 3):
            tasks.add_task(step, number)
        return PlainTextResponse("ok", background=tasks)

    app = make_app(respond)
    async with running(app):
        request = Request(app, "/")
        await until(lambda: len(of(app).tasks()) == 3)
        assert [task.status for task in of(app).tasks(group="background")] == [
            "running",
            "pending",
            "pending",
        ]
        gate.set()
        await request.done()
    assert seen == [1, 2, 3]


async def test_failing_task_is_reported_once_and_drops_nobody() -> None:
    """The second of three fails: reported through the manager, once; the third runs; the server sees no error."""
    seen: list[int] = []
    errors: list[str] = []

    async def step(number: int) -> None:
        if number == 2:
            raise RuntimeError("step 2")
        seen.append(number)

    def respond() -> Any:
        return PlainTextResponse(
            "ok", background=BackgroundTasks([BackgroundTask(step, n) for n in (1, 2, 3)])
        )

    app = make_app(respond, manager=TaskManager(on_error=lambda info, error: errors.append(str(error))))
    async with running(app):
        await get(app, "/")
        assert of(app).stats().failed == 1
    assert (seen, errors) == ([1, 3], ["step 2"])


async def test_sync_tasks_run_in_the_managers_threads() -> None:
    """A blocking task does not take one of anyio's 40 tokens, which are for endpoints; it is reported once."""
    threads: list[str] = []
    errors: list[BaseException] = []

    def blocking(fail: bool) -> None:
        threads.append(threading.current_thread().name)
        if fail:
            raise OSError("disk full")

    def respond() -> Any:
        tasks = BackgroundTasks()
        tasks.add_task(blocking, fail=True)
        tasks.add_task(blocking, fail=False)
        return PlainTextResponse("ok", background=tasks)

    app = make_app(respond, manager=TaskManager(on_error=lambda info, error: errors.append(error)))
    async with running(app):
        await get(app, "/")
        assert [task.status for task in of(app).tasks()] == ["failed", "completed"]
    assert len(threads) == 2 and all(name.startswith("lastcall-") for name in threads)
    assert len(errors) == 1


async def test_sync_task_is_told_to_stop() -> None:
    """A blocking background task can wait for the shutdown in its thread, and is waited for."""
    seen: list[Any] = []
    started = threading.Event()

    def blocking() -> None:
        started.set()
        seen.append(current_shutdown().wait_sync(20))
        seen.append(current_shutdown().reason)

    app = make_app(lambda: PlainTextResponse("ok", background=BackgroundTask(blocking)))
    async with running(app) as lifespan:
        request = Request(app, "/")
        await until(started.is_set)
        await lifespan.stop()
        await request.done()
    assert seen == [True, StopReason.SHUTDOWN]


async def test_cancel_of_the_call_loses_no_task() -> None:
    """A server that cancels the call during its background work (gunicorn's own worker): all tasks run to their end."""
    seen: list[int] = []
    gate = asyncio.Event()

    async def step(number: int) -> None:
        await gate.wait()
        seen.append(number)

    def respond() -> Any:
        return PlainTextResponse("ok", background=BackgroundTasks([BackgroundTask(step, n) for n in (1, 2)]))

    app = make_app(respond)
    async with running(app) as lifespan:
        request = Request(app, "/")
        await until(lambda: len(of(app).tasks()) == 2)
        request.task.cancel()
        await asyncio.wait({request.task})
        assert request.task.cancelled() and not seen
        gate.set()
        await within(lifespan.stop())
    assert seen == [1, 2]
    report = of(app).report
    assert report is not None and report.clean


async def test_client_that_left_does_not_reach_the_background() -> None:
    """A stream's client leaves: the stream is told `disconnect`, its background tasks are not."""
    reasons: list[Any] = []

    async def source() -> Any:
        yield "x"
        await asyncio.sleep(3600)

    async def step() -> None:
        await asyncio.sleep(0)
        reasons.append(current_shutdown().reason)

    def respond() -> Any:
        return StreamResponse(
            source(), background=BackgroundTasks([BackgroundTask(step), BackgroundTask(step)])
        )

    app = make_app(respond)
    async with running(app):
        request = Request(app, "/")
        await request.until(lambda r: r.events())
        request.leave()
        await request.done()
    assert reasons == [None, None]


async def test_tasks_of_a_call_that_drains_are_let_in() -> None:
    """A request in flight at the stop finishes, and its background tasks run too, before the resources close."""
    seen: list[str] = []
    gate = asyncio.Event()

    async def step(name: str) -> None:
        await asyncio.sleep(0)
        seen.append(name)

    async def endpoint(request: Any) -> Any:
        await gate.wait()
        return PlainTextResponse(
            "ok", background=BackgroundTasks([BackgroundTask(step, n) for n in ("a", "b")])
        )

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> Any:
        yield
        seen.append("database closed")

    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)
    manager = install(app, TaskManager(plan=ShutdownPlan(drain=30)))
    async with running(app) as server:
        request = Request(app, "/")
        await until(manager.calls)
        manager.begin_shutdown()
        gate.set()
        await request.done()
        await server.stop()
    assert seen == ["a", "b", "database closed"]


@pytest.mark.parametrize("depth", [1, 2])
async def test_behind_base_http_middleware(depth: int) -> None:
    """BaseHTTPMiddleware runs the app in another task; its background tasks are tracked all the same."""

    class Pass(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    seen: list[int] = []

    async def step(number: int) -> None:
        seen.append(number)

    def respond() -> Any:
        return PlainTextResponse("ok", background=BackgroundTasks([BackgroundTask(step, n) for n in (1, 2)]))

    app = make_app(respond, middleware=[Middleware(Pass)] * depth)
    async with running(app):
        await get(app, "/")
        await until(lambda: of(app).stats().completed == 2)
    assert seen == [1, 2]


async def test_inside_a_mounted_app() -> None:
    """A sub-app mounted below the installed one: its background tasks are the outer manager's."""
    seen: list[str] = []

    async def step() -> None:
        seen.append("ran")

    async def endpoint(request: Any) -> Any:
        return PlainTextResponse("ok", background=BackgroundTask(step))

    inner = Starlette(routes=[Route("/x", endpoint)])
    app = Starlette(routes=[Mount("/sub", app=inner)])
    manager = install(app)
    async with running(app):
        assert (await get(app, "/sub/x")).body == b"ok"
        assert manager.stats().completed == 1
    assert seen == ["ran"]


async def test_subclass_with_its_own_call_is_respected() -> None:
    """A user's BackgroundTask that wraps `__call__` still wraps, and its function is not tracked twice."""
    seen: list[str] = []

    class Traced(BackgroundTask):
        async def __call__(self) -> None:
            seen.append("before")
            await super().__call__()
            seen.append("after")

    async def step() -> None:
        seen.append("work")

    def respond() -> Any:
        return PlainTextResponse("ok", background=BackgroundTasks([Traced(step), BackgroundTask(step)]))

    app = make_app(respond)
    async with running(app):
        await get(app, "/")
        assert of(app).stats().completed == 2
    assert seen == ["before", "work", "after", "work"]


async def test_streaming_response_runs_its_background_after_the_stream() -> None:
    """Starlette's own StreamingResponse and its background task work inside a tracked call."""
    seen: list[str] = []

    async def source() -> Any:
        yield "a"
        seen.append("streamed")

    async def step() -> None:
        seen.append("background")

    app = make_app(lambda: StreamingResponse(source(), background=BackgroundTask(step)))
    async with running(app):
        request = await get(app, "/")
    assert request.body == b"a" and seen == ["streamed", "background"]


async def test_patched_classes_are_given_back() -> None:
    """While an app lives Starlette's classes are chained; with the last app they are as they were."""
    first, second = (make_app(lambda: PlainTextResponse("ok")) for _ in range(2))
    async with running(first):
        chained = BackgroundTask.__call__
        assert chained is not ORIGINALS[0]
        async with running(second):
            assert BackgroundTask.__call__ is chained
        assert BackgroundTask.__call__ is chained
    assert (BackgroundTask.__call__, BackgroundTasks.__call__) == ORIGINALS


async def test_a_patch_on_top_of_ours_is_left_alone() -> None:
    """Somebody who patched the class after us is not undone, and keeps working, when we leave."""
    app = make_app(lambda: PlainTextResponse("ok"))
    async with running(app):
        ours = BackgroundTask.__call__

        async def theirs(self: Any) -> None:
            await ours(self)

        BackgroundTask.__call__ = theirs  # type: ignore[method-assign]
    assert BackgroundTask.__call__ is theirs
    ran: list[int] = []

    async def step() -> None:
        ran.append(1)

    await BackgroundTask(step)()
    assert ran == [1]
    # It stays below theirs for as long as theirs does; the other tests begin without either.
    BackgroundTask.__call__ = ORIGINALS[0]  # type: ignore[method-assign]


async def test_outside_of_a_call_nothing_changes() -> None:
    """BackgroundTasks called by hand, while an app lives: the first failure raises, as Starlette documents."""

    async def fail() -> None:
        raise RuntimeError("mine")

    app = make_app(lambda: PlainTextResponse("ok"))
    async with running(app):
        with pytest.raises(RuntimeError, match="mine"):
            await BackgroundTasks([BackgroundTask(fail)])()
        assert not of(app).tasks()


async def test_our_classes_by_name() -> None:
    """lastcall.starlette.BackgroundTasks is isolated inside a call, and Starlette's outside of one."""
    seen: list[int] = []

    async def step(number: int) -> None:
        if number == 1:
            raise RuntimeError("first")
        seen.append(number)

    def tasks() -> lastcall.starlette.BackgroundTasks:
        made = lastcall.starlette.BackgroundTasks()
        made.add_task(step, 1)
        made.add_task(step, 2)
        return made

    app = make_app(
        lambda: PlainTextResponse("ok", background=tasks()),
        manager=TaskManager(on_error=lambda info, error: None),
    )
    async with running(app):
        await get(app, "/")
    assert seen == [2]
    with pytest.raises(RuntimeError, match="first"):
        await tasks()()
