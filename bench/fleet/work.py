"""The jobs of the fleet: those of the crash tests, and some more that need a database, a stream or a deploy.

Their steps write to the ledger, and what they return is known beforehand. `bank` is a row of transactions, `talk`
speaks into two streams, `once a key` is submitted more than once, `release` has a version with each deploy, and
`new in rN` is a task that no worker before release N knows; `order` is submitted in its user's own transaction.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from lastcall.jobs import Context, Jobs, current_context
from lastcall.jobs._rows import JobRow
from tests.jobs.crash import plays
from tests.jobs.crash.checker import Expected
from tests.jobs.crash.ledger import Ledger
from tests.jobs.crash.work import ENDLESS, RowWriter, Work

TICK_SECONDS = 5
CRON = f"*/{TICK_SECONDS} * * * * *"
TRANSACTIONS = 4


def answer(number: int) -> list[str]:
    """What `talk` says in each of its streams, word by word."""
    return [f"word {number + n}. " for n in range(12)]


class FleetWork(Work):
    """The tasks, declared on `jobs`. `releases`: of how many deploys this process knows the code."""

    def __init__(
        self, jobs: Jobs, ledger: Ledger, ledger_path: str, write_row: RowWriter, releases: int
    ) -> None:
        super().__init__(jobs, ledger, ledger_path, stalls=True, cron=CRON, write_row=write_row)
        self.bank = jobs.task(name="bank", **ENDLESS)(self._bank)
        self.talk = jobs.task(name="talk", **ENDLESS)(self._talk)
        self.once_a_key = jobs.task(name="once a key", **ENDLESS)(self._once_a_key)
        self.order = jobs.task(name="order", **ENDLESS)(self._order)
        self.waiting = jobs.task(name="waiting", **ENDLESS)(self._waiting)
        self.release = [self._declare_release(jobs, n) for n in range(releases)]
        self.new_in = [jobs.task(name=f"new in r{n}", **ENDLESS)(self._new) for n in range(releases)]

    def _declare_release(self, jobs: Jobs, number: int) -> Any:
        async def release(ctx: Context, number: int) -> int:
            """Its own number comes from the code and not from the arguments."""
            await ctx.step(self.pausing, 0, 0.02, name="before")
            await ctx.sleep(0.05)
            await ctx.step(self.pausing, 0, 0.02, name="after")
            return of_code

        of_code = number
        return jobs.task(name="release", version=f"r{number}", **ENDLESS)(release)

    # --- jobs ------------------------------------------------------------------------------------------

    async def _bank(self, ctx: Context) -> int:
        for n in range(TRANSACTIONS):
            await ctx.transaction(self.row, ctx.job_id, ctx.attempt, f"row {n}", name=f"row {n}")
            await ctx.step(self.add, n, 0)
        return TRANSACTIONS

    async def _talk(self, ctx: Context, number: int) -> str:
        """One stream outside of steps, which is taken back when it is cut; one in a step that continues."""
        async with ctx.stream("answer") as out:
            for word in answer(number):
                await asyncio.sleep(0.01)
                await out.write(word)
        return await ctx.step(self.say, number, name="more", policy="continue")

    async def say(self, number: int) -> str:
        words = answer(number)
        with self._ledger.effect():
            async with current_context().stream("more") as out:
                while (said := len(out.text_so_far)) < len("".join(words)):
                    rest = "".join(words)[said:]
                    await asyncio.sleep(0.01)
                    await out.write(rest[: len(words[0])])
                return out.text_so_far

    async def _once_a_key(self, ctx: Context, number: int) -> int:
        return await ctx.step(self.add, number, 1)

    async def _order(self, ctx: Context, number: int) -> int:
        return await ctx.step(self.add, number, 1)

    async def _waiting(self, ctx: Context, number: int) -> Any:
        """Until somebody sends a word, or cancels it."""
        await ctx.step(self.add, number, 0)
        return await ctx.wait_for("go")

    async def _new(self, ctx: Context, number: int) -> int:
        return await ctx.step(self.add, number, 2)


def expected(job: JobRow) -> Expected:
    """How each job must end, if nobody cancels it."""
    args = json.loads(job.args)
    match job.task:
        case "bank":
            return Expected(result=TRANSACTIONS)
        case "talk":
            return Expected(result="".join(answer(args["number"])), resumed=frozenset({"more"}))
        case "once a key" | "order":
            return Expected(result=args["number"] + 1)
        case "waiting":
            return Expected(result=args["number"])
        case "release":
            return Expected(result=int(job.version.removeprefix("r")))
        case name if name.startswith("new in r"):
            return Expected(result=args["number"] + 2)
    return plays.expected(job)
