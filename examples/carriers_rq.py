"""Durable jobs on RQ workers.

A Redis server (BROKER_URL, default redis://localhost:6379/0), then in one terminal
`rq worker --worker-class carriers_rq.Worker invoices`, and in another `python carriers_rq.py`.
"""

import asyncio
import os
import time

from redis import Redis
from rq import Queue

from lastcall.dispatch.rq import RqCarrier
from lastcall.jobs import Context, Jobs

queue = Queue("invoices", connection=Redis.from_url(os.environ.get("BROKER_URL", "redis://localhost:6379/0")))
jobs = Jobs("sqlite:///carriers_rq.db")
carrier = RqCarrier(queue, jobs)
Worker = carrier.worker_class()


def write_page(order: int, number: int) -> str:
    """A step: once it has returned, it is never called again for this job."""
    time.sleep(0.2)
    return f"order {order}, page {number}"


@jobs.task(retries=3)
async def make_invoice(ctx: Context, order: int) -> list[str]:
    return [await ctx.step(write_page, order, number) for number in (1, 2, 3)]


async def main() -> None:
    async with carrier:
        job = await make_invoice.submit(7)
        print(await job.result(timeout=60), flush=True)
    queue.connection.close()


if __name__ == "__main__":
    asyncio.run(main())
