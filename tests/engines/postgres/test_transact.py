"""The user's own rows in one commit with the step: what the user's code may do with the engine's connection."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from lastcall.engines.postgres import PostgresEngine, TransactionConnection
from lastcall.exceptions import BadDeclaration
from lastcall.jobs import Context, Jobs
from lastcall.jobs._rows import ClaimRequest, NewJob, StepRecord, WorkerRow
from lastcall.jobs._state import StepStatus
from tests.support.pg_wire import Cutter
from tests.support.postgres import shared_url

from .support import clear, empty_schema, opened, query

pytestmark = pytest.mark.loops("asyncio")

STEP = StepRecord("pay", StepStatus.COMPLETED)
Work = Callable[[TransactionConnection], str]


@asynccontextmanager
async def at_work(url: str | None = None) -> AsyncIterator[tuple[PostgresEngine, str]]:
    """An engine, the user's table, and the job `a` at work."""
    with empty_schema() as schema:
        await clear(schema)
        table = f"mine_{schema}"
        await query(f"DROP TABLE IF EXISTS {table}")
        await query(f"CREATE TABLE {table} (x int UNIQUE)")
        async with opened(url, schema=schema) as engine:
            await engine.submit([NewJob("a", "work", "[]")])
            await engine.join(WorkerRow("w", "host", 1, None, None, None, 15.0, 10, None))
            assert len((await engine.claim(ClaimRequest("w", 1, {("work", ""): None}))).jobs) == 1
            yield engine, table
        await query(f"DROP TABLE {table}")


def insert(table: str) -> Work:
    def work(connection: TransactionConnection) -> str:
        connection.execute(f"INSERT INTO {table} VALUES ($1)", 1)
        return "1"

    return work


