"""The engine's verbs without jobs that run: `python -m bench.postgres.verbs NAME URL '{"batches": ...}'`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from lastcall.engines.postgres import PostgresEngine
from lastcall.engines.postgres._store import Store
from lastcall.jobs._ids import new_id
from lastcall.jobs._rows import AttemptEnd, Claimed, ClaimRequest, Completed, NewJob, WorkerRow

AT_ONCE = 1_000
LONG_SECONDS = 1e6
WARM = 10
VACUUM_SECONDS = 20.0
TASK = "noop"
TASKS: Any = {(TASK, ""): None}
ARGS = '{"number":1,"sent":0.0}'  # those of `noop` in `bench.jobs.ours`, whose workers take these jobs, too
_SIZES = """SELECT pg_table_size('lastcall.job') AS "table", pg_indexes_size('lastcall.job') AS indexes,
    pg_stat_get_dead_tuples('lastcall.job'::regclass) AS dead,
    (SELECT count(*) FROM lastcall.job WHERE status = 'queued') AS queued"""
_VACUUMS = "SELECT pg_stat_get_autovacuum_count('lastcall.job'::regclass)"


class Verbs:
    """An engine with one connection, one worker that never runs anything, and a connection that looks from outside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.worker = new_id()
        self.engine = PostgresEngine(url, pool_size=1)
        self.outside: Any = None
        self._pid: int | None = None

    async def __aenter__(self) -> Verbs:
        await self.engine.open()
        who = WorkerRow(self.worker, "bench", os.getpid(), None, None, None, LONG_SECONDS, 100, None)
        await self.engine.join(who)
        self.outside = await asyncpg.connect(self.url)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.engine.resign(self.worker)
        await self.engine.close()
        await self.outside.close()

    async def fill(self, count: int, at_once: int = AT_ONCE, **options: Any) -> None:
        for first in range(0, count, at_once):
            numbers = range(min(at_once, count - first))
            await self.engine.submit([NewJob(new_id(), TASK, ARGS, **options) for _ in numbers])

    async def claim(self, limit: int) -> list[Claimed]:
        return (await self.engine.claim(ClaimRequest(self.worker, limit, TASKS))).jobs

    async def finish(self, jobs: list[Claimed]) -> None:
        await self.engine.finish([AttemptEnd(job.id, job.attempt, Completed("null")) for job in jobs])

    async def cpu_seconds(self) -> float:
        """What the server's process behind the engine's connection has used so far."""
        database = self.engine._database
        assert database is not None
        pid = await database.read(lambda store: store.value("SELECT pg_backend_pid()"))
        line = next(
            line for line in Path(f"/proc/{pid}/sched").read_text().splitlines() if "sum_exec" in line
        )
        return float(line.split(":")[1]) / 1000


