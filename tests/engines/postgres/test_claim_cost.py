"""What a claim and the end of its jobs cost the server, counted in pages and plans and not in time: as much among a
hundred thousand queued jobs as among a thousand; and tables that do not grow when jobs come and go."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lastcall.engines.postgres import PostgresEngine
from lastcall.engines.postgres._store import Store
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, Failed, NewJob, WorkerRow
from lastcall.jobs._state import JobStatus
from tests.support.postgres import private_server

from .support import clear, empty_schema, opened, query

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow]

MANY = 100_000
BATCH = 100
# A row that changes is read by the claim's index and by its number, written anew, and put into three indexes; each of
# these is two or three pages deep.
PAGES_FOR_A_JOB = 25
# What one more level of every index, and rows that lie less densely, may add between a thousand and a hundred thousand.
GROWTH = 1.6
TASKS: Any = {("work", ""): None}
WORKER = WorkerRow("w", "host", 1, None, None, None, 1e6, BATCH, None)
# As `submit` writes them, but a hundred times sooner.
FILL = """INSERT INTO {schema}.job (id, lane, status, priority, max_lost, max_attempts, created_at, args)
    SELECT 'filled ' || n, lane.id, 'queued', 0, 3, 100, 1, '[]' FROM {schema}.lane, generate_series(1, {count}) AS n"""


class Plans:
    """Looks at the plan of every statement, and at the pages that it touches, before it is carried out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pages = 0
        self.whole_tables: list[str] = []
        run = Store.rows

        async def explained(store: Store, text: str, *values: Any) -> list[Any]:
            await store.connection.execute("BEGIN")
            try:
                rows = await run(store, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *values)
            finally:
                await store.connection.execute("ROLLBACK")
            plan = json.loads(rows[0][0])[0]["Plan"]
            self.pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            self._look(plan, text)
            return await run(store, text, *values)

        monkeypatch.setattr(Store, "rows", explained)

    def _look(self, node: dict[str, Any], text: str) -> None:
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "job":
            self.whole_tables.append(text)
        for below in node.get("Plans", ()):
            self._look(below, text)


async def _claim_and_complete(engine: PostgresEngine) -> None:
    jobs = (await engine.claim(ClaimRequest("w", BATCH, TASKS))).jobs
    assert len(jobs) == BATCH
    answers = await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in jobs])
    assert answers == [JobStatus.COMPLETED] * BATCH


async def test_a_claim_among_a_hundred_thousand_touches_as_few_pages_as_among_a_thousand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A queue has filled up; a worker takes a hundred jobs and completes them. Not analyzed, as just after a burst."""
    with empty_schema() as schema:
        await clear(schema)
        async with opened(schema=schema, pool_size=1) as engine:
            await engine.join(WORKER)
            await engine.submit([NewJob(f"{n}", "work", "[]") for n in range(1000)])
            pages = []
            for filled in (0, MANY):
                if filled:
                    await query(FILL.format(schema=schema, count=filled))
                with monkeypatch.context() as patch:
                    plans = Plans(patch)
                    await _claim_and_complete(engine)
                assert not plans.whole_tables
                pages.append(plans.pages / BATCH)
    few, many = pages
    # Claim and end are two changes.
    assert few <= 2 * PAGES_FOR_A_JOB
    assert many <= min(GROWTH * few, 2 * PAGES_FOR_A_JOB), pages


async def test_one_failure_does_not_take_the_short_way_from_the_results_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a hundred ends one is a failure: the others are written in one statement all the same."""
    async with opened(pool_size=1) as engine:
        await engine.join(WORKER)
        await engine.submit([NewJob(f"{n}", "work", "[]") for n in range(BATCH)])
        jobs = (await engine.claim(ClaimRequest("w", BATCH, TASKS))).jobs
        ends = [AttemptEnd(job.id, job.attempt, Completed("1")) for job in jobs]
        ends[40] = ends[40]._replace(outcome=Failed("{}"))
        count = 0
        run = Store.rows

        async def counted(store: Store, text: str, *values: Any) -> list[Any]:
            nonlocal count
            count += 1
            return await run(store, text, *values)

        monkeypatch.setattr(Store, "rows", counted)
        answers = await engine.finish(ends)
        monkeypatch.undo()
        expected = [JobStatus.COMPLETED] * BATCH
        expected[40] = JobStatus.FAILED
        assert answers == expected
        assert count < 20
        # Told again, each has ended, and nobody hears of another's end.
        assert await engine.finish(ends) == [None] * BATCH


async def test_jobs_that_come_and_go_leave_the_tables_as_large_as_they_were() -> None:
    """Five rounds of jobs that end, are pruned, and are cleaned up after as autovacuum does it."""
    sizes = []
    # A server of its own: nothing is cleaned up that a transaction of another test may still look at.
    with private_server(fsync="off", autovacuum="off") as server:
        async with opened(server.url, schema="lastcall") as engine:
            await engine.join(WORKER)
            for number in range(5):
                await engine.submit(
                    [NewJob(f"{number} {n}", "work", "[]", retention_seconds=0.0) for n in range(2000)]
                )
                while jobs := (await engine.claim(ClaimRequest("w", 500, TASKS))).jobs:
                    await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in jobs])
                assert await engine.prune(10_000) == 2000
                await query("VACUUM lastcall.job", url=server.url)
                size = "SELECT pg_total_relation_size('lastcall.job')"
                sizes += [bytes_ for (bytes_,) in await query(size, url=server.url)]
    # The first round ends with an empty table and the second with the room of both; no later one needs any more.
    assert max(sizes[2:]) <= 1.1 * sizes[1], sizes
