"""A wall clock that jumps: due times follow it, leases do not."""

import asyncio
import os
from pathlib import Path

import pytest

from lastcall.jobs import AttemptOutcome
from tests.jobs.crash.forks import Nursery
from tests.jobs.crash.scene import Scene

JUMPS = (3600, -3600, 7200, 0)

pytestmark = [pytest.mark.slow, pytest.mark.loops("asyncio")]


async def test_a_clock_that_jumps_ends_no_lease(nursery: Nursery, tmp_path: Path) -> None:
    """The wall clock goes an hour forth and back, several times, under two workers with short leases and more jobs than
    they can run at once: nobody is taken for dead, and every step runs once."""
    clock = tmp_path / "clock"
    set_clock(clock, 0)
    async with Scene(nursery, tmp_path, lease_seconds=1.0, concurrency=4, clock=str(clock)) as scene:
        workers = [await scene.worker() for _ in range(2)]
        calls = [scene.work.plain.call(number, 12, 0.1) for number in range(12)]
        for job in await scene.jobs.submit_many(calls):
            scene.submitted(job)
        for jump in JUMPS:
            set_clock(clock, jump)
            begun = len(scene.lines())
            await until_more(scene, begun + 20)
        # Under the last time, the true one.
        for fact in (await scene.facts()).values():
            await scene.jobs.job(fact.job.id).wait(30)
        for worker in workers:
            scene.stop(worker)
            assert await scene.ended(worker) == 0
        facts = (await scene.facts()).values()
        outcomes = [attempt.outcome for fact in facts for attempt in fact.attempts]
        assert outcomes == [AttemptOutcome.COMPLETED] * len(calls)
        begins = [(line.job, line.key) for line in scene.lines() if line.what == "start"]
        assert len(begins) == len(set(begins)) == 12 * len(calls)


async def test_a_clock_put_back_wakes_nobody_twice(nursery: Nursery, tmp_path: Path) -> None:
    """A job sleeps, the clock goes forward past its time and back again: it wakes, once, and completes."""
    clock = tmp_path / "clock"
    set_clock(clock, 0)
    async with Scene(nursery, tmp_path, lease_seconds=1.0, clock=str(clock)) as scene:
        await scene.worker()
        job = scene.submitted(await scene.work.rich.submit(5))
        await job.send("early", "first word")
        set_clock(clock, 3600)
        await scene.told("start", job=job.id, key="asked")
        set_clock(clock, -3600)
        await job.send("late", "second word")
        assert (await job.result(30))["late"] == "second word"
        assert [told for told in await scene.broken() if "promise 9" not in told] == []


def set_clock(path: Path, seconds: float) -> None:
    """At once for every reader."""
    new = path.with_suffix(".new")
    new.write_text(str(seconds), encoding="ascii")
    os.replace(new, path)


async def until_more(scene: Scene, count: int) -> None:
    """Until the ledger has so many lines, or all jobs have ended."""
    for _ in range(2000):
        counts = (await scene.jobs.overview()).counts
        if len(scene.lines()) >= count or all(status.final for (_, status), n in counts.items() if n):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the workers stand still")
