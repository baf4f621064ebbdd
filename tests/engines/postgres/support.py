"""Engines on one database, direct looks into it, and schemas that are used again."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from lastcall.engines.postgres import PostgresEngine
from tests.support.postgres import shared_url

PATIENCE_SECONDS = 30.0

_TABLES = (
    "job attempt step event message wait wait_job rate schedule worker lane stream stream_entry"
    " stream_producer".split()  # all that `everything` sees
)
_free: list[str] = []
_numbers = itertools.count()


@contextmanager
def empty_schema() -> Iterator[str]:
    """The name of a schema without jobs; to make the tables anew for each test would take most of its time."""
    name = _free.pop() if _free else f"test_{os.getpid()}_{next(_numbers)}"
    yield name
    _free.append(name)


async def clear(schema: str) -> None:
    """Empty the tables, if they are there."""
    connection = await asyncpg.connect(shared_url())
    try:
        if await connection.fetchval("SELECT to_regclass($1)", f"{schema}.job"):
            await connection.execute(";".join(f'DELETE FROM "{schema}".{table}' for table in _TABLES))
    finally:
        await connection.close()


async def query(statement: str, *values: Any, url: str | None = None) -> list[tuple[Any, ...]]:
    """What a connection of one's own sees in the database."""
    connection = await asyncpg.connect(url or shared_url())
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


@asynccontextmanager
async def opened(url: str | None = None, **options: Any) -> AsyncIterator[PostgresEngine]:
    """An engine, open; on an empty schema if none is named."""
    if "schema" in options:
        engine = PostgresEngine(url or shared_url(), **options)
        await engine.open()
        try:
            yield engine
        finally:
            await engine.close()
        return
    with empty_schema() as schema:
        await clear(schema)
        async with opened(url, schema=schema, **options) as engine:
            yield engine


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for it, within reason."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s for {what}"
        await asyncio.sleep(0.005)
