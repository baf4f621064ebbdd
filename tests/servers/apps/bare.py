"""The application without lastcall: what the servers do to its work shows that the tests can see a loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI
from starlette.responses import StreamingResponse

from .work import endless_events, finite, ledger


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    ledger.write("resource.opened")
    try:
        yield
    finally:
        ledger.write("resource.closed")


app = FastAPI(lifespan=lifespan)
_kept: set[asyncio.Task[None]] = set()


@app.get("/livez")
async def livez() -> dict[str, bool]:
    return {"ok": True}


@app.get("/sse-foreign")
async def sse_foreign() -> StreamingResponse:
    return StreamingResponse(endless_events("sse-foreign"), media_type="text/event-stream")


@app.post("/background-async")
async def background_async(background: BackgroundTasks) -> dict[str, bool]:
    background.add_task(finite, "background-async")
    return {"ok": True}


@app.post("/task")
async def task() -> dict[str, bool]:
    task = asyncio.create_task(finite("task"))
    _kept.add(task)
    task.add_done_callback(_kept.discard)
    return {"ok": True}
