"""From FastAPI's BackgroundTasks, Celery and RQ to jobs: the same work before and after.

python moving.py runs what stands behind "after", in one process and without a broker.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery
from fastapi import BackgroundTasks, FastAPI
from redis import Redis
from rq import Queue, Retry

from lastcall import TaskManager
from lastcall.fastapi import install
from lastcall.jobs import Backoff, Context, Jobs

jobs = Jobs("sqlite:///moving.db")


def send_mail(to: str) -> str:
    return f"mail to {to}"


def fetch(url: str) -> list[str]:
    return [f"{url} row {n}" for n in range(3)]


def store(row: str) -> int:
    return len(row)


# --- FastAPI BackgroundTasks: before -----------------------------------------------------------------------

app_before = FastAPI()


@app_before.post("/signup")
async def signup_before(to: str, background: BackgroundTasks) -> dict[str, bool]:
    background.add_task(send_mail, to)  # gone, if the process ends before it has run
    return {"ok": True}


# --- and after ---------------------------------------------------------------------------------------------


@jobs.task(retries=5)
def welcome(to: str) -> str:
    return send_mail(to)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker(concurrency=10):
        yield


app = FastAPI(lifespan=lifespan)
install(app, TaskManager(), jobs=jobs)


@app.post("/signup", status_code=202)
async def signup(to: str) -> dict[str, str]:
    job = await welcome.submit(to)  # returns when it is written down
    return {"id": job.id}


# --- Celery: before ----------------------------------------------------------------------------------------

celery = Celery("shop", broker="redis://localhost", backend="redis://localhost")


@celery.task(bind=True, name="import_orders", acks_late=True, max_retries=3, soft_time_limit=600)
def import_orders_before(self: Any, url: str) -> int:
    try:
        return sum(store(row) for row in fetch(url))  # after a crash, all of it again
    except OSError as error:
        raise self.retry(exc=error, countdown=2**self.request.retries) from None


def start_before(url: str) -> str:
    sent = import_orders_before.apply_async((url,), countdown=60, queue="imports")
    return str(sent.id)


# --- and after ---------------------------------------------------------------------------------------------


@jobs.task(name="import_orders", queue="imports", retries=3, backoff=Backoff(first_seconds=1), timeout=600)
async def import_orders(ctx: Context, url: str) -> int:
    rows = await ctx.step(fetch, url)
    return sum([await ctx.step(store, row) for row in rows])  # after a crash, from the row it was at


async def start(url: str) -> str:
    job = await import_orders.options(delay=60).submit(url)
    return job.id


# --- RQ: before --------------------------------------------------------------------------------------------

queue = Queue("reports", connection=Redis())


def report_before(month: str) -> str:
    return f"report of {month}"


def order_before(month: str) -> str:
    retry = Retry(max=3, interval=[10, 60, 300])
    return queue.enqueue(report_before, month, job_id=f"report-{month}", retry=retry, job_timeout=900).id


# --- and after ---------------------------------------------------------------------------------------------


@jobs.task(queue="reports", retries=3, backoff=Backoff(first_seconds=10), timeout=900)
def report(month: str) -> str:
    return f"report of {month}"


async def order(month: str) -> str:
    job = await report.options(key=f"report-{month}").submit(month)
    return job.id


async def main() -> None:
    async with jobs.worker():
        for job in (
            await welcome.submit("ada"),
            await import_orders.submit("orders"),
            await report.options(key="2026-11").submit("2026-11"),
        ):
            print(await job.result(timeout=60), flush=True)
        later = jobs.job(await start("orders"))
        print(await later.status(), await later.cancel(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
