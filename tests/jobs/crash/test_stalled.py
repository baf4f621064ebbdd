"""SIGSTOP: a worker that sleeps past its lease loses its jobs, and nothing that it does afterwards counts."""

import asyncio
from pathlib import Path

import pytest

from lastcall.jobs import AttemptOutcome, StepStatus
from tests.jobs.crash.forks import Nursery
from tests.jobs.crash.scene import Scene

LEASE_SECONDS = 2.0
# The bar, and what a busy machine may add to it.
TAKEN_OVER_SECONDS = LEASE_SECONDS + 1.0
BUSY_SECONDS = 0.5

pytestmark = [pytest.mark.slow, pytest.mark.loops("asyncio")]


@pytest.mark.parametrize("in_thread", [False, True], ids=["coroutine", "thread"])
async def test_a_worker_stalled_past_its_lease(in_thread: bool, nursery: Nursery, tmp_path: Path) -> None:
    """One of two workers is stopped in the middle of a step; the other takes over. Continued, the first one hears that
    its lease is lost, what it writes is refused, and it joins again and works on."""
    async with Scene(nursery, tmp_path, lease_seconds=LEASE_SECONDS) as scene:
        stalled = await scene.worker()
        job = scene.submitted(await scene.work.long.submit(scene.gate, in_thread))
        await scene.told("start", key="gate", pid=stalled.pid)
        other = await scene.worker()

        stalled_at = await scene.stall(stalled)
        again = await scene.told("start", key="gate", pid=other.pid, attempt=2)
        assert again.at - stalled_at < TAKEN_OVER_SECONDS + BUSY_SECONDS
        scene.open_gate(2)
        assert await job.result(20) == other.pid

        if in_thread:
            scene.open_gate(1)  # a thread cannot be cancelled: its step ends, and tries to be recorded
        scene.continue_(stalled)
        if in_thread:
            await scene.told("end", key="gate", pid=stalled.pid)
        else:
            await scene.told("cancelled", key="lease_lost", pid=stalled.pid)

        scene.stop(other)
        assert await scene.ended(other) == 0
        child = scene.submitted(await scene.work.child.submit(3))
        assert await child.result(20) == 9
        await scene.told("start", job=child.id, pid=stalled.pid)
        scene.stop(stalled)
        assert await scene.ended(stalled) == 0

        assert await scene.broken() == []
        facts = await scene.facts()
        attempts, steps = facts[job.id].attempts, {step.key: step for step in facts[job.id].steps}
        assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.LOST, AttemptOutcome.COMPLETED]
        gate = steps["gate"]
        assert (gate.status, gate.attempt, gate.value) == (StepStatus.COMPLETED, 2, str(other.pid))
        # It joined anew: an id that was taken for dead never comes back.
        assert facts[child.id].attempts[0].worker_id != attempts[0].worker_id


async def test_a_worker_stalled_for_less_than_its_lease_keeps_its_jobs(
    nursery: Nursery, tmp_path: Path
) -> None:
    """A short stall (a debugger, a busy host) costs nothing, although another worker looks for the dead meanwhile."""
    async with Scene(nursery, tmp_path, lease_seconds=6.0) as scene:
        stalled = await scene.worker()
        job = scene.submitted(await scene.work.long.submit(scene.gate))
        await scene.told("start", key="gate", pid=stalled.pid)
        await scene.worker()
        await scene.stall(stalled)
        await asyncio.sleep(2.5)  # the stall itself; four seconds of the lease are left at least
        scene.continue_(stalled)
        scene.open_gate(1)
        assert await job.result(20) == stalled.pid
        assert await scene.broken() == []
        assert [attempt.outcome for attempt in (await scene.facts())[job.id].attempts] == ["completed"]


async def test_a_worker_stalled_with_the_store_s_lock(nursery: Nursery, tmp_path: Path) -> None:
    """A worker is stopped in the middle of a commit, past everybody's lease: nobody else could renew meanwhile, and
    when it goes on nobody takes the others, who never slept, for dead."""
    async with Scene(nursery, tmp_path, lease_seconds=LEASE_SECONDS) as scene:
        awake = await scene.worker()
        job = scene.submitted(await scene.work.long.submit(scene.gate))
        await scene.told("start", key="gate", pid=awake.pid)
        holder = await scene.worker(place="commit", nth=6, signal="SIGSTOP")
        sprung = await scene.told("sprung", pid=holder.pid)
        assert sprung.key == "commit 6 SIGSTOP"
        await asyncio.sleep(2 * LEASE_SECONDS)  # the stall itself
        scene.continue_(holder)
        child = scene.submitted(await scene.work.child.submit(3))
        assert await child.result(20) == 9
        scene.open_gate(1, 2, 3)
        await job.result(20)
        outcomes = [attempt.outcome for attempt in (await scene.facts())[job.id].attempts]
        assert outcomes == [AttemptOutcome.COMPLETED]
