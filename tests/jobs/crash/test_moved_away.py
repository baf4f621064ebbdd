"""A database file that is moved away under running workers, and put back."""

import asyncio
import os
from pathlib import Path

import pytest

from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import AttemptOutcome, Job
from tests.jobs.crash.forks import Nursery
from tests.jobs.crash.scene import Scene, until

pytestmark = [pytest.mark.slow, pytest.mark.loops("asyncio")]


@pytest.mark.parametrize("what", ["file and log", "file"])
async def test_a_database_moved_away_and_put_back(what: str, nursery: Nursery, tmp_path: Path) -> None:
    """An administrator's mistake: submitters hear that the file is gone; the worker pauses, keeps what it has done, and
    goes on when the file is back. The steps that ran meanwhile are not repeated, and no empty database takes the
    place."""
    store = tmp_path / "store"
    store.mkdir()
    aside = tmp_path / "aside"
    aside.mkdir()
    endings = ("", "-wal", "-shm") if what == "file and log" else ("",)
    async with Scene(nursery, tmp_path, elsewhere=store) as scene:
        worker = await scene.worker()
        gated = scene.submitted(await scene.work.long.submit(scene.gate))
        plain = scene.submitted(await scene.work.plain.submit(1, 20, 0.02))
        await scene.told("start", job=gated.id, key="gate")
        await scene.told("start", job=plain.id, key="step 3")

        for ending in endings:
            os.rename(f"{scene.database}{ending}", aside / f"jobs.db{ending}")
        with pytest.raises(EngineUnavailable, match="gone|moved"):
            await scene.work.child.submit(1)
        scene.open_gate(1)
        await scene.told("end", job=gated.id, key="gate")
        await until(lambda: scene.log().count("waits for the store to come back") == 2)
        assert not scene.database.exists()
        standing = len(scene.lines())
        await asyncio.sleep(0.3)  # time in which a worker that had not paused would begin the next steps
        assert len(scene.lines()) == standing

        for ending in reversed(endings):
            os.rename(aside / f"jobs.db{ending}", f"{scene.database}{ending}")
        late = scene.submitted(await insist(scene))
        assert await late.result(30) == 4
        assert await gated.result(30) == worker.pid
        await plain.result(30)
        assert await scene.broken() == []
        outcomes = [attempt.outcome for fact in (await scene.facts()).values() for attempt in fact.attempts]
        assert set(outcomes) == {AttemptOutcome.COMPLETED}
        assert worker.code is None
        scene.stop(worker)
        assert await scene.ended(worker) == 0


async def insist(scene: Scene) -> Job[int]:
    """Submit as soon as it can be done."""
    for _ in range(500):
        try:
            return await scene.work.child.submit(2)
        except EngineUnavailable:
            await asyncio.sleep(0.02)
    raise AssertionError("the store does not come back")
