"""Killed at every message to the server: the user's rows and the job, or the user's rows and the step, are both there
or neither is, and never twice.

Both transactions, that of `submit(connection=...)` in every library and that of `ctx.transaction`, are broken off
before each message that the client sends, and after each that the server answers, in two ways: the connection is cut,
or the whole process is killed. A run takes a sample of these places; LASTCALL_LONG=1 takes all. Seeds are printed;
LASTCALL_SEED=n takes the same sample again.
"""

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from lastcall.jobs import Jobs, Task
from tests.jobs.crash.forks import Child, Nursery
from tests.support.pg_tripwire import Tripwire
from tests.support.postgres import shared_url

from .boundary_programs import LEASE_SECONDS, NOT_REACHED, buy, declare_deliver, declare_pay
from .libraries import LIBRARIES
from .support import PATIENCE_SECONDS, clear, empty_schema, query

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = os.environ.get("LASTCALL_LONG") == "1"
# So many places in a row that were not reached are behind the end.
_MISSED = 3
SEED = int(os.environ.get("LASTCALL_SEED") or random.randrange(1 << 30))
PROGRAMS = "tests.engines.postgres.boundary_programs"


class Place(NamedTuple):
    """Where it is broken off: at the message of this number, before it or after its answer."""

    at: int
    late: bool


def places(wire: Tripwire, sample: int, what: str) -> Iterator[Place]:
    """Some of those that a run without interference has come by; or all there are, until none is reached any more."""
    if LONG:
        yield from every_place(wire)
        return
    found = [
        Place(at, late)
        for at, seen in enumerate(wire.passed, 1)
        for late in (False, True)[: 1 + seen.answered]
    ]
    print(f"{what}: {sample} of {len(found)} places, LASTCALL_SEED={SEED}")
    yield from random.Random(f"{SEED} {what}").sample(found, min(sample, len(found)))


def every_place(wire: Tripwire) -> Iterator[Place]:
    missed = 0
    for at in itertools.count(1):
        yield Place(at, False)
        if wire.tripped is None:
            missed += 1
            if missed == _MISSED:
                return
        elif wire.tripped.answered:
            yield Place(at, True)


def libraries(sample: int, what: str) -> list[str]:
    """Not parameters of the test: processes that share a run must find the same tests."""
    return list(LIBRARIES) if LONG else random.Random(f"{SEED} {what}").sample(list(LIBRARIES), sample)


class Fates:
    """What became of the runs, and what was the last message of each."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._fates: Counter[str] = Counter()
        self._last: Counter[str] = Counter()

    def note(self, wire: Tripwire, *, committed: bool) -> None:
        self._last[str(wire.tripped)] += wire.tripped is not None
        reached = "" if wire.tripped else ", not reached"
        self._fates[("committed" if committed else "rolled back") + reached] += 1

    def tell(self) -> None:
        """Seen with pytest -s."""
        print(f"{self._what}: {dict(self._fates)}, at {len(+self._last)} different messages")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(PROGRAMS) as nursery:
        yield nursery


@asynccontextmanager
async def a_place_of_business() -> AsyncIterator[tuple[str, Tripwire]]:
    """An empty schema, the user's tables, a way to the server with a wire across."""
    with empty_schema() as schema:
        await clear(schema)
        await query("DROP TABLE IF EXISTS bought, paid")
        await query("CREATE TABLE bought (number int, half text)")
        await query("CREATE TABLE paid (number int, receipt int, half text)")
        async with Tripwire(shared_url()).running() as wire:
            yield schema, wire
        await query("DROP TABLE bought, paid")


