"""An app that `lastcall serve` is tried on; its store is in the current folder.

Each part of `tell` takes until somebody writes a byte into the pipe, and so does GET /slow.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import ShutdownPlan, TaskManager
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs
from lastcall.streams import Streams

jobs = Jobs("sqlite:///jobs.db", lease_seconds=1.5)


def wait_for_byte() -> None:
    with open("pipe", "rb", buffering=0) as pipe:
        pipe.read(1)


@jobs.task(name="tell")
async def tell(ctx: Context, parts: int) -> None:
    async def part(n: int) -> None:
        async with ctx.stream("story") as out:
            await out.write(f"part {n}, ")
        print(f"begin {n}", flush=True)
        await asyncio.to_thread(wait_for_byte)

    for n in range(parts):
        await ctx.step(part, n)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker():
        yield


app = FastAPI(lifespan=lifespan)
manager = install(
    app, TaskManager(plan=ShutdownPlan(drain=20, cancel=1, close=1)), jobs=jobs, streams=Streams()
)


@app.get("/slow")
async def slow() -> str:
    print("slow begins", flush=True)
    await asyncio.to_thread(wait_for_byte)
    return "done"


@app.post("/endless")
async def endless() -> str:
    manager.create_task(asyncio.sleep(3600), name="endless")
    return "begun"


short_app = FastAPI()
short = install(short_app, TaskManager(plan=ShutdownPlan(drain=0.2, cancel=0.2, close=1)))


@short_app.post("/endless")
async def endless_for_a_while() -> str:
    short.create_task(asyncio.sleep(3600), name="endless")
    return "begun"


plain = FastAPI()


@asynccontextmanager
async def broken_lifespan(app: FastAPI) -> AsyncIterator[None]:
    raise RuntimeError("no beer left")
    yield


broken = FastAPI(lifespan=broken_lifespan)
