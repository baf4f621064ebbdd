"""Durable jobs on a Celery fleet, and a Celery task from asyncio.

A Redis server (BROKER_URL, default redis://localhost:6379/0), then in one terminal
`celery -A carriers_celery worker --concurrency 2`, and in another `python carriers_celery.py`.
"""

import asyncio
import os
import time

from celery import Celery

from lastcall.dispatch.celery import CeleryCarrier
from lastcall.jobs import Context, Jobs

BROKER = os.environ.get("BROKER_URL", "redis://localhost:6379/0")

app = Celery("shop", broker=BROKER, backend=BROKER)
jobs = Jobs("sqlite:///carriers_celery.db")  # of several machines: postgresql://...
carrier = CeleryCarrier(app, jobs)


def write_page(order: int, number: int) -> str:
    """A step: once it has returned, it is never called again for this job."""
    time.sleep(0.2)
    return f"order {order}, page {number}"


@jobs.task(retries=3)
async def make_invoice(ctx: Context, order: int) -> list[str]:
    return [await ctx.step(write_page, order, number) for number in (1, 2, 3)]


@app.task(name="resize")
def resize(width: int) -> int:
    """A task that was there before; it stays what it is."""
    return width // 2


async def main() -> None:
    async with carrier:
        job = await make_invoice.submit(7)  # written down, and then sent for
        print(await job.result(timeout=60), flush=True)
        sent = await carrier.submit(resize, 640)
        print(await sent.result(timeout=60), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
