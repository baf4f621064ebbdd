"""What the way of a job does not do: locks without cause, questions about types, waiting for the disk, and cancelling
what is under way."""

import asyncio
from typing import Any

import asyncpg
import pytest

from lastcall.engines.postgres import PostgresEngine
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, NewJob, WorkerRow
from lastcall.jobs._state import JobStatus
from tests.support.pg_wire import transaction_pooler
from tests.support.postgres import shared_url

from .support import PATIENCE_SECONDS, clear, empty_schema, opened, query

pytestmark = pytest.mark.loops("asyncio")

TASKS: Any = {("work", ""): None}
WORKER = WorkerRow("w", "host", 1, None, None, None, 1e6, 10, None)


async def test_a_claim_that_finds_nothing_writes_nothing() -> None:
    """An idle worker asks: its row is not even locked, which would be a commit that waits for the disk. One that finds
    something locks it against a rescue."""
    async with opened() as engine:
        await engine.join(WORKER)
        lock = f'SELECT ctid::text, xmax::text FROM "{engine.schema}".worker'
        before = await query(lock)
        assert (await engine.claim(ClaimRequest("w", 10, TASKS))).jobs == []
        assert await query(lock) == before
        await engine.submit([NewJob("a", "work", "[]")])
        assert len((await engine.claim(ClaimRequest("w", 10, TASKS))).jobs) == 1
        assert await query(lock) != before


async def test_a_claim_among_locked_jobs_writes_nothing_and_is_told_to_come_again() -> None:
    """The only job is in somebody else's hands: nothing is taken or written, and the worker is told to ask again soon.
    A worker that is none is not."""
    async with opened() as engine:
        await engine.join(WORKER)
        await engine.submit([NewJob("a", "work", "[]")])
        lock = f'SELECT ctid::text, xmax::text FROM "{engine.schema}".worker'
        before = await query(lock)
        other = await asyncpg.connect(shared_url())
        try:
            async with other.transaction():
                await other.execute(f'SELECT 1 FROM "{engine.schema}".job FOR UPDATE')
                answer = await engine.claim(ClaimRequest("w", 10, TASKS))
                nobody = await engine.claim(ClaimRequest("nobody", 10, TASKS))
        finally:
            await other.close()
        assert answer.jobs == [] and answer.next_due_seconds is not None
        assert nobody.jobs == [] and nobody.next_due_seconds is None
        assert await query(lock) == before


async def test_the_first_jobs_of_a_process_need_no_questions_about_types(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Submit, claim and end on connections that were just opened: the driver knows all types in these statements, and
    asks the server about none."""
    asked: list[object] = []
    introspect = asyncpg.Connection._introspect_types

    async def noted(connection: Any, types: Any, timeout: Any) -> Any:
        asked.append(types)
        return await introspect(connection, types, timeout)

    async with opened() as engine:
        await engine.join(WORKER)
        monkeypatch.setattr(asyncpg.Connection, "_introspect_types", noted)
        await engine.submit([NewJob(f"{n}", "work", "[]", priority=n - 1) for n in range(3)])
        jobs = (await engine.claim(ClaimRequest("w", 10, TASKS))).jobs
        assert [(job.id, job.priority) for job in jobs] == [("2", 1), ("1", 0), ("0", -1)]
        ends = [AttemptEnd(job.id, job.attempt, Completed("1")) for job in jobs]
        assert await engine.finish(ends) == [JobStatus.COMPLETED] * 3
        assert asked == []


async def test_what_is_written_after_a_notification_waits_for_the_disk_again() -> None:
    """A notification does not wait for it, on the very connection that the next job is committed by."""
    async with opened(pool_size=1) as engine:
        database = engine._database_of_calls()
        setting = "SELECT set_config('synchronous_commit', 'on', false)"
        await database.read(lambda store: store.value(setting))
        await database.read(engine._hints._notify)
        now = "SELECT current_setting('synchronous_commit')"
        assert await database.read(lambda store: store.value(now)) == "on"


async def test_a_close_does_not_cancel_the_look_that_is_under_way() -> None:
    """Behind a pooler that does not pass on the wish to cancel, the engine closes while it looks for news: it waits for
    that answer. It waited for the end of the driver's patience, forty seconds, when the two met."""
    with empty_schema() as schema:
        await clear(schema)
        async with transaction_pooler(shared_url()) as url:
            engine = PostgresEngine(url, schema=schema)
            await engine.open()
            other = await asyncpg.connect(shared_url())
            try:
                renamed = other.transaction()
                await renamed.start()
                # Whoever looks waits for the end of this transaction.
                await other.execute(f'ALTER SEQUENCE "{schema}".news RENAME TO renamed')
                engine.listen(lambda: None)
                await looks(schema)
                closing = asyncio.create_task(engine.close())
                for _ in range(20):
                    await asyncio.sleep(0)
                await renamed.rollback()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await closing
            finally:
                await other.close()


async def looks(schema: str) -> None:
    """Wait until the engine's look waits for somebody's lock."""
    waiting = """SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1"""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await query(waiting, f'SELECT last_value FROM "{schema}".news%')) == [(0,)]:
            await asyncio.sleep(0.005)
