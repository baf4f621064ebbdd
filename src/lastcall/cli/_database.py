"""``lastcall db``: looks at a store's schema, and migrates it by opening it."""

from __future__ import annotations

import asyncio
from typing import Any

from lastcall.cli._load import find_jobs
from lastcall.cli._say import Unusable, complain, complain_of, write, write_json
from lastcall.cli._schema import Schema, schema_of, shown
from lastcall.exceptions import JobError
from lastcall.jobs import Jobs

CURRENT, PENDING, UNUSABLE = 0, 1, 2

_PENDING = ("old", "missing", "empty")


def run_db(url: str | None, target: str | None, verb: str, *, as_json: bool) -> int:
    """Carry it out, and answer the exit code."""
    try:
        jobs = find_jobs(url, target)
        return asyncio.run((status if verb == "status" else migrate)(jobs, as_json=as_json))
    except (Unusable, JobError, ValueError) as error:
        complain_of(error)
        return UNUSABLE


async def status(jobs: Jobs, *, as_json: bool) -> int:
    """Where it stands; the counts only if that needs no migration."""
    schema = await schema_of(jobs.engine)
    told: dict[str, Any] = {"store": shown(jobs.engine), **_shown(schema)}
    if schema.word == "current":
        async with jobs:
            overview = await jobs.overview()
        counts: dict[str, int] = {}
        for (_, state), count in overview.counts.items():
            counts[state.value] = counts.get(state.value, 0) + count
        told |= {"jobs": counts, "workers": len(overview.workers)}
    if as_json:
        write_json(told)
    else:
        write("".join(f"{line}\n" for line in _lines(told)))
    if schema.word == "too new":
        complain(f"{schema.why}; upgrade lastcall. Nothing was changed")
        return UNUSABLE
    return PENDING if schema.word in _PENDING else CURRENT


async def migrate(jobs: Jobs, *, as_json: bool) -> int:
    """Opening migrates."""
    before = await schema_of(jobs.engine)
    async with jobs:
        await jobs.open()
    after = await schema_of(jobs.engine)
    if as_json:
        write_json({"store": shown(jobs.engine), "before": before.found, **_shown(after)})
    elif before.found == after.found:
        write(f"{shown(jobs.engine)}: the schema is current, version {after.found}\n")
    else:
        write(f"{shown(jobs.engine)}: the schema is brought from version {before.found} to {after.found}\n")
    return CURRENT


def _shown(schema: Schema) -> dict[str, Any]:
    return {"schema": schema.word, "found": schema.found, "known": schema.known}


def _lines(told: dict[str, Any]) -> list[str]:
    found = "a newer one" if told["found"] is None else f"version {told['found']}"
    lines = [f"store    {told['store']}", f"schema   {told['schema']}: {found}, known here: {told['known']}"]
    if "jobs" in told:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(told["jobs"].items()) if count)
        lines += [f"jobs     {counts or 'none'}", f"workers  {told['workers']}"]
    return lines
