"""lastcall, with its defaults: the only file here that knows `lastcall.jobs`.

Submitter and worker import it as the peers' files are imported; the measurements within one process call what stands
below. The database is a file in the measurement's folder.
"""

import asyncio
import gc
import os
import time
from typing import Any

from lastcall import ShutdownPlan, TaskManager, current_shutdown, run
from lastcall.jobs import Context, Jobs
from lastcall.jobs._ids import new_id
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, HandedOver, NewJob, WorkerRow

from .marks import mark, note
from .peers.base import database_path, start_step, step_count, step_seconds, told
from .program_floor import submit_all
from .resident import resident_bytes
from .sqlite_floor import file_bytes

jobs = Jobs(f"sqlite:///{database_path()}")
LONG_SECONDS = 3600.0
DONE_PAUSE_SECONDS = 0.002


@jobs.task
async def noop(number: int, sent: float) -> int:
    return mark(number, sent)


@jobs.task
async def nothing(number: int) -> None:
    await asyncio.sleep(0)
    ran.count += 1
    if ran.count == ran.expected:
        ran.all.set()


@jobs.task
async def sleeper(number: int) -> None:
    ran.count += 1
    if ran.count == ran.expected:
        ran.all.set()
    await asyncio.sleep(LONG_SECONDS)


@jobs.task
async def long(ctx: Context) -> int:
    began_at = time.monotonic()
    try:
        for number in range(step_count()):
            await ctx.step(one_step, number, name=f"step {number}")
    except BaseException as error:
        told(began_at, error)
        raise
    note("done", step_count())
    return step_count()


async def one_step(number: int) -> int:
    """A step that hears of the stop at once, says so, and takes its full time all the same."""
    ends_at = time.monotonic() + step_seconds()
    start_step(number)
    if not await current_shutdown().sleep(step_seconds()):
        note("told", "shutdown 0")
        await asyncio.sleep(max(0.0, ends_at - time.monotonic()))
    return number


class Ran:
    """How many jobs of a measurement have run in this process."""

    def __init__(self) -> None:
        self.expect(0)

    def expect(self, count: int) -> None:
        self.count, self.expected, self.all = 0, count, asyncio.Event()


ran = Ran()


# --- as the peers do it: a submitter and a worker, each a process ---


class Ours:
    async def open(self) -> None:
        await jobs.open()

    async def close(self) -> None:
        await jobs.close()

    async def submit(self, number: int, sent: float) -> None:
        await noop.submit(number, sent)

    async def submit_long(self) -> None:
        await long.submit()

    def work(self) -> None:
        run(work_until_stopped())


async def work_until_stopped() -> None:
    async with TaskManager(), jobs, jobs.worker(concurrency=100):
        await current_shutdown().wait()


peer = Ours()


# --- within one process ---


async def until_recorded(count: int) -> None:
    """Until the engine has `count` results."""
    while True:
        overview = await jobs.overview()
        if sum(n for (_, status), n in overview.counts.items() if status == "completed") >= count:
            return
        await asyncio.sleep(DONE_PAUSE_SECONDS)


async def submit_to_done(count: int, submitters: int, concurrency: int) -> dict[str, float]:
    """Jobs per second from the first submit to the last recorded result, submitters and worker in this process."""
    async with TaskManager(), jobs, jobs.worker(concurrency=concurrency):
        ran.expect(count)
        began = time.perf_counter()
        await submit_all(nothing.submit, count, submitters)
        submitted = time.perf_counter()
        await ran.all.wait()
        await until_recorded(count)
        seconds = time.perf_counter() - began
    return {"rate": count / seconds, "submit_rate": count / (submitted - began)}


async def submit_to_start(count: int, per_second: float) -> dict[str, float]:
    """Leaves one mark for each job, with submitter and worker in this process."""
    async with TaskManager(), jobs, jobs.worker(concurrency=100):
        began = time.monotonic()
        handles = []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            handles.append(await noop.submit(number, time.monotonic()))
        for handle in handles:
            await handle.result(timeout=60)
    return {}


async def queued_bytes(count: int) -> dict[str, float]:
    """What one more queued job takes in the file, and in the process that submitted it."""
    async with jobs:
        await nothing.submit(0)
    empty = file_bytes(database_path())
    async with jobs:
        gc.collect()
        before = resident_bytes()
        await submit_all(nothing.submit, count, 100)
        gc.collect()
        grown = resident_bytes() - before
    return {"file": (file_bytes(database_path()) - empty) / count, "process": grown / count}


async def running_bytes(count: int) -> dict[str, float]:
    """Growth of resident memory for each job that runs and sleeps."""
    at_once = ShutdownPlan(notice=0, drain=0, cancel=30, close=30)
    async with TaskManager(plan=at_once), jobs, jobs.worker(concurrency=count):
        for number in range(100):
            await (await nothing.submit(number)).result(timeout=60)
        gc.collect()
        before = resident_bytes()
        ran.expect(count)
        await submit_all(sleeper.submit, count, 100)
        await ran.all.wait()
        gc.collect()
        return {"process": (resident_bytes() - before) / count}


async def claim_seconds(known: int, unknown_in_front: int, batch: int, rounds: int) -> dict[str, float]:
    """The median time of a claim, straight at the engine; what was claimed is given back each time."""
    engine = jobs.engine
    await engine.open()
    await fill(engine, "unknown", unknown_in_front)
    await fill(engine, "known", known)
    worker = new_id()
    await engine.join(WorkerRow(worker, "bench", os.getpid(), None, None, None, 600.0, batch, None))
    request = ClaimRequest(worker, batch, {("known", ""): None})
    taken = []
    for _ in range(rounds):
        before = time.perf_counter()
        result = await engine.claim(request)
        taken.append(time.perf_counter() - before)
        if len(result.jobs) != batch:
            raise RuntimeError(f"a claim of {batch} brought {len(result.jobs)} jobs")
        await engine.finish([AttemptEnd(job.id, job.attempt, HandedOver()) for job in result.jobs])
    await engine.resign(worker)
    await engine.close()
    return {"seconds": sorted(taken)[len(taken) // 2]}


async def fill(engine: Any, task: str, count: int) -> None:
    for first in range(0, count, 10_000):
        await engine.submit([NewJob(new_id(), task, '{"n":1}') for _ in range(min(10_000, count - first))])
