"""The facts: from the app as it is imported, the command line, the manifests, the store. Looks, and changes nothing.

The store is opened only if its schema is that of this code, because opening an older one would migrate it.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lastcall.asgi import KILL_AFTER_VARIABLE
from lastcall.cli._find import find_lastcall
from lastcall.cli._load import load_app, load_jobs
from lastcall.cli._say import Unusable
from lastcall.cli._schema import Schema, schema_of, shown
from lastcall.cli.doctor._facts import App, Facts, Store
from lastcall.cli.doctor._manifest import Pod, read_manifests
from lastcall.cli.doctor._server_words import Server, parse_server, split_command
from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import JobError
from lastcall.jobs import JobInfo, Jobs, JobStatus

_LOOKED_AT = 5000
_AT_ONCE = 500
_OPEN = (JobStatus.SCHEDULED, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.WAITING)
_UNDECIDED = "step_outcome_unknown"


def gather(
    target: str,
    *,
    command: str | None,
    workers: int | None,
    manifests: Sequence[Path],
    jobs_target: str | None,
    kill_after: float | None,
) -> Facts:
    """Everything that can be known. Raises `Unusable` for what was typed wrong."""
    app = load_app(target)
    found = find_lastcall(app)
    pods = [pod for path in manifests for pod in read_manifests(path)]
    jobs = load_jobs(jobs_target) if jobs_target is not None else (None if found is None else found.jobs)
    servers: list[tuple[Server, Pod | None]] = [(pod.server, pod) for pod in pods if pod.server is not None]
    if command is not None or workers is not None:
        servers.append((_typed_server(command or "uvicorn", workers), None))
    return Facts(
        App(
            target,
            None if found is None else found.manager.plan,
            "/lastcall" if found is None else found.prefix,
            found is not None and found.jobs is not None,
        ),
        servers,
        pods,
        None if jobs is None else asyncio.run(_look_at(jobs)),
        _kill_after(kill_after),
    )


def _typed_server(command: str, workers: int | None) -> Server:
    try:
        words = split_command(command)
    except ValueError as error:
        raise Unusable(f"--server {command!r} cannot be read: {error}") from None
    server = parse_server(words, "--server", os.environ)
    if server is None:
        known = "uvicorn, hypercorn, granian, gunicorn, 'lastcall serve', 'lastcall worker'"
        raise Unusable(f"--server {command!r} is none that is known here: {known}")
    return server if workers is None else server._replace(workers=workers)


def _kill_after(given: float | None) -> float | None:
    if given is not None:
        return given
    try:
        return float(os.environ[KILL_AFTER_VARIABLE])
    except (KeyError, ValueError):
        return None


# --- the store ------------------------------------------------------------------------------------------


async def _look_at(jobs: Jobs) -> Store:
    empty = _place_of(jobs)
    try:
        schema = await schema_of(jobs.engine)
        if schema.word != "current":
            return empty._replace(schema=schema)
        return await _read(jobs, empty, schema)
    except (Unusable, JobError) as error:
        return empty._replace(trouble=str(error))
    except ValueError as error:  # a row that somebody has damaged
        return empty._replace(trouble=f"what is stored cannot be read: {error}")


def _place_of(jobs: Jobs) -> Store:
    engine = jobs.engine
    if isinstance(engine, SqliteEngine):
        folder = os.path.dirname(os.path.realpath(engine.path))
        return Store(f"the store {shown(engine)}", engine.path, filesystem_of(folder, _mounts()), None)
    return Store(f"the store {shown(engine)}", None, None, None)


async def _read(jobs: Jobs, store: Store, schema: Schema) -> Store:
    async with jobs:
        overview = await jobs.overview()
        infos, all_of_them = await _open_jobs(jobs)
    strangers: Counter[tuple[str, str]] = Counter()
    if jobs.tasks:  # without any, the declarations are elsewhere, and every task would be a stranger
        strangers.update(
            (info.task, info.version) for info in infos if (info.task, info.version) not in jobs.tasks
        )
    return store._replace(
        schema=schema,
        now=overview.now or time.time(),
        counts=overview.counts,
        workers=overview.workers,
        strangers=strangers,
        undecided=[info.id for info in infos if _UNDECIDED in info.waits_for],
        looked_at_all=all_of_them,
    )


async def _open_jobs(jobs: Jobs) -> tuple[list[JobInfo], bool]:
    """The jobs that have not ended, the newest of them, and whether these are all."""
    found: list[JobInfo] = []
    while len(found) < _LOOKED_AT:
        page = await jobs.find(status=_OPEN, before=found[-1].id if found else None, limit=_AT_ONCE)
        found += page
        if len(page) < _AT_ONCE:
            return found, True
    return found, False


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no Linux
        return ""


def filesystem_of(folder: str, mountinfo: str) -> str | None:
    """The type of the file system that a folder is on, by the text of /proc/self/mountinfo. Pure."""
    best, found = "", None
    for line in mountinfo.splitlines():
        words, separator, rest = line.partition(" - ")
        fields = words.split(" ")
        if not separator or len(fields) < 5:
            continue
        at = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        # The later one of two at the same place lies on top.
        if len(at) >= len(best) and (folder == at or folder.startswith(at.rstrip("/") + "/")):
            best, found = at, rest.split(" ")[0]
    return found
