"""The deploy test of the issue, in small: a signal in the middle of a job; told at once, gone after the step, and how
soon which step runs again."""

import asyncio
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from lastcall import StopReason
from lastcall.jobs import CancelOutcome, Job, JobStatus
from tests.jobs.crash.forks import Child, Nursery
from tests.jobs.crash.ledger import Line, having
from tests.jobs.crash.scene import Scene, until

STEPS = 12
STEP_SECONDS = 0.05
LEASE_SECONDS = 2.0
# What a busy machine may add to a bar of the issue.
BUSY_SECONDS = 0.5

HANDED_OVER_SECONDS = 1.0
RESTARTED_SECONDS = 2.0
TOLD_SECONDS = 0.05

pytestmark = [pytest.mark.slow, pytest.mark.loops("asyncio")]


class Again(NamedTuple):
    """The first step begun by another process, and which steps began twice."""

    line: Line
    twice: list[str]


async def begin(scene: Scene, worker: Child) -> Job[int]:
    """A job in the middle of its third step."""
    job = scene.submitted(await scene.work.plain.submit(0, STEPS, STEP_SECONDS))
    await scene.told("start", job=job.id, key="step 2", pid=worker.pid)
    return job


async def see_to_its_end(scene: Scene, job: Job[int], old: Child) -> Again:
    assert await job.result(30) == sum(range(STEPS))
    begun = having(scene.lines(), "start", job=job.id)
    first = next(line for line in begun if line.pid != old.pid)
    keys = [line.key for line in begun]
    return Again(first, sorted({key for key in keys if keys.count(key) > 1}))


@pytest.mark.parametrize("variant", ["restart", "second"])
async def test_term(variant: str, nursery: Nursery, tmp_path: Path) -> None:
    """SIGTERM to the worker: it leaves after the step in flight, the next step runs on another worker within a second,
    and no step runs twice."""
    async with Scene(nursery, tmp_path) as scene:
        old = await scene.worker()
        job = await begin(scene, old)
        second = await scene.worker() if variant == "second" else None
        stopped_at = scene.stop(old)
        assert await scene.ended(old) == 0
        if second is None:
            second = await scene.worker()
        again = await see_to_its_end(scene, job, old)

        last = [line for line in scene.lines() if line.what == "end" and line.pid == old.pid][-1]
        assert last.at - stopped_at < STEP_SECONDS + BUSY_SECONDS
        since = last.at if variant == "second" else having(scene.lines(), "boot", pid=second.pid)[0].at
        assert again.line.at - since < HANDED_OVER_SECONDS
        assert again.twice == []
        assert await scene.broken() == []


async def test_a_job_is_told_at_once(nursery: Nursery, tmp_path: Path) -> None:
    """A step that would last for ever hears of the stop, ends itself, and is remembered; the job goes on elsewhere."""
    async with Scene(nursery, tmp_path) as scene:
        old = await scene.worker()
        job = scene.submitted(await scene.work.attentive.submit())
        await scene.told("start", job=job.id, key="until told")
        other = await scene.worker()
        stopped_at = scene.stop(old)
        told = await scene.told("job told", job=job.id)
        assert (told.pid, told.key) == (old.pid, "shutdown")
        assert told.at - stopped_at < TOLD_SECONDS + BUSY_SECONDS
        assert await job.result(20) == old.pid
        after = await scene.told("start", job=job.id, key="after")
        assert after.pid == other.pid
        assert after.at - told.at < HANDED_OVER_SECONDS
        assert await scene.ended(old) == 0
        assert await scene.broken() == []


@pytest.mark.parametrize("known", [True, False], ids=["pid", "lease"])
@pytest.mark.parametrize("variant", ["restart", "second"])
async def test_kill(variant: str, known: bool, nursery: Nursery, tmp_path: Path) -> None:
    """kill -9: where the dead process can be seen to be gone, the job goes on within two seconds; where it cannot (no
    /proc, another container), when the lease is over and not before. One step at most runs twice."""
    async with Scene(nursery, tmp_path, lease_seconds=LEASE_SECONDS if not known else 15.0) as scene:
        old = await scene.worker(known=known)
        job = await begin(scene, old)
        second = await scene.worker() if variant == "second" else None
        killed_at = scene.kill(old)
        assert await scene.ended(old) == -9
        if second is None:
            second = await scene.worker()
        again = await see_to_its_end(scene, job, old)

        if known:
            booted_at = having(scene.lines(), "boot", pid=second.pid)[0].at
            assert again.line.at - max(killed_at, booted_at) < RESTARTED_SECONDS
        else:
            # Renewed at a third: two thirds are left at least, and nobody may guess.
            assert LEASE_SECONDS * 0.6 < again.line.at - killed_at < LEASE_SECONDS + 1.0 + BUSY_SECONDS
        assert len(again.twice) <= 1
        assert await scene.broken() == []


