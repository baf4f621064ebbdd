"""How long a job has waited, in the numbers of the page and of the metrics: from when it was due."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from lastcall import TaskManager
from lastcall._names import waited_seconds
from lastcall.asgi._history import History
from lastcall.jobs import Claimed, JobObserver
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import ended

pytestmark = pytest.mark.loops("asyncio")

HOUR = 3600.0


class Seen(JobObserver):
    def __init__(self) -> None:
        self.jobs: list[Claimed] = []

    def attempt_started(self, job: Claimed, carried: Mapping[str, str]) -> None:
        self.jobs.append(job)


@pytest.mark.parametrize("how", ["delay", "at", "long ago"])
async def test_a_delay_is_no_waiting(store: Store, how: str) -> None:
    """A job is submitted an hour ahead by a process that nobody watches, and begins, somewhere else, when it is due:
    it has not waited for an hour. One that was due before it was submitted has waited since then only."""
    clock = VirtualClock(wall=time.time() - HOUR)
    client = store.jobs(clock)

    @client.task
    async def work() -> None: ...

    options: dict[str, Any] = {
        "delay": {"delay": HOUR},
        "at": {"at": datetime.fromtimestamp(clock.wall() + HOUR, UTC)},
        "long ago": {"at": datetime.fromtimestamp(clock.wall() - HOUR, UTC)},
    }[how]
    async with client:
        job = await work.options(retries=2, **options).submit()
        clock.advance(HOUR + 1)  # a datetime is no more exact than a microsecond
        jobs, seen = store.jobs(clock), Seen()
        jobs.task(name=work.name)(work.fn)
        async with TaskManager() as manager:
            history = History(manager, jobs)
            history.look()
            stop = jobs.observe(seen)
            async with jobs.worker(manager=manager):
                assert await ended(job) == "completed"
            (point,) = [one for one in history.points() if one["jobs"]["wait_p50_seconds"] is not None]
            stop()
            history.stop()
    (claimed,) = seen.jobs
    waited = waited_seconds(claimed.attempt, claimed.created_at, claimed.options)
    for seconds in (point["jobs"]["wait_p50_seconds"], waited):
        assert seconds is not None and (seconds >= HOUR) is (how == "long ago")
    assert waited_seconds(2, claimed.created_at, claimed.options) is None
