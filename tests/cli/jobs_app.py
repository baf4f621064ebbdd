"""An app whose jobs `lastcall worker` and `lastcall jobs` are tried on; its store is in the current folder.

Each step writes a line into the ledger when it begins and when it ends, and takes until somebody writes a byte into
the pipe.
"""

import asyncio
from typing import Any

from lastcall.jobs import Context, Jobs

jobs = Jobs("sqlite:///jobs.db")


def note(line: str) -> None:
    with open("ledger", "a", encoding="utf-8") as ledger:
        ledger.write(f"{line}\n")
    print(line, flush=True)


def count(n: int) -> int:
    note(f"begin {n}")
    with open("pipe", "rb", buffering=0) as pipe:
        pipe.read(1)
    note(f"end {n}")
    return n


@jobs.task(name="count")
async def count_up(ctx: Context, steps: int) -> int:
    return sum([await ctx.step(count, n) for n in range(steps)])


@jobs.task(name="stubborn")
def stubborn() -> None:
    """Never ends by itself and hears nothing."""
    note("stubborn")
    with open("pipe", "rb", buffering=0) as pipe:
        pipe.read(1)


@jobs.task(name="polite")
async def polite() -> None:
    """Never ends by itself, and ends when it is cancelled."""
    note("polite begins")
    try:
        await asyncio.sleep(3600)
    finally:
        note("polite is cancelled")


@jobs.task(name="wait", queue="slow")
async def wait(ctx: Context) -> Any:
    return await ctx.wait_for("go")


@jobs.task(name="fail")
async def fail(what: str) -> None:
    raise ValueError(f"no {what}")


@jobs.task(name="pay")
async def pay(ctx: Context) -> Any:
    return await ctx.step(count, 0, name="charge", policy="once")
