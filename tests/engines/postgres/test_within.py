"""Jobs submitted within the user's own transaction: there when it commits, and not otherwise, whatever the library."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import (
    BadArguments,
    BadConnection,
    BadDeclaration,
    EngineUnavailable,
    KeyConflict,
    UnknownJob,
)
from lastcall.jobs import Context, Jobs, Task
from tests.support.pg_wire import transaction_pooler
from tests.support.postgres import shared_url

from .libraries import LIBRARIES, Library, of_asyncpg, of_psycopg
from .support import clear, empty_schema, query

pytestmark = pytest.mark.loops("asyncio")

every_library = pytest.mark.parametrize("library", LIBRARIES.values(), ids=list(LIBRARIES))
Double = Task[[int], int]


@asynccontextmanager
async def a_shop(**declared: Any) -> AsyncIterator[tuple[Jobs, Double, str]]:
    """Jobs with one task, and a table of the user's in the same database."""
    with empty_schema() as schema:
        await clear(schema)
        table = f"orders_{schema}"
        await query(f"DROP TABLE IF EXISTS {table}")
        await query(f"CREATE TABLE {table} (x int)")
        jobs = Jobs(f"{shared_url()}?schema={schema}")

        @jobs.task(name="double", **declared)
        async def double(x: int) -> int:
            return 2 * x

        async with jobs:
            yield jobs, double, table
        await query(f"DROP TABLE {table}")


@every_library
async def test_it_is_there_when_the_transaction_commits(library: Library) -> None:
    """Before the commit nobody sees the job; after it a worker that was idle runs it at once."""
    async with a_shop() as (jobs, double, table), jobs.worker():
        async with library(shared_url()) as transaction:
            await transaction.run(f"INSERT INTO {table} VALUES (21)")
            job = await double.options(connection=transaction.connection).submit(21)
            with pytest.raises(UnknownJob):
                await job.status()
            assert await jobs.find() == []
            await transaction.commit()
            began = asyncio.get_running_loop().time()
            assert await job.result(timeout=20) == 42
            # By the notification: whoever asks by himself does so after five seconds.
            assert asyncio.get_running_loop().time() - began < 4
        assert await query(f"SELECT * FROM {table}") == [(21,)]


@every_library
async def test_it_is_not_there_when_the_transaction_rolls_back(library: Library) -> None:
    """Many jobs of every kind, plain, keyed, late, limited; then the user rolls back, and nothing is there. A key that
    was submitted in it is free."""
    async with a_shop(concurrency_key="x") as (jobs, double, table):
        async with library(shared_url()) as transaction:
            await transaction.run(f"INSERT INTO {table} VALUES (1)")
            calls = [double.call(1), double.options(key="k", delay=60, labels={"a": "b"}).call(2)]
            assert len(await jobs.submit_many(calls, connection=transaction.connection)) == 2
            await transaction.rollback()
        assert await jobs.find() == []
        assert await query(f"SELECT * FROM {table}") == []
        await double.options(key="k").submit(3)


@every_library
async def test_what_was_submitted_is_all_there(library: Library) -> None:
    """Every option of a submission arrives, through each driver's own way of writing values."""
    async with a_shop(concurrency_key="x") as (jobs, double, _):
        async with library(shared_url()) as transaction:
            options = double.options(
                key="k", delay=60, priority=-3, queue="slow", labels={"für": "ann"}, retries=2, retention=1.5
            )
            calls = [options.call(1), double.call(2)]
            first, second = await jobs.submit_many(calls, connection=transaction.connection)
            await transaction.commit()
        info = await first.info()
        assert (info.key, info.priority, info.queue, info.labels) == ("k", -3, "slow", {"für": "ann"})
        assert info.due_at is not None and info.status == "scheduled"
        (row,) = await query(
            f"SELECT retention_seconds, options, limit_key FROM {schema_of(jobs)}.job WHERE key = 'k'"
        )
        assert row == (1.5, '{"retries": 2, "delay": 60.0}', "double:1")
        async with jobs.worker():
            assert await second.result(timeout=20) == 4


