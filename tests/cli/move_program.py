"""What moves: jobs in every state, in a file; the process that made them, and the one that moves them, to be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from lastcall.cli._move import Wanted, run_move
from lastcall.jobs import Context, Job, Jobs, Rate, Task
from lastcall.streams import Streams

STEPS = ("one", "two", "three", "four")


class Program:
    """The tasks, on whichever store; each step is written down in a ledger when it is called."""

    def __init__(self, url: str, ledger: Path) -> None:
        self.jobs = jobs = Jobs(url)
        self._ledger = ledger
        self.dies_at: str | None = None

        @jobs.task(name="four", retries=3)
        async def four(ctx: Context, who: str) -> list[str]:
            done = []
            for name in STEPS:
                done.append(await ctx.step(self._step, who, name, name=name))
                if name == "two" and who == "waits":
                    await ctx.wait_for("approval")
            return done

        @jobs.task(name="parent")
        async def parent(ctx: Context) -> int:
            children = [await ctx.start(leaf.call(number)) for number in (1, 2)]
            return sum(await ctx.gather(*children))

        @jobs.task(name="leaf", queue="leaves", concurrency_key="number")
        async def leaf(number: int) -> int:
            return number

        @jobs.task(name="fails", rate=Rate(100, seconds=60))
        async def fails() -> None:
            raise ValueError("as declared")

        @jobs.task(name="nightly", cron="0 4 * * *")
        async def nightly() -> None: ...

        self.four: Task[[str], list[str]] = four
        self.parent: Task[[], int] = parent
        self.leaf: Task[[int], int] = leaf
        self.fails: Task[[], None] = fails

    def _step(self, who: str, name: str) -> str:
        with self._ledger.open("a") as file:
            file.write(f"{who} {name}\n")
        if name == self.dies_at and who == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{who} has done {name}"


async def reaches(job: Job[object], *statuses: str) -> None:
    async with asyncio.timeout(30):
        while await job.status() not in statuses:
            await asyncio.sleep(0.01)


def live(url: str, ledger: str) -> None:
    """A day's work, until it is killed in the third step of a job of four."""

    async def main() -> None:
        program = Program(url, Path(ledger))
        program.dies_at = "three"
        async with program.jobs:
            async with program.jobs.worker(queues=["default"]):
                done = await program.four.options(key="done", labels={"who": "ann"}).submit("done")
                failed = await program.fails.submit()
                waits = await program.four.options(key="waits").submit("waits")
                parent = await program.parent.options(key="parent").submit()
                await reaches(done, "completed")
                await reaches(failed, "failed")
                await reaches(waits, "waiting")
                await reaches(parent, "waiting")
                await waits.send("later", {"kept": True})
                await program.four.options(key="later", delay=3600.0, priority=3).submit("later")
                await program.leaf.options(key="k", queue="leaves").submit(7)
                await (await program.leaf.options(key="gone").submit(8)).cancel()
                await write_a_stream(program.jobs.streams)
                await program.four.options(key="dies").submit("dies")
                await asyncio.sleep(60)

    asyncio.run(main())
    sys.exit(1)


async def write_a_stream(streams: Streams) -> None:
    stream = await streams.create("chat/42")
    for number in range(5):
        await stream.append_json({"number": number})


def move(source: str, target: str, batch: int) -> None:
    sys.exit(run_move(Wanted(source, target, batch)))