FORBIDDEN = [
    "COMMIT",
    " rollback",
    "BEGIN",
    "-- why\nEND",
    "/* so */ SAVEPOINT x",
    "START TRANSACTION",
    "ABORT",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_what_would_break_the_promise(statement: str) -> None:
    """The code does its own work and then something forbidden: nothing of it is written, and the engine is unharmed."""
    async with at_work() as (engine, table):

        def work(connection: TransactionConnection) -> str:
            insert(table)(connection)
            connection.execute(statement)
            return "1"

        with pytest.raises(BadDeclaration, match="must not"):
            await engine.transact("a", 1, STEP, work)
        assert await query(f"SELECT * FROM {table}") == []
        assert await engine.steps("a") == []
        assert await engine.transact("a", 1, STEP, insert(table)) == "1"
        assert await query(f"SELECT * FROM {table}") == [(1,)]


async def test_a_commit_among_other_statements() -> None:
    """Several statements in one text, a COMMIT among them: refused by the server, and nothing is written."""
    async with at_work() as (engine, table):
        with pytest.raises(asyncpg.PostgresError):
            await engine.transact(
                "a", 1, STEP, lambda c: c.execute(f"INSERT INTO {table} VALUES (1); COMMIT") or "1"
            )
        assert await query(f"SELECT * FROM {table}") == []


async def test_every_method() -> None:
    """Rows are written and read by each of the connection's methods."""
    async with at_work() as (engine, table):

        def work(connection: TransactionConnection) -> str:
            connection.executemany(f"INSERT INTO {table} VALUES ($1)", [(1,), (2,)])
            rows = connection.fetch(f"SELECT x FROM {table} ORDER BY x")
            assert [row["x"] for row in rows] == [1, 2]
            assert connection.fetchrow(f"SELECT x FROM {table} WHERE x > $1", 5) is None
            return str(connection.fetchval(f"SELECT sum(x) FROM {table}"))

        assert await engine.transact("a", 1, STEP, work) == "3"


async def test_an_error_of_the_users_own() -> None:
    """A statement violates the user's constraint: the driver's error comes out, nothing is written; swallowed by the
    code, it comes out all the same, since the server commits nothing after it."""
    async with at_work() as (engine, table):
        await query(f"INSERT INTO {table} VALUES (1)")

        def swallow(connection: TransactionConnection) -> str:
            try:
                insert(table)(connection)
            except asyncpg.UniqueViolationError:
                pass
            return "1"

        for work in (insert(table), swallow):
            with pytest.raises(asyncpg.UniqueViolationError):
                await engine.transact("a", 1, STEP, work)
        with pytest.raises(asyncpg.UndefinedTableError):
            await engine.transact(
                "a", 1, STEP, lambda connection: connection.execute("SELECT * FROM nothing") or "1"
            )
        assert await engine.steps("a") == []
        assert await engine.cancel("a", "user") == "requested"  # type: ignore[arg-type]


async def test_the_connection_is_lost_in_the_middle() -> None:
    """It is lost when a statement of the user's has arrived: the code runs again, and its rows are there once."""
    async with Cutter(shared_url()).running() as cutter, at_work(cutter.url) as (engine, table):
        runs = []

        def work(connection: TransactionConnection) -> str:
            runs.append(1)
            if len(runs) == 1:
                cutter.arm(1, late=True, holding=table.encode())
            return insert(table)(connection)

        assert await engine.transact("a", 1, STEP, work) == "1"
        assert len(runs) == 2
        assert await query(f"SELECT * FROM {table}") == [(1,)]


async def test_a_lease_does_not_wait_for_the_users_code() -> None:
    """As many transactions as there are connections are in the middle of long work: the worker renews its lease, and
    hears of a cancel; everything else waits for them."""
    with empty_schema() as schema:
        await clear(schema)
        async with opened(schema=schema, pool_size=2) as engine:
            await engine.submit([NewJob(job_id, "work", "[]") for job_id in "ab"])
            await engine.join(WorkerRow("w", "host", 1, None, None, None, 15.0, 10, None))
            await engine.claim(ClaimRequest("w", 2, {("work", ""): None}))
            go = threading.Event()

            def work(connection: TransactionConnection) -> str:
                assert go.wait(30)
                return "1"

            working = [asyncio.ensure_future(engine.transact(job_id, 1, STEP, work)) for job_id in "ab"]
            waiting = asyncio.ensure_future(engine.overview())
            async with asyncio.timeout(9):
                assert (await engine.renew("w")).alive
                assert await engine.cancel_requests("w") == []
                assert await engine.rescue("w") == []
            assert not waiting.done()
            go.set()
            assert await asyncio.gather(*working) == ["1", "1"]
            await waiting


async def test_from_a_job() -> None:
    """`ctx.transaction` of a job on PostgreSQL: the rows are there, and the job has its value."""
    with empty_schema() as schema:
        await clear(schema)
        await query(f"DROP TABLE IF EXISTS mine_{schema}")
        await query(f"CREATE TABLE mine_{schema} (x int)")
        jobs = Jobs(f"{shared_url()}?schema={schema}")

        @jobs.task
        async def pay(ctx: Context, amount: int) -> int:
            def move(connection: TransactionConnection, amount: int) -> int:
                connection.execute(f"INSERT INTO mine_{schema} VALUES ($1)", amount)
                return amount * 2

            return await ctx.transaction(move, amount)

        async with jobs, jobs.worker():
            job = await pay.submit(21)
            assert await job.result(timeout=30) == 42
        assert await query(f"SELECT * FROM mine_{schema}") == [(21,)]
        await query(f"DROP TABLE mine_{schema}")


async def test_the_statements_of_the_users_code_may_read_whole_tables() -> None:
    """The engine keeps its own statements from going through all jobs; the user's may go through the user's table."""
    seen: list[str] = []
    async with at_work() as (engine, _):

        def work(connection: TransactionConnection) -> str:
            seen.append(connection.fetchval("SHOW enable_seqscan"))
            return "1"

        await engine.transact("a", 1, STEP, work)
    assert seen == ["on"]
