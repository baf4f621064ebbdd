"""The shape of a worker's services, and the pruner, the smallest of them."""

import asyncio
from collections.abc import Callable

import pytest

from lastcall.exceptions import EngineUnavailable
from lastcall.jobs._pruner import Pruner, pace
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, JobQuery, NewJob, WorkerRow
from lastcall.jobs._service import Service
from lastcall.testing import VirtualClock
from tests.engines.model import ModelEngine, ModelStore
from tests.jobs.conftest import Store
from tests.jobs.running import Faulty, eventually, set_within


class Counting(Service):
    """Counts its rounds; what a round does is up to the test."""

    name = "counting service"

    def __init__(self, act: Callable[[int], float | None] = lambda n: None) -> None:
        super().__init__()
        self.rounds = 0
        self.act = act

    async def run_once(self) -> float | None:
        self.rounds += 1
        return self.act(self.rounds)


async def test_the_life_of_a_service() -> None:
    """Stopped before its start, started twice, woken, stopped twice, and started again."""
    service = Counting()
    await service.stop()
    service.wake()
    service.start()
    service.start()
    await eventually(lambda: service.rounds == 1)
    service.wake()
    await eventually(lambda: service.rounds == 2)
    await service.stop()
    await service.stop()
    assert service.stopping
    service.wake()
    service.start()
    assert not service.stopping
    await eventually(lambda: service.rounds == 3)
    await service.stop()


async def test_a_service_waits_as_long_as_its_round_says() -> None:
    """Rounds follow each other at once, after a pause, and at last only when somebody wakes it."""
    pauses: dict[int, float | None] = {1: 0, 2: 0.01, 3: 0, 4: None}
    service = Counting(lambda n: pauses.get(n))
    service.start()
    await eventually(lambda: service.rounds == 4)
    service.wake()
    await eventually(lambda: service.rounds == 5)
    await service.stop()


async def test_a_wake_in_the_middle_of_a_round_is_not_lost() -> None:
    """News come while a round is under way: there is another one."""

    class Slow(Counting):
        async def run_once(self) -> float | None:
            await asyncio.sleep(0)
            if self.rounds == 0:
                self.wake()
            await asyncio.sleep(0)
            return await super().run_once()

    service = Slow()
    service.start()
    await eventually(lambda: service.rounds == 2)
    await service.stop()


async def test_a_round_is_not_cut() -> None:
    """A service is stopped in the middle of a round, which might be a write: that is waited for."""
    began, go = asyncio.Event(), asyncio.Event()
    ended: list[bool] = []

    class Slow(Service):
        async def run_once(self) -> float | None:
            began.set()
            await set_within(go)
            ended.append(self.stopping)
            return None

    service = Slow()
    service.start()
    await set_within(began)
    stopping = asyncio.create_task(service.stop())
    await eventually(lambda: service.stopping)
    assert not stopping.done()
    go.set()
    await stopping
    assert ended == [True]


async def test_a_round_that_overstays_is_cut() -> None:
    """A round hangs: the stop does not."""
    began = asyncio.Event()

    class Hanging(Service):
        async def run_once(self) -> float | None:
            began.set()
            await asyncio.sleep(60)
            return None

    service = Hanging()
    service.start()
    await set_within(began)
    await service.stop(0.01)
    assert not [task for task in asyncio.all_tasks() if "lastcall" in task.get_name()]


