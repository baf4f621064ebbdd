"""Raw asyncpg: the same rows, no library around them. `python -m bench.postgres.floor NAME URL '{"count": ...}'`.

One table with the columns that a job needs at least, with results; `batch` jobs in each statement and each statement a
commit, one connection, one after the other. No leases, steps, retries, limits, validation, no log, no history.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg  # type: ignore[import-untyped]

SCHEMA = """CREATE TABLE IF NOT EXISTS floor_job (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, task text NOT NULL, args text NOT NULL,
    status smallint NOT NULL, attempt int NOT NULL DEFAULT 0, worker int, created float8 NOT NULL, started float8,
    ended float8, result text) WITH (fillfactor = 80);
    CREATE INDEX IF NOT EXISTS floor_queued ON floor_job (task, n) WHERE status = 1;
    CREATE INDEX IF NOT EXISTS floor_running ON floor_job (worker) WHERE status = 2"""
_NOW = "extract(epoch FROM statement_timestamp())"
INSERT = f"""INSERT INTO floor_job (id, task, args, status, created)
    SELECT new.id, 'noop', new.args, 1, {_NOW} FROM unnest($1::text[], $2::text[]) AS new (id, args)"""
CLAIM = f"""WITH best AS (SELECT n FROM floor_job WHERE status = 1 AND task = 'noop' ORDER BY n LIMIT $1
    FOR UPDATE SKIP LOCKED) UPDATE floor_job SET status = 2, attempt = attempt + 1, worker = 1, started = {_NOW}
    FROM best WHERE floor_job.n = best.n RETURNING floor_job.n, id, args, attempt"""
FINISH = f"""UPDATE floor_job SET status = 3, ended = {_NOW}, result = ended.result, worker = NULL
    FROM unnest($1::bigint[], $2::int[], $3::text[]) AS ended (n, attempt, result)
    WHERE floor_job.n = ended.n AND floor_job.attempt = ended.attempt AND status = 2"""
ARGS = '{"n":1}'


async def fill(connection: Any, first: int, count: int, batch: int) -> None:
    for start in range(first, first + count, batch):
        numbers = range(start, min(start + batch, first + count))
        await connection.fetch(INSERT, [f"{number:032x}" for number in numbers], [ARGS] * len(numbers))


async def process(connection: Any, count: int, batch: int) -> None:
    done = 0
    while done < count:
        rows = await connection.fetch(CLAIM, batch)
        numbers, attempts = [row["n"] for row in rows], [row["attempt"] for row in rows]
        await connection.fetch(FINISH, numbers, attempts, ["null"] * len(rows))
        done += len(rows)


async def batches(connection: Any, count: int, batch: int = 100) -> dict[str, float]:
    """Jobs per second: submitted, processed from a full queue, and through both."""
    began = time.perf_counter()
    await fill(connection, 0, count, batch)
    filled = time.perf_counter()
    await process(connection, count, batch)
    ended = time.perf_counter()
    return {
        "submit": count / (filled - began),
        "process": count / (ended - filled),
        "both": count / (ended - began),
    }


async def singles(connection: Any, count: int) -> dict[str, float]:
    """Jobs per second submitted one by one, each with its commit."""
    began = time.perf_counter()
    await fill(connection, 0, count, 1)
    return {"submit": count / (time.perf_counter() - began)}


async def paced(connection: Any, count: int, per_second: float) -> list[float]:
    """Seconds of each of `count` single inserts, at an even pace: a disk that rests in between is another disk."""
    taken = []
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
        before = time.perf_counter()
        await fill(connection, number, 1, 1)
        taken.append(time.perf_counter() - before)
    return taken


MEASURES: dict[str, Callable[..., Awaitable[Any]]] = {"batches": batches, "singles": singles, "paced": paced}


async def main(name: str, url: str, order: dict[str, Any]) -> Any:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(SCHEMA)
        return await MEASURES[name](connection, **order)
    finally:
        await connection.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))))