async def test_a_step_that_outlasts_the_drain(nursery: Nursery, tmp_path: Path) -> None:
    """A step is still running at the drain's deadline: it is cancelled for the shutdown, its job handed over under its
    fence and not charged, and another worker begins that step anew."""
    async with Scene(nursery, tmp_path, drain_seconds=0.3) as scene:
        old = await scene.worker()
        job = scene.submitted(await scene.work.long.submit(scene.gate))
        await scene.told("start", job=job.id, key="gate")
        other = await scene.worker()
        stopped_at = scene.stop(old)
        cancelled = await scene.told("cancelled", job=job.id, key="shutdown", pid=old.pid)
        assert 0.25 < cancelled.at - stopped_at < 0.3 + BUSY_SECONDS
        again = await scene.told("start", job=job.id, key="gate", pid=other.pid)
        assert again.at - cancelled.at < HANDED_OVER_SECONDS
        await scene.ended(old)
        scene.open_gate(2)
        assert await job.result(20) == other.pid
        (fact,) = (await scene.facts()).values()
        told = [(attempt.outcome, attempt.reason, attempt.error) for attempt in fact.attempts]
        assert told == [("handed_over", "shutdown", None), ("completed", None, None)]
        assert fact.job.failures == fact.job.lost == 0


async def test_a_second_signal(nursery: Nursery, tmp_path: Path) -> None:
    """An operator insists: the process leaves at once, and the job that it cut off costs nothing but its step."""
    async with Scene(nursery, tmp_path) as scene:
        old = await scene.worker()
        job = scene.submitted(await scene.work.long.submit(scene.gate))
        await scene.told("start", job=job.id, key="gate")
        other = await scene.worker()
        scene.stop(old)
        await scene.told("told", pid=old.pid)
        await asyncio.sleep(0.3)  # within a quarter of a second the same signal counts once
        insisted_at = scene.stop(old)
        assert await scene.ended(old) == 128 + signal.SIGTERM
        again = await scene.told("start", job=job.id, key="gate", pid=other.pid)
        assert again.at - insisted_at < RESTARTED_SECONDS
        scene.open_gate(2)
        assert await job.result(20) == other.pid
        assert (await job.info()).failures == 0


async def test_a_cancel_reaches_a_job_in_another_process(nursery: Nursery, tmp_path: Path) -> None:
    """A user cancels a job that runs elsewhere: its step hears why, within a second, and the job is cancelled."""
    async with Scene(nursery, tmp_path) as scene:
        worker = await scene.worker()
        job = scene.submitted(await scene.work.long.submit(scene.gate))
        await scene.told("start", job=job.id, key="gate")
        asked_at = time.time()
        assert await job.cancel() is CancelOutcome.REQUESTED
        cancelled = await scene.told("cancelled", job=job.id, key="user", pid=worker.pid)
        assert cancelled.at - asked_at < 1.0
        assert (await job.wait(20)).status is JobStatus.CANCELLED


@pytest.mark.parametrize("when", ["before the kill", "after the kill", "with the stop"])
async def test_a_cancel_outlives_the_worker(when: str, nursery: Nursery, tmp_path: Path) -> None:
    """A user cancels a job whose worker dies, has just died, or is being stopped: it is cancelled, never run again."""
    async with Scene(nursery, tmp_path, drain_seconds=0.3) as scene:
        old = await scene.worker()
        job = scene.submitted(await scene.work.long.submit(scene.gate))
        await scene.told("start", job=job.id, key="gate")
        if when == "with the stop":
            scene.stop(old)
            assert await job.cancel() is CancelOutcome.REQUESTED
        elif when == "after the kill":
            scene.kill(old)
            assert await job.cancel() is CancelOutcome.REQUESTED
        else:
            await scene.stall(old)
            assert await job.cancel() is CancelOutcome.REQUESTED
            scene.kill(old)
        await scene.ended(old)
        await scene.worker()
        info = await job.wait(20)
        assert (info.status, info.cancel_reason) == (JobStatus.CANCELLED, StopReason.USER)
        assert len(having(scene.lines(), "start", job=job.id)) == 1


async def test_a_job_in_a_process_dies_with_its_worker(nursery: Nursery, tmp_path: Path) -> None:
    """kill -9 of a worker whose job runs in a process of its own: that process ends too, the job runs again."""
    async with Scene(nursery, tmp_path) as scene:
        old = await scene.worker()
        gate = tmp_path / "apart"
        job = scene.submitted(await scene.work.apart.submit(str(tmp_path / "ledger"), str(gate)))
        first = await scene.told("apart begins")
        scene.kill(old)
        await until(lambda: not is_running(first.pid), 2.0)
        await scene.worker()
        await until(lambda: len(having(scene.lines(), "apart begins")) == 2)
        gate.touch()
        result = await job.result(20)
        assert [line.pid for line in having(scene.lines(), "apart ends")] == [result] != [first.pid]


def is_running(pid: int) -> bool:
    """A process whose parent has died is collected by whoever took it; until then it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


async def test_a_job_that_kills_its_worker_is_stopped(nursery: Nursery, tmp_path: Path) -> None:
    """Three workers in a row die of the same job: it fails, with the reason, and the fourth worker lives."""
    async with Scene(nursery, tmp_path) as scene:
        job = scene.submitted(await scene.work.poison.submit())
        dead = [await scene.worker() for _ in range(1)]
        assert await scene.ended(dead[0]) == -9
        for _ in range(2):
            dead.append(await scene.worker())
            assert await scene.ended(dead[-1]) == -9
        alive = await scene.worker()
        info = await job.wait(20)
        assert info.error is not None and "max_lost=3" in info.error["message"]
        assert await scene.broken() == []
        scene.stop(alive)
        assert await scene.ended(alive) == 0
