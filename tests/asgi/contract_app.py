"""The app whose face is tried by Schemathesis: every kind of page, jobs in every state, tasks that live and that ended.

uvicorn tests.asgi.contract_app:app; the store is the file in CONTRACT_STORE.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

from lastcall import ShutdownPlan, TaskManager
from lastcall.asgi import Access, DurableStreams, Lastcall
from lastcall.jobs import Context, Jobs
from lastcall.streams import Streams

jobs = Jobs(os.environ["CONTRACT_STORE"])


@jobs.task(name="analyse")
async def analyse(ctx: Context, folder: str = "docs/", pages: int = 1) -> int:
    return await ctx.step(_count, folder, pages)


def _count(folder: str, pages: int) -> int:
    return len(folder) * pages


@jobs.task(name="fail")
async def fail() -> None:
    raise ValueError("<script>alert('no such folder')</script>")


@jobs.task(name="wait")
async def wait(ctx: Context) -> Any:
    return await ctx.wait_for("approval")


@jobs.task(name="nightly", cron="0 3 * * *")
async def nightly() -> None: ...


@contextlib.asynccontextmanager
async def _lifespan() -> AsyncIterator[None]:
    manager.create_task(asyncio.sleep(3600), name="poll", id="poll-1", daemon=True)
    for task in (analyse, fail, wait):
        await task.submit()
    await analyse.options(delay=3600).submit("later/")
    for number in range(30, 60):
        await (await streams.create(f"chat/{number}")).append_json({"user": "<b>Hello</b>"}, {"agent": "Hi"})
    await streams.open("chat/30").close()
    await streams.open("chat/31").fork("chat/31/again", after=1)
    async with jobs.worker(manager=manager, concurrency=2):
        yield


async def _app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    async with _lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


streams = Streams()
# So short that whoever tries everything does not wait.
served = DurableStreams(streams, long_poll_seconds=0.2, sse_seconds=0.3)
manager = TaskManager(name="contract", plan=ShutdownPlan(drain=1, cancel=1, close=2))
app = Lastcall(_app, manager, jobs=jobs, streams=served, allow=Access(redact=lambda shown: shown.value))
