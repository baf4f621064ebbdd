"""The lifespan: the manager opens before the app, and drains before its resources close, in every way it can go."""

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import Any

import pytest

from lastcall import ManagerState, ShutdownPlan, TaskManager, current_shutdown
from lastcall.asgi import Lastcall
from tests.asgi.driver import Lifespan, get, running, until, within


class App:
    """An app with a lifespan which writes down what happens."""

    def __init__(self, log: list[str], *, fail: str = "") -> None:
        self.log = log
        self.fail = fail

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        assert (await receive())["type"] == "lifespan.startup"
        self.log.append("opened")
        if self.fail == "crash":
            raise RuntimeError("no database")
        if self.fail == "failed":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        await send({"type": "lifespan.startup.complete"})
        if self.fail == "later":
            raise RuntimeError("lost the database")
        try:
            assert (await receive())["type"] == "lifespan.shutdown"
        finally:
            self.log.append("closed")
        await send({"type": "lifespan.shutdown.complete"})


async def test_resources_outlive_the_work() -> None:
    """A task that needs the app's database finishes before the app closes it."""
    log: list[str] = []
    manager = TaskManager(plan=ShutdownPlan(drain=30))

    async def work() -> None:
        await current_shutdown().wait()
        log.append("work finished")

    async with running(Lastcall(App(log), manager)) as lifespan:
        manager.create_task(work())
        await until(lambda: len(manager.tasks()) == 1)
        assert (await lifespan.stop())["type"] == "lifespan.shutdown.complete"
    assert log == ["opened", "work finished", "closed"]
    assert manager.state is ManagerState.CLOSED


async def test_startup_code_may_create_tasks() -> None:
    """The manager is open before the app's own startup runs."""
    manager = TaskManager()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        manager.create_task(asyncio.sleep(0), name="warm up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async with running(Lastcall(app, manager)):
        await until(lambda: manager.stats().completed == 1)


@pytest.mark.parametrize("raises", [True, False])
async def test_app_without_a_lifespan_is_drained_all_the_same(raises: bool) -> None:
    """An app that raises on the lifespan scope, or ignores it: the protocol is completed for it."""
    manager = TaskManager(plan=ShutdownPlan(drain=30))
    finished = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if raises:
            raise NotImplementedError(scope["type"])

    async def work() -> None:
        await current_shutdown().wait()
        finished.set()

    async with running(Lastcall(app, manager)) as lifespan:
        manager.create_task(work())
        assert (await lifespan.stop())["type"] == "lifespan.shutdown.complete"
    assert finished.is_set()


@pytest.mark.parametrize("fail", ["failed", "crash"])
async def test_failed_startup_is_passed_on_and_leaves_nothing(fail: str) -> None:
    """The app's startup fails: the server hears it, the manager is closed, signals are untouched."""
    before = signal.getsignal(signal.SIGTERM)
    manager = TaskManager()
    lifespan = Lifespan(Lastcall(App([], fail=fail), manager))
    answer = await lifespan.start()
    assert answer["type"] == "lifespan.startup.failed" and "no database" in answer["message"]
    await asyncio.wait({lifespan.task})
    assert manager.state is ManagerState.CLOSED
    assert signal.getsignal(signal.SIGTERM) is before
    if fail == "crash":
        with pytest.raises(RuntimeError, match="no database"):
            lifespan.task.result()


async def test_lifespan_that_dies_in_service_does_not_stop_the_drain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The app's lifespan raises while the service runs: it is logged, work still drains, the server hears of it."""
    manager = TaskManager(plan=ShutdownPlan(drain=30))
    finished = asyncio.Event()

    async def work() -> None:
        await current_shutdown().wait()
        finished.set()

    lifespan = Lifespan(Lastcall(App([], fail="later"), manager))
    assert (await lifespan.start())["type"] == "lifespan.startup.complete"
    manager.create_task(work())
    answer = await lifespan.stop()
    assert answer["type"] == "lifespan.shutdown.failed" and "lost the database" in answer["message"]
    assert finished.is_set()
    assert any("ended before the shutdown" in record.getMessage() for record in caplog.records)


async def test_cancelled_lifespan_ends_the_work_before_the_resources() -> None:
    """A forced exit cancels the lifespan: work is cancelled and over before the app's `finally` runs."""
    log: list[str] = []
    manager = TaskManager(plan=ShutdownPlan(drain=3600, cancel=5))

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            log.append("work cleaned up")

    lifespan = Lifespan(Lastcall(App(log), manager))
    await lifespan.start()
    manager.create_task(work())
    await until(lambda: manager.stats().running == 1)
    await asyncio.sleep(0)
    lifespan.task.cancel()
    await within(asyncio.wait({lifespan.task}))
    assert lifespan.task.cancelled()
    assert log == ["opened", "work cleaned up", "closed"]
    assert manager.state is ManagerState.CLOSED


async def test_one_manager_through_several_lifespans() -> None:
    """A test client that starts the app twice: the second time is as good as the first."""
    manager = TaskManager()
    app = Lastcall(App([]), manager)
    for _ in range(2):
        async with running(app):
            await manager.create_task(asyncio.sleep(0))
            assert (await get(app, "/readyz")).status == 200
        assert (await get(app, "/readyz")).status == 503


@pytest.mark.loops("asyncio")
async def test_signal_is_heard_chained_and_handed_back() -> None:
    """SIGTERM reaches the server's handler and turns readiness at once; afterwards that handler is back."""
    heard: list[int] = []

    class Server:
        def handle_exit(self, signum: int, frame: Any) -> None:
            heard.append(signum)

    server = Server()
    outer = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        manager = TaskManager(plan=ShutdownPlan(drain=30))
        app = Lastcall(App([]), manager)
        async with running(app) as lifespan:
            assert signal.getsignal(signal.SIGTERM).__self__ is server
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: manager.state is not ManagerState.OPEN)
            assert heard == [signal.SIGTERM]
            assert (await get(app, "/readyz")).status == 503
            await lifespan.stop()
        assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    finally:
        signal.signal(signal.SIGTERM, outer)


async def test_resources_around_the_app_are_left_after_it() -> None:
    """What an integration needs for the app's life is entered before its startup and left after its shutdown."""
    log: list[str] = []

    @contextmanager
    def around() -> Any:
        log.append("entered")
        yield
        log.append("left")

    async with running(Lastcall(App(log), TaskManager(), around=around)):
        pass
    assert log == ["entered", "opened", "closed", "left"]


async def test_integration_that_cannot_start_fails_the_startup() -> None:
    """An error before the app starts is the server's `startup.failed`, with its message; the manager stays closed."""

    def around() -> Any:
        raise RuntimeError("the prefix collides")

    manager = TaskManager()
    lifespan = Lifespan(Lastcall(App([]), manager, around=around))
    answer = await lifespan.start()
    assert answer == {"type": "lifespan.startup.failed", "message": "the prefix collides"}
    assert manager.state is ManagerState.NEW
