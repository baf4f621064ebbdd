"""What the sections share: how much to do, with whom, the floor in a process of its own, what a store has recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..jobs.catalog import Setting
from ..jobs.child import ChildFailed
from ..jobs.run import Run
from ..jobs.run import Sizes as JobSizes
from ..jobs.servers import Servers
from ..jobs.workers import ROOT, Place, last_line
from .server import PostgresServer, ask

TIMEOUT_SECONDS = 300
PAUSE_SECONDS = 0.02
FLOOR = "raw asyncpg, batches of 100"


@dataclass(frozen=True)
class Sizes:
    """How much work a run does."""

    jobs: int = 20_000
    singles: int = 500
    rounds: int = 5
    peer_rounds: int = 2
    submitters: int = 1_000
    concurrency: int = 100
    paced: int = 100
    paced_rounds: int = 5
    per_second: float = 50.0
    tokens: int = 500
    token_rounds: int = 3
    watch_seconds: float = 60.0


FULL = Sizes()
FEW = replace(
    FULL, rounds=3, peer_rounds=1, singles=300, paced_rounds=3, tokens=200, token_rounds=2, watch_seconds=40.0
)
QUICK = Sizes(
    jobs=1_000,
    singles=50,
    rounds=1,
    peer_rounds=1,
    submitters=100,
    paced=25,
    paced_rounds=2,
    tokens=30,
    token_rounds=1,
    watch_seconds=30.0,
)


@dataclass(frozen=True)
class Bench:
    """One run of the command, on one server."""

    sizes: Sizes
    peers: Path | None
    settings: tuple[Setting, ...]
    server: PostgresServer

    def jobs_run(self) -> Run:
        """The same as the sections of `bench.jobs` know it."""
        sizes = replace(
            JobSizes(),
            paced=self.sizes.paced,
            paced_rounds=self.sizes.paced_rounds,
            per_second=self.sizes.per_second,
        )
        return Run(sizes, self.peers, self.settings, Servers(None, self.server))

    @contextmanager
    def place(self, setting: Setting) -> Iterator[Place]:
        with self.jobs_run().place(setting) as place:
            yield place

    def floor(self, name: str, **order: object) -> Any:
        """One of the floor's measures, in a process and a database of its own."""
        command = [sys.executable, "-m", "bench.postgres.floor", name, self.server.new_url()]
        done = subprocess.run(
            [*command, json.dumps(order)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise ChildFailed(last_line(done.stderr) or f"exit code {done.returncode}")
        return json.loads(last_line(done.stdout))


def wait_recorded(url: str, query: str, count: int, seconds: float) -> float:
    """When (on the monotonic clock) `count` results were there, or else the time at which we stopped looking."""
    deadline = time.monotonic() + seconds
    while True:
        ((found,),) = ask(url, query)
        now = time.monotonic()
        if found >= count or now > deadline:
            return now
        time.sleep(PAUSE_SECONDS)
