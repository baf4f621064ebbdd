"""When a worker asks for jobs: not before there can be any, and not for nothing."""

import asyncio

import pytest

from lastcall.jobs import Jobs
from lastcall.jobs._rows import ClaimRequest, NewJob, WorkerRow
from tests.engines.model import ModelEngine
from tests.jobs.conftest import Store
from tests.jobs.running import Faulty, ended, eventually, set_within

pytestmark = pytest.mark.loops("asyncio")

WORKER = WorkerRow("w", "host", 1, None, None, None, 1e6, 10, None)


async def turns() -> None:
    """Whatever can go on without the test has done so: the model needs nothing but turns of the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_what_it_means_to_share_commits(store: Store) -> None:
    """A claim is called right after a submit, which is not answered yet: where commits are shared it brings the job."""
    engine = store.engine()
    await engine.open()
    await engine.join(WORKER)
    assert engine.shares_commits
    submit = asyncio.ensure_future(engine.submit([NewJob("a", "work", "[]")]))
    claim = asyncio.ensure_future(engine.claim(ClaimRequest("w", 1, {("work", ""): None})))
    await submit
    assert [job.id for job in (await claim).jobs] == ["a"]
    await engine.close()


@pytest.mark.parametrize("shares", [True, False])
async def test_a_claim_is_under_way_beside_a_submit_only_where_they_share_a_commit(shares: bool) -> None:
    """A job is being submitted. Elsewhere the claim would see nothing of it, and hold up the one that does: that was a
    third of the way from submit to start on PostgreSQL."""
    engine = Faulty(ModelEngine())
    engine.shares_commits = shares
    jobs = Jobs(engine)

    @jobs.task
    async def work() -> None: ...

    async with jobs, jobs.worker():
        await turns()
        engine.held["submit"] = asyncio.Event()
        engine.calls.clear()
        submitting = asyncio.create_task(work.submit())
        await eventually(lambda: "submit" in engine.calls)
        await turns()
        assert ("claim" in engine.calls) is shares
        engine.held["submit"].set()
        assert await ended(await submitting) == "completed"


@pytest.mark.parametrize("shares", [True, False])
async def test_the_end_of_a_job_is_no_reason_to_ask_where_there_was_room(shares: bool) -> None:
    """A worker with room for more runs the only job there is. Nothing waits for its slot, and what its end sets in
    motion is there when it is written: then it asks, or in the same commit."""
    engine = Faulty(ModelEngine())
    engine.shares_commits = shares
    jobs = Jobs(engine)
    running, go = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def work() -> None:
        running.set()
        await set_within(go)

    async with jobs, jobs.worker(concurrency=2):
        job = await work.submit()
        await set_within(running)
        await turns()
        engine.held["finish"] = asyncio.Event()
        engine.calls.clear()
        go.set()
        await eventually(lambda: "finish" in engine.calls)
        await turns()
        assert ("claim" in engine.calls) is shares
        engine.calls.clear()
        engine.held["finish"].set()
        assert await ended(job) == "completed"
        await eventually(lambda: "claim" in engine.calls)


async def test_the_end_of_a_job_is_a_reason_to_ask_where_the_slots_were_all_taken() -> None:
    """Both slots are taken and a third job is queued: it starts when one ends, before that end is written."""
    engine = Faulty(ModelEngine())
    engine.shares_commits = False
    jobs = Jobs(engine)
    began: list[int] = []
    go = asyncio.Event()

    @jobs.task
    async def work(n: int) -> None:
        began.append(n)
        if n < 2:
            await set_within(go)

    async with jobs, jobs.worker(concurrency=2):
        submitted = await jobs.submit_many(work.call(n) for n in range(3))
        await eventually(lambda: len(began) == 2)
        engine.held["finish"] = asyncio.Event()
        go.set()
        await eventually(lambda: len(began) == 3)
        engine.held["finish"].set()
        for job in submitted:
            assert await ended(job) == "completed"
