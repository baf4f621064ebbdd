"""What is read when somebody asks for metrics: counts of tasks, and of jobs in the store, a second old at most.

Who calls it: `otel` (on its exporter's thread) and `prometheus` (on the loop, or on the thread of a server). What it
owns: the last overview. What can go wrong: the store is away or slow; then there are no readings of jobs, and whoever
asks has waited a bounded time, on the loop not at all.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from . import _names as names
from ._core._manager import TaskManager
from ._core._roster import logger
from .exceptions import NotOpen

if TYPE_CHECKING:
    from .jobs import Jobs, Overview

_KEEP_SECONDS = 1.0
_WAIT_SECONDS = 2.0
_TRIES = 20


class Reading(NamedTuple):
    """One value of a metric; `labels` in the order of its attributes."""

    metric: names.Metric
    labels: tuple[str, ...]
    value: float


class Readings:
    """Of one manager and of one store, either of which may be missing."""

    def __init__(self, manager: TaskManager | None, jobs: Jobs | None) -> None:
        self._manager = manager
        self._jobs = jobs
        self._overview: Overview | None = None
        self._read_at = -_KEEP_SECONDS
        self._asking: asyncio.Task[None] | None = None

    def read(self) -> list[Reading]:
        """What is known now, without waiting."""
        readings = self._tasks_from_any_thread()
        if self._overview is not None:
            readings += _of_jobs(self._overview)
        return readings

    async def refresh(self) -> None:
        """Ask the store, unless that was done within the last second; all who ask now share one question. The wait is
        bounded; the loop is never held up. An answer that comes later is there for the next one who asks."""
        if not self._is_stale:
            return
        if self._asking is None:
            loop = asyncio.get_running_loop()
            self._asking = asyncio.Task(self._ask(), loop=loop, name="read the overview of jobs")
        await asyncio.wait({self._asking}, timeout=_WAIT_SECONDS)

    def refresh_from_thread(self) -> None:
        """The same from a thread that is not the loop's. Where no loop runs, or this is it, nothing."""
        loop = None if self._jobs is None else self._jobs.loop
        if loop is None:
            self._overview = None
        elif self._is_stale and asyncio._get_running_loop() is not loop:
            asked = asyncio.run_coroutine_threadsafe(self.refresh(), loop)
            try:
                asked.result(_WAIT_SECONDS * 1.5)
            except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                asked.cancel()  # the loop is busy or gone; what was read before is shown

    @property
    def _is_stale(self) -> bool:
        return time.monotonic() - self._read_at >= _KEEP_SECONDS

    async def _ask(self) -> None:
        try:
            jobs = self._jobs
            # A store that is closed is not opened by somebody who only looks.
            self._overview = None if jobs is None or jobs.loop is None else await jobs.overview()
        except Exception as error:
            self._overview = None
            logger.warning("there are no metrics of jobs: %s", error)
        finally:
            self._read_at = time.monotonic()
            self._asking = None

    def _tasks_from_any_thread(self) -> list[Reading]:
        for _ in range(_TRIES):
            try:
                return list(self._of_tasks())
            except RuntimeError:
                continue  # a task was born or ended on the loop while this thread counted
        return []

    def _of_tasks(self) -> Iterator[Reading]:
        manager = self._manager
        if manager is None:
            return
        name = manager.name
        yield Reading(names.READY, (name,), float(manager.ready))
        try:
            stats = manager.stats()
        except NotOpen:
            return
        yield Reading(names.TASKS, (name, "pending"), stats.pending)
        yield Reading(names.TASKS, (name, "running"), stats.running)
        yield Reading(names.CALLS, (name,), stats.calls)
        yield Reading(names.TASKS_ENDED, (name, "completed"), stats.completed)
        yield Reading(names.TASKS_ENDED, (name, "failed"), stats.failed)
        yield Reading(names.TASKS_ENDED, (name, "cancelled"), stats.cancelled)
        yield Reading(names.SWALLOWED, (name,), stats.swallowed)


def _of_jobs(overview: Overview) -> Iterator[Reading]:
    for (queue, status), count in overview.counts.items():
        yield Reading(names.JOBS, (queue, str(status)), count)
    workers = overview.workers
    yield Reading(names.WORKERS, (), len(workers))
    yield Reading(names.SLOTS, (), sum(worker.concurrency for worker in workers))
    yield Reading(names.LEASE_AGE, (), max((overview.now - each.renewed_at for each in workers), default=0.0))