async def have_ended(wire: Tripwire) -> None:
    """Until the server has nothing more in hand that a client of the wire had sent."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    busy = "SELECT count(*) FROM pg_stat_activity WHERE client_port = ANY($1::int[]) AND state <> 'idle'"
    while await query(busy, wire.ports) != [(0,)]:
        assert time.monotonic() < deadline, "a transaction of a dead client goes on"
        await asyncio.sleep(0.005)


def kill(child: Child) -> Callable[[], None]:
    return lambda: child.send(signal.SIGKILL)


async def killed_at(
    wire: Tripwire, nursery: Nursery, place: Place, program: str, given: dict[str, object], log: Path
) -> None:
    """Start the program, kill it there, and wait until nothing is left of it."""
    children: list[Child] = []
    wire.arm(place.at, late=place.late, act=lambda: kill(children[0])())
    children.append(await asyncio.to_thread(nursery.fork, f"{PROGRAMS}:{program}", given, str(log)))
    try:
        code = await asyncio.to_thread(children[0].wait)
    finally:
        children[0].send(signal.SIGKILL)
    assert code in (-signal.SIGKILL, NOT_REACHED), (
        f"{place}: {program} ended by itself, {code}: {log.read_text()}"
    )
    await have_ended(wire)


# --- submit(connection=...) ----------------------------------------------------------------------------


async def submitted(schema: str) -> tuple[Counter[int], Counter[int]]:
    """How many rows of the user's there are of each number, and how many jobs."""
    rows = Counter(number for (number,) in await query("SELECT number FROM bought"))
    jobs = Counter(
        int(args.strip('{}"number: [],')) for (args,) in await query(f"SELECT args FROM {schema}.job")
    )
    return rows, jobs


async def check_submitted(schema: str, number: int) -> bool:
    """Whether it is there; and whether that is so of all of it, and of all that were before."""
    rows, jobs = await submitted(schema)
    halves = {each: (rows[each], jobs[each]) for each in range(number + 1)}
    assert set(halves.values()) <= {(0, 0), (2, 1)}, f"rows and jobs of the purchases: {halves}"
    return jobs[number] == 1


async def rehearse(wire: Tripwire, deliver: Task[[int], int], library: str, schema: str) -> None:
    """Come by all places, with nobody to interfere; the second time every lane is there."""
    for number in (-2, -1):
        wire.arm(0)
        await buy(wire.url, deliver, library, number)
    await query("DELETE FROM bought")
    await query(f"DELETE FROM {schema}.job")


async def test_a_purchase_whose_connection_is_cut() -> None:
    """The shop's own connection is cut at each message of its transaction."""
    for library in libraries(2, "cut"):
        async with a_place_of_business() as (schema, wire), Jobs(f"{shared_url()}?schema={schema}") as jobs:
            deliver = declare_deliver(jobs)
            await rehearse(wire, deliver, library, schema)
            fates = Fates(f"cut, {library}")
            for number, place in enumerate(places(wire, 3, f"cut, {library}")):
                wire.arm(place.at, late=place.late)
                with suppress(Exception):
                    await buy(wire.url, deliver, library, number)
                await have_ended(wire)
                fates.note(wire, committed=await check_submitted(schema, number))
            fates.tell()


async def test_a_purchase_whose_process_is_killed(nursery: Nursery, tmp_path: Path) -> None:
    """The shop's process is killed at each message of its transaction, its own and those of its engine."""
    for library in libraries(2, "killed"):
        async with a_place_of_business() as (schema, wire):
            async with Jobs(f"{wire.url}?schema={schema}") as jobs:
                await rehearse(wire, declare_deliver(jobs), library, schema)
            fates = Fates(f"killed, {library}")
            for number, place in enumerate(places(wire, 1, f"killed, {library}")):
                given = {"url": wire.url, "schema": schema, "library": library, "number": number}
                await killed_at(wire, nursery, place, "shop", given, tmp_path / "log")
                fates.note(wire, committed=await check_submitted(schema, number))
            fates.tell()


# --- ctx.transaction -----------------------------------------------------------------------------------


