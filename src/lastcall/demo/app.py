"""The service that `lastcall demo` runs. Copy from here.

The analysis is a durable job (`job.py`); a worker in the lifespan runs it, and everything drains under one plan. A stop
hands the job over after the files at hand, and lets the streams say good-bye.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse

from lastcall import ShutdownPlan, TaskManager
from lastcall.demo.database import usual_place
from lastcall.demo.study import Study
from lastcall.engines.sqlite import SqliteEngine
from lastcall.fastapi import StreamResponse, install
from lastcall.jobs import Jobs

# One file may have a hundred thousand definitions, and a report has those of all files.
PAYLOAD_BYTES_MAX = 256 << 20


def build(
    path: Path | None = None,
    *,
    limit: int = 4,
    manager: TaskManager | None = None,
    database: Path | None = None,
) -> FastAPI:
    """Make the service for one folder (without one: a part of Python's standard library).

    The analysis begins, or goes on, when the service starts. `database`: where it is kept (default: a file for this
    user). The app's `state.study` holds what is known so far, `state.jobs` the store.

    >>> uvicorn.run(build(Path("docs")))
    """
    manager = manager or TaskManager(name="lastcall demo", plan=ShutdownPlan(drain=10, cancel=3, close=2))
    engine = SqliteEngine(str(database or usual_place().path))
    jobs = Jobs(engine, max_payload_bytes=PAYLOAD_BYTES_MAX)
    study = Study(path, jobs, manager, limit=limit)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await study.begin()
        async with jobs.worker(concurrency=1, queues=[study.queue]):
            manager.create_task(study.follow(), name="follow the job", daemon=True)
            manager.create_task(study.hear_of_stop(), name="hear of a stop", daemon=True)
            yield

    app = FastAPI(title="lastcall demo", lifespan=lifespan)
    app.state.study = study
    app.state.jobs = jobs
    install(app, manager, jobs=jobs)

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return files("lastcall.demo").joinpath("page.html").read_text("utf-8")

    @app.get("/progress")
    def progress() -> StreamResponse:
        return StreamResponse(study.updates())

    @app.get("/summary")
    def summary() -> StreamResponse:
        return StreamResponse(study.summary())

    @app.get("/report")
    def report() -> Response:
        if study.report is None:
            return JSONResponse(study.progress(), status_code=202)
        return JSONResponse(study.report.to_json())

    return app
