"""The program of the README and of docs/quickstart.md: a web app whose jobs go on where they were.

lastcall serve quickstart:app, then POST /books/moby-dick; press Ctrl-C in the middle, start it again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import TaskManager
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs

jobs = Jobs("sqlite:///quickstart.db")


async def write(chapter: int) -> str:
    await asyncio.sleep(0.5)  # stands for a model, a download, a long computation
    print(f"chapter {chapter} is written", flush=True)
    return f"Chapter {chapter}"


@jobs.task(retries=3)
async def book(ctx: Context, title: str) -> list[str]:
    chapters = [await ctx.step(write, number) for number in range(1, 21)]
    print(f"{title} is done", flush=True)
    return chapters


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker(concurrency=10):
        yield


app = FastAPI(lifespan=lifespan)
install(app, TaskManager(), jobs=jobs)


@app.post("/books/{title}", status_code=202)
async def order(title: str) -> dict[str, str]:
    job = await book.options(key=title).submit(title)  # the same key: the same job
    return {"id": job.id}
