"""The conformance suite over the PostgreSQL engine."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lastcall.engines.postgres import PostgresEngine
from lastcall.jobs._engine import Engine
from lastcall.testing.conformance import (
    Case,
    Harness,
    UserTransaction,
    cases,
    connection_cases,
    transaction_cases,
)
from tests.support.postgres import shared_url

from .libraries import LIBRARIES
from .support import clear, empty_schema


class PostgresHarness(Harness):
    """Two PostgreSQL engines on one schema, whose clock is the test's in place of the server's."""

    def __init__(self, schema: str, library: str) -> None:
        super().__init__()
        self.schema = schema
        self.library = library

    def make(self) -> Engine:
        # A connection plans every statement anew, which takes most of a case's time.
        return PostgresEngine(shared_url(), schema=self.schema, pool_size=2, clock=self.clock)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UserTransaction]:
        async with LIBRARIES[self.library](shared_url()) as users:
            yield UserTransaction(users.connection, users.commit, users.rollback)


async def run(case: Case, library: str = "asyncpg") -> None:
    with empty_schema() as schema:
        await clear(schema)
        await case.run(PostgresHarness(schema, library))


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("case", cases() + transaction_cases(), ids=str)
async def test_postgres(case: Case) -> None:
    """The PostgreSQL engine keeps every rule."""
    await run(case)


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("case", connection_cases(), ids=str)
async def test_postgres_in_transactions_of_users(case: Case) -> None:
    """It keeps them in transactions of users, whatever their library; that is drawn, for each has its own tests."""
    library = random.choice(list(LIBRARIES))
    print(f"the user's library: {library}")
    await run(case, library)


@pytest.mark.loops("uvloop")
@pytest.mark.parametrize("case", (cases() + transaction_cases())[::6], ids=str)
async def test_postgres_on_uvloop(case: Case) -> None:
    """It keeps them on a loop that is not asyncio's own."""
    await run(case)
