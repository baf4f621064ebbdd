"""From a token's write to its reader in another process.

`python -m bench.postgres.tokens URL COUNT PACE` is the writer: a worker, and a job that writes a token every PACE
seconds, each with the time of its write in it. The reader is whoever measures: it follows the job's log, and looks at
its clock, which is one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

from ..jobs.catalog import FULL_FSYNC, OURS
from ..jobs.report import progress
from ..jobs.rows import Block, Goal, Row
from ..jobs.workers import ROOT, ContenderFailed, last_line
from .measuring import Bench

PACES = ((0.01, "100 tokens/s"), (0.05, "20 tokens/s"))
INTERVAL_MS = 25.0
TIMEOUT_SECONDS = 120
SKIPPED = 5  # the first ones meet connections that are not open yet


def rows(bench: Bench) -> list[Row]:
    block = Block("postgres", "Token written to a reader in another process, p99", "ms")
    if not any(setting.ours for setting in bench.settings):
        return []
    sizes = bench.sizes
    for pace, what in PACES:
        found = []
        try:
            for number in range(sizes.token_rounds):
                progress(f"postgres    tokens at {what}, round {number + 1} of {sizes.token_rounds}")
                found.append(seen_after(bench.server.new_url(), sizes.tokens, pace))
        except ContenderFailed as error:
            block.add_problem(OURS, str(error), failed=True, ours=True)
            continue
        middles = sorted(each[len(each) // 2] for each in found)
        block.add(
            f"{OURS}, {what}",
            [INTERVAL_MS] * len(found),
            [each[int(len(each) * 0.99)] for each in found],
            floor_name="the flush interval, 25 ms",
            goal=Goal("≤ 50 ms", value_at_most=50.0),
            durability=FULL_FSYNC,
            count=sizes.tokens,
            note=f"p50 {middles[len(middles) // 2]:.1f} ms",
            ours=True,
        )
    return block.rows


def seen_after(url: str, count: int, pace_seconds: float) -> list[float]:
    """Milliseconds of every token, in order of size."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "bench.postgres.tokens", url, str(count), str(pace_seconds)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with writer:
        assert writer.stdout is not None and writer.stderr is not None
        try:
            job_id = writer.stdout.readline().strip()
            if not job_id:
                raise ContenderFailed(last_line(writer.stderr.read()))
            read = subprocess.run(
                [sys.executable, "-m", "bench.postgres.tokens", url, job_id],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
            if read.returncode:
                raise ContenderFailed(last_line(read.stderr))
            waited: list[float] = json.loads(last_line(read.stdout))
        finally:
            writer.kill()
    return sorted(waited[SKIPPED:])


async def write(url: str, count: int, pace_seconds: float) -> None:
    from lastcall.jobs import Context, Jobs

    jobs = Jobs(url)

    @jobs.task
    async def speak(ctx: Context) -> None:
        # The reader has to be there; the log keeps what it misses, but that would not be a wait.
        await ctx.wait_for("go")
        async with ctx.stream() as out:
            for _ in range(count):
                await asyncio.sleep(pace_seconds)
                await out.write(f"{time.monotonic()} ")

    async with jobs.worker():
        job = await speak.submit()
        print(job.id, flush=True)
        await job.result(timeout=TIMEOUT_SECONDS)


async def read(url: str, job_id: str) -> list[float]:
    from lastcall.jobs import Jobs

    waited: list[float] = []
    text = ""
    async with Jobs(url) as jobs:
        job = jobs.job(job_id)
        following = job.events()
        await job.send("go", None)
        async for event in following:
            now = time.monotonic()
            if event.type == "stream.text":
                *whole, text = (text + event.data["text"]).split(" ")
                waited += [(now - float(at)) * 1000 for at in whole]
    return waited


if __name__ == "__main__":
    if len(sys.argv) == 4:
        asyncio.run(write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    else:
        print(json.dumps(asyncio.run(read(sys.argv[1], sys.argv[2]))))
