"""A shop that can be watched: traces, metrics, logs in JSON.

uvicorn observability:app, then POST /orders/tea, and look at /lastcall/metrics and at what is printed.
"""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from pythonjsonlogger.json import JsonFormatter

from lastcall import TaskManager
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs
from lastcall.logs import ContextFilter
from lastcall.otel import instrument
from lastcall.prometheus import Metrics

# --- logs: ids in every line ---

handler = logging.StreamHandler(sys.stderr)
handler.addFilter(ContextFilter())
handler.setFormatter(JsonFormatter("{levelname}{name}{message}", style="{", timestamp=True))
logging.basicConfig(level=logging.INFO, handlers=[handler])
log = logging.getLogger("shop")

# --- traces: to a console here, to a collector with OTLPSpanExporter() ---

provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)

# --- the shop ---

manager = TaskManager(name="shop")
jobs = Jobs("sqlite:///orders.db")


async def charge(order: str) -> str:
    log.info("charging")
    return f"receipt for {order}"


@jobs.task
async def fulfil(ctx: Context, order: str) -> str:
    log.info("fulfilling %s", order)
    return await ctx.step(charge, order)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker():
        yield
    provider.force_flush()


app = FastAPI(lifespan=lifespan)
instrument(manager, jobs=jobs)
install(app, manager, jobs=jobs, metrics=Metrics(manager, jobs=jobs))


@app.post("/orders/{order}")
async def order(order: str) -> dict[str, str]:
    with trace.get_tracer("shop").start_as_current_span("POST /orders"):
        job = await fulfil.submit(order)
    return {"job": job.id, "receipt": await job.result(timeout=30)}
