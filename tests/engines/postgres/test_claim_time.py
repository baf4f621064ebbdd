"""When a job began, by the server's clock: not before what its claim has waited for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from lastcall.engines.postgres import PostgresEngine
from lastcall.engines.postgres._store import Store
from lastcall.jobs._rows import ClaimRequest, NewJob, TaskLimits, WorkerRow
from lastcall.testing import VirtualClock

from .support import PATIENCE_SECONDS, opened, query

pytestmark = pytest.mark.loops("asyncio")

_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'"


@asynccontextmanager
async def holding(engine: PostgresEngine, lock: Callable[[Store], Awaitable[object]]) -> AsyncIterator[None]:
    """Somebody else has this lock for the time of the block."""
    held, release = asyncio.Event(), asyncio.Event()

    async def work(store: Store) -> None:
        await lock(store)
        held.set()
        await release.wait()

    async with opened(schema=engine.schema) as other:
        task = asyncio.ensure_future(other._database_of_calls().transact(work))
        await held.wait()
        try:
            yield
        finally:
            release.set()
            await task


@pytest.mark.parametrize("limits", [None, TaskLimits(concurrency=5)], ids=["plain", "limited"])
@pytest.mark.parametrize("clock", [None, VirtualClock()], ids=["the server's clock", "a test's clock"])
async def test_a_job_begins_after_what_its_claim_waited_for(
    limits: TaskLimits | None, clock: VirtualClock | None
) -> None:
    """A claim waits for a lock that somebody else has, and another job is submitted meanwhile: both begin when the lock
    is free, and none before it was submitted. A test's clock rules all the same."""
    async with opened(clock=clock) as engine:
        await engine.join(WorkerRow("w", "host", 1, None, None, None, 60.0, 10, None))
        await engine.submit([NewJob("a", "work", "[]")])

        async def lock(store: Store) -> None:
            if limits is None:
                await store.rows("SELECT FROM lastcall.worker FOR UPDATE")
            else:
                await store.lock_tasks(["work"])

        async with holding(engine, lock):
            claim = asyncio.ensure_future(engine.claim(ClaimRequest("w", 5, {("work", ""): limits})))
            # The server shows the first kilobyte of a statement.
            what = f'"{engine.schema}".lane' if limits is None else "pg_advisory_xact_lock"
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await query(_WAITING, what):
                    await asyncio.sleep(0.01)
            await engine.submit([NewJob("b", "work", "[]")])
            [(waited_until,)] = await query(_CLOCK)
        claimed = [job.id for job in (await claim).jobs]
        assert claimed[:1] == ["a"] and (limits is None or claimed == ["a", "b"])
        for row in await engine.get(claimed):
            assert row.started_at is not None and row.started_at >= row.created_at
            if clock is None:
                assert row.started_at >= waited_until
            else:
                assert row.started_at == clock.wall()
