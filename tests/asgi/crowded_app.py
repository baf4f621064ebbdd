"""An app whose pages have much to show, for a reader that does not read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.fastapi import install

manager = TaskManager(plan=ShutdownPlan(drain=5, cancel=1, close=1))


async def _stay() -> None:
    await current_shutdown().wait()
    await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    for number in range(100):
        manager.create_task(_stay(), name=f"guest {number} " + "x" * 5000)
    yield


app = FastAPI(lifespan=lifespan)
install(app, manager)