async def check_paid(schema: str, job_id: str, number: int) -> int | None:
    """The receipt that is remembered, if it is that of the rows; None: there is neither."""
    rows = await query("SELECT receipt, half FROM paid WHERE number = $1 ORDER BY half", number)
    remembered = f"""SELECT value FROM {schema}.step JOIN {schema}.job ON job.n = step.job
        WHERE job.id = $1 AND step.status = 'completed'"""
    memory = await query(remembered, job_id)
    if not memory:
        assert rows == [], f"payment {number}: rows without a memory of them: {rows}"
        return None
    assert len(memory) == 1
    receipt = int(memory[0][0])
    assert rows == [(receipt, "first"), (receipt, "second")], (
        f"payment {number}: {rows}, remembered: {receipt}"
    )
    return receipt


async def test_a_payment_whose_connection_is_cut() -> None:
    """Each connection of a worker is cut at each message while a job's step is a transaction: the job goes on by
    itself, its rows are there once, and are those that it remembers."""
    async with a_place_of_business() as (schema, wire):
        # One connection has met all statements soon; of several, each would meet some for the first time now and then.
        jobs = Jobs(f"{wire.url}?schema={schema}&pool=1", lease_seconds=LEASE_SECONDS)
        pay = declare_pay(jobs, wire.url)
        async with jobs, jobs.worker(concurrency=1):
            for number in (-2, -1):
                wire.arm(0)
                await (await pay.submit(number)).result(timeout=30)
            fates = Fates("cut, ctx.transaction")
            for number, place in enumerate(places(wire, 6, "cut, ctx.transaction")):
                wire.arm(place.at, late=place.late)
                job = await pay.submit(number)
                receipt = await job.result(timeout=30)
                assert receipt == await check_paid(schema, job.id, number)
                fates.note(wire, committed=True)
            fates.tell()
        rows = Counter(number for (number,) in await query("SELECT number FROM paid"))
        assert set(rows.values()) == {2}


async def test_a_payment_whose_worker_is_killed(nursery: Nursery, tmp_path: Path) -> None:
    """The worker's process is killed at each message while a job's step is a transaction. What is there then is both
    or neither; another worker ends all of the jobs, and what was paid stays as it was."""
    async with a_place_of_business() as (schema, wire):
        straight = Jobs(f"{shared_url()}?schema={schema}", lease_seconds=LEASE_SECONDS)
        pay = declare_pay(straight, shared_url(), marks=False)
        async with straight:
            await rehearse_payment(schema, wire)
            fates = Fates("killed, ctx.transaction")
            ids: list[str] = []
            receipts: list[int | None] = []
            for number, place in enumerate(places(wire, 3, "killed, ctx.transaction")):
                job = await pay.options(queue=f"{number}").submit(number)
                ids.append(job.id)
                given = {"url": wire.url, "schema": schema, "queue": f"{number}"}
                await killed_at(wire, nursery, place, "till", given, tmp_path / "log")
                receipts.append(await check_paid(schema, job.id, number))
                fates.note(wire, committed=receipts[-1] is not None)
            fates.tell()
            async with straight.worker(concurrency=10):
                for number, job_id in enumerate(ids):
                    receipt = await straight.job(job_id).result(timeout=60)
                    assert receipt == await check_paid(schema, job_id, number)
                    assert receipts[number] in (None, receipt)
        rows = Counter(number for (number,) in await query("SELECT number FROM paid WHERE number >= 0"))
        assert rows == Counter(dict.fromkeys(range(len(ids)), 2))


async def rehearse_payment(schema: str, wire: Tripwire) -> None:
    """Come by all places, as a worker that has just begun, with nobody to interfere."""
    wire.arm(0)
    jobs = Jobs(f"{wire.url}?schema={schema}", lease_seconds=LEASE_SECONDS)
    pay = declare_pay(jobs, wire.url)
    async with jobs, jobs.worker(concurrency=1, queues=["rehearsal"]):
        await (await pay.options(queue="rehearsal").submit(-1)).result(timeout=30)
    await query("DELETE FROM paid")
