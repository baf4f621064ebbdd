"""Celery workers carry jobs, and lose and double none, whatever becomes of messages and workers."""

import pytest

from tests.dispatch.celery_program import Program
from tests.dispatch.fleet import Fleet
from tests.support.processes import PATIENCE_SECONDS

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]

POOLS = ["prefork", "threads", "solo"]


@pytest.mark.parametrize("pool", POOLS)
async def test_a_job_runs(fleet: Fleet, pool: str) -> None:
    """A job is submitted, and a Celery worker of each pool runs it."""
    program = Program(fleet.place)
    fleet.celery(pool)
    async with program.carrier:
        job = await program.work.add.submit(2, 3)
        assert await job.result(timeout=PATIENCE_SECONDS) == 5


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_warm_shutdown_hands_over(fleet: Fleet, pool: str) -> None:
    """SIGTERM in the middle of a job of steps: it goes on in another worker at once, and no step runs twice."""
    program = Program(fleet.place)
    async with program.carrier:
        first = fleet.celery(pool)
        job = await program.work.stepping.submit(3)
        await fleet.told("start", key="step 1")
        fleet.celery(pool)
