"""Behind a pooler in transaction mode: no session, nobody can listen, each transaction meets another connection."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lastcall.engines.postgres import PostgresEngine
from lastcall.jobs import Jobs
from lastcall.jobs._engine import Engine
from lastcall.testing.conformance import Case, Harness, cases, transaction_cases
from tests.support.pg_wire import transaction_pooler
from tests.support.postgres import shared_url

from .support import clear, empty_schema, opened

pytestmark = [pytest.mark.loops("asyncio")]

# Of each group some, and all that wait for news.
SOME = [
    case
    for n, case in enumerate(cases() + transaction_cases())
    if n % 16 == 3 or str(case).startswith("listen.")
]


@asynccontextmanager
async def pooled() -> AsyncIterator[tuple[str, str]]:
    with empty_schema() as schema:
        await clear(schema)
        async with transaction_pooler(shared_url()) as url:
            yield url, schema


class PooledHarness(Harness):
    """Two engines behind one pooler."""

    def __init__(self, url: str, schema: str) -> None:
        super().__init__()
        self.url, self.schema = url, schema

    def make(self) -> Engine:
        return PostgresEngine(self.url, schema=self.schema, clock=self.clock)


@pytest.mark.parametrize("case", SOME, ids=str)
async def test_the_rules(case: Case) -> None:
    """The engine keeps its rules."""
    async with pooled() as (url, schema):
        await case.run(PooledHarness(url, schema))


async def test_it_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """The pooler is found out; that nobody can listen is logged once, however many listen."""
    caplog.set_level(logging.WARNING, "lastcall")
    async with pooled() as (url, schema), opened(url, schema=schema) as engine:
        ends = [engine.listen(lambda: None) for _ in range(3)]
        for end in ends:
            end()
        ends = [engine.listen(lambda: None) for _ in range(3)]
        for end in ends:
            end()
    assert [record.message for record in caplog.records if "pooler" in record.message] == [
        record.message for record in caplog.records
    ]
    assert len(caplog.records) == 1


async def test_jobs_run() -> None:
    """A client in one place, a worker in another, both behind the pooler."""
    async with pooled() as (url, schema):
        at = f"{url}?schema={schema}"
        here, there = Jobs(at), Jobs(at)

        async def double(x: int) -> int:
            return 2 * x

        task, _ = here.task(double), there.task(double)
        async with here, there, there.worker(concurrency=5):
            jobs = await asyncio.gather(*(task.submit(n) for n in range(20)))
            assert [await job.result(timeout=30) for job in jobs] == [2 * n for n in range(20)]
