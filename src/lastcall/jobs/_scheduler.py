"""Cron schedules: each tick becomes one job, whoever of the workers is first.

The only file that imports cronsim, which evaluates cron expressions the way Debian's cron does, also where clocks are
put forward and back. Every worker that declares a schedule keeps its time; `fire` lets one of them win a tick.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import dropwhile, takewhile
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from .._core._roster import logger
from ..exceptions import BadArguments, BadDeclaration
from ._client import Client
from ._declaration import Task
from ._service import Service

# So many missed ticks are caught up at most; a schedule that slept for a year must not fill the queue.
_CAUGHT_UP = 100

_LOOK_SECONDS = 60.0


class Cron:
    """A checked cron expression in its time zone. Raises `BadDeclaration` for one that is none."""

    def __init__(self, where: str, expression: str, timezone: str) -> None:
        if not isinstance(expression, str):
            raise BadDeclaration(f"{where}cron must be a string like '*/5 * * * *', not {expression!r}")
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
            raise BadDeclaration(
                f"{where}there is no time zone {timezone!r}; use a name like 'Europe/Berlin' (some systems need the "
                "package tzdata for it)"
            ) from None
        self._expression = expression
        try:
            next(CronSim(expression, datetime.now(self._zone)))
        except CronSimError as error:
            raise BadDeclaration(f"{where}{expression!r} is no cron expression: {error}") from None
        except StopIteration:
            raise BadDeclaration(f"{where}{expression!r} never comes: there is no such date") from None

    def ticks(self, after: float) -> Iterator[float]:
        """The ticks after a moment, in order, as seconds since the epoch."""
        start = datetime.fromtimestamp(after, UTC).astimezone(self._zone)
        times = (tick.timestamp() for tick in CronSim(self._expression, start))
        # An hour that comes twice has its ticks in the first pass; asked in the second one, cronsim repeats them.
        return dropwhile(lambda tick: tick <= after, times)

    def last_ticks(self, after: float, until: float, most: int) -> list[float]:
        """The last ticks, `most` of them, of those after one moment and not after another, in order.

        Looked for in ever longer stretches before the end: a year of minutes takes seconds to go through.
        """
        stretch = _LOOK_SECONDS
        while True:
            start = max(after, until - stretch)
            found = list(takewhile(lambda tick: tick <= until, self.ticks(start)))
            if len(found) >= most or start == after:
                return found[-most:]
            stretch *= 4


class Plan:
    """Which ticks of a schedule to fire, to pass over, and when to look again. Pure."""

    __slots__ = ("fire", "next_at", "pass_over")

    def __init__(self, cron: Cron, last_tick: float, now: float, catch_up: bool) -> None:
        due = cron.last_ticks(last_tick, now, _CAUGHT_UP)
        # One that has only just come is fired; what was missed before it, only if that is wanted.
        late = [tick for tick in due if now - tick > _LOOK_SECONDS]
        self.fire = due if catch_up else due[len(late) :][-1:]
        self.pass_over = late[-1] if late and not catch_up else None
        self.next_at = next(cron.ticks(now), now + _LOOK_SECONDS)


class Scheduler(Service):
    """Fires what the declared tasks' schedules say."""

    name = "scheduler"

    def __init__(self, client: Client, tasks: list[Task[Any, Any]], crons: dict[str, Cron]) -> None:
        super().__init__()
        self._client = client
        # Of several versions the one declared last: its jobs are what the ticks stand for now.
        self._tasks = list({task.name: task for task in tasks if task.settings.cron is not None}.values())
        self._crons = crons

    async def run_once(self) -> float | None:
        if not self._tasks:
            return None
        overview = await self._client.engine.overview()
        last = {row.name: row.last_tick for row in overview.schedules}
        next_at = overview.now + _LOOK_SECONDS
        for task in self._tasks:
            next_at = min(next_at, await self._run_one(task, last.get(task.name), overview.now))
        return max(0.01, next_at - overview.now)

    async def _run_one(self, task: Task[Any, Any], last_tick: float | None, now: float) -> float:
        engine = self._client.engine
        if last_tick is None:
            await engine.fire(task.name, now, None)  # new: the past is not its business
            last_tick = now
        plan = Plan(self._crons[task.name], last_tick, now, task.settings.catch_up)
        if plan.pass_over is not None and await engine.fire(task.name, plan.pass_over, None):
            logger.warning(
                "schedule %r: missed ticks were passed over (catch_up=False)",
                task.name,
                extra={"event": "schedule.passed_over"},
            )
        for tick in plan.fire:
            # The key besides: a tick that was fired is not fired again by a store that was restored from a backup.
            job = task.options(key=f"cron {tick:.0f}").call().job
            if await engine.fire(task.name, tick, job):
                self._client.work_arrived()
        return plan.next_at


def crons_of(tasks: list[Task[Any, Any]]) -> dict[str, Cron]:
    """The schedules of these tasks. Raises `BadDeclaration` for a task that cannot be called without arguments."""
    crons = {}
    for task in tasks:
        settings = task.settings
        if settings.cron is not None:
            try:
                task.call()
            except BadArguments as error:
                raise BadDeclaration(
                    f"task {task.name!r} has a schedule, so it must need no arguments: {error}"
                ) from None
            crons[task.name] = Cron(f"task {task.name!r}: ", settings.cron, settings.timezone)
    return crons
