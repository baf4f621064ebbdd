"""Holds: work that runs in somebody else's task counts, is told, and is cancelled at its own deadline."""

import asyncio
from typing import Any

import pytest

from lastcall import (
    Hold,
    InvalidPlan,
    Kind,
    NotOpen,
    Outcome,
    ShutdownPlan,
    StopReason,
    TaskManager,
    current_shutdown,
)

virtual = pytest.mark.loops("virtual")
ABOUT = 0.001


@virtual
async def test_the_drain_waits_for_a_hold() -> None:
    """A request that needs 3 s in a server's own task is waited for, and counted."""
    manager = TaskManager(plan=ShutdownPlan(drain=20))
    await manager.open()

    async def request() -> None:
        with manager.hold("GET /", kind=Kind.REQUEST):
            assert manager.stats().calls == 1 and manager.calls()[0].name == "GET /"
            await asyncio.sleep(3)

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert task.done() and report.clean
    assert report.seconds == pytest.approx(3, abs=ABOUT)
    assert [(t.name, t.kind, t.outcome) for t in report.tasks] == [("GET /", Kind.REQUEST, Outcome.FINISHED)]
    assert manager.stats().calls == 0


@virtual
async def test_a_hold_past_its_deadline_is_cancelled_once_and_may_swallow_it() -> None:
    """The foreign task is cancelled at the drain's end, sees that it was us, answers its client, and goes on."""
    loop = asyncio.get_running_loop()
    manager = TaskManager(plan=ShutdownPlan(drain=5, cancel=5))
    await manager.open()
    seen: list[Any] = []

    async def request() -> str:
        with manager.hold("GET /slow") as hold:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if not hold.cancelled:
                    raise
                seen.append((loop.time() - began, hold.reason))
                await asyncio.sleep(1)  # a last message; no second cancel may come
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        await asyncio.sleep(10)
        return "the server's own task lives on"

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    began = loop.time()
    report = await manager.shutdown()
    assert seen == [(pytest.approx(5, abs=ABOUT), StopReason.SHUTDOWN)]
    assert report.seconds == pytest.approx(6, abs=ABOUT)
    assert [t.outcome for t in report.tasks] == [Outcome.CANCELLED] and not report.clean
    assert await task == "the server's own task lives on"


@virtual
@pytest.mark.parametrize("when", ["at the begin", "while draining", "entered while draining"])
async def test_a_grace_cancels_early(when: str) -> None:
    """A stream with 2 s of grace in a drain of 20 s is cancelled after 2 s, and reads them as its remaining time."""
    loop = asyncio.get_running_loop()
    manager = TaskManager(plan=ShutdownPlan(drain=20, cancel=5))
    await manager.open()
    remaining: list[float] = []
    ended: list[float] = []
    start = asyncio.Event()

    async def stream() -> None:
        if when == "entered while draining":
            await start.wait()
        with manager.hold("stream", grace_seconds=None if when == "while draining" else 2) as hold:
            if when == "while draining":
                await start.wait()
                hold.grace_seconds = 2
            await current_shutdown().wait()
            remaining.append(hold.shutdown.remaining)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.append(loop.time() - began)
                assert hold.cancelled

    task = asyncio.create_task(stream())
    manager.create_task(asyncio.sleep(10))
    await asyncio.sleep(0)
    began = loop.time()
    manager.begin_shutdown()
    start.set()
    report = await manager.shutdown()
    await task
    assert remaining == [pytest.approx(2, abs=ABOUT)]
    assert ended == [pytest.approx(2, abs=ABOUT)]
    assert report.seconds == pytest.approx(10, abs=ABOUT)


@virtual
async def test_a_grace_counts_also_beside_a_group_that_stops() -> None:
    """A group is shut down while the manager drains; a grace set after that is still kept."""
    loop = asyncio.get_running_loop()
    manager = TaskManager(plan=ShutdownPlan(drain=20, cancel=5))
    await manager.open()
    group = manager.group("group")
    ended: list[float] = []

    async def member() -> None:
        await current_shutdown().wait()

    async def stream() -> None:
        with manager.hold("stream") as hold:
            await group.shutdown(10)
            hold.grace_seconds = 3
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.append(loop.time() - began)

    group.create_task(member())
    task = asyncio.create_task(stream())
    began = loop.time()
    await manager.shutdown()
    await task
    assert ended == [pytest.approx(3, abs=ABOUT)]


@virtual
async def test_a_hold_that_begins_in_the_cancel_phase_is_bounded() -> None:
    """Something enters a hold when the others are being cancelled: it is cancelled too, and the plan is kept."""
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    manager = TaskManager(plan=ShutdownPlan(drain=1, cancel=5, close=0))
    await manager.open()
    keeps_it_open = manager.create_task(stubborn())

    async def late() -> None:
        await asyncio.sleep(3)
        with manager.hold("late"):
            await asyncio.sleep(3600)

    task = asyncio.create_task(late())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert report.seconds == pytest.approx(6, abs=ABOUT)
    assert {t.name: t.outcome for t in report.tasks}["late"] is Outcome.CANCELLED
    release.set()
    await asyncio.wait({keeps_it_open, task})


