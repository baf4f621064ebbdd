"""How to test that a job survives: killed at every place it passes, it ends as if nothing had happened.

python -m pytest examples/testing_survival.py     (async tests are run by anyio's plugin here; any other will do)
"""

import pytest

from lastcall.jobs import Context, Job, Jobs, current_step

jobs = Jobs("sqlite:///orders.db")


class Bank:
    """Outside the store: it keeps what it was told, and does a thing once for each key."""

    def __init__(self) -> None:
        self.charges: dict[str, int] = {}

    async def charge(self, cents: int, key: str) -> None:
        self.charges.setdefault(key, cents)


bank = Bank()


async def charge(cents: int) -> str:
    await bank.charge(cents, key=current_step().idempotency_key)
    return f"receipt for {cents}"


@jobs.task
async def fulfil(ctx: Context, order: str) -> list[str]:
    receipt = await ctx.step(charge, 250)
    await ctx.sleep(86_400)
    return [receipt, f"{order} is on its way"]


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def watched(no_leaked_tasks, no_swallowed_cancels):
    """For every test of this file."""


async def test_an_order_survives(assert_survives):
    def check(job: Job[list[str]]) -> None:
        assert list(bank.charges.values()) == [250]  # once, wherever it died

    await assert_survives(jobs, fulfil.call("tea"), before_each=bank.charges.clear, check=check)


async def test_a_deploy_in_the_middle_of_a_charge(run_jobs):
    bank.charges.clear()
    async with run_jobs(jobs) as run:
        run.drain_at("charge")
        job = await fulfil.submit("tea")
        await run.advance(86_400)
        assert await job.result() == ["receipt for 250", "tea is on its way"]
        assert (await job.info()).failures == 0
