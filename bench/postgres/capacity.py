"""What one PostgreSQL carries: what a job costs by the size of its batch, among how many others it waits, how many
workers take turns, and what stays behind when old jobs are pruned. `plot` draws it, docs/capacity.md explains it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..jobs.catalog import Setting
from ..jobs.marks import Mark, count_marks, read_marks
from ..jobs.report import progress
from ..jobs.workers import ROOT, ContenderFailed, Place, Worker, last_line, submit, wait_until
from .catalog import SPEED
from .figures import Capacity, Cost, Crew, Depth, Held, Round, fitted
from .measuring import Bench
from .measuring import Sizes as BenchSizes
from .server import PostgresServer, ask

PROCESS_SECONDS = 120
TIMEOUT_SECONDS = 600
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sizes:
    """How much a run does."""

    batches: tuple[int, ...] = (1, 10, 100)
    costed: int = 3_000
    depths: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    claims: int = 20
    at_depth: int = 10_000
    workers: tuple[int, ...] = (1, 2, 4, 8, 16)
    jobs: int = 20_000
    rounds: int = 5
    pruned: int = 20_000


FULL = Sizes()
FEW = Sizes(costed=1_000, at_depth=5_000, jobs=15_000)
QUICK = Sizes(
    batches=(1, 10), costed=100, depths=(500, 2_000), claims=3, at_depth=400, workers=(1, 2), jobs=1_000,
    rounds=2, pruned=500,
)  # fmt: skip


def run(*, quick: bool, few: bool) -> Capacity:
    """Measure all of it."""
    sizes = QUICK if quick else FEW if few else FULL
    ours = next(setting for setting in SPEED if setting.ours and not setting.options)
    with PostgresServer() as server:
        costs = [Cost(**each) for each in _ask_verbs("costs", server.new_url(), asdict(sizes))]
        depths = _depths(server, ours, sizes)
        crews = [_crew(server, ours, workers, sizes.jobs) for workers in sizes.workers]
        held = [Held(**each) for each in _ask_verbs("held", server.new_url(), asdict(sizes))]
        version = server.version
    with PostgresServer(autovacuum_naptime="1s") as server:
        rounds = [Round(**each) for each in _ask_verbs("rounds", server.new_url(), asdict(sizes))]
    return Capacity(version, os.cpu_count() or 1, fitted(costs), costs, depths, crews, rounds, held)


def _ask_verbs(name: str, url: str, sizes: dict[str, Any]) -> Any:
    """The engine's verbs, called in a process of their own."""
    progress(f"capacity    {name}")
    done = subprocess.run(
        [sys.executable, "-m", "bench.postgres.verbs", name, url, json.dumps(sizes)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ContenderFailed(last_line(done.stderr) or f"exit code {done.returncode}")
    return json.loads(last_line(done.stdout))


# --- how many are queued -------------------------------------------------------------------------------


def _depths(server: PostgresServer, setting: Setting, sizes: Sizes) -> list[Depth]:
    found = []
    with _place(server, setting) as place:
        for queued in sizes.depths:
            order = asdict(sizes) | {"queued": queued}
            claims = _ask_verbs("claims", place.url, order)
            rate = _rate_at(setting, place, min(sizes.at_depth, queued * 4 // 5))
            found.append(Depth(queued, rate=rate, **claims))
    return found


def _rate_at(setting: Setting, place: Place, count: int) -> float:
    """Jobs per second of one worker that has the whole queue before it."""
    progress(f"capacity    {count} jobs by one worker")
    before = count_marks(place.folder)
    worker = Worker(setting, None, place)
    try:
        wait_until(lambda: count_marks(place.folder) >= before + count or worker.ended, PROCESS_SECONDS)
        marks = read_marks(place.folder)[before:]
        if len(marks) < 2:
            raise ContenderFailed(f"no job has run; {worker.why()}")
    finally:
        worker.stop()
    return _rate(marks)


def _place(server: PostgresServer, setting: Setting) -> AbstractContextManager[Place]:
    return Bench(BenchSizes(), None, (), server).place(setting)


def _rate(marks: Sequence[Mark]) -> float:
    return (len(marks) - 1) / max(1e-9, marks[-1].seen - marks[0].seen)


# --- how many workers ----------------------------------------------------------------------------------


def _crew(server: PostgresServer, setting: Setting, count: int, jobs: int) -> Crew:
    """All of them wait at an empty queue; then the jobs come with one commit."""
    progress(f"capacity    {count} workers")
    with _place(server, setting) as place:
        submit(setting, None, place, "fill", 0)
        workers = [Worker(setting, None, place, f"worker-{number}") for number in range(count)]
        try:
            if not wait_until(lambda: _joined(place.url) >= count, PROCESS_SECONDS, 0.2):
                raise ContenderFailed(f"{_joined(place.url)} of {count} workers came up; {workers[0].why()}")
            used, server_used = sum(map(_cpu_seconds, workers)), server.cpu_seconds()
            submit(setting, None, place, "fill", jobs, jobs)
            wait_until(lambda: count_marks(place.folder) >= jobs, PROCESS_SECONDS)
            marks = read_marks(place.folder)
            used, server_used = sum(map(_cpu_seconds, workers)) - used, server.cpu_seconds() - server_used
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                worker.stop()
    if len(marks) < jobs:
        raise ContenderFailed(f"{len(marks)} of {jobs} jobs have run; {workers[0].why()}")
    return Crew(count, _rate(marks), server_used / jobs * 1e6, used / jobs * 1e6)


def _joined(url: str) -> int:
    return int(ask(url, "SELECT count(*) FROM lastcall.worker")[0][0])


def _cpu_seconds(worker: Worker) -> float:
    fields = Path(f"/proc/{worker.session}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
