"""A service without durable jobs: `uvicorn tests.dashboard.tasks_only:app`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import TaskManager
from lastcall.fastapi import install

manager = TaskManager(name="a kiosk")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    manager.create_task(asyncio.sleep(3600), name="sweep the floor", daemon=True)
    yield


app = FastAPI(lifespan=lifespan)
install(app, manager)
