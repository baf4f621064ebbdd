"""`python -m bench.bloat`: does the store grow for ever? Jobs with steps and events are submitted, done and pruned,
round after round, and each time autovacuum has been there: how large are the tables and their indexes?

What is measured is size, not speed. The exit code is 1 if the last third of the rounds is larger than the third before
it by more than a fifth: then something stays behind.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

import asyncpg

from bench.postgres.server import PostgresServer
from lastcall.engines.postgres import PostgresEngine
from lastcall.jobs._rows import (
    AttemptEnd,
    Claimed,
    ClaimRequest,
    Completed,
    NewEvent,
    NewJob,
    StepRecord,
    WorkerRow,
)
from lastcall.jobs._state import StepStatus

TABLES = ("job", "step", "event", "attempt")
VACUUM_SECONDS = 60.0
_AT_ONCE = 500
_SIZE = """SELECT pg_table_size(c.oid) AS table, pg_indexes_size(c.oid) AS indexes, s.autovacuum_count AS vacuums,
    s.n_dead_tup AS dead FROM pg_class c JOIN pg_stat_user_tables s ON s.relid = c.oid
    WHERE s.schemaname = 'lastcall' AND s.relname = $1"""


async def play(engine: PostgresEngine, number: int, count: int) -> None:
    """One round: so many jobs of two steps and three events, ended and pruned."""
    new = [NewJob(f"{number}-{n}", "work", '{"n": 1}', retention_seconds=0.0) for n in range(count)]
    for start in range(0, count, _AT_ONCE):
        await engine.submit(new[start : start + _AT_ONCE])
    while jobs := (await engine.claim(ClaimRequest("bench", _AT_ONCE, {("work", ""): None}))).jobs:
        await asyncio.gather(*(run(engine, job) for job in jobs))
        await engine.finish([AttemptEnd(job.id, job.attempt, Completed('"done"')) for job in jobs])
    while await engine.prune(_AT_ONCE):
        pass


async def run(engine: PostgresEngine, job: Claimed) -> None:
    for step in ("one", "two"):
        await engine.append_events(job.id, job.attempt, [NewEvent("note", '"something to tell"')])
        await engine.record_step(job.id, job.attempt, StepRecord(step, StepStatus.COMPLETED, '"a value"'))


async def vacuumed(connection: asyncpg.Connection, before: dict[str, int]) -> None:
    """Wait until autovacuum has been at each table that it has work in."""
    deadline = time.monotonic() + VACUUM_SECONDS
    while time.monotonic() < deadline:
        rows = {name: await connection.fetchrow(_SIZE, name) for name in TABLES}
        if all(rows[name]["vacuums"] > before[name] or not rows[name]["dead"] for name in TABLES):
            return
        await asyncio.sleep(0.2)


async def measure(url: str, rounds: int, count: int) -> list[int]:
    """The size of all after each round, in bytes."""
    engine = PostgresEngine(url)
    await engine.open()
    connection = await asyncpg.connect(url)
    try:
        await engine.join(WorkerRow("bench", "host", 1, None, None, None, 3600.0, 10, None))
        sizes = []
        print(
            f"{'round':>6} {'jobs so far':>12}"
            + "".join(f"{name + ' kB':>12}" for name in TABLES)
            + f"{'all kB':>12}"
        )
        for number in range(1, rounds + 1):
            before = {name: (await connection.fetchrow(_SIZE, name))["vacuums"] for name in TABLES}
            await play(engine, number, count)
            await vacuumed(connection, before)
            each = [await connection.fetchrow(_SIZE, name) for name in TABLES]
            bytes_ = [row["table"] + row["indexes"] for row in each]
            sizes.append(sum(bytes_))
            cells = "".join(f"{size // 1024:>12}" for size in (*bytes_, sizes[-1]))
            print(f"{number:>6} {number * count:>12}{cells}", flush=True)
        return sizes
    finally:
        await connection.close()
        await engine.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bloat", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=5000, help="in each round")
    given = parser.parse_args(arguments)
    with PostgresServer(autovacuum_naptime="1s") as server:
        sizes = asyncio.run(measure(server.new_url(), given.rounds, given.jobs))
    third = max(1, len(sizes) // 3)
    last, before = max(sizes[-third:]), max(sizes[-2 * third : -third] or sizes)
    print(f"largest of the last {third}: {last // 1024} kB; of the {third} before: {before // 1024} kB")
    return int(last > before * 1.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
