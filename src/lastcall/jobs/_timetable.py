"""Which schedules there are: what the store knows of them, and what this process declares. Pure.

Who calls it: `Jobs.schedules()`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ._declaration import Task
from ._rows import Overview
from ._scheduler import Cron


class Schedule(NamedTuple):
    """A schedule. `last_tick`: the last one that was fired or passed over, by the store. All else is as this process
    declares it; `declared` False: it does not, and then the schedule ticks only where somebody else does."""

    name: str
    declared: bool
    cron: str | None
    timezone: str | None
    catch_up: bool | None
    last_tick: float | None
    next_tick: float | None


def timetable(overview: Overview, tasks: Iterable[Task[..., Any]]) -> list[Schedule]:
    """By the next tick; what is not declared comes last. Of several versions of a task the last one counts: its jobs
    are what the ticks stand for."""
    last = {row.name: row.last_tick for row in overview.schedules}
    declared = {task.name: task.settings for task in tasks if task.settings.cron is not None}
    found = []
    for name, settings in declared.items():
        cron = Cron(f"task {name!r}: ", settings.cron or "", settings.timezone)
        next_tick = next(cron.ticks(max(overview.now, last.get(name) or 0.0)), None)
        found.append(
            Schedule(
                name, True, settings.cron, settings.timezone, settings.catch_up, last.get(name), next_tick
            )
        )
    found += [
        Schedule(name, False, None, None, None, at, None) for name, at in last.items() if name not in declared
    ]
    return sorted(found, key=lambda one: (one.next_tick is None, one.next_tick or 0.0, one.name))
