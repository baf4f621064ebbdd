"""The virtual loop jumps over waiting, in order, and waits when a thread may still call."""

import asyncio
import threading
import time

import pytest

from tests.support.loops import run_checked
from tests.support.virtualtime import Deadlock

pytestmark = pytest.mark.loops("virtual")


async def test_waiting_takes_no_time() -> None:
    """An hour of sleep passes at once, and the clock says an hour."""
    loop = asyncio.get_running_loop()
    real, virtual = time.monotonic(), loop.time()
    await asyncio.sleep(3600)
    assert loop.time() - virtual == pytest.approx(3600)
    assert time.monotonic() - real < 60


async def test_timers_fire_in_order_at_their_time() -> None:
    """Each timer sees exactly its own time, however many there are."""
    loop = asyncio.get_running_loop()
    start, seen = loop.time(), []

    async def wake(after: float) -> None:
        await asyncio.sleep(after)
        seen.append((after, round(loop.time() - start, 6)))

    async with asyncio.TaskGroup() as group:
        for after in (5.0, 0.1, 3.0, 0.2, 3.0):
            group.create_task(wake(after))
    assert seen == [(0.1, 0.1), (0.2, 0.2), (3.0, 3.0), (3.0, 3.0), (5.0, 5.0)]


async def test_a_timeout_fires() -> None:
    """`asyncio.timeout` uses the loop's clock."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await asyncio.Event().wait()


async def test_a_thread_is_waited_for() -> None:
    """A thread that answers in real time does so before a virtual time-out of ten minutes."""
    loop, called = asyncio.get_running_loop(), asyncio.Event()
    go = threading.Event()
    thread = threading.Thread(target=lambda: (go.wait(10), loop.call_soon_threadsafe(called.set)))
    thread.start()
    loop.call_soon(go.set)
    async with asyncio.timeout(600):
        await called.wait()
    thread.join()


@pytest.mark.loops("asyncio")  # only the parameter: the loop under test is made inside
def test_a_deadlock_is_named() -> None:
    """A loop that nothing can wake says so at once, in place of hanging."""

    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match="nothing can ever wake it"):
        run_checked(stuck, "virtual")
