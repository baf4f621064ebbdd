"""An app as users write it: jobs by `install`, a worker in its own lifespan; run by uvicorn in test_jobs.py.

Each step writes a line into the ledger when it begins and when it ends, and takes until somebody writes a byte into
the pipe. Both files stand in the current folder.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs

STEPS = 6

jobs = Jobs("sqlite:///jobs.db")
manager = TaskManager(plan=ShutdownPlan(drain=30))


def note(line: str) -> None:
    with open("ledger", "a", encoding="utf-8") as ledger:
        ledger.write(f"{line}\n")
    print(line, flush=True)


def count(n: int) -> int:
    note(f"begin {n}")
    with open("pipe", "rb", buffering=0) as pipe:
        pipe.read(1)
    note(f"end {n}")
    return n


@jobs.task(name="count")
async def count_up(ctx: Context, steps: int) -> int:
    return sum([await ctx.step(count, n) for n in range(steps)])


async def tell() -> None:
    await current_shutdown().wait()
    print("told to stop", flush=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker(concurrency=4) as worker:
        assert worker.manager is manager
        manager.create_task(tell(), name="tell")
        yield
    print(f"the lifespan of {os.getpid()} is over", flush=True)


app = FastAPI(lifespan=lifespan)
install(app, manager, jobs=jobs)


@app.get("/result/{id}")
async def result(id: str) -> int:
    return await jobs.job(id).result(timeout=60)
