"""The jobs that are attacked. Their steps write to the ledger; what they return is known beforehand.

`rich` has one of everything: steps one after the other and side by side, one in a thread, events, a sleep, messages, a
transaction with a table of the user's own, children, a failure that is retried, and the policies `once` and `continue`.
`plain` is a row of short steps, `long` waits for the test and `attentive` for its stop; `poison` takes its process down
with it, `patient poison` with as many `innocent` ones as it can, and `careful` is innocent, too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from lastcall.jobs import Backoff, Context, Decision, Job, Jobs, StepStatus, current_context, current_step

from .ledger import Ledger, having, read

# Nothing here may end a job but its own end, however often it is killed.
ENDLESS: Any = {"max_lost": 1_000_000, "max_attempts": 2_000_000}
SOON = Backoff(first_seconds=0.02, jitter=0.0)

STREAMED = 4
LIMIT = 2
_LOOK_SECONDS = 0.01
_LONGEST_SECONDS = 30.0
CREATE_ROWS = "CREATE TABLE IF NOT EXISTS effects (job TEXT, step TEXT, attempt INTEGER)"


RowWriter = Callable[[Any, str, str, int], None]


def write_to_sqlite(connection: sqlite3.Connection, job_id: str, step: str, attempt: int) -> None:
    """One row; the table is made with the first."""
    connection.execute(CREATE_ROWS)
    connection.execute("INSERT INTO effects VALUES (?, ?, ?)", (job_id, step, attempt))


class TriedAgain(Exception):
    """The first attempt fails with it, and no other."""


def rich_result(number: int) -> dict[str, Any]:
    return {
        "added": [number, number + 1],
        "twins": 2,
        "side": [0, 10, 20],
        "thread": number * 2,
        "row": "written",
        "early": "first word",
        "late": "second word",
        "child": 1,
        "children": [4, 9],
        "once": number,
        "asked": number,
        "streamed": STREAMED,
    }


def plain_result(number: int, steps: int) -> int:
    return sum(number + step for step in range(steps))


class Work:
    """The tasks, declared on `jobs`. `ledger_path`: where a step `once` looks up whether it had begun. `stalls`: the
    process that ran it may only be asleep and begin it yet, so it must be taken as begun. `cron`: when `ticking` comes.
    `write_row(connection, job, step, attempt)`: into the table of the user's own."""

    def __init__(
        self,
        jobs: Jobs,
        ledger: Ledger,
        ledger_path: str,
        *,
        stalls: bool = False,
        cron: str | None = None,
        write_row: RowWriter = write_to_sqlite,
    ) -> None:
        self._ledger = ledger
        self._write_row = write_row
        self._stalls = stalls
        self._ledger_path = ledger_path
        self.rich = jobs.task(name="rich", retries=3, backoff=SOON, **ENDLESS)(self._rich)
        self.plain = jobs.task(name="plain", **ENDLESS)(self._plain)
        self.long = jobs.task(name="long", **ENDLESS)(self._long)
        self.apart = jobs.task(name="apart", run="process", **ENDLESS)(in_a_process)
        self.attentive = jobs.task(name="attentive", **ENDLESS)(self._attentive)
        self.child = jobs.task(name="child", **ENDLESS)(self._child)
        self.failing = jobs.task(name="failing", retries=1, backoff=SOON, **ENDLESS)(self._failing)
        self.limited = jobs.task(
            name="limited", concurrency=LIMIT, concurrency_key="lane", concurrency_per_key=1, **ENDLESS
        )(self._limited)
        self.ticking = jobs.task(name="ticking", cron=cron, catch_up=True, **ENDLESS)(self._ticking)
        self.poison = jobs.task(name="poison", max_lost=3)(self._poison)
        # These two have no more lives than any job has.
        self.patient_poison = jobs.task(name="patient poison", max_lost=3)(self._patient_poison)
        self.innocent = jobs.task(name="innocent", max_lost=3)(self._innocent)
        self.careful = jobs.task(name="careful", max_lost=2)(self._careful)

    # --- jobs ------------------------------------------------------------------------------------------

    async def _rich(self, ctx: Context, number: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with asyncio.TaskGroup() as group:
            # In a later attempt all three come before any of them knows what is recorded.
            twins = [group.create_task(ctx.step(self.draw)) for _ in range(2)]
            first = await ctx.step(self.add, number, 0)
        found["added"] = [first, await ctx.step(self.add, number, 1)]
        found["twins"] = len({twin.result() for twin in twins})
        await ctx.progress(1, 3)
        sides = [ctx.step(self.telling, n, name=f"side {n}") for n in range(3)]
        found["side"] = list(await asyncio.gather(*sides))
        found["thread"] = await ctx.step(self.in_thread, number)
        await ctx.sleep(0.01)
        found["row"] = await ctx.transaction(self.row, ctx.job_id, ctx.attempt, name="row")
        found["early"] = await ctx.wait_for("early")
        child = await ctx.start(self.child.call(1))
        found["child"] = await ctx.result(child)
        children = [await ctx.start(self.child.call(n)) for n in (2, 3)]
        found["children"] = await ctx.gather(*children)
        if ctx.failures == 0:
            raise TriedAgain("as agreed")
        found["once"] = await ctx.step(
            self.once, number, name="once", policy="once", on_unknown=lambda: self.look_up(ctx, number)
        )
        found["asked"] = await ctx.step(self.once, number, name="asked", policy="once")
        found["late"] = await ctx.wait_for("late")
        found["streamed"] = await ctx.step(self.streaming, name="streamed", policy="continue")
        return found

    async def _plain(self, ctx: Context, number: int, steps: int, seconds: float) -> int:
        total = 0
        for step in range(steps):
            total += await ctx.step(self.pausing, number + step, seconds, name=f"step {step}")
        return total

    async def _long(self, ctx: Context, gate: str, in_thread: bool = False) -> int:
        """A step that lasts until there is a file `gate.N` in attempt N; then another one."""
        pid = await ctx.step(self.at_gate_in_thread if in_thread else self.at_gate, gate, name="gate")
        await ctx.step(self.add, 0, 0, name="after")
        return pid

    async def _attentive(self, ctx: Context) -> int:
        """A step that lasts until its process is told to stop; then another one."""
        pid = await ctx.step(self.until_told, name="until told")
        await ctx.step(self.add, 0, 0, name="after")
        return pid

    async def _child(self, ctx: Context, number: int) -> int:
        return await ctx.step(self.square, number)

    async def _failing(self, ctx: Context, number: int) -> None:
        await ctx.step(self.add, number, 0)
        raise TriedAgain(f"{number}, and it fails again")

    async def _limited(self, ctx: Context, lane: int) -> int:
        """Gives its place up in the middle, and needs another one."""
        await ctx.step(self.pausing, lane, 0.02, name="before")
        await ctx.sleep(0.02)
        return await ctx.step(self.pausing, lane, 0.02, name="after")

    async def _ticking(self, ctx: Context) -> None:
        await ctx.step(self.add, 0, 0)

    async def _poison(self, ctx: Context) -> None:
        self._ledger.write("poison", "", ctx.job_id, ctx.attempt)
        os.kill(os.getpid(), signal.SIGKILL)

    async def _patient_poison(self, ctx: Context, company: int) -> None:
        """Takes so many others with it, if it can: at first it waits until they run here, and then for nobody."""
        if ctx.attempt < 3:
            while len(having(read(self._ledger_path), "innocent", pid=os.getpid())) < company:
                await asyncio.sleep(_LOOK_SECONDS)
        await self._poison(ctx)

    async def _innocent(self, ctx: Context, deaths: int) -> None:
        """Does not end before its worker has died so often; records no step."""
        self._ledger.write("innocent", "", ctx.job_id, ctx.attempt)
        if ctx.attempt <= deaths:
            await asyncio.sleep(_LONGEST_SECONDS)
        self._ledger.write("innocent done", "", ctx.job_id, ctx.attempt)

    async def _careful(self, ctx: Context, gate: str) -> int:
        """Two long steps, of which each waits for the test."""
        await ctx.step(self.at_gate, gate, name="gate")
        return await ctx.step(self.at_second_gate, gate, name="second gate")

    # --- steps -----------------------------------------------------------------------------------------

    async def add(self, number: int, more: int) -> int:
        with self._ledger.effect():
            return number + more

    async def draw(self) -> int:
        """Never the same number twice."""
        with self._ledger.effect():
            return time.time_ns()

    async def square(self, number: int) -> int:
        with self._ledger.effect():
            await asyncio.sleep(0)
            return number * number

    async def telling(self, number: int) -> int:
        with self._ledger.effect():
            await current_context().emit("told", {"side": number})
            return number * 10

    def in_thread(self, number: int) -> int:
        with self._ledger.effect():
            time.sleep(0.001)
            return number * 2

    async def pausing(self, number: int, seconds: float) -> int:
        with self._ledger.effect():
            await asyncio.sleep(seconds)
            return number

    async def until_told(self) -> int:
        context = current_context()
        with self._ledger.effect():
            await context.shutdown.wait()
            self._ledger.write("job told", str(context.shutdown.reason), context.job_id, context.attempt)
            return os.getpid()

    async def at_gate(self, gate: str) -> int:
        context = current_context()
        with self._ledger.effect():
            try:
                while not os.path.exists(f"{gate}.{context.attempt}"):
                    await asyncio.sleep(_LOOK_SECONDS)
            except asyncio.CancelledError:
                reason = str(context.cancel_reason)
                self._ledger.write("cancelled", reason, context.job_id, context.attempt)
                raise
            return os.getpid()

    async def at_second_gate(self, gate: str) -> int:
        """One for which the file of the attempt that passed the first one is not enough."""
        context = current_context()
        with self._ledger.effect():
            while not os.path.exists(f"{gate}.{max(3, context.attempt)}"):
                await asyncio.sleep(_LOOK_SECONDS)
            return os.getpid()

    def at_gate_in_thread(self, gate: str) -> int:
        attempt = current_step().attempt
        with self._ledger.effect():
            while not os.path.exists(f"{gate}.{attempt}"):
                time.sleep(_LOOK_SECONDS)
            return os.getpid()

    def row(self, connection: Any, job_id: str, attempt: int, step: str = "row") -> str:
        self._write_row(connection, job_id, step, attempt)
        return "written"

    async def once(self, number: int) -> int:
        with self._ledger.effect():
            await asyncio.sleep(0)
            return number

    async def streaming(self) -> int:
        """Goes on after what it had emitted before it was cut off."""
        context = current_context()
        with self._ledger.effect():
            done = list(current_step().so_far)
            for n in range(len(done), STREAMED):
                await context.emit("token", n)
            return STREAMED

    # --- decisions -------------------------------------------------------------------------------------

    async def look_up(self, ctx: Context, number: int) -> Decision:
        """What the ledger says of the step `once`."""
        return Decision(self.has_begun(ctx.job_id, "once"), number)

    def has_begun(self, job_id: str, key: str) -> bool:
        return self._stalls or bool(having(read(self._ledger_path), "start", job=job_id, key=key))

    async def decide(self, job: Job[Any], number: int) -> None:
        """What the person does who is asked about a step whose outcome nobody knows."""
        for step in await job.steps():
            if step.status is StepStatus.STARTED and step.key == "asked":
                await job.resolve(step.key, happened=self.has_begun(job.id, step.key), value=number)


def in_a_process(ledger_path: str, gate: str) -> int:
    """A job in a process of its own, which lasts until there is a file of this name."""
    ledger, began = Ledger(ledger_path), time.monotonic()
    ledger.write("apart begins")
    while not os.path.exists(gate) and time.monotonic() < began + _LONGEST_SECONDS:
        time.sleep(_LOOK_SECONDS)
    ledger.write("apart ends")
    return os.getpid()
