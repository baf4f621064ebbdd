"""PREFIX/overview, workers, schedules, task-names: the store at a glance, and what this process can submit.

Who calls it: `_face`, where there are jobs, and the live feed. For screens that are looked at all the time: the cost
grows with the jobs that are queued, held or failed, which are counted, and not with those that have completed.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from ..exceptions import UnknownTaskName
from . import _examples as examples
from . import _models as models
from ._jobs_face import WHERE, JobsFace
from ._jobs_json import show_overview
from ._pages import Answer, Request, Route, Says

if TYPE_CHECKING:
    from ..jobs import Overview


class OverviewFace:
    """The pages."""

    def __init__(self, jobs: JobsFace) -> None:
        self._jobs = jobs

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "overview",
                self._overview,
                "Jobs by status and queue, workers, schedules.",
                {200: Says("the counts", models.Overview, examples.OVERVIEW)},
                refuses=(503,),
            ),
            Route(
                "GET",
                "workers",
                self._workers,
                "The workers of the store with their leases, of all processes.",
                {200: Says("the workers", models.Workers, examples.WORKERS)},
                refuses=(503,),
            ),
            Route(
                "GET",
                "schedules",
                self._schedules,
                "The schedules: what the store knows, and what this process declares.",
                {200: Says("by their next tick", models.Schedules, examples.SCHEDULES)},
                refuses=(503,),
            ),
            Route(
                "POST",
                "schedules/{name}/run",
                self._run,
                "Submit the job of a schedule now, beside its ticks.",
                {202: Says("it is written down", models.SubmittedJob, examples.JOB, headers=WHERE)},
                refuses=(404, 422, 503),
            ),
            Route(
                "GET",
                "task-names",
                self._task_names,
                "The tasks that are declared here.",
                {200: Says("by name", models.TaskNames, examples.TASK_NAMES)},
            ),
        ]

    async def look(self) -> dict[str, Any]:
        """The overview as JSON. Raises `NotOpen`, `EngineUnavailable`."""
        with self._jobs.store() as jobs:
            overview = await jobs.overview()
        return {**show_overview(overview), "workers": _workers(overview)}

    async def _overview(self, request: Request) -> Answer:
        return Answer(200, await self.look())

    async def _workers(self, request: Request) -> Answer:
        shown = await self.look()
        return Answer(200, {"now": shown["now"], "workers": shown["workers"]})

    async def _schedules(self, request: Request) -> Answer:
        with self._jobs.store() as jobs:
            now = (await jobs.overview()).now
            schedules = await jobs.schedules()
        return Answer(200, {"now": now, "schedules": [schedule._asdict() for schedule in schedules]})

    async def _run(self, request: Request) -> Answer:
        name = request.words["name"]
        with self._jobs.store() as jobs:
            task = jobs.task_named(name)
            if task.settings.cron is None:
                raise UnknownTaskName(f"the task {name[:200]!r} has no schedule; submit it")
            job = await task.submit()
            return await self._jobs.submitted(request, jobs, name, job.id, created=True)

    async def _task_names(self, request: Request) -> Answer:
        with self._jobs.store() as jobs:
            listed = sorted(jobs.tasks.items())
        return Answer(200, {"tasks": [_task_name(task.settings) for _, task in listed]})


def _workers(overview: Overview) -> list[dict[str, Any]]:
    here = (socket.gethostname(), os.getpid())
    return [
        {
            **worker._asdict(),
            "queues": None if worker.queues is None else sorted(worker.queues),
            "lease_left_seconds": worker.renewed_at + worker.lease_seconds - overview.now,
            "is_here": (worker.host, worker.pid) == here,
        }
        for worker in overview.workers
    ]


def _task_name(settings: Any) -> dict[str, Any]:
    return {
        "name": settings.name,
        "version": settings.version,
        "queue": settings.queue,
        "retries": settings.retries,
        "timeout_seconds": settings.timeout_seconds,
        "cron": settings.cron,
        "timezone": None if settings.cron is None else settings.timezone,
    }
