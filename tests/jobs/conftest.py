"""A store on every engine, and `Jobs` on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs import Engine, Jobs
from lastcall.jobs._rows import JobQuery, JobRow
from lastcall.testing import VirtualClock
from tests.engines.model import ModelEngine, ModelStore


class Store:
    """Where jobs are kept. Two engines on one store are two processes on one file; `clock`: the engine's, or real."""

    def __init__(self, make: Callable[[VirtualClock | None], Engine]) -> None:
        self._make = make

    def engine(self, clock: VirtualClock | None = None) -> Engine:
        """Another engine on this store, not open yet."""
        return self._make(clock)

    def jobs(self, clock: VirtualClock | None = None, **settings: Any) -> Jobs:
        """Another `Jobs` on this store, not open yet."""
        return Jobs(self.engine(clock), **settings)

    async def rows(self) -> list[JobRow]:
        """All jobs that are committed, newest first, seen from outside."""
        engine = self.engine()
        await engine.open()
        try:
            return await engine.find(JobQuery(limit=10_000))
        finally:
            await engine.close()

    async def is_empty(self) -> bool:
        """Whether nothing at all was written: no job and no schedule."""
        engine = self.engine()
        await engine.open()
        try:
            overview = await engine.overview()
        finally:
            await engine.close()
        return not overview.counts and not overview.schedules


@pytest.fixture(params=["model", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, of each engine in turn."""
    if request.param == "model":
        kept = ModelStore()
        return Store(lambda clock: ModelEngine(clock, kept))
    path = str(tmp_path / "jobs.db")
    # Nobody pulls the plug of the machine here, and that is all that `full` is for.
    return Store(lambda clock: SqliteEngine(path, synchronous="off", clock=clock))


@pytest.fixture
def jobs(store: Store) -> Jobs:
    """`Jobs` on the store, not open yet: use it as a block, or with `jobs.worker()`, which opens and closes it."""
    return store.jobs()
