"""postgres_orders.py places an order by each library, and each is delivered once."""

import asyncio
import os
import re
from typing import Any

import asyncpg
import pytest

from tests.cli.program import ROOT, Program
from tests.support.postgres import shared_url

pytestmark = pytest.mark.server

NAME = f"shop_{os.getpid()}"


def sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    async def run() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())


def test_orders_of_each_library() -> None:
    """Run as a person runs it, on a database of its own."""
    sql(shared_url(), f"CREATE DATABASE {NAME}")
    url = f"{shared_url().rpartition('/')[0]}/{NAME}"
    with Program([str(ROOT / "examples" / "postgres_orders.py")], env={"DATABASE_URL": url}) as program:
        assert program.wait() == 0
    assert len(re.findall(r": 4200 cents booked", program.out)) == 3
    assert sql(url, "SELECT item, state FROM orders ORDER BY id") == [
        ("a lamp", "paid"),
        ("a chair", "paid"),
        ("a table", "paid"),
    ]
    assert sql(url, "SELECT order_id, cents FROM ledger ORDER BY order_id") == [
        (1, 4200),
        (2, 4200),
        (3, 4200),
    ]
    sql(shared_url(), f"DROP DATABASE {NAME} WITH (FORCE)")
