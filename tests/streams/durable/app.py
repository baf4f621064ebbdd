"""Streams behind a real server. DURABLE_STREAMS_DATABASE names a file; without it they are in memory."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lastcall import TaskManager
from lastcall.asgi import DurableStreams
from lastcall.fastapi import install
from lastcall.jobs import Jobs
from lastcall.streams import Streams

DATABASE = os.environ.get("DURABLE_STREAMS_DATABASE")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield


app = FastAPI(lifespan=lifespan)
jobs = Jobs(f"sqlite:///{DATABASE}") if DATABASE else None
streams = Streams() if jobs is None else jobs.streams
install(
    app,
    TaskManager(),
    jobs=jobs,
    streams=DurableStreams(streams, origins=["*"]),
    allow=lambda scope: True,
)
