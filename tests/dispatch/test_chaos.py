"""Celery workers that come and go, and a broker that forgets: no job is lost, and what is done stays done."""

import asyncio
import random
import signal
import time
from collections import Counter

import pytest
from redis import Redis

from tests.dispatch.celery_program import Program
from tests.dispatch.fleet import Fleet
from tests.jobs.crash.ledger import having

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.loops("asyncio"),
    pytest.mark.timeout(180),
]

ATTACK_SECONDS = 6.0
STEPS = 6
SEED = 7
POOLS = ["prefork", "threads", "solo"]
ORDERLY = [signal.SIGTERM]
ROUGH = [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL]


@pytest.mark.parametrize("signals", [ORDERLY, ROUGH], ids=["orderly", "rough"])
async def test_workers_come_and_go(fleet: Fleet, signals: list[signal.Signals]) -> None:
    """
    1. Jobs of steps are submitted all the time; workers of all pools are stopped, or killed, and replaced; the broker's
       database is emptied now and then.
    Result: all jobs complete. After orderly stops no step has run twice; after kills and cold shutdowns at most the
    steps that were in flight.
    """
    program, chance = Program(fleet.place), random.Random(SEED)
    for number in range(STEPS):
        fleet.place.gate(number).touch()
    async with program.carrier:
        jobs = []
        alive = [fleet.celery("prefork"), fleet.celery("threads")]
        deadline = time.monotonic() + ATTACK_SECONDS
        with Redis.from_url(fleet.place.broker) as redis:
            while time.monotonic() < deadline:
                jobs += [await program.work.stepping.submit(STEPS) for _ in range(4)]
                await asyncio.sleep(chance.uniform(0.1, 0.4))
                if chance.random() < 0.2:
                    redis.flushdb()
                if chance.random() < 0.4:
                    alive.append(fleet.celery(chance.choice(POOLS)))
                    alive.pop(0).send_signal(chance.choice(signals))
        assert {await job.result(timeout=90) for job in jobs} == {STEPS}
        outcomes: Counter[str] = Counter()
        for job in jobs:
            outcomes.update(str(attempt.outcome) for attempt in await job.attempts())
    ends = Counter((line.job, line.key) for line in having(fleet.lines(), "end"))
    repeated = sum(ends.values()) - len(ends)
    assert len(ends) == len(jobs) * STEPS
    assert outcomes["completed"] == len(jobs)
    assert repeated <= (0 if signals is ORDERLY else outcomes["lost"] + outcomes["handed_over"]), outcomes
