"""A worker under `lastcall.run`, told to stop in the middle of a step. Arguments: which one, and the database."""

import asyncio
import sys

import lastcall
from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.jobs import Context, Job, Jobs

which, database = sys.argv[1:]
jobs = Jobs(f"sqlite:///{database}?synchronous=off")


@jobs.task
async def work(ctx: Context) -> None:
    async def step(n: int) -> None:
        print(f"step {n} begins")
        await current_shutdown().wait()
        print(f"told: {ctx.shutdown.reason}")
        await asyncio.sleep(0.1)
        print(f"step {n} ends")

    for n in (1, 2, 3):
        await ctx.step(step, n)


async def serve() -> None:
    async with jobs.worker():
        await current_shutdown().wait()


async def show(job: Job[None]) -> None:
    print(f"{await job.status()}, {len(await job.steps())} steps")
    for attempt in await job.attempts():
        print(f"{attempt.outcome} ({attempt.reason})")


async def main() -> None:
    async with jobs:
        job = await work.submit()
        try:
            if which == "own":
                async with jobs.worker():
                    await current_shutdown().wait()
            elif which == "given":
                async with TaskManager(), jobs.worker():
                    await current_shutdown().wait()
            elif which == "body ignores":
                async with TaskManager(plan=ShutdownPlan(drain=0.5)), jobs.worker():
                    await asyncio.sleep(60)
            else:
                async with TaskManager(plan=ShutdownPlan(drain=0.5)) as manager:
                    manager.create_task(serve())
                    # The body's own work, which is none of the worker's business.
                    await asyncio.sleep(60)
        finally:
            await show(job)


lastcall.run(main())
