"""``lastcall schedules``: the verbs on a store and the declarations of its app."""

from __future__ import annotations

from lastcall.cli._inspect import DONE, Verb
from lastcall.cli._say import Unusable, write, write_json
from lastcall.cli._tables import draw_schedules
from lastcall.jobs import Jobs, Task


async def list_schedules(jobs: Jobs, *, as_json: bool) -> int:
    """What is declared, and what is only stored."""
    overview = await jobs.overview()
    rows = await jobs.schedules()
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


def _declared(jobs: Jobs) -> dict[str, Task[..., object]]:
    """Of several versions of a task the one declared last: its jobs are what the ticks stand for."""
    return {name: task for (name, _), task in jobs.tasks.items() if task.settings.cron is not None}


VERBS: dict[str, Verb] = {"list": list_schedules, "run": run}
