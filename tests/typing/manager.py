"""What the manager's verbs return, and what they refuse."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import assert_type

from lastcall import (
    CancelAnswer,
    Hold,
    Kind,
    ManagerState,
    RestartPolicy,
    Shutdown,
    ShutdownPlan,
    ShutdownReport,
    Stats,
    StopReason,
    TaskGroup,
    TaskInfo,
    TaskManager,
    TaskStatus,
    current_shutdown,
    run,
)


async def fetch(url: str) -> bytes:
    return url.encode()


def crunch(path: str, times: int) -> float:
    return len(path) / times


async def consume() -> None:
    """A service."""


def on_error(info: TaskInfo, error: BaseException) -> None:
    """A hook."""


@asynccontextmanager
async def pool() -> AsyncIterator[int]:
    yield 1


async def results_keep_their_types() -> None:
    async with TaskManager(plan=ShutdownPlan(drain=1), on_error=on_error, max_threads=2) as manager:
        assert_type(manager, TaskManager)
        assert_type(manager.create_task(fetch("a")), asyncio.Task[bytes])
        assert_type(await manager.create_task(fetch("a"), name="n", id="i", labels={"k": "v"}), bytes)
        assert_type(manager.run_in_thread(crunch, "a", 2), asyncio.Task[float])
        assert_type(manager.run_in_thread(partial(crunch, "a", times=2)), asyncio.Task[float])
        assert_type(manager.run_in_thread(lambda: 1), asyncio.Task[int])
        assert_type(manager.service(consume, restart=RestartPolicy(max_restarts=1)), asyncio.Task[None])
        assert_type(await manager.enter(pool()), int)
        assert_type(manager.hold("request", kind=Kind.REQUEST), Hold)
        assert_type(await manager.cancel_task("id", reason=StopReason.TIMEOUT), CancelAnswer)
        assert_type(manager.stop_task("id"), bool)
        assert_type(await manager.shutdown(), ShutdownReport)
    assert_type(manager.report, ShutdownReport | None)
    assert_type(manager.state, ManagerState)


async def groups_keep_their_types(manager: TaskManager) -> None:
    workers = manager.group("workers", limit=2, max_pending=1, on_error="isolate")
    assert_type(workers, TaskGroup)
    assert_type(manager.group("late", stop_after=["workers", workers]), TaskGroup)
    async with manager.group() as group:
        assert_type(group, TaskGroup)
        assert_type(group.create_task(fetch("a"), id="i"), asyncio.Task[bytes])
        assert_type(await group.spawn(fetch("a")), asyncio.Task[bytes])
        assert_type(group.group("below"), TaskGroup)
    assert_type(await workers.shutdown(timeout=5), ShutdownReport)


def looking_is_typed(manager: TaskManager, task: asyncio.Task[bytes]) -> None:
    info = manager.info(task)
    assert_type(info, TaskInfo)
    assert_type(info.status, TaskStatus)
    assert_type(info.error, BaseException | None)
    assert_type(info.reason, StopReason | None)
    assert_type(info.seconds, float | None)
    assert_type(manager.info("id"), TaskInfo)
    assert_type(manager.tasks(status="running", group="g", kind=Kind.TASK), list[TaskInfo])
    assert_type(manager.stats(), Stats)
    assert_type(manager.stats().failed, int)


async def the_stop_is_typed() -> None:
    shutdown = current_shutdown()
    assert_type(shutdown, Shutdown)
    assert_type(shutdown.requested, bool)
    assert_type(shutdown.reason, StopReason | None)
    assert_type(shutdown.remaining, float)
    assert_type(await shutdown.sleep(1), bool)
    assert_type(shutdown.wait_sync(1), bool)
    with shutdown.critical(max=1):
        pass


def running_is_typed() -> None:
    assert_type(run(fetch("a")), bytes)
    assert_type(run(consume(), debug=True), None)
