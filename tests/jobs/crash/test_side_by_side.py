"""Steps that an attempt asks for at the same moment, before it knows what earlier ones have recorded and told.

Found by killing a job whose first steps run side by side; made to happen here by an attempt that fails.
"""

import asyncio
import itertools

from lastcall.jobs import Backoff, Context, Jobs, current_context
from tests.jobs.running import told

AT_ONCE = Backoff(first_seconds=0.0, jitter=0.0)


class FirstTime(Exception):
    """The first attempt fails with it."""


async def test_steps_side_by_side_share_one_memory(jobs: Jobs) -> None:
    """A second attempt begins with three steps at once, two of them of one name: each finds its own value, and a later
    step is not taken for a change of the code."""
    numbers = itertools.count(1)

    async def draw() -> int:
        return next(numbers)

    async def first() -> str:
        return "first"

    drawn: list[list[int]] = []

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        async with asyncio.TaskGroup() as group:
            twins = [group.create_task(ctx.step(draw)) for _ in range(2)]
            found = await ctx.step(first)
        drawn.append([twin.result() for twin in twins])
        if ctx.failures == 0:
            raise FirstTime
        return found + await ctx.step(first, name="a later step")

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(20) == "firstfirst"
    assert drawn == [[1, 2], [1, 2]]


async def test_steps_side_by_side_announce_that_they_are_repeated(jobs: Jobs) -> None:
    """Three steps at once had told something when the attempt failed: each of them says `step.reset` before it tells
    anything again."""
    all_told = asyncio.Event()
    count = itertools.count(1)

    async def telling(n: int) -> int:
        context = current_context()
        await context.emit("told", n)
        if context.failures == 0:
            if next(count) == 3:
                all_told.set()
            await all_told.wait()
            raise FirstTime
        return n

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> list[int]:
        steps = (ctx.step(telling, n, name=f"step {n}") for n in range(3))
        found = await asyncio.gather(*steps, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [int(str(one)) for one in found]

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(20) == [0, 1, 2]
        log = [(event.step, event.type) for event in await told(job)]
    for n in range(3):
        assert [type for step, type in log if step == f"step {n}"] == ["told", "step.reset", "told"]
