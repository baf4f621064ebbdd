"""What is carried, in the test's own process and in the workers': the same declarations, on the same store."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from lastcall import current_shutdown
from lastcall.jobs import Context, Jobs, Task
from tests.jobs.crash.ledger import Ledger

LONGEST_SECONDS = 40.0
_LOOK_SECONDS = 0.01
_VARIABLES = ("LASTCALL_TEST_FOLDER", "LASTCALL_TEST_BROKER", "LASTCALL_TEST_STORE")


class Place(NamedTuple):
    """Where everything is, for one test; it goes to the workers by the environment."""

    folder: str
    broker: str
    store: str = ""

    @property
    def ledger(self) -> str:
        return str(Path(self.folder) / "ledger")

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.store or f"sqlite:///{self.folder}/jobs.db")

    def environment(self) -> dict[str, str]:
        values = (self.folder, self.broker, self.store)
        return dict(zip(_VARIABLES, values, strict=True))

    @classmethod
    def here(cls) -> Place:
        return cls(*(os.environ[variable] for variable in _VARIABLES))

    def gate(self, number: int) -> Path:
        return Path(self.folder) / f"gate.{number}"


class Work:
    """The tasks, declared on `jobs`."""

    def __init__(self, jobs: Jobs, place: Place) -> None:
        self.place = place
        self.ledger = Ledger(place.ledger)
        self.add: Task[Any, int] = jobs.task(name="add")(self._add)
        self.stepping: Task[Any, int] = jobs.task(name="stepping")(self._stepping)
        self.single: Task[Any, str] = jobs.task(name="single", concurrency=1)(self._single)
        self.endless: Task[Any, str] = jobs.task(name="endless")(self._endless)
        self.asking: Task[Any, str] = jobs.task(name="asking")(self._asking)

    async def _add(self, a: int, b: int) -> int:
        return a + b

    async def _stepping(self, ctx: Context, steps: int) -> int:
        for number in range(steps):
            await ctx.step(self.through_gate, number, name=f"step {number}")
        return steps

    async def through_gate(self, number: int) -> None:
        """Ends when its gate is open; tells when it has heard of a stop, so that a test need not guess."""
        with self.ledger.effect():
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell_of_stop(f"step {number}"))
                await opened(self.place.gate(number))
                telling.cancel()

    async def _tell_of_stop(self, key: str) -> None:
        await current_shutdown().wait()
        self.ledger.write("told", key)

    async def _single(self, ctx: Context) -> str:
        await ctx.step(self.through_gate, 0, name="alone")
        return "done"

    async def _endless(self, ctx: Context) -> str:
        self.ledger.write("began", job=ctx.job_id, attempt=ctx.attempt)
        try:
            await asyncio.sleep(LONGEST_SECONDS)
        finally:
            self.ledger.write("left", str(ctx.cancel_reason), job=ctx.job_id, attempt=ctx.attempt)
        return "nobody has cancelled it"

    async def _asking(self, ctx: Context) -> str:
        await ctx.sleep(0.05)
        return str(await ctx.wait_for("word"))


async def opened(gate: Path) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not gate.exists():
        assert time.monotonic() < deadline, f"nobody has opened {gate.name}"
        await asyncio.sleep(_LOOK_SECONDS)
