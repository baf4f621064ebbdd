"""Resources close after the work that uses them, last opened first, in the task that opened them, and in time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from lastcall import (
    ManagerClosed,
    NotOpen,
    Outcome,
    ShutdownPlan,
    ShutdownReport,
    ShuttingDown,
    TaskManager,
    current_shutdown,
)

virtual = pytest.mark.loops("virtual")


def outcomes(report: ShutdownReport) -> dict[str, Outcome]:
    return {resource.name: resource.outcome for resource in report.resources}


class Resource:
    """Writes down when it opens and closes, and insists on one task for both, as anyio's cancel scopes do."""

    def __init__(self, name: str, ledger: list[str]) -> None:
        self._name = name
        self._ledger = ledger
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> str:
        self._task = asyncio.current_task()
        self._ledger.append(f"open {self._name}")
        return self._name

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)
        assert asyncio.current_task() is self._task, "closed by another task than the one that opened it"
        self._ledger.append(f"close {self._name}")


async def test_last_opened_closes_first_and_after_the_work() -> None:
    """Two resources, a callback and a task that uses them: work ends, then callback, second, first."""
    ledger: list[str] = []

    async def work() -> None:
        await current_shutdown().wait()
        await asyncio.sleep(0.01)
        ledger.append("work ended")

    async with TaskManager() as manager:
        assert await manager.enter(Resource("first", ledger)) == "first"
        assert await manager.enter(Resource("second", ledger), name="2nd") == "second"
        manager.on_close(lambda: ledger.append("callback"), name="callback")
        manager.create_task(work())
        await asyncio.sleep(0)
    assert ledger == ["open first", "open second", "work ended", "callback", "close second", "close first"]
    assert manager.report is not None and manager.report.clean
    assert list(outcomes(manager.report)) == ["callback", "2nd", "Resource"]


async def test_sync_and_async_callbacks() -> None:
    """A plain function, a coroutine function, and one that returns a future: all are waited for."""
    ledger: list[str] = []

    async def coroutine() -> None:
        await asyncio.sleep(0)
        ledger.append("coroutine")

    def awaitable() -> Awaitable[None]:
        return asyncio.ensure_future(coroutine())

    async with TaskManager() as manager:
        manager.on_close(lambda: ledger.append("plain"))
        manager.on_close(coroutine)
        manager.on_close(awaitable)
    assert ledger == ["coroutine", "coroutine", "plain"]


async def test_resources_close_also_when_the_body_raised() -> None:
    """The block fails; work is drained, the resource is closed, and the error still leaves the block."""
    ledger: list[str] = []
    with pytest.raises(ZeroDivisionError):
        async with TaskManager() as manager:
            await manager.enter(Resource("pool", ledger))
            raise ZeroDivisionError
    assert ledger == ["open pool", "close pool"]


async def test_a_failing_resource_does_not_keep_the_others_open() -> None:
    """The second of three fails to close: it is named with its error, the others close, the exit code is 1."""
    ledger: list[str] = []

    def fails() -> None:
        raise ConnectionResetError("peer is gone")

    @contextlib.asynccontextmanager
    async def fails_too() -> AsyncIterator[None]:
        yield
        raise KeyError("context manager")

    async with TaskManager() as manager:
        manager.on_close(lambda: ledger.append("first"), name="first")
        manager.on_close(fails, name="bad")
        await manager.enter(fails_too(), name="worse")
        manager.on_close(lambda: ledger.append("third"), name="third")
    report = manager.report
    assert report is not None and not report.clean and report.exit_code == 1
    assert ledger == ["third", "first"]
    assert outcomes(report) == {
        "first": Outcome.FINISHED,
        "bad": Outcome.FAILED,
        "worse": Outcome.FAILED,
        "third": Outcome.FINISHED,
    }
    errors = [resource.error for resource in report.resources if resource.error]
    assert errors == ["KeyError: 'context manager'", "ConnectionResetError: peer is gone"]
    assert "'bad' failed: ConnectionResetError" in str(report)


@virtual
async def test_a_hanging_resource_is_bounded_and_named() -> None:
    """One closer never returns: it gets the close budget and not more, and the report shows where it stands."""
    loop = asyncio.get_running_loop()
    ledger: list[str] = []

    async def hangs_here() -> None:
        try:
            await loop.create_future()
        finally:
            ledger.append("unwound")

    async with TaskManager(plan=ShutdownPlan(close=4)) as manager:
        manager.on_close(lambda: ledger.append("first"), name="first")
        manager.on_close(hangs_here, name="hanging")
    report = manager.report
    assert report is not None and not report.clean
    assert report.seconds <= 4.001
    assert ledger == ["unwound", "first"]
    hanging = report.resources[0]
    assert (hanging.name, hanging.outcome) == ("hanging", Outcome.REFUSED)
    assert any("hangs_here" in line for line in hanging.stack)
    assert "hangs_here" in str(report)


