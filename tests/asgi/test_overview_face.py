"""PREFIX/overview: the store at a glance."""

from pathlib import Path
from typing import Any

from lastcall import TaskManager
from lastcall.asgi import Lastcall
from lastcall.jobs import Jobs
from tests.asgi.driver import get, running
from tests.asgi.test_face import not_found


async def test_counts_workers_and_schedules(tmp_path: Path) -> None:
    """Jobs by queue and in all, who works with which lease; the same as the command shows. Without jobs: no page."""
    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")

    @jobs.task(name="later", queue="slow")
    async def later() -> None: ...

    app: Any = Lastcall(not_found, TaskManager(), jobs=jobs)
    async with running(app):
        await later.options(delay=3600).submit()
        async with jobs.worker(manager=app.manager, concurrency=3, queues=["slow"]) as worker:
            shown = (await get(app, "/lastcall/overview")).json()
        assert (shown["jobs"], shown["queues"]) == ({"scheduled": 1}, {"slow": {"scheduled": 1}})
        [row] = shown["workers"]
        assert (row["id"], row["concurrency"], row["queues"]) == (worker.id, 3, ["slow"])
        assert row["lease_seconds"] > 0 and row["renewed_at"] <= shown["now"] and shown["schedules"] == []
        assert (await get(app, "/lastcall/overview", method="POST")).status == 405
    assert (await get(app, "/lastcall/overview")).status == 503
    async with running(bare := Lastcall(not_found, TaskManager())):
        assert (await get(bare, "/lastcall/overview")).status == 404
