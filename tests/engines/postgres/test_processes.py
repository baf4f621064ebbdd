"""Several processes on one database: opened at once, killed in the middle of commits and of work."""

import asyncio
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from lastcall.engines.postgres._schema import VERSION
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, JobQuery, NewJob, WorkerRow
from lastcall.jobs._state import JobStatus
from tests.engines.sqlite.support import Program
from tests.support.postgres import shared_url

from .support import PATIENCE_SECONDS, clear, empty_schema, opened, query

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow]

PROGRAM = Path(__file__).with_name("program.py")


def program(*arguments: object) -> Program:
    return Program(*arguments, program=PROGRAM)


async def test_opened_at_once() -> None:
    """Eight processes open a schema that does not exist, in the same moment: one set of tables, and everybody's job is
    in it."""
    schema = "opened_at_once"
    await query(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    with ExitStack() as stack:
        programs = [stack.enter_context(program("open_at_once", shared_url(), schema)) for _ in range(8)]
        for each in programs:
            each.expect("ready")
        for each in programs:
            each.tell("go")
        for each in programs:
            each.expect("open")
        assert await query(f"SELECT version FROM {schema}.meta") == [(VERSION,)]
        ids = {row[0] for row in await query(f"SELECT id FROM {schema}.job")}
        assert ids == {f"job-{each.pid}" for each in programs}
        for each in programs:
            each.tell("end")
            each.end()
    await query(f"DROP SCHEMA {schema} CASCADE")


@pytest.mark.parametrize("lines", [0, 40, 300])
async def test_killed_in_the_middle_of_commits(lines: int) -> None:
    """kill -9 while eight tasks submit pairs of jobs, plain and keyed: each pair that was answered is there, and no
    pair is half there."""
    with empty_schema() as schema:
        await clear(schema)
        async with opened(schema=schema):
            with program("submit_pairs", shared_url(), schema) as one:
                one.expect("open")
                answered = [one.line() for _ in range(lines)]
                answered += one.kill().splitlines()[:-1]  # the last line may be cut
            await backends_are_gone(schema)
            ids = {row[0] for row in await query(f"SELECT id FROM {schema}.job")}
        assert {f"{pair}{side}" for pair in answered for side in "ab"} <= ids
        assert {id[:-1] for id in ids if id.endswith("a")} == {id[:-1] for id in ids if id.endswith("b")}


async def backends_are_gone(schema: str) -> None:
    """What a dead process had sent is carried out for a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    busy = """SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lastcall' AND state <> 'idle'
        AND query LIKE $1"""
    while await query(busy, f"%{schema}%") != [(0,)]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_killed_workers() -> None:
    """Two workers are killed at work, one after the other; a third one takes what they held at once, since it can see
    that their processes are gone. Everything is completed once, what they had completed is not run again."""
    with empty_schema() as schema:
        await clear(schema)
        async with opened(schema=schema) as engine:
            total = 200
            await engine.submit([NewJob(f"{n}", "work", "[]", max_lost=9) for n in range(total)])
            completed: list[str] = []
            for number in range(2):
                with program("work", shared_url(), schema, f"dead{number}") as one:
                    one.expect("open")
                    lines = [one.line() for _ in range(10)]
                    lines += one.kill().splitlines()[:-1]
                completed += [line.split()[1] for line in lines]
                await backends_are_gone(schema)
                rescued = await engine.rescue("me")
                assert {job.worker_id for job in rescued} <= {f"dead{number}"}
            await engine.join(WorkerRow("me", "host", 1, None, None, None, 60.0, 10, None))
            while jobs := (await engine.claim(ClaimRequest("me", 50, {("work", ""): None}))).jobs:
                completed += [job.id for job in jobs]
                await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in jobs])
            rows = await engine.find(JobQuery(limit=1000))
        assert {row.status for row in rows} == {JobStatus.COMPLETED}
        done = Counter(completed)
        assert set(done.values()) == {1}
        # The one whose completion was committed and not said any more.
        assert total - 2 <= len(done) <= total
