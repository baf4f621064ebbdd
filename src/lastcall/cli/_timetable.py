"""``lastcall schedules``: the verbs on a store and the declarations of its app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lastcall.cli._inspect import DONE, Verb
from lastcall.cli._say import Unusable, write, write_json
from lastcall.cli._tables import draw_schedules
from lastcall.jobs import Jobs, Overview, Task
from lastcall.jobs._scheduler import Cron


class Scheduled(NamedTuple):
    """A schedule as the store knows it (`last_tick`) and as the app declares it (all else)."""

    name: str
    cron: str | None
    timezone: str | None
    catch_up: bool | None
    last_tick: float | None
    next_tick: float | None


async def list_schedules(jobs: Jobs, *, as_json: bool) -> int:
    """What is declared, and what is only stored."""
    overview = await jobs.overview()
    rows = timetable(overview, _declared(jobs))
    if as_json:
        write_json({"now": overview.now, "schedules": [row._asdict() for row in rows]})
    else:
        write(draw_schedules([row._asdict() for row in rows], overview.now, declared=bool(jobs.tasks)))
    return DONE


async def run(jobs: Jobs, name: str, *, as_json: bool) -> int:
    """Submit the job of a schedule now."""
    declared = _declared(jobs)
    if name not in declared:
        known = ", ".join(sorted(declared)) or "none; give --app"
        raise Unusable(f"no schedule {name!r} is declared here; declared are: {known}")
    job = await declared[name].submit()
    if as_json:
        write_json({"id": job.id, "task": name})
    else:
        write(f"{job.id}\n")
    return DONE


def timetable(overview: Overview, declared: Mapping[str, Task[..., object]]) -> list[Scheduled]:
    """By the next tick; what never ticks comes last. Pure."""
    last = {row.name: row.last_tick for row in overview.schedules}
    rows = []
    for name, task in declared.items():
        settings = task.settings
        cron = Cron(f"task {name!r}: ", settings.cron or "", settings.timezone)
        next_tick = next(cron.ticks(max(overview.now, last.get(name) or 0.0)), None)
        rows.append(
            Scheduled(name, settings.cron, settings.timezone, settings.catch_up, last.get(name), next_tick)
        )
    rows += [Scheduled(name, None, None, None, at, None) for name, at in last.items() if name not in declared]
    return sorted(rows, key=lambda row: (row.next_tick is None, row.next_tick or 0.0, row.name))


def _declared(jobs: Jobs) -> dict[str, Task[..., object]]:
    """Of several versions of a task the one declared last: its jobs are what the ticks stand for."""
    return {name: task for (name, _), task in jobs.tasks.items() if task.settings.cron is not None}


VERBS: dict[str, Verb] = {"list": list_schedules, "run": run}
