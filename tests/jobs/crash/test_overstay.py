"""A job that outlasts the drain is handed over, and the program around it has ended well."""

import re
from pathlib import Path

from tests.cli.program import Program

PROGRAM = """
import asyncio, logging, os, signal, sys
import lastcall
from lastcall.jobs import Context, Jobs

jobs = Jobs(f"sqlite:///{sys.argv[1]}")

async def long_step() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.Event().wait()

@jobs.task
async def overstay(ctx: Context) -> None:
    await ctx.step(long_step)

async def main() -> None:
    async with lastcall.TaskManager(plan=lastcall.ShutdownPlan(drain=0.2)) as manager:
        async with jobs.worker(manager=manager):
            await overstay.submit()
            await lastcall.current_shutdown().wait()
    print(manager.report.to_json(), flush=True)

logging.basicConfig(level=logging.INFO)
lastcall.run(main())
"""


def test_the_body_that_waits_for_it_is_not_to_blame(tmp_path: Path) -> None:
    """A step outlasts the whole drain of the user's own manager: `handed_over`, clean, exit code 0."""
    with Program(["-c", PROGRAM, str(tmp_path / "jobs.db")]) as program:
        assert program.wait() == 0
    assert '"handed_over": 1' in program.out and '"clean": true' in program.out
    assert re.search(r"shutdown of .*: clean", program.err)