@virtual
async def test_a_grace_never_exceeds_the_drain() -> None:
    """An hour of grace in a drain of 3 s is 3 s."""
    manager = TaskManager(plan=ShutdownPlan(drain=3, cancel=5))
    await manager.open()

    async def stream() -> None:
        with manager.hold("stream", grace_seconds=3600):
            await current_shutdown().wait()
            assert current_shutdown().remaining == pytest.approx(3, abs=ABOUT)
            await asyncio.sleep(3600)

    task = asyncio.create_task(stream())
    await asyncio.sleep(0)
    report = await manager.shutdown()
    await asyncio.wait({task})
    assert report.seconds == pytest.approx(3, abs=ABOUT)


async def test_grace_zero_is_cancelled_at_the_stop() -> None:
    """No grace at all: cancelled the moment the drain begins."""
    manager = TaskManager()
    await manager.open()

    async def request() -> bool:
        with manager.hold("now", grace_seconds=0) as hold:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
            return hold.cancelled

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await manager.shutdown()
    assert await task is True


async def test_a_disconnect_is_neither_a_shutdown_nor_a_user() -> None:
    """One client leaves: only that hold is told, with `disconnect`; a later shutdown does not rename it."""
    manager = TaskManager()
    await manager.open()
    holds: list[Hold] = []
    told: list[Any] = []

    async def request(name: str) -> None:
        with manager.hold(name) as hold:
            holds.append(hold)
            await current_shutdown().wait()
            told.append((name, current_shutdown().reason))
            if name == "left":
                await leave.wait()

    leave = asyncio.Event()
    tasks = [asyncio.create_task(request(name)) for name in ("left", "stays")]
    await asyncio.sleep(0)
    holds[0].stop(StopReason.DISCONNECT)
    await asyncio.sleep(0)
    assert told == [("left", StopReason.DISCONNECT)] and not holds[1].shutdown.requested
    manager.begin_shutdown()
    assert holds[0].reason is StopReason.DISCONNECT
    leave.set()
    report = await manager.shutdown()
    await asyncio.gather(*tasks)
    assert told[1] == ("stays", StopReason.SHUTDOWN)
    assert {t.name: t.reason for t in report.tasks}["left"] is StopReason.DISCONNECT


async def test_cancelled_by_others_is_not_cancelled_by_us() -> None:
    """The server cancels its own task: `hold.cancelled` stays False, and the cancel is not ours to swallow."""
    async with TaskManager() as manager:
        flags: list[bool] = []

        async def request() -> None:
            with manager.hold("request") as hold:
                try:
                    await asyncio.sleep(3600)
                finally:
                    flags.append(hold.cancelled)

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() and flags == [False]


async def test_a_hold_can_be_cancelled_alone() -> None:
    """`hold.cancel(timeout)`: once, however often it is said, and with its reason."""
    async with TaskManager() as manager:

        async def request() -> tuple[bool, object, int]:
            count = 0
            with manager.hold("request") as hold:
                hold_of.append(hold)
                for _ in range(2):
                    try:
                        await asyncio.wait_for(asyncio.Event().wait(), 0.05)
                    except asyncio.CancelledError:
                        count += 1
                    except TimeoutError:
                        break
                return hold.cancelled, hold.reason, count

        hold_of: list[Hold] = []
        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        hold_of[0].cancel(StopReason.TIMEOUT)
        hold_of[0].cancel(StopReason.USER)
        assert await task == (True, StopReason.TIMEOUT, 1)


async def test_a_hold_in_a_hold() -> None:
    """An inner hold speaks for the inner work only; after it the outer one speaks again."""
    async with TaskManager() as manager:
        with manager.hold("outer") as outer:
            with manager.hold("inner") as inner:
                inner.stop(StopReason.TIMEOUT)
                assert current_shutdown().reason is StopReason.TIMEOUT
            assert not current_shutdown().requested
            outer.stop(StopReason.DISCONNECT)
            assert current_shutdown().reason is StopReason.DISCONNECT
        assert not current_shutdown().requested


async def test_misuse_is_told() -> None:
    """Entered twice, used before it is entered, made too early, an impossible grace: a clear error each."""
    with pytest.raises(NotOpen):
        TaskManager().hold("early")
    async with TaskManager() as manager:
        hold = manager.hold("twice")
        with pytest.raises(RuntimeError, match="twice"):
            _ = hold.shutdown
        with hold, pytest.raises(RuntimeError, match="twice"):
            hold.__enter__()
        with pytest.raises(InvalidPlan, match="grace_seconds"):
            manager.hold("negative", grace_seconds=-1)
        with pytest.raises(InvalidPlan, match="grace_seconds"), manager.hold("later") as later:
            later.grace_seconds = float("nan")


async def test_a_request_cannot_wait_for_the_shutdown_that_waits_for_it() -> None:
    """`await manager.shutdown()` inside a hold would wait for itself: an error says what to call."""
    async with TaskManager() as manager:
        with manager.hold("POST /shutdown"), pytest.raises(RuntimeError, match="begin_shutdown"):
            await manager.shutdown()
        assert manager.ready


async def test_a_failing_body_releases_the_hold() -> None:
    """The request raises; the hold is gone, and the shutdown does not wait for it."""
    async with TaskManager() as manager:
        with pytest.raises(ZeroDivisionError), manager.hold("fails"):
            raise ZeroDivisionError
        assert manager.stats().calls == 0
    assert manager.report is not None and manager.report.clean
