"""The connection is cut at every request of every verb, before it arrives or after it was carried out: each verb
happens once, and says so."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lastcall._core._state import StopReason
from lastcall.engines.postgres import PostgresEngine
from lastcall.jobs._rows import (
    AttemptEnd,
    ClaimRequest,
    Completed,
    Failed,
    HandedOver,
    NewEvent,
    NewJob,
    StepRecord,
    Suspended,
    TaskLimits,
    Wait,
    WorkerRow,
)
from lastcall.jobs._state import JobStatus, StepStatus, WaitKind
from lastcall.testing import VirtualClock
from tests.engines.worlds import visible
from tests.support.pg_wire import Cutter
from tests.support.postgres import shared_url

from .support import clear, empty_schema

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow]

TASKS: Any = {("work", ""): None}
LIMITED: Any = {("work", ""): TaskLimits(concurrency=5, rate_count=5, rate_seconds=60.0)}
WORKER = WorkerRow("w", "host", 1, None, None, None, 15.0, 10, None)
# At every request; otherwise at each fourth.
LONG = os.environ.get("LASTCALL_LONG") == "1"
IDS = ["plain", "running", "waiting", "limited", "held", "new"]


async def _set_up(engine: PostgresEngine) -> None:
    """A running job, one that waits, two under one limit."""
    await engine.join(WORKER)
    await engine.submit([NewJob("running", "work", "[]"), NewJob("waiting", "work", "[]")])
    await engine.claim(ClaimRequest("w", 2, TASKS))
    wait = Suspended((Wait("s", WaitKind.SIGNAL, "go"), Wait("j", WaitKind.JOBS, jobs=("running",))))
    await engine.finish([AttemptEnd("waiting", 1, wait)])
    await engine.submit([NewJob(id, "work", "[]", limit_key="k", limit=1) for id in ("limited", "held")])


Call = Callable[[PostgresEngine], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "submit": lambda engine: engine.submit([NewJob("plain", "work", "[]")]),
    "submit with a key": lambda engine: engine.submit([NewJob("new", "work", "[]", key="x")]),
    "cancel a running one": lambda engine: engine.cancel("running", StopReason.USER),
    "cancel one in line": lambda engine: engine.cancel("limited", StopReason.USER),
    "send": lambda engine: engine.send("waiting", "go", "1"),
    "send to be kept": lambda engine: engine.send("running", "go", "1"),
    "claim": lambda engine: engine.claim(ClaimRequest("w", 5, TASKS)),
    "claim within limits": lambda engine: engine.claim(ClaimRequest("w", 5, LIMITED)),
    "complete": lambda engine: engine.finish([AttemptEnd("running", 1, Completed("1"))]),
    "complete, beside one that is lost": lambda engine: engine.finish(
        [AttemptEnd("running", 1, Completed("1")), AttemptEnd("held", 7, Completed("1"))]
    ),
    "fail": lambda engine: engine.finish([AttemptEnd("running", 1, Failed("{}", 3.0))]),
    "hand over": lambda engine: engine.finish([AttemptEnd("running", 1, HandedOver())]),
    "record a step": lambda engine: engine.record_step(
        "running", 1, StepRecord("s", StepStatus.COMPLETED, "1")
    ),
    "append": lambda engine: engine.append_events("running", 1, [NewEvent("log", "1"), NewEvent("log", "2")]),
    "transact": lambda engine: engine.transact(
        "running", 1, StepRecord("t", StepStatus.COMPLETED), lambda connection: "1"
    ),
    "renew": lambda engine: engine.renew("w"),
    "resign": lambda engine: engine.resign("w"),
    "fire": lambda engine: engine.fire("nightly", 1.0, NewJob("new", "work", "[]")),
}


@asynccontextmanager
async def _engines(clock: VirtualClock) -> AsyncIterator[tuple[str, Cutter, PostgresEngine, PostgresEngine]]:
    """An engine whose way to the server may be cut, with one connection; and one whose way is straight."""
    with empty_schema() as schema:
        async with Cutter(shared_url()).running() as cutter:
            cut = PostgresEngine(cutter.url, schema=schema, pool_size=1, clock=clock)
            straight = PostgresEngine(shared_url(), schema=schema, pool_size=2, clock=clock)
            await straight.open()
            await cut.open()
            try:
                yield schema, cutter, cut, straight
            finally:
                await cut.close()
                await straight.close()


@pytest.mark.parametrize("late", [False, True], ids=["lost on the way", "answer lost"])
@pytest.mark.parametrize("what", CALLS)
async def test_cut_at_every_request(what: str, late: bool) -> None:
    """One verb, with the connection cut at one of its requests and then at a later one: as if nothing had happened."""
    call = CALLS[what]
    async with _engines(VirtualClock()) as (schema, cutter, engine, straight):
        expected = None
        for request in (0, *range(1, 60, 1 if LONG else 4)):
            await clear(schema)
            await _set_up(straight)
            cuts = cutter.cuts
            cutter.arm(request, late=late)
            answer = await call(engine)
            cutter.disarm()
            seen = (getattr(answer, "jobs", answer), await visible(straight, IDS))
            if request == 0:
                expected = seen  # nothing was cut
                continue
            assert seen == expected, f"cut at request {request}"
            if cutter.cuts == cuts:
                return
        raise AssertionError("the verb needs more requests than anybody thought")


async def test_a_claim_that_nobody_heard_of() -> None:
    """A claim's answer is lost, and the server is away for longer than it is waited for: the worker's next claim brings
    the same jobs."""
    async with _engines(VirtualClock()) as (schema, _, engine, straight):
        await clear(schema)
        await _set_up(straight)
        claim = ClaimRequest("w", 5, TASKS)
        taken = await engine._claims._take(engine._ready(), engine._claims.begin(claim))
        assert [job.id for job in taken.jobs] == ["limited"]
        assert (await engine.claim(claim)).jobs == taken.jobs
        assert (await engine.claim(claim)).jobs == []


async def test_ends_that_nobody_heard_of() -> None:
    """Ends are written, and the worker hears that the database cannot be used: when it reports them again, it is told
    what became of them; another end of the same attempt is lost."""
    async with _engines(VirtualClock()) as (schema, _, engine, straight):
        await clear(schema)
        await _set_up(straight)
        ends = [AttemptEnd("running", 1, HandedOver())]
        assert await straight.finish(ends) == [JobStatus.QUEUED]
        assert await engine.finish(ends) == [None]
        engine._finishes.doubt(ends)
        assert await engine.finish([AttemptEnd("running", 1, Completed("1"))]) == [None]
        engine._finishes.doubt(ends)
        assert await engine.finish(ends) == [JobStatus.QUEUED]
        assert await engine.finish(ends) == [None]
