"""One measurement of streams in a process of its own: `python -m bench.streams.measures NAME '{"count": ...}'`."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 300
WRITERS = 8
DATA = '{"stream":"answer","data":{"token":"lorem ipsum"}}'


class MeasureFailed(Exception):
    """A measuring process ended badly; the message is the last line it wrote."""


def measure(name: str, **order: object) -> dict[str, float]:
    """Run one of `MEASURES` in a fresh process and a fresh folder."""
    return answer_of([sys.executable, "-m", __name__, name, json.dumps(order)])


def answer_of(command: list[str]) -> dict[str, float]:
    """What a measuring process prints last, run in a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="bench-streams-") as place:
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": path},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    if done.returncode:
        raise MeasureFailed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def batched_inserts(count: int, batch: int) -> dict[str, float]:
    """The floor: the same rows, `batch` of them in each transaction, WAL and synchronous=FULL, one thread."""
    connection = sqlite3.connect("floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE event (job INTEGER NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL, step TEXT,"
        " type TEXT NOT NULL, at REAL NOT NULL, data TEXT NOT NULL, PRIMARY KEY (job, seq)) WITHOUT ROWID"
    )
    began = time.perf_counter()
    for start in range(0, count, batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO event VALUES (?, ?, 1, NULL, 'stream.data', ?, ?)",
            [(n % WRITERS, n // WRITERS, time.time(), DATA) for n in range(start, min(count, start + batch))],
        )
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return {"rate": count / took}


async def events_written(count: int) -> dict[str, float]:
    """Events per second that `WRITERS` jobs write to their streams, stored: each an event of its own."""
    return await _written(count, as_text=False)


async def tokens_written(count: int) -> dict[str, float]:
    """Tokens per second, stored: `write`, which joins those that come together."""
    return await _written(count, as_text=True)


async def _written(count: int, *, as_text: bool) -> dict[str, float]:
    from lastcall.jobs import Context, Jobs

    jobs = Jobs("sqlite:///jobs.db")
    began = ended = 0.0

    @jobs.task
    async def speak(ctx: Context, count: int) -> None:
        async with ctx.stream() as out:
            for _ in range(count):
                if as_text:
                    await out.write("lorem ipsum ")
                else:
                    await out.send({"token": "lorem ipsum"})

    async with jobs.worker(concurrency=WRITERS):
        await (await speak.submit(10)).result()
        began = time.perf_counter()
        running = await jobs.submit_many([speak.call(count // WRITERS) for _ in range(WRITERS)])
        for job in running:
            await job.result()
        ended = time.perf_counter()
    return {"rate": count // WRITERS * WRITERS / (ended - began)}


async def seen_after(count: int, pace_seconds: float) -> dict[str, float]:
    """How long after `write` a reader in the same process has a token, in milliseconds."""
    from lastcall.jobs import Context, Jobs

    jobs = Jobs("sqlite:///jobs.db")
    written: list[float] = []
    waited: list[float] = []

    @jobs.task
    async def speak(ctx: Context) -> None:
        async with ctx.stream() as out:
            for _ in range(count):
                await asyncio.sleep(pace_seconds)
                written.append(time.perf_counter())
                await out.write("x")

    async with jobs.worker():
        job = await speak.submit()
        async for event in job.events():
            if event.type == "stream.text":
                now = time.perf_counter()
                for _ in event.data["text"]:
                    waited.append(now - written[len(waited)])
    waited.sort()
    return {"p50": waited[len(waited) // 2] * 1000, "p99": waited[int(len(waited) * 0.99)] * 1000}


MEASURES: dict[str, Callable[..., Any]] = {
    "batched_inserts": batched_inserts,
    "events_written": events_written,
    "tokens_written": tokens_written,
    "seen_after": seen_after,
}


if __name__ == "__main__":
    made = MEASURES[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(asyncio.run(made) if asyncio.iscoroutine(made) else made))
