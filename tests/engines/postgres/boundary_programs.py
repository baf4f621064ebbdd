"""Processes that are killed in the middle of a transaction: a shop that submits within its own, a worker whose step is
one."""

from __future__ import annotations

import asyncio
import os
import random
import sys

import asyncpg

from lastcall.engines.postgres import TransactionConnection
from lastcall.jobs import Context, Jobs, Task
from tests.support.pg_tripwire import BEGIN, END

from .libraries import LIBRARIES

LEASE_SECONDS = 120.0
# What a worker does beside its job is not the same in each run, so a place may be none in one of them.
NOT_REACHED = 3


async def mark(url: str, what: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"SELECT 1 {what}")
    finally:
        connection.terminate()


def declare_deliver(jobs: Jobs) -> Task[[int], int]:
    @jobs.task(name="deliver")
    async def deliver(number: int) -> int:
        return number

    return deliver


async def buy(url: str, deliver: Task[[int], int], library: str, number: int) -> None:
    """An order of two rows, and its delivery between them, in one transaction."""
    async with LIBRARIES[library](url) as transaction:
        await transaction.run("SELECT 1")
        await mark(url, BEGIN)
        await transaction.run(f"INSERT INTO bought VALUES ({number}, 'first')")
        await deliver.options(connection=transaction.connection, key=f"{number}").submit(number)
        await transaction.run(f"INSERT INTO bought VALUES ({number}, 'second')")
        await transaction.commit()
        await mark(url, END)


def shop(url: str, schema: str, library: str, number: int) -> None:
    """A process that buys once."""

    async def main() -> None:
        async with Jobs(f"{url}?schema={schema}") as jobs:
            await buy(url, declare_deliver(jobs), library, number)

    asyncio.run(main())
    sys.exit(NOT_REACHED)


def declare_pay(jobs: Jobs, url: str, *, marks: bool = True, leaves: bool = False) -> Task[[int], int]:
    """`leaves`: the process ends behind the step, and not the job."""

    @jobs.task(name="pay", max_lost=1000)
    async def pay(ctx: Context, number: int) -> int:
        def move(connection: TransactionConnection) -> int:
            """Drawn anew each time, so that the row and the memory of it can be compared."""
            receipt = random.randrange(1 << 30)
            connection.execute("INSERT INTO paid VALUES ($1, $2, 'first')", number, receipt)
            connection.execute("INSERT INTO paid VALUES ($1, $2, 'second')", number, receipt)
            return receipt

        if marks:
            await mark(url, BEGIN)
        receipt = await ctx.transaction(move, name="move")
        if marks:
            await mark(url, END)
        if leaves:
            os._exit(NOT_REACHED)
        return receipt

    return pay


def till(url: str, schema: str, queue: str) -> None:
    """A worker of one queue, until it is killed."""

    async def main() -> None:
        jobs = Jobs(f"{url}?schema={schema}", lease_seconds=LEASE_SECONDS)
        declare_pay(jobs, url, leaves=True)
        async with jobs.worker(concurrency=1, queues=[queue]):
            await asyncio.sleep(60)

    asyncio.run(main())
