"""lastcall, with its defaults: the only file here that knows `lastcall.jobs`.

Submitter and worker import it as the peers' files are imported; the measurements within one process call what stands
below. The database is a file in the measurement's folder.
"""

import asyncio
import gc
import importlib
import os
import time
from pathlib import Path
from typing import Any

from lastcall import ShutdownPlan, TaskManager, current_shutdown, run
from lastcall.jobs import Context, Jobs, open_engine
from lastcall.jobs._ids import new_id
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, HandedOver, NewJob, WorkerRow

from ..child import resident_bytes
from .marks import folder, mark, note
from .peers.base import database_path, option, start_step, step_count, step_seconds, store_url, told
from .program_floor import submit_all
from .sqlite_floor import Queue, file_bytes

jobs = Jobs(store_url())
LONG_SECONDS = 3600.0
WARM_ROUNDS = 2
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
    if await current_shutdown().sleep(step_seconds()):
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

    async def fill(self, first: int, count: int) -> None:
        await jobs.submit_many([noop.call(number, 0.0) for number in range(first, first + count)])

    async def submit_long(self) -> None:
        await long.submit()

    def work(self) -> None:
        run(work_until_stopped(), loop_factory=loop_factory())


def loop_factory() -> Any:
    if not option("uvloop", False):
        return None
    return importlib.import_module("uvloop").new_event_loop


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


class OurQueue:
    """As the floor's `Queue`, straight at an engine of its own."""

    def __init__(self, path: Path, batch: int) -> None:
        self.batch = batch
        self.engine = open_engine(f"sqlite:///{path}")
        self.worker = new_id()

    async def open(self, known: int, unknown_in_front: int) -> None:
        await self.engine.open()
        await fill(self.engine, "unknown", unknown_in_front)
        await fill(self.engine, "known", known)
        who = WorkerRow(self.worker, "bench", os.getpid(), None, None, None, LONG_SECONDS, self.batch, None)
        await self.engine.join(who)

    async def claim(self) -> float:
        request = ClaimRequest(self.worker, self.batch, {("known", ""): None})
        before = time.perf_counter()
        result = await self.engine.claim(request)
        seconds = time.perf_counter() - before
        await self.engine.finish([AttemptEnd(job.id, job.attempt, HandedOver()) for job in result.jobs])
        if len(result.jobs) != self.batch:
            raise RuntimeError(f"a claim of {self.batch} brought {len(result.jobs)} jobs")
        return seconds

    async def close(self) -> None:
        await self.engine.resign(self.worker)
        await self.engine.close()


async def claims(cases: list[tuple[int, int]], batch: int, rounds: int) -> list[dict[str, list[float]]]:
    """Seconds of each claim, raw and ours. All queues are there at once and take turns: a slow moment hits all."""
    raw = [
        Queue(folder() / f"raw-{place}.db", known, unknown, batch)
        for place, (known, unknown) in enumerate(cases)
    ]
    ours = [OurQueue(folder() / f"ours-{place}.db", batch) for place in range(len(cases))]
    for queue, (known, unknown) in zip(ours, cases, strict=True):
        await queue.open(known, unknown)
    taken: list[dict[str, list[float]]] = [{"floors": [], "values": []} for _ in cases]
    for number in range(rounds + WARM_ROUNDS):
        for floor, queue, seconds in zip(raw, ours, taken, strict=True):
            pair = floor.claim(), await queue.claim()
            if number >= WARM_ROUNDS:
                seconds["floors"].append(pair[0])
                seconds["values"].append(pair[1])
    for floor, queue in zip(raw, ours, strict=True):
        floor.close()
        await queue.close()
    return taken


async def fill(engine: Any, task: str, count: int) -> None:
    for first in range(0, count, 10_000):
        await engine.submit([NewJob(new_id(), task, '{"n":1}') for _ in range(min(10_000, count - first))])
