"""Calls that are cancelled end, whatever the driver makes of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from lastcall.engines.postgres._store import Store
from lastcall.exceptions import EngineUnavailable

from .support import opened

pytestmark = pytest.mark.loops("asyncio")


@pytest.mark.parametrize(
    "error",
    [
        lambda: asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        lambda: ConnectionResetError("the connection was cut"),
        None,
    ],
    ids=["the driver is confused", "the connection is lost", "the answer has come"],
)
async def test_a_cancel_that_meets_something_else(error: Callable[[], Exception] | None) -> None:
    """A call is cancelled in the moment in which its connection fails, or its answer comes: it is not made again, and
    its task is cancelled."""
    async with opened() as engine:
        calls = 0
        under_way = asyncio.Event()

        async def work(store: Store) -> Any:
            nonlocal calls
            calls += 1
            under_way.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if error is not None:
                    raise error() from None
            return "an answer"

        call = asyncio.ensure_future(engine._database_of_calls().read(work))
        await under_way.wait()
        call.cancel()
        done, _ = await asyncio.wait({call}, timeout=10)
        assert done and call.cancelled()
        assert calls == 1


async def test_a_cancelled_task_that_cleans_up_may_use_the_store() -> None:
    """It was cancelled before, and not taken back: what it writes then is no call that was cancelled."""
    async with opened() as engine:

        async def clean_up() -> int:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                with pytest.raises(EngineUnavailable, match="syntax error"):
                    await engine._database_of_calls().read(lambda store: store.rows("SELECT FROM FROM"))
                return len((await engine.overview()).counts)
            return -1

        task = asyncio.ensure_future(clean_up())
        await asyncio.sleep(0)
        task.cancel()
        assert await task == 0
