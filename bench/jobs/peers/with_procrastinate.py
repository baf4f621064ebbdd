"""Procrastinate on PostgreSQL."""

import asyncio
from typing import Any

from procrastinate import App, PsycopgConnector

from ..marks import mark
from .base import option, store_url
from .long_async import long_steps

app = App(connector=PsycopgConnector(conninfo=store_url()))


@app.task(name="noop")
async def noop(number: int, sent: float) -> int:
    return mark(number, sent)


@app.task(name="long", retry=option("retry", False))
async def long() -> int:
    return await long_steps()


class Procrastinate:
    async def open(self) -> None:
        await app.open_async()
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()

    async def close(self) -> None:
        await app.close_async()

    async def submit(self, number: int, sent: float) -> None:
        await noop.defer_async(number=number, sent=sent)

    async def fill(self, first: int, count: int) -> None:
        numbers = range(first, first + count)
        await noop.batch_defer_async(*({"number": number, "sent": 0.0} for number in numbers))

    async def submit_long(self) -> None:
        await long.defer_async()

    def work(self) -> None:
        asyncio.run(work())


async def work() -> None:
    settings: dict[str, Any] = {"concurrency": 100}
    if option("grace") is not None:
        settings["shutdown_graceful_timeout"] = option("grace")
    async with app.open_async():
        await app.run_worker_async(**settings)


peer = Procrastinate()
