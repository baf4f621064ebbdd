"""Orders and their jobs in one PostgreSQL database, each written with the other or not at all.

DATABASE_URL=postgresql://ann@localhost/shop python examples/postgres_orders.py
"""

import asyncio
import os

import asyncpg
import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from lastcall.engines.postgres import TransactionConnection
from lastcall.jobs import Context, Job, Jobs

DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql://localhost/shop")

jobs = Jobs(DATABASE_URL)


def book(connection: TransactionConnection, order: int) -> int:
    """Its rows and the memory of the step are one commit, so it happens once, whatever dies."""
    connection.execute("UPDATE orders SET state = 'paid' WHERE id = $1", order)
    connection.execute("INSERT INTO ledger (order_id, cents) VALUES ($1, $2)", order, 4200)
    cents: int = connection.fetchval("SELECT sum(cents) FROM ledger WHERE order_id = $1", order)
    return cents


@jobs.task(retries=3)
async def deliver(ctx: Context, order: int) -> int:
    return await ctx.transaction(book, order)


async def order_with_asyncpg(pool: asyncpg.Pool) -> Job[int]:
    async with pool.acquire() as connection, connection.transaction():
        order = await connection.fetchval("INSERT INTO orders (item) VALUES ($1) RETURNING id", "a lamp")
        return await deliver.options(connection=connection).submit(order)


async def order_with_psycopg(connection: psycopg.AsyncConnection) -> Job[int]:
    async with connection.transaction():
        cursor = await connection.execute("INSERT INTO orders (item) VALUES (%s) RETURNING id", ["a chair"])
        (order,) = await cursor.fetchone() or (0,)
        return await deliver.options(connection=connection, key=f"order {order}").submit(order)


async def order_with_sqlalchemy(sessions: async_sessionmaker[AsyncSession]) -> Job[int]:
    async with sessions.begin() as session:
        insert = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
        order = (await session.execute(insert, {"item": "a table"})).scalar_one()
        (job,) = await jobs.submit_many([deliver.call(order)], connection=session)
        return job


async def main() -> None:
    engine = create_async_engine(DATABASE_URL.replace("postgresql://", "postgresql+asyncpg://"))
    sessions = async_sessionmaker(engine)
    async with (
        jobs,
        asyncpg.create_pool(DATABASE_URL, min_size=1, max_size=2) as pool,
        await psycopg.AsyncConnection.connect(DATABASE_URL) as connection,
    ):
        await pool.execute(
            "CREATE TABLE IF NOT EXISTS orders (id serial, item text, state text DEFAULT 'new')"
        )
        await pool.execute("CREATE TABLE IF NOT EXISTS ledger (order_id int, cents int)")
        submitted = [
            await order_with_asyncpg(pool),
            await order_with_psycopg(connection),
            await order_with_sqlalchemy(sessions),
        ]
        async with jobs.worker():
            for job in submitted:
                print(f"{job.id}: {await job.result(timeout=30)} cents booked", flush=True)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
