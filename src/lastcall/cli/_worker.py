"""``lastcall worker``: runs the jobs of an app in a process of its own, until it is told to stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import lastcall
from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.cli._load import load_jobs
from lastcall.cli._say import Unusable
from lastcall.exceptions import InvalidPlan, JobError
from lastcall.jobs import Jobs, Worker

logger = logging.getLogger("lastcall")


def run_worker(
    target: str,
    *,
    concurrency: int,
    queues: Sequence[str],
    notice: float,
    drain: float,
    cancel: float,
    close: float,
    log_level: str,
) -> None:
    """Work until a signal comes. Raises `Unusable` if it cannot begin, SystemExit if its end is not clean."""
    jobs = load_jobs(target)
    _log_to_stderr(log_level)
    try:
        plan = ShutdownPlan(notice=notice, drain=drain, cancel=cancel, close=close)
        manager = TaskManager(name="worker", plan=plan)
        worker = jobs.worker(concurrency=concurrency, queues=queues or None, manager=manager)
        lastcall.run(_work(jobs, manager, worker, f"{concurrency} at once, {_queues(queues)}"))
    except (JobError, InvalidPlan) as error:
        raise Unusable(str(error)) from None


async def _work(jobs: Jobs, manager: TaskManager, worker: Worker, how: str) -> None:
    # Before the manager: a store that cannot be opened is one line, and not the report of a shutdown.
    await jobs.open()
    try:
        async with manager:
            await manager.enter(jobs, name="jobs")
            async with worker:
                _tell_start(jobs, worker, how)
                await current_shutdown().wait()
    finally:
        await jobs.close()


def _tell_start(jobs: Jobs, worker: Worker, how: str) -> None:
    tasks = [name + (f" (version {version})" if version else "") for name, version in jobs.tasks]
    logger.info("worker %s on %r: %s, tasks: %s", worker.id, jobs.engine, how, ", ".join(tasks) or "none")
    if not tasks:
        logger.warning("no task is declared on these jobs, so nothing will run; is every module imported?")


def _queues(queues: Sequence[str]) -> str:
    return f"queues: {', '.join(queues)}" if queues else "all queues"


def _log_to_stderr(level: str) -> None:
    """Unless the app has configured logging when it was imported: then our lines go where it wants them."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logger.setLevel(level.upper())
