"""Several engines at the same jobs at the same time: nothing is taken twice, no limit is passed, nobody sleeps on."""

import asyncio
import itertools
import random
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from lastcall._core._state import StopReason
from lastcall.engines.postgres import PostgresEngine
from lastcall.jobs._engine import read_log
from lastcall.jobs._processes import this_process
from lastcall.jobs._rows import (
    AttemptEnd,
    ClaimRequest,
    Completed,
    Failed,
    HandedOver,
    NewEvent,
    NewJob,
    Suspended,
    TaskLimits,
    Wait,
    WorkerRow,
)
from lastcall.jobs._rows import Claimed as ClaimedJob
from lastcall.jobs._state import JobStatus, WaitKind

from .support import clear, empty_schema, opened

pytestmark = pytest.mark.loops("asyncio")

TASKS: Any = {("work", ""): None}


@asynccontextmanager
async def several(count: int) -> AsyncIterator[list[PostgresEngine]]:
    """Engines on one empty schema, each with a worker that has joined."""
    with empty_schema() as schema:
        await clear(schema)
        async with AsyncExitStack() as stack:
            engines = [await stack.enter_async_context(opened(schema=schema)) for _ in range(count)]
            for number, engine in enumerate(engines):
                await engine.join(WorkerRow(f"w{number}", "host", 1, None, None, None, 60.0, 10, None))
            yield engines


async def drain(
    engine: PostgresEngine, worker_id: str, total: int, done: list[ClaimedJob], tasks: Any = TASKS
) -> None:
    """Claim and complete until all workers together have done so many."""
    while len(done) < total:
        result = await engine.claim(ClaimRequest(worker_id, random.randint(1, 7), tasks))
        done += result.jobs
        await engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in result.jobs])
        if not result.jobs:
            await asyncio.sleep(0.001)


async def test_no_job_is_taken_twice() -> None:
    """Three engines claim what two of them submit at the same time."""
    async with several(3) as engines:
        total = 300
        done: list[ClaimedJob] = []

        async def submit(engine: PostgresEngine, numbers: range) -> None:
            for number in numbers:
                await engine.submit([NewJob(f"{number}", "work", "[]", priority=number % 3)])

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(submit(engines[0], range(0, total, 2)))
            tasks.create_task(submit(engines[1], range(1, total, 2)))
            for number, engine in enumerate(engines):
                tasks.create_task(drain(engine, f"w{number}", total, done))
        assert Counter(job.id for job in done) == Counter(f"{number}" for number in range(total))
        assert {job.attempt for job in done} == {1}


@pytest.mark.parametrize("by", ["key", "task"])
async def test_limits_hold(by: str) -> None:
    """Three engines claim jobs of which two may run at once, by their key or by their task; all are done in the end."""
    async with several(3) as engines:
        total, running, most = 60, 0, 0
        limit = {"limit_key": "k", "limit": 2} if by == "key" else {}
        tasks: Any = TASKS if by == "key" else {("work", ""): TaskLimits(concurrency=2)}
        await engines[0].submit([NewJob(f"{number}", "work", "[]", **limit) for number in range(total)])
        left = total

        async def work(engine: PostgresEngine, worker_id: str) -> None:
            nonlocal running, most, left
            while left:
                jobs = (await engine.claim(ClaimRequest(worker_id, 5, tasks))).jobs
                running += len(jobs)
                most = max(most, running)
                for job in jobs:
                    outcome = random.choice([Completed("1"), Failed("{}"), HandedOver()])
                    left -= not isinstance(outcome, HandedOver)
                    # Before the call: from its commit on another engine may start one.
                    running -= 1
                    await engine.finish([AttemptEnd(job.id, job.attempt, outcome)])
                await asyncio.sleep(0)

        await asyncio.gather(*(work(engine, f"w{number}") for number, engine in enumerate(engines)))
        assert most == 2
        rows = await engines[0].get([f"{number}" for number in range(total)])
        assert all(row.status.final for row in rows)


async def test_a_rate_holds() -> None:
    """Three engines claim a task of which five may begin at once, and the next one in an hour."""
    async with several(3) as engines:
        await engines[0].submit([NewJob(f"{number}", "work", "[]") for number in range(50)])
        tasks = {("work", ""): TaskLimits(rate_count=5, rate_seconds=5 * 3600.0)}
        claims = [
            engine.claim(ClaimRequest(f"w{number}", 3, tasks))
            for number, engine in itertools.chain.from_iterable([enumerate(engines)] * 4)
        ]
        assert sum(len(result.jobs) for result in await asyncio.gather(*claims)) == 5


