"""A process that uses the PostgreSQL engine: `program.py <what> <url> <schema> ...`, told what to do next by lines."""

from __future__ import annotations

import asyncio
import os
import sys

from lastcall.engines.postgres import PostgresEngine
from lastcall.jobs._processes import this_process
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, NewJob, WorkerRow

TASKS = {("work", ""): None}


async def next_line() -> str:
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def open_at_once(url: str, schema: str) -> None:
    """Open when told, and use it."""
    engine = PostgresEngine(url, schema=schema)
    print("ready")
    await next_line()
    await engine.open()
    await engine.submit([NewJob(f"job-{os.getpid()}", "work", "[]")])
    print("open")
    await next_line()
    await engine.close()


async def submit_pairs(url: str, schema: str) -> None:
    """Submit pairs of jobs from several tasks, and say each pair that was answered."""
    engine = PostgresEngine(url, schema=schema)
    await engine.open()

    async def submit(task: int) -> None:
        for number in range(100_000):
            pair = f"{os.getpid()}-{task}-{number}"
            keys = {"key": pair} if task % 2 else {}
            jobs = [NewJob(f"{pair}{side}", "work", "[]") for side in "ab"]
            await engine.submit([job._replace(**dict.fromkeys(keys, job.id)) for job in jobs])
            print(pair)

    print("open")
    await asyncio.gather(*map(submit, range(8)))


async def work(url: str, schema: str, worker_id: str) -> None:
    """Claim jobs and complete every other one; say what was claimed and what was completed."""
    engine = PostgresEngine(url, schema=schema)
    await engine.open()
    await engine.join(WorkerRow(worker_id, "host", *this_process(), 3600.0, 10, None))
    print("open")
    while True:
        jobs = (await engine.claim(ClaimRequest(worker_id, 7, TASKS))).jobs
        for job in jobs[::2]:
            await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1"))])
            print(f"completed {job.id} {job.attempt}")
        if not jobs:
            await asyncio.sleep(0.01)


PROGRAMS = {function.__name__: function for function in (open_at_once, submit_pairs, work)}

if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    asyncio.run(PROGRAMS[what](*arguments), debug=False)
