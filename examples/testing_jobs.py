"""How to test jobs: they run in the test's own process, by a clock of its own, and die where the test wants it.

python -m pytest examples/testing_jobs.py, or python examples/testing_jobs.py
"""

import asyncio

from lastcall.jobs import Context, Jobs
from lastcall.testing import run_jobs

jobs = Jobs("sqlite:///orders.db")
charged: list[str] = []


def charge(order: str) -> str:
    charged.append(order)
    return f"receipt for {order}"


async def ship(order: str) -> str:
    return f"{order} is on its way"


@jobs.task
async def fulfil(ctx: Context, order: str) -> list[str]:
    receipt = await ctx.step(charge, order)
    await ctx.sleep(86_400)
    return [receipt, await ctx.step(ship, order)]


async def a_crash_after_the_charge_was_recorded_charges_once() -> None:
    charged.clear()
    async with run_jobs(jobs) as run:
        run.crash_at("charge", when="recorded")
        job = await fulfil.submit("tea")
        await run.until_idle()
        assert run.crashes == 1
        assert await job.status() == "waiting"
        await run.advance(86_400)
        assert await job.result() == ["receipt for tea", "tea is on its way"]
    assert charged == ["tea"]


def test_a_crash_after_the_charge_was_recorded_charges_once() -> None:
    asyncio.run(a_crash_after_the_charge_was_recorded_charges_once())


if __name__ == "__main__":
    test_a_crash_after_the_charge_was_recorded_charges_once()
    print("charged once, whatever died")