async def test_a_parent_hears_of_children_that_end_at_once() -> None:
    """Its children end on three engines in the same moment, some before it waits for them, again and again: it is woken
    each time, once."""
    async with several(3) as engines:
        for turn in range(15):
            children = [f"{turn}-{number}" for number in range(6)]
            await engines[0].submit([NewJob(f"{turn}", "work", "[]")])
            (parent,) = (await engines[0].claim(ClaimRequest("w0", 1, TASKS))).jobs
            await engines[0].submit([NewJob(child, "work", "[]", parent_id=parent.id) for child in children])
            held = [
                job
                for number, engine in enumerate(engines)
                for job in (await engine.claim(ClaimRequest(f"w{number}", 2, TASKS))).jobs
            ]
            wait = Suspended((Wait("children", WaitKind.JOBS, jobs=tuple(children)),))
            ends = [
                engines[n % 3].finish([AttemptEnd(job.id, job.attempt, Completed("1"))])
                for n, job in enumerate(held)
            ]
            ends.insert(turn % 7, engines[0].finish([AttemptEnd(parent.id, parent.attempt, wait)]))
            await asyncio.gather(*ends)
            (row,) = await engines[0].get([parent.id])
            assert row.status is JobStatus.QUEUED, turn
            (job,) = (await engines[1].claim(ClaimRequest("w1", 5, TASKS))).jobs
            assert (job.id, job.attempt) == (parent.id, 2)
            await engines[1].finish([AttemptEnd(job.id, job.attempt, Completed("1"))])


async def test_a_message_and_the_wait_for_it_meet() -> None:
    """A message is sent in the moment in which the job begins to wait for it: it is never missed."""
    async with several(2) as engines:
        for turn in range(30):
            await engines[0].submit([NewJob(f"{turn}", "work", "[]")])
            (job,) = (await engines[0].claim(ClaimRequest("w0", 1, TASKS))).jobs
            wait = Suspended((Wait("s", WaitKind.SIGNAL, "go"),))
            await asyncio.gather(
                engines[0].finish([AttemptEnd(job.id, 1, wait)]), engines[1].send(job.id, "go", f"{turn}")
            )
            (again,) = (await engines[0].claim(ClaimRequest("w0", 1, TASKS))).jobs
            assert (again.id, again.attempt) == (job.id, 2)
            (step,) = await engines[0].steps(job.id)
            assert step.value == f'{{"data": {turn}}}'
            await engines[0].finish([AttemptEnd(job.id, 2, Completed("1"))])


async def test_one_key_is_one_job() -> None:
    """The same keys are submitted by three engines at the same time, in different orders: one job each, and everybody
    is told of it."""
    async with several(3) as engines:
        for turn in range(10):
            keys = [f"{turn}-{number}" for number in range(8)]

            async def submit(number: int, engine: PostgresEngine, keys: list[str] = keys) -> list[str]:
                mine = random.sample(keys, len(keys))
                answers = await engine.submit(
                    [NewJob(f"{key}-{number}", "work", "[]", key=key) for key in mine]
                )
                return sorted(answer.id for answer in answers)

            told = await asyncio.gather(*(submit(number, engine) for number, engine in enumerate(engines)))
            assert told[0] == told[1] == told[2]
            assert {job_id.rpartition("-")[0] for job_id in told[0]} == set(keys)


async def test_a_log_has_no_gaps() -> None:
    """Three engines append to one log at the same time: each event has its number, and nobody's are torn apart."""
    async with several(3) as engines:
        await engines[0].submit([NewJob("a", "work", "[]")])

        async def append(engine: PostgresEngine, who: int) -> None:
            for n in range(20):
                last = await engine.append_events(
                    "a", None, [NewEvent("log", f"[{who}, {n}, {i}]") for i in range(3)]
                )
                assert last is not None

        await asyncio.gather(*(append(engine, who) for who, engine in enumerate(engines)))
        page = await read_log(engines[0], "a", 0, 1000)
        assert page is not None
        mine = [event for event in page.events if event.type == "log"]
        assert [event.seq for event in page.events] == list(range(1, page.last + 1))
        for first in range(0, 180, 3):
            assert len({event.data.rpartition(",")[0] for event in mine[first : first + 3]}) == 1


async def test_a_rescue_and_a_claim_meet() -> None:
    """A claim of a worker whose process has died is still on its way while another one buries it: no job stays behind
    with nobody."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    gone = this_process()._replace(pid=ended.pid, process_start="1")
    async with several(2) as engines:
        for turn in range(20):
            dead = WorkerRow(f"dead{turn}", "host", *gone, 60.0, 10, None)
            await engines[0].join(dead)
            await engines[0].submit([NewJob(f"{turn}-{n}", "work", "[]", max_lost=9) for n in range(3)])
            await asyncio.gather(engines[0].claim(ClaimRequest(dead.id, 3, TASKS)), engines[1].rescue("w1"))
            await engines[1].rescue("w1")
            rows = await engines[0].get([f"{turn}-{n}" for n in range(3)])
            assert {row.status for row in rows} == {JobStatus.QUEUED}
            for row in rows:
                await engines[0].cancel(row.id, StopReason.USER)
