"""`run_jobs`: a program's jobs in a test, by a clock of its own, with faults and crashes where the test wants them."""

import pytest

from lastcall.jobs import AttemptOutcome, Backoff, Context, Jobs, JobStatus
from lastcall.testing import VirtualClock, run_jobs

pytestmark = pytest.mark.loops("asyncio")


class Shop:
    """A program with one job; what its steps did is taken down outside the store."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.jobs = Jobs("sqlite:///never-opened.db")

        def charge(order: str) -> str:
            self.done.append(f"charge {order}")
            return f"receipt {order}"

        async def ship(order: str) -> str:
            self.done.append(f"ship {order}")
            return "shipped"

        async def fulfil(ctx: Context, order: str) -> list[str]:
            receipt = await ctx.step(charge, order, name="charge")
            await ctx.sleep(3600)
            return [receipt, await ctx.step(ship, order, name="ship")]

        self.fulfil = self.jobs.task(retries=1, backoff=Backoff(first_seconds=30, jitter=0))(fulfil)


async def test_time_passes_only_when_told() -> None:
    """A job that sleeps an hour waits until the test lets the hour pass, and then ends."""
    shop = Shop()
    async with run_jobs(shop.jobs) as run:
        job = await shop.fulfil.submit("tea")
        await run.until_idle()
        assert await job.status() is JobStatus.WAITING
        await run.advance(3599)
        assert await job.status() is JobStatus.WAITING
        await run.advance(1)
        assert await job.result(timeout=10) == ["receipt tea", "shipped"]
    assert shop.done == ["charge tea", "ship tea"]


@pytest.mark.parametrize(("when", "charges"), [("before", 1), ("after", 2), ("recorded", 1)])
async def test_a_crash_repeats_the_step_in_flight_only(when: str, charges: int) -> None:
    """The worker dies before, after and beyond the memory of a step: only what nobody wrote down comes twice."""
    shop = Shop()
    async with run_jobs(shop.jobs) as run:
        run.crash_at("charge", when=when)  # type: ignore[arg-type]  # its three words
        job = await shop.fulfil.submit("tea")
        await run.until_idle()
        await run.advance(3600)
        assert await job.result(timeout=10) == ["receipt tea", "shipped"]
        assert run.crashes == 1
        assert AttemptOutcome.LOST in {attempt.outcome for attempt in await job.attempts()}
        assert (await job.info()).failures == 0
    assert shop.done == ["charge tea"] * charges + ["ship tea"]


async def test_a_failure_is_retried_after_its_backoff() -> None:
    """A step fails once: the job is charged, waits its thirty seconds, and goes on without repeating what was done."""
    shop = Shop()
    async with run_jobs(shop.jobs) as run:
        run.fail_at("ship", ConnectionError("the courier is out"))
        job = await shop.fulfil.submit("tea")
        await run.until_idle()
        await run.advance(3600)
        assert await job.status() is JobStatus.SCHEDULED
        await run.advance(30)
        assert await job.result(timeout=10) == ["receipt tea", "shipped"]
        assert (await job.info()).failures == 1
    assert shop.done == ["charge tea", "ship tea"]


async def test_more_failures_than_retries_fail_the_job() -> None:
    """The same step fails twice with one retry: the job has failed, and says with what."""
    shop = Shop()
    async with run_jobs(shop.jobs) as run:
        run.fail_at("charge", ConnectionError("no network"), times=2)
        job = await shop.fulfil.submit("tea")
        await run.advance(30)
        info = await job.info()
        assert info.status is JobStatus.FAILED
        assert info.error is not None and info.error["message"] == "no network"
    assert shop.done == []


async def test_a_deploy_costs_nothing() -> None:
    """The worker is stopped in order and another one starts: nothing is repeated, nothing is charged."""
    shop = Shop()
    async with run_jobs(shop.jobs) as run:
        job = await shop.fulfil.submit("tea")
        await run.until_idle()
        await run.restart()
        await run.advance(3600)
        assert await job.result(timeout=10) == ["receipt tea", "shipped"]
        info = await job.info()
        assert (info.failures, info.lost) == (0, 0)
    assert shop.done == ["charge tea", "ship tea"]


async def test_a_job_that_kills_its_worker_is_stopped() -> None:
    """It takes its worker down at the same step each time: after `max_lost` losses without progress it has failed."""
    shop = Shop()
    async with run_jobs(shop.jobs) as run:
        run.crash_at("charge", when="before", times=99)
        job = await shop.fulfil.submit("tea")
        await run.until_idle()
        info = await job.info()
        assert info.status is JobStatus.FAILED
        assert info.lost == run.crashes == 3
        assert info.error is not None and "max_lost" in info.error["message"]
    assert shop.done == []


async def test_the_store_of_the_program_is_not_touched() -> None:
    """Inside the block the program's jobs are elsewhere; afterwards it has its own store back, still unopened."""
    shop = Shop()
    before = shop.jobs.engine
    async with run_jobs(shop.jobs, clock=VirtualClock()):
        assert shop.jobs.engine is not before
        await shop.fulfil.submit("tea")
    assert shop.jobs.engine is before


async def test_open_jobs_are_refused() -> None:
    """The program has its store open: taking it away would tear its work apart, so that is an error."""
    shop = Shop()
    async with run_jobs(shop.jobs):
        with pytest.raises(RuntimeError, match="are open"):
            async with run_jobs(shop.jobs):
                raise AssertionError("it was entered")
