"""An answer that a browser watches as it is written, and goes on watching through restarts and crashes.

Run uvicorn streaming_jobs:app, open the page, ask, and press Ctrl-C, or kill -9 the server. Start it again:
the job goes on where it stood, and so does the page.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from lastcall import TaskManager
from lastcall.fastapi import LogResponse, install
from lastcall.jobs import Context, Jobs

jobs = Jobs("sqlite:///streaming_jobs.db")


async def model(question: str, words: int, said: str) -> AsyncIterator[str]:
    """Stands in for `llm.astream(prompt)`, with a model that can be asked to go on behind what it has said."""
    text = "".join(f"{n}. {question} <b>“well…”</b> 🍷\n" for n in range(words))
    for begin in range(len(said), len(text), 7):
        yield text[begin : begin + 7]
        await asyncio.sleep(0.02)


@jobs.task(retries=3)
async def answer(ctx: Context, question: str, words: int = 40) -> str:
    async with ctx.stream("answer", policy="continue") as out:
        async for token in model(question, words, out.text_so_far):
            await out.write(token)
    return out.text_so_far


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker(concurrency=10):
        yield


app = FastAPI(lifespan=lifespan)
install(app, TaskManager(), jobs=jobs)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("live.html"))


@app.post("/answers", status_code=202)
async def ask(question: str, words: int = 40) -> dict[str, str]:
    job = await answer.submit(question, words)
    return {"id": job.id}


# Who may read an answer is for this route to check.
@app.get("/answers/{id}/events")
async def events(id: str) -> LogResponse:
    return LogResponse(jobs.job(id))
