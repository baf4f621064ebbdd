"""A server as users write it: jobs and their worker in one web process; several of them share one file."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import ShutdownPlan, TaskManager
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs

jobs = Jobs("sqlite:///jobs.db")
manager = TaskManager(plan=ShutdownPlan(drain=1.0, cancel=2.0, close=2.0))
PACE_SECONDS = float(os.environ.get("PACE_SECONDS", "0.02"))


def token(name: str, n: int) -> str:
    """Every token is another one, so that a lost or a repeated one is seen."""
    return f"{name}.{n} "


async def say(ctx: Context, name: str, count: int) -> str:
    async with ctx.stream("answer") as out:
        for n in range(len(out.text_so_far.split()), count):
            await out.write(token(name, n))
            await asyncio.sleep(PACE_SECONDS)
        return out.text_so_far


@jobs.task(name="speak", max_lost=1000)
async def speak(ctx: Context, name: str, count: int, policy: str) -> str:
    return await ctx.step(say, ctx, name, count, name="say", policy=policy)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker(concurrency=100):
        yield


app = FastAPI(lifespan=lifespan)
install(app, manager, jobs=jobs)
