"""One measurement in a process of its own: `python -m bench.jobs.child NAME '{"count": ...}'`, answer as JSON.

A process for each, as for the other benchmarks: byte code specialises itself and heaps stay as large as they grew.
"""

import asyncio
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..child import resident_bytes
from . import program_floor, sqlite_floor
from .marks import FOLDER_VARIABLE, folder, read_marks
from .peers.base import URL_VARIABLE
from .workers import ROOT, last_line

TIMEOUT_SECONDS = 900
LONG_SECONDS = 3600.0


class ChildFailed(Exception):
    """A measuring process ended badly; the message is the last line it wrote."""


def measure(name: str, *, url: str = "", **order: object) -> Any:
    """Run one of `MEASURES` in a fresh process and a fresh folder. `url`: of a server, for those who are to use one."""
    with tempfile.TemporaryDirectory(prefix="bench-jobs-") as place:
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        try:
            done = subprocess.run(
                [sys.executable, "-m", __name__, name, json.dumps(order)],
                env=os.environ | {FOLDER_VARIABLE: place, URL_VARIABLE: url, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ChildFailed(f"no answer within {TIMEOUT_SECONDS} s") from error
    if done.returncode:
        raise ChildFailed(last_line(done.stderr) or f"exit code {done.returncode}")
    return json.loads(last_line(done.stdout))


def database() -> Path:
    return folder() / "jobs.db"


def ours(name: str, order: dict[str, Any]) -> Any:
    # By name, at the last moment: the floors are measured without lastcall, too.
    return asyncio.run(getattr(importlib.import_module("bench.jobs.ours"), name)(**order))


async def bare_tasks(count: int) -> dict[str, float]:
    """Growth of resident memory for each bare task in a sleep."""
    gc.collect()
    before = resident_bytes()
    tasks = [asyncio.create_task(asyncio.sleep(LONG_SECONDS)) for _ in range(count)]
    await asyncio.sleep(0)
    gc.collect()
    grown = resident_bytes() - before
    return {"process": grown / len(tasks)}


async def program_queued(count: int) -> dict[str, float]:
    """What one more queued job takes in the floor's file and process."""
    file = sqlite_floor.bytes_per_queued_job(folder() / "rows.db", count)
    program = program_floor.Program(database(), 1)
    await program.submit(0)
    gc.collect()
    before = resident_bytes()
    await program_floor.submit_all(lambda number: program.submit(number + 1), count, 100)
    gc.collect()
    grown = resident_bytes() - before
    await program.close()
    return {"file": file, "process": grown / count}


def ours_start(order: dict[str, Any]) -> list[float]:
    ours("submit_to_start", order)
    return [mark.waited for mark in read_marks(folder())]


MEASURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "program": lambda order: asyncio.run(program_floor.submit_to_done(database(), **order)),
    "one_commit": lambda order: sqlite_floor.one_commit_per_change(database(), **order),
    "commits": lambda order: sqlite_floor.paced_commits(database(), **order),
    "bare_tasks": lambda order: asyncio.run(bare_tasks(**order)),
    "program_queued": lambda order: asyncio.run(program_queued(**order)),
    "ours_done": lambda order: ours("submit_to_done", order),
    "ours_start": ours_start,
    "ours_queued": lambda order: ours("queued_bytes", order),
    "ours_running": lambda order: ours("running_bytes", order),
    "ours_claims": lambda order: ours("claims", order),
}


def main() -> None:
    name, order = sys.argv[1:]
    print(json.dumps(MEASURES[name](json.loads(order))), flush=True)
    # The figures are out; what still sleeps needs no orderly end.
    os._exit(0)


if __name__ == "__main__":
    main()
