"""The conformance suite over every engine there is, and over the model that they are compared with."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs._engine import Engine
from lastcall.jobs._rows import WorkerRow
from lastcall.testing.conformance import (
    Case,
    Harness,
    UserTransaction,
    cases,
    connection_cases,
    transaction_cases,
)
from tests.engines.model import ModelEngine, ModelStore, ModelTransaction

# Says who it is, and lives until it is killed or its standard input ends.
A_PROCESS = """
import json, sys
from lastcall.jobs._processes import this_process
print(json.dumps(this_process()._asdict()), flush=True)
sys.stdin.read()
"""


class ModelHarness(Harness):
    """Two model engines on one store."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ModelStore()

    def make(self) -> Engine:
        return ModelEngine(self.clock, self.store)

    def kill(self, worker_id: str) -> bool:
        self.store.dead_processes.add(worker_id)
        return True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UserTransaction]:
        users = ModelTransaction(self.store, self.clock)
        yield UserTransaction(users, users.commit, users.rollback)


class SqliteHarness(Harness):
    """Two SQLite engines on one file; a worker that is to be killed is a process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "jobs.db"
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def make(self) -> Engine:
        # Nobody pulls the plug of the machine here, and that is all that `full` is for.
        return SqliteEngine(str(self.path), synchronous="off", clock=self.clock)

    def identify(self, worker: WorkerRow) -> WorkerRow:
        process = subprocess.Popen(
            [sys.executable, "-c", A_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.processes[worker.id] = process
        assert process.stdout is not None
        return worker._replace(**json.loads(process.stdout.readline()))

    def kill(self, worker_id: str) -> bool:
        self.processes[worker_id].kill()
        self.processes[worker_id].communicate()
        return True

    async def close(self) -> None:
        for worker_id in self.processes:
            self.kill(worker_id)
        await super().close()


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("case", cases() + transaction_cases() + connection_cases(), ids=str)
async def test_the_model(case: Case) -> None:
    """The model keeps every rule itself."""
    await case.run(ModelHarness())


@pytest.mark.parametrize("case", cases() + transaction_cases(), ids=str)
async def test_sqlite(case: Case, tmp_path: Path) -> None:
    """The SQLite engine keeps every rule."""
    await case.run(SqliteHarness(tmp_path))
