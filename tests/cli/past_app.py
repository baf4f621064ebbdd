"""An app whose ends are looked at afterwards; its store is in the current folder.

GUEST in the environment: a task that will not end is in it. PATIENCE: how long a report may take, in seconds.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI

from lastcall import ShutdownPlan, TaskManager
from lastcall.fastapi import install
from lastcall.jobs import Jobs, _shutdowns

# A machine that is busy with other things must take nothing from a report.
_shutdowns._PATIENCE_SECONDS = float(os.environ.get("PATIENCE", "30"))

jobs = Jobs("sqlite:///jobs.db?synchronous=off")
manager = TaskManager(name="bar", plan=ShutdownPlan(drain=0.2, cancel=0.2, close=120))


async def stays() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    if "GUEST" in os.environ:
        manager.create_task(stays(), name="the last guest")
    yield


app = FastAPI(lifespan=lifespan)
install(app, manager, jobs=jobs)