@every_library
async def test_keys(library: Library) -> None:
    """The same key is the same job: one that was committed before, and one of the same transaction; with other
    arguments it is refused, nothing is written, and the transaction goes on."""
    async with a_shop() as (jobs, double, table):
        before = await double.options(key="old").submit(1)
        async with library(shared_url()) as transaction:
            within = double.options(connection=transaction.connection)
            assert (await within.options(key="old").submit(1)).id == before.id
            new = await within.options(key="new").submit(2)
            assert (await within.options(key="new").submit(2)).id == new.id
            calls = [double.call(9), double.options(key="old").call(7)]
            with pytest.raises(KeyConflict):
                await jobs.submit_many(calls, connection=transaction.connection)
            await transaction.run(f"INSERT INTO {table} VALUES (1)")
            await transaction.commit()
        assert {info.id for info in await jobs.find()} == {before.id, new.id}
        assert await query(f"SELECT * FROM {table}") == [(1,)]


async def test_a_scoped_session() -> None:
    """The session of this task, as SQLAlchemy's registry gives it."""
    async with a_shop() as (jobs, double, _):
        engine = create_async_engine(_alchemy())
        registry = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        job = await double.options(connection=registry).submit(1)
        assert await jobs.find() == []
        await registry.commit()
        assert await job.status() == "queued"
        await registry.remove()
        await engine.dispose()


async def test_behind_a_pooler() -> None:
    """The user's connection and the store's own go through a pooler, where no two transactions meet the same server
    connection."""
    async with a_shop() as (jobs, _, _), transaction_pooler(shared_url()) as url:
        pooled = Jobs(f"{url}?schema={schema_of(jobs)}")

        @pooled.task(name="double")
        async def double(x: int) -> int:
            return 2 * x

        connection = await asyncpg.connect(url, statement_cache_size=0)
        async with pooled:
            for end, expected in (("ROLLBACK", 0), ("COMMIT", 1)):
                await connection.execute("BEGIN")
                await double.options(connection=connection, key="k").submit(1)
                await connection.execute(end)
                assert len(await pooled.find()) == expected
        await connection.close()


async def test_two_transactions_with_one_key() -> None:
    """The second one waits for the first one's commit, and then finds its job."""
    async with a_shop() as (jobs, double, _):
        keyed = double.options(key="k")
        async with of_asyncpg(shared_url()) as first, of_psycopg(shared_url()) as second:
            job = await keyed.options(connection=first.connection).submit(1)
            waiting = asyncio.ensure_future(keyed.options(connection=second.connection).submit(1))
            await blocked()
            await first.commit()
            assert (await waiting).id == job.id
            await second.commit()
        assert [info.id for info in await jobs.find()] == [job.id]


async def blocked() -> None:
    """Until one session waits for another's commit."""
    async with asyncio.timeout(20):
        while await query(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        ) == [(0,)]:
            await asyncio.sleep(0.01)


async def test_limits_hold_and_nobody_waits_for_the_transaction() -> None:
    """A transaction that has submitted under a limit stays open: jobs of that limit key run meanwhile, and its own
    later, one after the other."""
    running = most = 0
    async with a_shop() as (jobs, _, _):

        @jobs.task(concurrency_key="who", concurrency_per_key=1)
        async def alone(ctx: Context, who: str) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        async with jobs.worker(concurrency=10), of_asyncpg(shared_url()) as transaction:
            calls = [alone.call("ann") for _ in range(5)]
            within = await jobs.submit_many(calls, connection=transaction.connection)
            for _ in range(3):
                await (await alone.submit("ann")).result(timeout=20)
            await transaction.commit()
            for job in within:
                await job.result(timeout=20)
    assert most == 1


