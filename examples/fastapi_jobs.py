"""Durable jobs in a FastAPI app: stop the server in the middle of a report, start it again, and it goes on.

uvicorn fastapi_jobs:app, then POST /reports/ada and press Ctrl-C at once: the chapter at hand is finished. Start it
again: it goes on with the next chapter. GET /lastcall/jobs lists all jobs, for clients on this machine.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException

from lastcall import TaskManager
from lastcall.exceptions import UnknownJob
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs

jobs = Jobs("sqlite:///fastapi_jobs.db")


def write_chapter(reader: str, number: int) -> str:
    """A step: a plain function runs in a thread. Once it has returned, it is never called again for this job."""
    time.sleep(0.3)
    print(f"chapter {number} for {reader}", flush=True)
    return f"Chapter {number}, for {reader}."


@jobs.task(retries=3)
async def write_report(ctx: Context, reader: str, chapters: int = 5) -> list[str]:
    text = []
    for number in range(1, chapters + 1):
        text.append(await ctx.step(write_chapter, reader, number))
        await ctx.progress(number, chapters)
    print(f"report for {reader} is done", flush=True)
    return text


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker(concurrency=10):  # or in a process of its own: lastcall worker fastapi_jobs:jobs
        yield


app = FastAPI(lifespan=lifespan)
install(app, TaskManager(), jobs=jobs)


@app.post("/reports/{reader}", status_code=202)
async def order(reader: str) -> dict[str, str]:
    # The key: who asks twice gets the job that is there.
    job = await write_report.options(key=reader).submit(reader)
    return {"id": job.id}


@app.get("/reports/{id}")
async def look(id: str) -> dict[str, Any]:
    try:
        info = await jobs.job(id).info()
    except UnknownJob as error:
        raise HTTPException(404, str(error)) from None
    return {"status": info.status, "progress": info.progress, "report": info.result}