async def costs(verbs: Verbs, sizes: dict[str, Any]) -> list[dict[str, float]]:
    """CPU time of the server for each job, in µs, for batches of several sizes."""
    found = []
    for batch in sizes["batches"]:
        count = min(sizes["costed"], 300 * batch)
        spent: dict[str, float] = {}

        async def timed(name: str, doing: Awaitable[Any], spent: dict[str, float] = spent) -> Any:
            before = await verbs.cpu_seconds()
            answer = await doing
            spent[name] = spent.get(name, 0.0) + await verbs.cpu_seconds() - before
            return answer

        await verbs.fill(WARM * batch, batch)
        for number in range(WARM + count // batch):
            if number == WARM:
                spent.clear()
            await timed("submit_us", verbs.fill(batch, batch))
            jobs = await timed("claim_us", verbs.claim(batch))
            await timed("finish_us", verbs.finish(jobs))
        rounds = count // batch
        found.append({"batch": batch} | {name: each / (rounds * batch) * 1e6 for name, each in spent.items()})
    return found


async def claims(verbs: Verbs, sizes: dict[str, Any]) -> dict[str, float]:
    """Fill up to so many, and take a hundred of them a few times."""
    there = (await verbs.outside.fetchrow(_SIZES))["queued"]
    await verbs.fill(sizes["queued"] - there)
    size = await verbs.outside.fetchrow(_SIZES)
    taken = []
    limit = min(100, sizes["queued"] // 10)
    for _ in range(sizes["claims"]):
        before = time.perf_counter()
        jobs = await verbs.claim(limit)
        taken.append((time.perf_counter() - before) * 1000)
        await verbs.finish(jobs)
        await verbs.fill(len(jobs))
    return {
        "claim_ms": median(taken),
        "claim_worst_ms": max(taken),
        "claim_buffers": await buffers(verbs, limit),
        "table_bytes": size["table"],
        "index_bytes": size["indexes"],
    }


async def buffers(verbs: Verbs, limit: int) -> int:
    """Pages of 8 kB that a claim touches."""
    run, seen = Store.rows, []

    async def explained(self: Store, text: str, *values: Any) -> list[Any]:
        if text.startswith("WITH moment"):
            await self.connection.execute("BEGIN")
            plan = await run(self, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *values)
            await self.connection.execute("ROLLBACK")
            top = json.loads(plan[0][0])[0]["Plan"]
            seen.append(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
        return await run(self, text, *values)

    Store.rows = explained  # type: ignore[method-assign]
    try:
        await verbs.finish(await verbs.claim(limit))
    finally:
        Store.rows = run  # type: ignore[method-assign]
    return int(seen[0])


async def held(verbs: Verbs, sizes: dict[str, Any]) -> list[dict[str, float]]:
    """Claims while somebody else has a transaction open: what ended since it began cannot be removed."""
    await verbs.fill(AT_ONCE)
    neighbour = await asyncpg.connect(verbs.url)
    try:
        await neighbour.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await neighbour.execute("SELECT count(*) FROM lastcall.worker")
        found = [await _one_claim(verbs, 0)]
        for number in range(sizes["rounds"] - 2):
            await verbs.fill(sizes["pruned"])
            while len(jobs := await verbs.claim(100)) == 100:
                await verbs.finish(jobs)
            await verbs.finish(jobs)
            await verbs.fill(AT_ONCE)
            found.append(await _one_claim(verbs, (number + 1) * sizes["pruned"]))
    finally:
        await neighbour.close()
    return found


async def _one_claim(verbs: Verbs, ended: int) -> dict[str, float]:
    touched = await buffers(verbs, 100)
    before = time.perf_counter()
    jobs = await verbs.claim(100)
    seconds = time.perf_counter() - before
    await verbs.finish(jobs)
    return {"ended": ended, "claim_ms": seconds * 1000, "claim_buffers": touched}


async def rounds(verbs: Verbs, sizes: dict[str, Any]) -> list[dict[str, int]]:
    """Jobs that end and are pruned, round by round; the size after autovacuum has been there."""
    found = []
    for number in range(sizes["rounds"]):
        vacuums = await verbs.outside.fetchval(_VACUUMS)
        await verbs.fill(sizes["pruned"], retention_seconds=0.0)
        while jobs := await verbs.claim(100):
            await verbs.finish(jobs)
        while await verbs.engine.prune(AT_ONCE):
            pass
        await autovacuumed(verbs, vacuums)
        size = await verbs.outside.fetchrow(_SIZES)
        found.append(
            {
                "jobs": (number + 1) * sizes["pruned"],
                "bytes": size["table"] + size["indexes"],
                "dead": size["dead"],
            }
        )
    return found


async def autovacuumed(verbs: Verbs, before: int) -> None:
    deadline = time.monotonic() + VACUUM_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        if await verbs.outside.fetchval(_VACUUMS) > before:
            return


MEASURES: dict[str, Callable[[Verbs, dict[str, Any]], Awaitable[Any]]] = {
    "costs": costs,
    "claims": claims,
    "held": held,
    "rounds": rounds,
}


async def main(name: str, url: str, sizes: dict[str, Any]) -> Any:
    async with Verbs(url) as verbs:
        return await MEASURES[name](verbs, sizes)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))))
