"""A user's own transaction in PostgreSQL, in each library that `submit(connection=...)` takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool


class Transaction(NamedTuple):
    """One that has begun, by its library's own rules. `connection` is what is given to submit."""

    connection: Any
    run: Callable[[str], Awaitable[Any]]
    commit: Callable[[], Awaitable[Any]]
    rollback: Callable[[], Awaitable[Any]]


Library = Callable[[str], AbstractAsyncContextManager[Transaction]]


@asynccontextmanager
async def of_asyncpg(url: str) -> AsyncIterator[Transaction]:
    connection = await asyncpg.connect(url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        yield Transaction(connection, connection.execute, transaction.commit, transaction.rollback)
    finally:
        connection.terminate()


@asynccontextmanager
async def of_an_asyncpg_pool(url: str) -> AsyncIterator[Transaction]:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield Transaction(connection, connection.execute, transaction.commit, transaction.rollback)


@asynccontextmanager
async def of_psycopg(url: str) -> AsyncIterator[Transaction]:
    connection = await psycopg.AsyncConnection.connect(url)
    try:
        yield Transaction(connection, connection.execute, connection.commit, connection.rollback)
    finally:
        await connection.close()


@asynccontextmanager
async def of_a_session(url: str, driver: str) -> AsyncIterator[Transaction]:
    engine = create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"), poolclass=NullPool)
    try:
        async with async_sessionmaker(engine)() as session:
            yield Transaction(session, runner(session), session.commit, session.rollback)
    finally:
        await engine.dispose()


@asynccontextmanager
async def of_a_connection(url: str, driver: str) -> AsyncIterator[Transaction]:
    engine = create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            yield Transaction(connection, runner(connection), connection.commit, connection.rollback)
    finally:
        await engine.dispose()


def runner(on: AsyncSession | AsyncConnection) -> Callable[[str], Awaitable[Any]]:
    return lambda statement: on.execute(text(statement))


LIBRARIES: dict[str, Library] = {
    "asyncpg": of_asyncpg,
    "an asyncpg pool": of_an_asyncpg_pool,
    "psycopg": of_psycopg,
    "a session on asyncpg": lambda url: of_a_session(url, "asyncpg"),
    "a session on psycopg": lambda url: of_a_session(url, "psycopg"),
    "a connection on asyncpg": lambda url: of_a_connection(url, "asyncpg"),
    "a connection on psycopg": lambda url: of_a_connection(url, "psycopg"),
}
