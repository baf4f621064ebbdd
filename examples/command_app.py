"""The app of docs/cli.md, whose sessions a test runs: jobs with a schedule and a stream, behind FastAPI."""

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import ShutdownPlan, TaskManager
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs

jobs = Jobs("sqlite:///jobs.db")


@jobs.task(name="report", cron="0 4 * * *")
async def report(ctx: Context) -> None:
    async with ctx.stream("text") as out:
        for word in "last orders please".split():
            await out.write(f"{word} ")
            await asyncio.sleep(0.1)


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with jobs.worker():
        yield


app = FastAPI(lifespan=lifespan)
install(app, TaskManager(plan=ShutdownPlan(drain=15, cancel=3, close=2)), jobs=jobs)