async def test_a_transaction_older_than_the_lane() -> None:
    """A repeatable-read transaction sees the database as it was before the task was ever submitted; it may submit."""
    async with a_shop() as (jobs, double, _):
        connection = await asyncpg.connect(shared_url())
        try:
            async with connection.transaction(isolation="repeatable_read"):
                await connection.execute("SELECT 1")
                job = await double.options(connection=connection, queue="never before").submit(1)
            assert (await job.info()).queue == "never before"
        finally:
            await connection.close()


async def test_a_transaction_older_than_the_key() -> None:
    """Such a transaction cannot find the job that has its key since: it is told to begin anew, and then finds it."""
    async with a_shop() as (_, double, _):
        connection = await asyncpg.connect(shared_url())
        keyed = double.options(key="k")
        try:
            async with connection.transaction(isolation="repeatable_read"):
                await connection.execute("SELECT 1")
                job = await keyed.submit(1)
                with pytest.raises(EngineUnavailable, match="roll it back, and do it again"):
                    await keyed.options(connection=connection).submit(1)
            async with connection.transaction(isolation="repeatable_read"):
                assert (await keyed.options(connection=connection).submit(1)).id == job.id
        finally:
            await connection.close()


async def test_a_savepoint_of_the_users_own() -> None:
    """Submitted in an inner transaction that is rolled back, then in the outer one: the second job alone is there."""
    async with a_shop() as (jobs, double, _):
        connection = await asyncpg.connect(shared_url())
        try:
            async with connection.transaction():
                inner = connection.transaction()
                await inner.start()
                await double.options(connection=connection).submit(1)
                await inner.rollback()
                job = await double.options(connection=connection).submit(2)
            assert [info.id for info in await jobs.find()] == [job.id]
        finally:
            await connection.close()


async def test_a_cancelled_caller_has_submitted_nothing() -> None:
    """The submission is cancelled while it waits for another transaction's key; the caller swallows that and commits:
    his own row is there, the job is not."""
    async with a_shop() as (jobs, double, table):
        keyed = double.options(key="k")
        for library in (of_asyncpg, of_psycopg):
            async with library(shared_url()) as first, library(shared_url()) as second:
                await keyed.options(connection=first.connection).submit(1)
                await second.run(f"INSERT INTO {table} VALUES (1)")
                waiting = asyncio.ensure_future(keyed.options(connection=second.connection).submit(1))
                await blocked()
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await second.commit()
                await first.rollback()
        assert await jobs.find() == []
        assert await query(f"SELECT * FROM {table}") == [(1,), (1,)]


# --- what is refused -----------------------------------------------------------------------------------


@every_library
async def test_bad_arguments_are_seen_first(library: Library) -> None:
    """Nothing is asked of the connection, and the transaction goes on."""
    async with a_shop() as (jobs, double, table):
        async with library(shared_url()) as transaction:
            await transaction.run(f"INSERT INTO {table} VALUES (1)")
            with pytest.raises(BadArguments):
                await double.options(connection=transaction.connection).submit("x")  # type: ignore[arg-type]
            await transaction.commit()
        assert await jobs.find() == []
        assert await query(f"SELECT * FROM {table}") == [(1,)]


@every_library
async def test_a_failed_transaction(library: Library) -> None:
    """A statement of the user's has failed before: said so, with what to do."""
    async with a_shop() as (jobs, double, _):
        async with library(shared_url()) as transaction:
            with pytest.raises(Exception, match="division by zero"):
                await transaction.run("SELECT 1 / 0")
            with pytest.raises(BadConnection, match="has failed.*Roll it back"):
                await double.options(connection=transaction.connection).submit(1)
            await transaction.rollback()
        assert await jobs.find() == []


@every_library
async def test_another_database(library: Library) -> None:
    """The connection is to another database of the same server: refused, its transaction is unharmed."""
    await query("DROP DATABASE IF EXISTS another_database")
    await query("CREATE DATABASE another_database")
    elsewhere = shared_url().rpartition("/")[0] + "/another_database"
    async with a_shop() as (jobs, double, _):
        async with library(elsewhere) as transaction:
            with pytest.raises(BadConnection, match="another database"):
                await double.options(connection=transaction.connection).submit(1)
            await transaction.run("SELECT 1")
            await transaction.commit()
        assert await jobs.find() == []
    await query("DROP DATABASE another_database")


