"""Who may be born while a manager stops: only children of work that is itself still draining."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from lastcall import (
    LastcallError,
    ManagerClosed,
    ManagerState,
    Outcome,
    ShutdownPlan,
    ShuttingDown,
    TaskManager,
    current_shutdown,
)

virtual = pytest.mark.loops("virtual")


async def quick() -> str:
    return "born"


def answer(manager: TaskManager, coro: Coroutine[Any, Any, Any], **options: Any) -> str:
    """What the manager says to a birth, in one word."""
    try:
        manager.create_task(coro, **options)
    except LastcallError as error:
        return type(error).__name__
    return "born"


async def test_strangers_are_refused() -> None:
    """From outside, a draining manager refuses tasks, threads, groups, services and resources, by name."""
    manager = TaskManager()
    await manager.open()
    go = asyncio.Event()
    manager.create_task(go.wait())
    manager.begin_shutdown()
    coro = quick()
    with pytest.raises(ShuttingDown, match="quick"):
        manager.create_task(coro)
    assert coro.cr_frame is None  # closed: nothing will warn that it was never awaited
    ran: list[str] = []
    with pytest.raises(ShuttingDown, match="blocking"):
        manager.run_in_thread(lambda: ran.append("no"), name="blocking")
    with pytest.raises(ShuttingDown, match="late"):
        manager.group("late")
    with pytest.raises(ShuttingDown):
        manager.service(quick)
    go.set()
    report = await manager.shutdown()
    assert report.late_births_refused == 3 and report.clean and ran == []
    with pytest.raises(ManagerClosed):
        manager.create_task(quick())


async def test_a_refused_function_is_named() -> None:
    """The message about a refused thread names the caller's function, not one of ours."""
    manager = TaskManager()
    await manager.open()
    manager.begin_shutdown()

    def crunch() -> None: ...

    with pytest.raises(LastcallError, match="crunch"):
        manager.run_in_thread(crunch)
    await manager.shutdown()


@virtual
async def test_children_of_draining_tasks_are_let_in_and_waited_for() -> None:
    """A draining task starts a child, a grandchild and a thread; the drain waits for all of them."""
    manager = TaskManager(plan=ShutdownPlan(drain=20))
    ended: list[str] = []

    async def child(name: str, below: int) -> None:
        if below:
            manager.create_task(child(f"{name}/{below}", below - 1))
        await asyncio.sleep(1 + below)
        ended.append(name)

    async def parent() -> None:
        await current_shutdown().wait()
        await manager.run_in_thread(ended.append, "thread")
        manager.create_task(child("child", 2))

    await manager.open()
    manager.create_task(parent())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert sorted(ended) == ["child", "child/2", "child/2/1", "thread"]
    assert report.clean and report.late_births_refused == 0 and sum(report.counts.values()) == 5


async def test_children_in_a_group_of_a_draining_task() -> None:
    """A draining task opens a TaskGroup and a manager's group; both take its children."""
    manager = TaskManager()
    seen: list[str] = []

    async def parent() -> None:
        await current_shutdown().wait()
        async with manager.group("late") as group:
            seen.append(await group.create_task(quick()))

    await manager.open()
    manager.create_task(parent())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert seen == ["born"] and report.clean


@virtual
async def test_children_of_cancelled_tasks_are_refused() -> None:
    """A `finally` after the drain's cancel starts new work: it would never come to an end, so no."""
    manager = TaskManager(plan=ShutdownPlan(drain=5, cancel=5))
    answers: list[str] = []

    async def parent() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            answers.append(answer(manager, quick()))
            try:
                manager.run_in_thread(print, "never")
            except ShuttingDown:
                answers.append("thread refused")

    await manager.open()
    manager.create_task(parent())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert answers == ["ShuttingDown", "thread refused"] and report.late_births_refused == 2


@virtual
async def test_a_user_cancelled_parent_is_no_parent_while_draining() -> None:
    """Also while the drain still runs: whoever was cancelled already starts nothing new."""
    manager = TaskManager(plan=ShutdownPlan(drain=50))
    answers: list[str] = []

    async def parent() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            answers.append(answer(manager, quick()))

    await manager.open()
    task = manager.create_task(parent())
    manager.create_task(asyncio.sleep(3))
    await asyncio.sleep(0)
    manager.begin_shutdown()
    await manager.cancel_task(task)
    await manager.shutdown()
    assert answers == ["ShuttingDown"]


@virtual
async def test_daemons_bear_only_daemons() -> None:
    """Nobody waits for a daemon, so its ordinary children are refused; another daemon may be born."""
    manager = TaskManager(plan=ShutdownPlan(drain=50))
    answers: list[str] = []

    async def daemon() -> None:
        await current_shutdown().wait()
        answers.append(answer(manager, quick()))
        answers.append(answer(manager, quick(), daemon=True))

    await manager.open()
    manager.create_task(daemon(), daemon=True)
    manager.create_task(asyncio.sleep(1))
    await asyncio.sleep(0)
    await manager.shutdown()
    assert answers == ["ShuttingDown", "born"]


@virtual
async def test_in_the_cancel_phase_nobody_is_born() -> None:
    """A task that swallowed its cancel, and a stranger, ask in the cancel phase: both are refused."""
    manager = TaskManager(plan=ShutdownPlan(drain=1, cancel=10))
    answers: list[str] = []

    async def swallows() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        answers.append(answer(manager, quick()))
        answers.append(answer(manager, quick(), daemon=True))

    await manager.open()
    manager.create_task(swallows())
    await asyncio.sleep(0)
    manager.begin_shutdown()
    await asyncio.sleep(1.5)
    assert manager.state is ManagerState.CANCELLING
    answers.append(answer(manager, quick()))
    report = await manager.shutdown()
    assert answers == ["ShuttingDown"] * 3
    assert report.late_births_refused == 3 and report.tasks[0].swallowed_cancel


async def test_a_request_that_is_still_draining_may_start_work() -> None:
    """Inside a hold (a request in flight) tasks are let in; after it has ended they are not."""
    manager = TaskManager()
    await manager.open()
    with manager.hold("request") as hold:
        manager.begin_shutdown()
        task = manager.create_task(quick())
        assert hold.shutdown.requested
    assert answer(manager, quick()) == "ShuttingDown"
    report = await manager.shutdown()
    assert task.result() == "born" and report.clean


async def test_nothing_is_born_after_the_end() -> None:
    """A task that outlived its manager's shutdown, still in its context, is told that it is closed."""
    manager = TaskManager(plan=ShutdownPlan(drain=0, cancel=0, close=0))
    release, answers = asyncio.Event(), []

    async def outlives() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
        answers.append(answer(manager, quick()))

    await manager.open()
    task = manager.create_task(outlives())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert report.counts[Outcome.REFUSED] == 1
    release.set()
    await asyncio.wait({task})
    assert answers[0] in ("ShuttingDown", "ManagerClosed")
