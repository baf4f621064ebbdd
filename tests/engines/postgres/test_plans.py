"""Among many jobs no verb of a worker goes through all of them: every statement's plan is looked at."""

import asyncio
from typing import Any

import pytest

from lastcall._core._state import StopReason
from lastcall.engines.postgres._store import Store
from lastcall.jobs._rows import (
    AttemptEnd,
    ClaimRequest,
    Completed,
    Failed,
    HandedOver,
    NewEvent,
    NewJob,
    StepRecord,
    Suspended,
    TaskLimits,
    Wait,
    WorkerRow,
)
from lastcall.jobs._state import StepStatus, WaitKind
from lastcall.testing import VirtualClock

from .support import clear, empty_schema, opened, query

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow]

# Of twenty thousand, a hundred are as soon found by going through all; the server may choose either.
MANY = 60_000


@pytest.mark.parametrize("statistics", ["none", "of another time", "true"])
async def test_no_statement_goes_through_all_jobs(monkeypatch: pytest.MonkeyPatch, statistics: str) -> None:
    """Sixty thousand jobs, most of them ended, and a worker that does everything that workers do."""
    bad: list[str] = []
    run = Store.rows

    async def explained(self: Store, text: str, *values: Any) -> list[Any]:
        plan = await run(self, f"EXPLAIN {text}", *values)
        lines = "\n".join(line for (line,) in plan)
        if "Seq Scan on job" in lines:
            bad.append(f"{text}\n{lines}")
        return await run(self, text, *values)

    clock = VirtualClock()
    with empty_schema() as schema:
        await clear(schema)
        async with opened(schema=schema, clock=clock, pool_size=1) as engine:
            await engine.join(WorkerRow("w", "host", 1, None, None, None, 1e6, 10, None))
            if statistics == "of another time":
                await engine.submit([NewJob(f"other {n}", "work", "[]", limit_key="l") for n in range(500)])
                await query(f"UPDATE {schema}.job SET status = 'completed', ended_at = 1, expires_at = 1")
                await query(f"VACUUM ANALYZE {schema}.job")
            for first in range(0, MANY, 5000):
                await engine.submit([NewJob(f"{n}", "work", "[]") for n in range(first, first + 5000)])
            await query(
                f"UPDATE {schema}.job SET status = 'completed', ended_at = 1, expires_at = 1e12 WHERE n % 4 > 0"
            )
            if statistics == "true":
                await query(f"ANALYZE {schema}.job")
            monkeypatch.setattr(Store, "rows", explained)
            await _work(engine, clock)
    assert not bad, "\n\n".join(bad)


async def _work(engine: Any, clock: VirtualClock) -> None:
    tasks = {("work", ""): None, ("slow", ""): TaskLimits(concurrency=5, rate_count=5, rate_seconds=60.0)}
    await engine.submit([NewJob(f"new {n}", "slow", "[]") for n in range(3)])
    await engine.submit(
        [NewJob("key", "work", "[]", key="k"), NewJob("late", "work", "[]", delay_seconds=5.0)]
    )
    await engine.submit([NewJob(f"limited {n}", "work", "[]", limit_key="l", limit=1) for n in range(3)])
    jobs = (await engine.claim(ClaimRequest("w", 100, tasks))).jobs
    it = iter(jobs)
    outcomes = [
        Failed("{}"),
        Failed("{}", 5.0),
        HandedOver(),
        Suspended((Wait("s", WaitKind.SIGNAL, "go"),)),
        Suspended((Wait("n", WaitKind.SLEEP, seconds=5.0),)),
        Suspended((Wait("j", WaitKind.JOBS, jobs=(jobs[-1].id, "unknown")),)),
    ]
    ended = [next(it) for _ in outcomes]
    for job, outcome in zip(ended, outcomes, strict=True):
        await engine.finish([AttemptEnd(job.id, 1, outcome)])
    many = [next(it) for _ in range(20)]
    await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in many])
    await engine.finish([AttemptEnd(jobs[-1].id, 1, Completed("1"))])
    mine = next(it)
    await engine.record_step(mine.id, 1, StepRecord("s", StepStatus.COMPLETED, "1"))
    await engine.append_events(mine.id, 1, [NewEvent("progress", "1")])
    await engine.cancel(mine.id, StopReason.USER)
    await engine.cancel("limited 2", StopReason.USER)
    await engine.cancel_requests("w")
    await engine.send(ended[3].id, "go", "1")
    await engine.retry(ended[0].id)
    await engine.purge(many[0].id)
    clock.advance(10.0)
    await engine.claim(ClaimRequest("w", 3, tasks))
    await engine.renew("w")
    await engine.rescue("v")
    await engine.get([mine.id])
    await engine.steps(mine.id)
    await engine.attempts(mine.id)
    await engine.prune(100)
    await engine.resign("w")
    await asyncio.sleep(0)
