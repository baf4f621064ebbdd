"""What every section is given: how much to do, with whom, and where."""

import importlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .catalog import OURS, Setting
from .child import ChildFailed, measure
from .install_peers import interpreter
from .servers import Servers
from .workers import ROOT, ContenderFailed, Place, last_line

FLOOR_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Sizes:
    """How much work a run does."""

    jobs: int = 20_000
    rounds: int = 5
    peer_rounds: int = 2
    submitters: int = 1_000
    concurrency: int = 100
    floor_jobs: int = 3_000
    paced: int = 100
    paced_rounds: int = 5
    per_second: float = 50.0
    queued: int = 100_000
    running: int = 5_000
    memory_rounds: int = 3
    few: int = 1_000
    many: int = 1_000_000
    batch: int = 100
    claims: int = 50


FULL = Sizes()
QUICK = Sizes(
    jobs=1_000,
    rounds=1,
    peer_rounds=1,
    submitters=100,
    floor_jobs=200,
    paced=25,
    paced_rounds=2,
    queued=1_000,
    running=200,
    memory_rounds=1,
    many=10_000,
    claims=5,
)


@dataclass(frozen=True)
class Run:
    """One run of the command."""

    sizes: Sizes
    peers: Path | None
    settings: tuple[Setting, ...]
    servers: Servers

    @property
    def with_ours(self) -> bool:
        return any(setting.ours for setting in self.settings)

    @property
    def others(self) -> tuple[Setting, ...]:
        return tuple(setting for setting in self.settings if not setting.ours)

    def problem(self, setting: Setting) -> str:
        return ours_problem() if setting.ours else setting.problem(self.peers)

    @contextmanager
    def place(self, setting: Setting) -> Iterator[Place]:
        """A fresh folder, and a fresh database for those on a server."""
        with tempfile.TemporaryDirectory(prefix="bench-jobs-") as folder:
            yield Place(Path(folder), self.servers.new_url(setting))

    def store_floor(self, setting: Setting) -> dict[str, float]:
        """What the bare store does, now: submits and processed jobs per second."""
        count = min(self.sizes.floor_jobs, self.sizes.jobs)
        if setting.store == "sqlite":
            floor: dict[str, float] = measure("one_commit", count=count)
            return floor
        assert self.peers is not None
        done = subprocess.run(
            [str(interpreter(self.peers, "redis")), "-m", "bench.jobs.redis_floor"]
            + [self.servers.new_url(setting), str(count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=FLOOR_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise ChildFailed(last_line(done.stderr) or f"exit code {done.returncode}")
        found: dict[str, float] = json.loads(last_line(done.stdout))
        return found


STORE_FLOOR_NAMES = {
    "sqlite": ("one commit per job", "a commit to claim, a commit to finish"),
    "redis": ("XADD, one by one", "XREADGROUP 100, SET, XACK"),
}
"""What the two halves of a store's floor do."""

PROBLEMS = (ChildFailed, ContenderFailed)


def ours_problem() -> str:
    """Why lastcall cannot be measured; empty if it can."""
    try:
        importlib.import_module("lastcall.jobs").Jobs  # noqa: B018
    except (ImportError, AttributeError) as error:
        return f"{OURS}.jobs cannot be imported ({error}), not measured"
    return ""
