"""PgQueuer on PostgreSQL, through asyncpg. Its own command crashes at its start in the version that is installed here
(logging), so the worker does what that command does: uvloop, and a shutdown event that SIGTERM sets."""

import asyncio
import json
import signal

import asyncpg
import uvloop
from pgqueuer import PgQueuer, Queries

from ..marks import mark
from .base import option, store_url
from .long_async import long_steps


async def connected() -> tuple[asyncpg.Connection, Queries]:
    connection = await asyncpg.connect(store_url())
    queries = Queries.from_asyncpg_connection(connection)
    if not await queries.schema_is_installed():
        await queries.install()
    return connection, queries


class Pgqueuer:
    async def open(self) -> None:
        self.connection, self.queries = await connected()

    async def close(self) -> None:
        await self.connection.close()

    async def submit(self, number: int, sent: float) -> None:
        await self.queries.enqueue("noop", json.dumps([number, sent]).encode())

    async def fill(self, first: int, count: int) -> None:
        payloads = [json.dumps([number, 0.0]).encode() for number in range(first, first + count)]
        await self.queries.enqueue(["noop"] * count, payloads, [0] * count)

    async def submit_long(self) -> None:
        await self.queries.enqueue("long", b"")

    def work(self) -> None:
        uvloop.run(work()) if option("uvloop", True) else asyncio.run(work())


async def work() -> None:
    connection, _ = await connected()
    app = PgQueuer.from_asyncpg_connection(connection)

    @app.entrypoint("noop")
    async def noop(job) -> None:  # type: ignore[no-untyped-def]
        number, sent = json.loads(job.payload)
        mark(number, sent)

    @app.entrypoint("long")
    async def long(job) -> None:  # type: ignore[no-untyped-def]
        await long_steps()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.shutdown.set)
    await app.run(batch_size=100)


peer = Pgqueuer()
