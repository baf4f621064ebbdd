"""Durable jobs in a FastAPI app: the store lives as long as the work, on test clients and on the real uvicorn."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from lastcall import InstallError, TaskManager, current_shutdown
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs, Worker
from tests.asgi.driver import get, running
from tests.asgi.testclient import TestClient
from tests.cli.program import WAIT_SECONDS, Program
from tests.fastapi.jobs_app import STEPS


def make_app(folder: Path) -> tuple[FastAPI, TaskManager, Jobs, list[Worker]]:
    jobs, manager, workers = Jobs(f"sqlite:///{folder}/jobs.db"), TaskManager(), list[Worker]()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with jobs.worker() as worker:
            workers.append(worker)
            yield

    @jobs.task(name="double")
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    app = FastAPI(lifespan=lifespan)
    install(app, manager, jobs=jobs)

    @app.post("/double/{n}")
    async def endpoint(n: int) -> Any:
        return await (await double.submit(n)).result(timeout=10)

    return app, manager, jobs, workers


async def test_a_worker_in_the_lifespan_drains_with_the_app(tmp_path: Path) -> None:
    """It uses the app's manager without being told which, and the store is closed when all is over."""
    app, manager, jobs, workers = make_app(tmp_path)
    async with running(app):
        assert (await get(app, "/double/4", method="POST")).json() == 8
        assert [worker.manager for worker in workers] == [manager]
        [job] = (await get(app, "/lastcall/jobs")).json()["jobs"]
        assert (job["task"], job["status"]) == ("double", "completed")
    assert not jobs._client.is_open
    assert manager.report is not None and manager.report.clean
    names = [resource.name for resource in manager.report.resources]
    assert names == [f"worker {workers[0].id}", "jobs"]


async def test_a_job_is_handed_over_when_the_app_stops(tmp_path: Path) -> None:
    """The next start of the same app goes on with it, and no attempt is charged."""
    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
    began, went_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with jobs.worker():
            yield

    async def first() -> int:
        began.set()
        await current_shutdown().wait()
        return 1

    async def second() -> int:
        went_on.set()
        return 2

    @jobs.task(name="two steps")
    async def two(ctx: Context) -> int:
        return await ctx.step(first) + await ctx.step(second)

    app = FastAPI(lifespan=lifespan)
    manager = install(app, jobs=jobs)
    async with running(app):
        job = await two.submit()
        await began.wait()
    assert manager.report is not None and manager.report.clean, manager.report
    assert not went_on.is_set()
    async with running(app):
        assert await job.result(timeout=10) == 3
        outcomes = [attempt.outcome for attempt in await job.attempts()]
        assert outcomes == ["handed_over", "completed"]
        assert (await job.info()).failures == 0


def test_a_test_client_may_start_the_app_several_times(tmp_path: Path) -> None:
    """Each `with TestClient(app)` is a lifespan on a loop of its own; the store follows."""
    app, _, jobs, _ = make_app(tmp_path)
    options: dict[str, Any] = {"base_url": "http://localhost", "client": ("127.0.0.1", 50000)}
    for number in range(1, 4):
        with TestClient(app, **options) as client:
            assert client.post(f"/double/{number}").json() == 2 * number
            made = client.post("/lastcall/jobs", json={"task": "double", "args": {"n": 1}, "key": "k"})
            assert made.status_code == (202 if number == 1 else 200)
            assert len(client.get("/lastcall/jobs").json()["jobs"]) == number + 1
        assert not jobs._client.is_open


@pytest.mark.parametrize(
    ("path", "method"),
    [("/lastcall/jobs", "GET"), ("/lastcall/jobs", "POST"), ("/lastcall/jobs/{id}", "GET")],
)
def test_routes_on_the_pages_of_jobs_are_refused(tmp_path: Path, path: str, method: str) -> None:
    """Such a route would never be reached, with jobs or without; the app is left as it was."""
    app = FastAPI()
    app.add_api_route(path, lambda: None, methods=[method])
    with pytest.raises(InstallError, match="collides"):
        install(app, jobs=Jobs(f"sqlite:///{tmp_path}/jobs.db"))
    with pytest.raises(InstallError, match="collides"):
        install(app)
    install(app, prefix="/internal")


# --- the real server ---


class Server:
    """jobs_app.py under uvicorn, on a port of its own."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self._port = port

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT_SECONDS)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.load(response)
        finally:
            connection.close()


@contextmanager
def uvicorn(folder: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        target = ["tests.fastapi.jobs_app:app", "--fd", str(listener.fileno())]
        with Program(["-m", "uvicorn", *target], cwd=folder, keep=[listener.fileno()]) as program:
            program.wait_for("Application startup complete")
            yield Server(program, listener.getsockname()[1])


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_deploy_repeats_no_step(tmp_path: Path, number: signal.Signals) -> None:
    """
    1. A job of six steps is submitted over HTTP; the signal comes in the middle of its third step.
    2. The server ends after that step. Another server is started on the same file.
    Result: it goes on with the fourth step; every step ran once, and nothing was charged.
    """
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        with uvicorn(tmp_path) as server:
            status, job = server.ask("POST", "/lastcall/jobs", {"task": "count", "args": {"steps": STEPS}})
            assert status == 202
            os.write(pipe, b"..")
            server.program.wait_for("begin 2", on="out")
            server.program.signal(number)
            server.program.wait_for("told to stop", on="out")
            os.write(pipe, b".")
            assert server.program.wait() == (0 if number is signal.SIGINT else -number)
            assert "the lifespan of" in server.program.out
            assert not re.search("Traceback|NOT clean|[Ww]arning", server.program.err), server.program.err
        assert (tmp_path / "ledger").read_text().splitlines()[-1] == "end 2"
        with uvicorn(tmp_path) as server:
            os.write(pipe, b"." * STEPS)
            assert server.ask("GET", f"/result/{job['id']}") == (200, sum(range(STEPS)))
            _, shown = server.ask("GET", f"/lastcall/jobs/{job['id']}")
            server.program.signal(signal.SIGTERM)
            server.program.wait()
    finally:
        os.close(pipe)
    lines = [f"{what} {n}" for n in range(STEPS) for what in ("begin", "end")]
    assert (tmp_path / "ledger").read_text().splitlines() == lines
    assert (shown["status"], shown["result"], shown["failures"]) == ("completed", sum(range(STEPS)), 0)
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["handed_over", "completed"]