@virtual
async def test_a_context_manager_that_hangs_shows_its_own_frame() -> None:
    """The stack is the one of the resource's `__aexit__`, not of whoever waits for it."""
    loop = asyncio.get_running_loop()

    class Hangs:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *error: object) -> None:
            await self.says_goodbye()

        async def says_goodbye(self) -> None:
            await loop.create_future()

    async with TaskManager(plan=ShutdownPlan(close=4)) as manager:
        await manager.enter(Hangs())
    assert manager.report is not None
    (hanging,) = manager.report.resources
    assert hanging.outcome is Outcome.REFUSED
    assert any("says_goodbye" in line for line in hanging.stack)


@virtual
async def test_a_resource_that_swallows_its_cancel_is_left() -> None:
    """It neither closes nor lets itself be cancelled; the shutdown is over in time all the same."""
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    class Stubborn:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *error: object) -> None:
            await stubborn()

    manager = TaskManager(plan=ShutdownPlan(close=4))
    async with manager:
        manager.on_close(stubborn, name="callback")
        await manager.enter(Stubborn(), name="context manager")
    report = manager.report
    assert report is not None and report.seconds <= 4.001
    assert outcomes(report) == {"callback": Outcome.REFUSED, "context manager": Outcome.REFUSED}
    release.set()
    await asyncio.sleep(0)


@virtual
async def test_resources_close_after_a_forced_end() -> None:
    """Forced twice, with work that refuses to end: resources are still closed, within their budget."""
    loop = asyncio.get_running_loop()
    release, ledger = asyncio.Event(), []

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    manager = TaskManager(plan=ShutdownPlan(drain=100, cancel=100, close=5))
    await manager.open()
    await manager.enter(Resource("pool", ledger))
    task = manager.create_task(stubborn())
    manager.begin_shutdown()
    loop.call_later(1, manager.force)
    loop.call_later(2, manager.force)
    report = await manager.shutdown()
    assert ledger == ["open pool", "close pool"] and report.seconds < 3
    release.set()
    await asyncio.wait({task})


async def test_an_error_at_opening_is_the_callers() -> None:
    """It is raised by enter(), once, and nothing is left to close."""

    @contextlib.asynccontextmanager
    async def fails() -> AsyncIterator[None]:
        raise ConnectionRefusedError("no database")
        yield

    async with TaskManager() as manager:
        with pytest.raises(ConnectionRefusedError, match="no database"):
            await manager.enter(fails())
    assert manager.report is not None and manager.report.clean and manager.report.resources == ()


async def test_a_cancel_while_opening() -> None:
    """Whoever opens is cancelled: so is the opening, and nothing is left open."""
    ledger: list[str] = []

    @contextlib.asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            await asyncio.sleep(3600)
            yield
        finally:
            ledger.append("unwound")

    async with TaskManager() as manager:
        opening = asyncio.create_task(manager.enter(slow()))
        asyncio.get_running_loop().call_later(0.01, opening.cancel)
        await asyncio.wait({opening})
        assert opening.cancelled()
    assert ledger == ["unwound"]


@pytest.mark.parametrize("when", ["new", "draining", "closed"])
async def test_too_early_and_too_late(when: str) -> None:
    """A resource can be registered only while somebody will close it."""
    ledger: list[str] = []
    manager = TaskManager()

    async def register(expected: tuple[type[Exception], ...]) -> None:
        with pytest.raises(expected):
            await manager.enter(Resource("late", ledger))
        assert ledger == []

    if when == "new":
        await register((NotOpen,))
        with pytest.raises(NotOpen):
            manager.on_close(print)
        return
    await manager.open()
    manager.begin_shutdown()
    if when == "draining":
        await register((ShuttingDown,))
        manager.on_close(lambda: ledger.append("registered while draining"))
        await manager.shutdown()
        assert ledger == ["registered while draining"]
    else:
        await manager.shutdown()
        await register((ManagerClosed, ShuttingDown))
        with pytest.raises(ManagerClosed):
            manager.on_close(print)


async def test_what_is_no_function() -> None:
    """A coroutine in place of the function is refused by name."""
    async with TaskManager() as manager:
        closer: Callable[[], Any] = 5  # type: ignore[assignment]
        with pytest.raises(TypeError, match="5"):
            manager.on_close(closer)
