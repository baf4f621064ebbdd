"""A job that kills its worker, among others that only stand beside it: it fails, and they do not."""

from pathlib import Path

import pytest

from lastcall.jobs import AttemptOutcome, JobStatus
from tests.jobs.crash.forks import Nursery
from tests.jobs.crash.ledger import having
from tests.jobs.crash.scene import Scene

INNOCENTS = 12
MAX_LOST = 3

pytestmark = [pytest.mark.slow, pytest.mark.loops("asyncio")]


async def test_the_innocent_survive_a_poison(nursery: Nursery, tmp_path: Path) -> None:
    """Thirteen jobs in one queue, of which one kills its process whenever it runs, and a supervisor that starts a
    worker whenever one has died: the one fails, the twelve complete, and nobody dies more often than it takes."""
    async with Scene(nursery, tmp_path) as scene:
        innocents = [
            scene.submitted(await scene.work.innocent.submit(MAX_LOST - 1)) for _ in range(INNOCENTS // 2)
        ]
        poison = scene.submitted(await scene.work.patient_poison.submit(INNOCENTS))
        innocents += [
            scene.submitted(await scene.work.innocent.submit(MAX_LOST - 1)) for _ in range(INNOCENTS // 2)
        ]
        for died in range(MAX_LOST):
            worker = await scene.worker(concurrency=2 * INNOCENTS)
            assert await scene.ended(worker) == -9
            assert len(having(scene.lines(), "poison")) == died + 1
        alive = await scene.worker(concurrency=2 * INNOCENTS)
        for job in innocents:
            assert (await job.wait(20)).status is JobStatus.COMPLETED
        info = await poison.wait(20)
        assert info.status is JobStatus.FAILED
        assert info.error is not None and f"max_lost={MAX_LOST}" in info.error["message"]
        scene.stop(alive)
        assert await scene.ended(alive) == 0
        assert await scene.broken() == []

        # By the ledger: they had died with it as often as a job may, and the last time it had died alone.
        lines = scene.lines()
        for job in innocents:
            assert len(having(lines, "innocent", job=job.id)) == MAX_LOST
            assert len(having(lines, "innocent done", job=job.id)) == 1
        last = having(lines, "poison")[-1]
        assert [line.job for line in lines if line.pid == last.pid and line.at <= last.at and line.job] == [
            *(line.job for line in having(lines, "innocent done", pid=last.pid) for _ in range(2)),
            poison.id,
        ]


async def test_a_suspect_that_gets_further_has_company_again(nursery: Nursery, tmp_path: Path) -> None:
    """A worker is killed, and its innocent job is suspected: of two workers one runs it and nothing else, until it
    has completed a step; then that worker takes other jobs beside it, and the next loss does not fail it."""
    async with Scene(nursery, tmp_path) as scene:
        first = await scene.worker()
        job = scene.submitted(await scene.work.careful.submit(scene.gate))
        await scene.told("start", key="gate", pid=first.pid)
        scene.kill(first)
        assert await scene.ended(first) == -9
        workers = [await scene.worker(concurrency=2) for _ in range(2)]
        again = await scene.told("start", key="gate", attempt=2)
        (alone,) = [worker for worker in workers if worker.pid == again.pid]
        (other,) = [worker for worker in workers if worker.pid != again.pid]

        many = await scene.jobs.submit_many([scene.work.plain.call(n, 2, 0.02) for n in range(20)])
        for plain in many:
            await scene.submitted(plain).result(20)
            assert having(scene.lines(), "start", job=plain.id, pid=other.pid)
        scene.stop(other)
        assert await scene.ended(other) == 0
        waiting = scene.submitted(await scene.work.child.submit(6))
        scene.open_gate(2)
        await scene.told("start", key="second gate", pid=alone.pid)
        # The step is recorded, and the worker asks again.
        assert await waiting.result(20) == 36
        await scene.told("start", job=waiting.id, pid=alone.pid)

        scene.kill(alone)
        assert await scene.ended(alone) == -9
        last = await scene.worker()
        await scene.told("start", key="second gate", attempt=3)
        scene.open_gate(3)
        assert await job.result(20) == last.pid
        scene.stop(last)
        assert await scene.ended(last) == 0
        assert await scene.broken() == []
        outcomes = [attempt.outcome for attempt in (await scene.facts())[job.id].attempts]
        assert outcomes == [AttemptOutcome.LOST, AttemptOutcome.LOST, AttemptOutcome.COMPLETED]
