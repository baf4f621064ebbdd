"""Connections that have gone silent, as behind a firewall that has forgotten them: a lease is kept all the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lastcall.engines.postgres import PostgresEngine, _database
from lastcall.engines.postgres._store import Store
from lastcall.jobs import Jobs
from lastcall.jobs._rows import Renewal, WorkerRow
from tests.support.pg_wire import Silencer
from tests.support.postgres import shared_url

from .support import opened, query, until

pytestmark = pytest.mark.loops("asyncio")

# Much less than a call waits that keeps no lease.
WITHIN_SECONDS = 30.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leases here are so short that a busy machine would not answer within half of one."""
    monkeypatch.setattr(_database, "_LATER_LEAST_SECONDS", 0.8 * WITHIN_SECONDS)


def worker(worker_id: str, lease_seconds: float = 1.0) -> WorkerRow:
    return WorkerRow(worker_id, "host", 1, None, None, None, lease_seconds, 10, None)


@asynccontextmanager
async def behind_proxy(**options: Any) -> AsyncIterator[tuple[Silencer, PostgresEngine]]:
    async with Silencer(shared_url()).running() as proxy, opened(proxy.url, **options) as engine:
        try:
            yield proxy, engine
        finally:
            proxy.hang_up()


CALLS: dict[str, Callable[[PostgresEngine], Awaitable[object]]] = {
    "renew": lambda engine: engine.renew("w"),
    "cancel_requests": lambda engine: engine.cancel_requests("w"),
    "rescue": lambda engine: engine.rescue("w"),
    "join": lambda engine: engine.join(worker("w")),
}


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
async def test_what_keeps_a_lease_looks_for_another_connection(pooled: bool) -> None:
    """All connections go silent between two renewals: whatever the worker asks next, an answer comes by another one,
    and then its lease is renewed."""
    async with behind_proxy(pooled=pooled) as (proxy, engine):
        await engine.join(worker("w"))
        for verb, call in CALLS.items():
            assert await engine.renew("w") == Renewal(True, [])
            assert proxy.silence() >= 1
            async with asyncio.timeout(WITHIN_SECONDS):
                await call(engine)
                assert await engine.renew("w") == Renewal(True, []), verb


async def test_a_renewal_does_not_wait_behind_one_that_hangs() -> None:
    """The rescuer's look hangs on the silent connection when the renewal comes: both have their answers."""
    async with behind_proxy() as (proxy, engine):
        await engine.join(worker("w"))
        proxy.silence()
        async with asyncio.timeout(WITHIN_SECONDS):
            rescued, renewal = await asyncio.gather(engine.rescue("w"), engine.renew("w"))
    assert rescued == [] and renewal.alive


async def test_a_cancel_that_meets_silence() -> None:
    """A call that keeps a lease is cancelled while it waits on a silent connection: it ends as cancelled, at once, and
    is not tried again."""
    async with behind_proxy() as (proxy, engine):
        await engine.join(worker("w", lease_seconds=600))
        proxy.silence()
        asked = 0

        async def work(store: Store) -> object:
            nonlocal asked
            asked += 1
            return await store.value("SELECT 1")

        call = asyncio.ensure_future(engine._ready_for_leases().read(work))
        await until(lambda: asked == 1, "the call to be under way")
        call.cancel()
        done, _ = await asyncio.wait({call}, timeout=WITHIN_SECONDS)
        assert done and call.cancelled()
        assert asked == 1


async def test_a_server_that_is_slow_is_waited_for() -> None:
    """The row of the worker is locked for longer than a first try waits: the second one waits, and has it."""
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'"
    )
    async with opened() as engine, opened(schema=engine.schema) as other:
        await engine.join(worker("w"))
        table = f'"{engine.schema}".worker'
        held, release = asyncio.Event(), asyncio.Event()

        async def hold(store: Store) -> None:
            await store.rows("SELECT FROM lastcall.worker FOR UPDATE")
            held.set()
            await release.wait()

        holding = asyncio.ensure_future(other._database_of_calls().transact(hold))
        await held.wait()
        renewal = asyncio.ensure_future(engine.renew("w"))
        seen: set[int] = set()
        async with asyncio.timeout(WITHIN_SECONDS):
            while len(seen) < 2:
                seen |= {pid for (pid,) in await query(waiting, table)}
                await asyncio.sleep(0.01)
        release.set()
        await holding
        assert await renewal == Renewal(True, [])


async def test_a_worker_lives_on_while_its_connections_are_silent() -> None:
    """A worker runs a job when all its connections go silent: its row in the database is renewed, under the same id."""
    async with behind_proxy() as (proxy, engine):
        jobs = Jobs(engine, lease_seconds=2)
        async with jobs.worker() as running:
            before = await query(f'SELECT renewed_at FROM "{engine.schema}".worker WHERE id = $1', running.id)
            assert proxy.silence()

            async def is_renewed() -> bool:
                found = f'SELECT renewed_at > $2 FROM "{engine.schema}".worker WHERE id = $1'
                return await query(found, running.id, before[0][0]) == [(True,)]

            async with asyncio.timeout(WITHIN_SECONDS):
                while not await is_renewed():
                    await asyncio.sleep(0.02)
            proxy.hang_up()
