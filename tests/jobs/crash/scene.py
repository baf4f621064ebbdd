"""A store, a ledger, a client of the test's own, and workers that come and go."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

from lastcall.jobs import Job, Jobs

from . import checker, ledger
from .checker import Facts
from .forks import PATIENCE_SECONDS, Child, Nursery
from .ledger import Ledger, Line, having
from .plays import expected
from .programs import Settings
from .work import Work

_LOOK_SECONDS = 0.005
_LOCK_SECONDS = 0.3


class Scene:
    """Used as a block, which opens and closes the client. `settings`: of the workers, where they are not the usual.

    `elsewhere`: where the database is, if not beside the ledger.
    """

    def __init__(
        self, nursery: Nursery, folder: Path, *, elsewhere: Path | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.database = (elsewhere or folder) / "jobs.db"
        self._nursery = nursery
        self._settings = Settings(
            "serve", str(self.database), str(folder / "ledger"), str(folder / "log"), **settings
        )
        self._ledger = Ledger(self._settings.ledger)
        self.jobs = Jobs(f"sqlite:///{self.database}")
        self.work = Work(self.jobs, self._ledger, self._settings.ledger)
        self.gate = str(folder / "gate")

    async def __aenter__(self) -> Scene:
        await self.jobs.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.jobs.close()
        self._ledger.close()
        if error is not None:
            error.add_note("\n".join(str(line[1:]) for line in self.lines()[-60:]))
            error.add_note(self.log())

    # --- workers ---------------------------------------------------------------------------------------

    async def worker(self, **changes: Any) -> Child:
        """A worker, when it is up."""
        child = self._nursery.spawn(self._settings._replace(**changes))
        await self.told("up", pid=child.pid)
        return child

    def kill(self, worker: Child) -> float:
        self._ledger.write("killed", pid=worker.pid)
        worker.send(signal.SIGKILL)
        return time.time()

    def stop(self, worker: Child) -> float:
        self._ledger.write("stopped", pid=worker.pid)
        worker.send(signal.SIGTERM)
        return time.time()

    async def stall(self, worker: Child) -> float:
        """SIGSTOP, and not while it holds the store's lock: that would stall everybody, and is another test."""
        self._ledger.write("stalled", pid=worker.pid)
        for _ in range(20):
            worker.send(signal.SIGSTOP)
            at = time.time()
            if self._lock_is_free():
                return at
            worker.send(signal.SIGCONT)
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError("the worker holds the lock whenever it is looked at")

    def continue_(self, worker: Child) -> None:
        self._ledger.write("continued", pid=worker.pid)
        worker.send(signal.SIGCONT)

    async def ended(self, worker: Child) -> int:
        """Its exit code, when it has ended."""
        return await asyncio.to_thread(worker.wait)

    def _lock_is_free(self) -> bool:
        with closing(
            sqlite3.connect(self.database, timeout=_LOCK_SECONDS, isolation_level=None)
        ) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            connection.execute("ROLLBACK")
        return True

    # --- what happened ---------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        return ledger.read(self._settings.ledger)

    def log(self) -> str:
        """What the workers have logged."""
        path = Path(self._settings.log)
        return path.read_text(encoding="utf-8") if path.exists() else ""

    async def told(self, what: str, **fields: Any) -> Line:
        """Wait for a line of the ledger; the first that fits."""
        await until(lambda: bool(having(self.lines(), what, **fields)))
        return having(self.lines(), what, **fields)[0]

    def submitted(self, job: Job[Any]) -> Job[Any]:
        """Take down that `submit` has answered."""
        self._ledger.write("submitted", "", job.id)
        return job

    def open_gate(self, *attempts: int) -> None:
        """Let the long step of these attempts end."""
        for attempt in attempts:
            os.close(os.open(f"{self.gate}.{attempt}", os.O_CREAT | os.O_WRONLY))

    async def facts(self) -> dict[str, Facts]:
        """What the store knows, by job."""
        return {fact.job.id: fact for fact in await checker.look(str(self.database))}

    async def broken(self) -> list[str]:
        """All promises that were not kept."""
        found = checker.broken(self.lines(), list((await self.facts()).values()), expected)
        return [f"promise {broken.promise}: {broken.job}: {broken.told}" for broken in found]


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it has not come within {seconds:g} s"
        await asyncio.sleep(_LOOK_SECONDS)
