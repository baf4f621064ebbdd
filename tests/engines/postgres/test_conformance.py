"""The conformance suite over the PostgreSQL engine."""

import pytest

from lastcall.engines.postgres import PostgresEngine
from lastcall.jobs._engine import Engine
from lastcall.testing.conformance import Case, Harness, cases, transaction_cases
from tests.support.postgres import shared_url

from .support import clear, empty_schema


class PostgresHarness(Harness):
    """Two PostgreSQL engines on one schema, whose clock is the test's in place of the server's."""

    def __init__(self, schema: str) -> None:
        super().__init__()
        self.schema = schema

    def make(self) -> Engine:
        # A connection plans every statement anew, which takes most of a case's time.
        return PostgresEngine(shared_url(), schema=self.schema, pool_size=2, clock=self.clock)


async def run(case: Case) -> None:
    with empty_schema() as schema:
        await clear(schema)
        await case.run(PostgresHarness(schema))


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("case", cases() + transaction_cases(), ids=str)
async def test_postgres(case: Case) -> None:
    """The PostgreSQL engine keeps every rule."""
    await run(case)


@pytest.mark.loops("uvloop")
@pytest.mark.parametrize("case", (cases() + transaction_cases())[::6], ids=str)
async def test_postgres_on_uvloop(case: Case) -> None:
    """It keeps them on a loop that is not asyncio's own."""
    await run(case)
