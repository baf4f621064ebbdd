"""How soon a token written on one worker is read in another process; and how many notifications that took.

`python -m bench.postgres.tokens write URL` is the worker, `... read URL '{"count": ...}'` the reader that measures. A
token is the time at which it was written, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from lastcall.jobs import Context, Jobs

from ..jobs.catalog import FULL_FSYNC, OURS
from ..jobs.report import progress
from ..jobs.rows import Block, Goal, Row
from ..jobs.workers import ROOT
from ..streams.measures import MeasureFailed, answer_of
from .measuring import Bench

INTERVAL_MS = 25.0
GOAL_MS = 50.0
# How many streams at once, and how many tokens a second in each.
PLAYS = ((1, 20), (1, 100), (8, 50))
_NEWS = "SELECT last_value FROM lastcall.news"


def rows(bench: Bench) -> list[Row]:
    block = Block("postgres", "Token written to a reader in another process, p99", "ms")
    if not any(setting.ours for setting in bench.settings):
        return []
    sizes = bench.sizes
    url = bench.server.new_url()
    with _worker(url):
        for streams, pace in PLAYS:
            name = f"{OURS}, {streams} × {pace} tokens/s"
            found: list[dict[str, float]] = []
            try:
                for number in range(sizes.token_rounds):
                    progress(
                        f"postgres    {streams} × {pace} tokens/s, round {number + 1} of {sizes.token_rounds}"
                    )
                    order = {"streams": streams, "count": sizes.tokens, "pace_seconds": 1 / pace}
                    found.append(answer_of([sys.executable, "-m", __name__, "read", url, json.dumps(order)]))
            except MeasureFailed as error:
                block.add_problem(name, str(error), failed=True, ours=True)
                continue
            middle = sorted(found, key=lambda answer: answer["p50"])[len(found) // 2]
            block.add(
                name,
                [INTERVAL_MS] * len(found),
                [answer["p99"] for answer in found],
                floor_name="the flush interval, 25 ms",
                goal=Goal(f"≤ {GOAL_MS:g} ms", value_at_most=GOAL_MS),
                durability=FULL_FSYNC,
                count=streams * sizes.tokens,
                note=f"p50 {middle['p50']:.1f} ms, {middle['notifications']:.2f} notifications per token",
                ours=True,
            )
    return block.rows


@contextlib.contextmanager
def _worker(url: str) -> Iterator[None]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    worker = subprocess.Popen(
        [sys.executable, "-m", __name__, "write", url],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
    )
    try:
        yield
    finally:
        assert worker.stdin is not None
        worker.stdin.close()  # which it waits for
        worker.wait(60)


# --- the two processes ---------------------------------------------------------------------------------


def _declared(url: str) -> tuple[Jobs, Any]:
    jobs = Jobs(url)

    @jobs.task(name="speak")
    async def speak(ctx: Context, count: int, pace_seconds: float) -> None:
        async with ctx.stream() as out:
            for _ in range(count):
                await asyncio.sleep(pace_seconds)
                await out.write(f"{time.perf_counter_ns()} ")

    return jobs, speak


async def write(url: str) -> None:
    jobs, _ = _declared(url)
    async with jobs.worker(concurrency=50):
        await asyncio.to_thread(sys.stdin.read)


async def read(url: str, streams: int, count: int, pace_seconds: float) -> dict[str, float]:
    """In milliseconds; and how many notifications there were for each token."""
    import asyncpg

    jobs, speak = _declared(url)
    waited: list[float] = []

    async def follow() -> None:
        job = await speak.submit(count, pace_seconds)
        async for event in job.events():
            if event.type == "stream.text":
                now = time.perf_counter_ns()
                waited.extend((now - int(at)) / 1e6 for at in event.data["text"].split())

    async with jobs:
        await (await speak.submit(5, 0.0)).result()  # everything is there, and connected
        connection = await asyncpg.connect(url)
        before = await connection.fetchval(_NEWS)
        await asyncio.gather(*(follow() for _ in range(streams)))
        notifications = await connection.fetchval(_NEWS) - before
        await connection.close()
    assert len(waited) == streams * count, f"{len(waited)} tokens of {streams * count}"
    waited.sort()
    return {
        "p50": waited[len(waited) // 2],
        "p99": waited[int(len(waited) * 0.99)],
        "worst": waited[-1],
        "notifications": notifications / len(waited),
    }


if __name__ == "__main__":
    if sys.argv[1] == "write":
        asyncio.run(write(sys.argv[2]))
    else:
        print(json.dumps(asyncio.run(read(sys.argv[2], **json.loads(sys.argv[3])))))