async def test_a_store_that_is_away_pauses_a_service_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three rounds fail, the fourth succeeds, and later one fails again: two stories, each with a begin and an end."""
    caplog.set_level("INFO", "lastcall")

    def act(n: int) -> float | None:
        if n in (1, 2, 5):
            raise EngineUnavailable("the disk is full")
        return 0.01

    service = Counting(act)
    service.start()
    await eventually(lambda: service.rounds >= 7)
    await service.stop()
    lines = [record.getMessage() for record in caplog.records if "counting service" in record.getMessage()]
    assert (
        lines
        == [
            "the counting service pauses: the disk is full",
            "the counting service goes on",
        ]
        * 2
    )


async def test_a_bug_in_a_round_does_not_end_a_service(caplog: pytest.LogCaptureFixture) -> None:
    """A round raises what nobody expects: it is told with its traceback, and the next round comes."""

    def act(n: int) -> float | None:
        if n == 1:
            raise ZeroDivisionError
        return None

    service = Counting(act)
    service.start()
    await eventually(lambda: service.rounds == 2)
    await service.stop()
    assert "the counting service failed, and goes on" in caplog.text and "ZeroDivisionError" in caplog.text


@pytest.mark.loops("virtual")
async def test_the_pruner_goes_on_until_nothing_is_due() -> None:
    """More jobs end each second than any fixed pace would delete: it goes on at once, as long as batches come back
    full, until nothing is due; and then it rests."""
    clock = VirtualClock()
    engine = ModelEngine(clock, ModelStore())
    await engine.open()
    await engine.join(WorkerRow("w", "host", 1, None, None, None, 1e9, 10, None))
    await engine.submit([NewJob(str(n), "work", "[]") for n in range(1000)])
    claimed = await engine.claim(ClaimRequest("w", 1000, {("work", ""): None}))
    await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in claimed.jobs])
    await engine.submit([NewJob("young", "work", "[]")])
    clock.advance(30 * 86_400)
    asked: list[int] = []

    class Counting(Faulty):
        async def prune(self, limit: int) -> int:
            asked.append(limit)
            return await engine.prune(limit)

    loop = asyncio.get_running_loop()
    pruner, began = Pruner(Counting(engine)), loop.time()  # type: ignore[arg-type]
    pruner.start()
    while len(await engine.find(JobQuery(limit=10))) > 1:
        await asyncio.sleep(0)
    # Not a second has passed by the loop's clock, which moves when somebody waits for a timer.
    assert loop.time() == began
    await eventually(lambda: loop.time() > began)
    assert sum(asked[:-1]) <= 1000 < sum(asked) and max(asked) <= 2000
    rounds = len(asked)
    await asyncio.sleep(20)
    assert len(asked) == rounds
    await pruner.stop()
    await engine.close()


def test_the_pace_of_the_pruner() -> None:
    """Half of the time is left to others; a batch grows while it is quick, shrinks when others wait behind it, and is
    never so small that it could not keep up."""
    assert pace(200, 199, 0.01) == (200, 30.0)
    assert pace(200, 200, 0.01) == (400, 0.01)
    assert pace(1500, 1500, 0.02) == (2000, 0.02)
    assert pace(2000, 2000, 0.5) == (1000, 0.5)
    assert pace(200, 200, 5.0) == (200, 5.0)
    assert pace(2000, 1999, 0.5) == (200, 30.0)
    assert pace(200, 200, 3600.0) == (200, 30.0)


async def test_ended_jobs_are_kept_as_long_as_they_say(store: Store) -> None:
    """One job is kept for a minute after its end, one for a week, and one runs: the pruner of the next worker takes the
    first only."""
    clock = VirtualClock()
    jobs, other = store.jobs(clock), store.jobs(clock)
    standing, go = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def work() -> None: ...

    @jobs.task(retention=0)
    async def stand() -> None:
        standing.set()
        await set_within(go)

    async with jobs.worker():
        short, long = await work.options(retention=60).submit(), await work.submit()
        running = await stand.submit()
        for job in (short, long):
            await job.wait(timeout=20)
        await set_within(standing)
        clock.advance(60)
        # The first worker's lease is over by this clock, but a worker without tasks takes nothing from it.
        async with other.worker():

            async def is_pruned() -> bool:
                return {info.id for info in await jobs.find()} == {long.id, running.id}

            await eventually(is_pruned)
        go.set()