@asynccontextmanager
async def asyncpg_without_transaction() -> AsyncIterator[Any]:
    connection = await asyncpg.connect(shared_url())
    yield connection
    await connection.close()


@asynccontextmanager
async def asyncpg_closed() -> AsyncIterator[Any]:
    connection = await asyncpg.connect(shared_url())
    await connection.close()
    yield connection


@asynccontextmanager
async def asyncpg_given_back() -> AsyncIterator[Any]:
    async with asyncpg.create_pool(shared_url(), min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            pass
        yield connection


@asynccontextmanager
async def asyncpg_pool() -> AsyncIterator[Any]:
    async with asyncpg.create_pool(shared_url(), min_size=1, max_size=1) as pool:
        yield pool


@asynccontextmanager
async def psycopg_in_autocommit() -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(shared_url(), autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def psycopg_closed() -> AsyncIterator[Any]:
    connection = await psycopg.AsyncConnection.connect(shared_url())
    await connection.close()
    yield connection


@asynccontextmanager
async def psycopg_blocking() -> AsyncIterator[Any]:
    with psycopg.connect(shared_url()) as connection:
        yield connection


def _alchemy(driver: str = "asyncpg") -> str:
    return shared_url().replace("postgresql://", f"postgresql+{driver}://")


@asynccontextmanager
async def alchemy_in_autocommit() -> AsyncIterator[Any]:
    engine = create_async_engine(_alchemy(), isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


@asynccontextmanager
async def alchemy_closed() -> AsyncIterator[Any]:
    engine = create_async_engine(_alchemy("psycopg"))
    async with engine.connect() as connection:
        pass
    yield connection
    await engine.dispose()


@asynccontextmanager
async def alchemy_blocking() -> AsyncIterator[Any]:
    engine = create_engine(_alchemy("psycopg"))
    with Session(engine) as session:
        yield session
    engine.dispose()


@asynccontextmanager
async def alchemy_engine() -> AsyncIterator[Any]:
    engine = create_async_engine(_alchemy())
    yield engine
    await engine.dispose()


@asynccontextmanager
async def a_text() -> AsyncIterator[Any]:
    yield shared_url()


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (asyncpg_without_transaction, "in no transaction.*connection.transaction"),
    (asyncpg_closed, "is closed"),
    (asyncpg_given_back, "cannot be used"),
    (asyncpg_pool, "not asyncpg.pool.Pool"),
    (psycopg_in_autocommit, "in autocommit mode"),
    (psycopg_closed, "is closed"),
    (psycopg_blocking, "blocks the event loop; give an AsyncConnection"),
    (alchemy_in_autocommit, "AUTOCOMMIT"),
    (alchemy_closed, "closed"),
    (alchemy_blocking, "blocks the event loop; give an AsyncSession"),
    (alchemy_engine, "not sqlalchemy.*AsyncEngine"),
    (a_text, "not builtins.str"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=[given.__name__ for given, _ in REFUSED])
async def test_connections_that_cannot_carry_a_job(given: Callable[[], Any], words: str) -> None:
    """In no transaction, closed, of an unknown kind: an error that says what to do, and nothing is written."""
    async with a_shop() as (jobs, double, _):
        async with given() as connection:
            with pytest.raises(BadConnection, match=words):
                await double.options(connection=connection).submit(1)
        assert await jobs.find() == []


async def test_the_connection_is_lost_on_the_way() -> None:
    """Its backend is terminated: said so, and that the job is not there."""
    async with a_shop() as (jobs, double, _):
        for library in (of_asyncpg, of_psycopg):
            async with library(shared_url()) as transaction:
                await transaction.run("SELECT 1")
                (pid,) = await backends_in_transaction()
                await query(f"SELECT pg_terminate_backend({pid})")
                with pytest.raises((EngineUnavailable, BadConnection), match="lost|closed"):
                    await double.options(connection=transaction.connection).submit(1)
        assert await jobs.find() == []


async def backends_in_transaction() -> list[int]:
    idle = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND query = 'SELECT 1'"
    return [pid for (pid,) in await query(idle)]


async def test_a_user_without_rights() -> None:
    """The connection's user may not write into the store's schema: said so, with what to grant; its transaction is
    unharmed, and what was granted then suffices."""
    async with a_shop() as (jobs, double, _):
        schema = schema_of(jobs)
        await query("DROP ROLE IF EXISTS clerk")
        await query("CREATE ROLE clerk LOGIN")
        url = shared_url().replace("postgres@", "clerk@")
        async with of_asyncpg(url) as transaction:
            with pytest.raises(BadConnection, match="lacks a right.*grant it USAGE"):
                await double.options(connection=transaction.connection).submit(1)
            await transaction.run("SELECT 1")
        await query(f"GRANT USAGE ON SCHEMA {schema} TO clerk")
        await query(f"GRANT SELECT, INSERT ON {schema}.job TO clerk")
        await query(f"GRANT INSERT ON {schema}.label TO clerk")
        await query(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO clerk")
        async with of_asyncpg(url) as transaction:
            await double.options(connection=transaction.connection, key="k", labels={"by": "clerk"}).submit(1)
            await transaction.commit()
        assert len(await jobs.find(label=("by", "clerk"))) == 1
        await query(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM clerk")
        await query(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM clerk")
        await query(f"REVOKE ALL ON SCHEMA {schema} FROM clerk")
        await query("DROP ROLE clerk")


async def test_a_reading_transaction() -> None:
    """It may not write: said so."""
    async with a_shop() as (jobs, double, _):
        connection = await asyncpg.connect(shared_url())
        try:
            async with connection.transaction(readonly=True):
                with pytest.raises(BadConnection, match="may not write"):
                    await double.options(connection=connection).submit(1)
        finally:
            await connection.close()
        assert await jobs.find() == []


async def test_an_engine_that_cannot(tmp_path: Path) -> None:
    """On SQLite there is no such thing: said so, with what to do instead."""
    jobs = Jobs(SqliteEngine(str(tmp_path / "jobs.db"), synchronous="off"))

    @jobs.task
    async def work() -> None: ...

    async with jobs, of_asyncpg(shared_url()) as transaction:
        with pytest.raises(BadConnection, match="only the PostgreSQL engine can.*lastcall move"):
            await work.options(connection=transaction.connection).submit()
        assert await jobs.find() == []


async def test_a_call_carries_no_connection() -> None:
    """A connection among the options of a call would be forgotten; it is refused, with where it belongs."""
    async with a_shop() as (_, double, _), of_asyncpg(shared_url()) as transaction:
        with pytest.raises(BadDeclaration, match=r"submit_many\(calls, connection="):
            double.options(connection=transaction.connection).call(1)


def test_nothing_is_imported_that_nobody_uses() -> None:
    """A program with asyncpg alone submits within its transaction: the other libraries are not looked for."""
    code = f"""
import asyncio, sys
for name in ("psycopg", "sqlalchemy"):
    sys.modules[name] = None
import asyncpg
from lastcall.jobs import Jobs
jobs = Jobs("{shared_url()}?schema=imports_nothing")

@jobs.task(name="work")
async def work() -> None: ...

async def main():
    async with jobs:
        connection = await asyncpg.connect("{shared_url()}")
        async with connection.transaction():
            job = await work.options(connection=connection).submit()
        await connection.close()
        print(await job.status())

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "queued\n"), done.stderr


def schema_of(jobs: Jobs) -> str:
    return str(jobs.engine.schema)  # type: ignore[attr-defined]
