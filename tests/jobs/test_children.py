"""Children: jobs that a job starts, once, and waits for without holding anything."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from lastcall.exceptions import JobCancelled, JobFailed
from lastcall.jobs import Context, Job, Jobs
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import AT_ONCE, Faulty, ended, eventually, outcomes, reaches, set_within


class Picture(BaseModel):
    name: str
    width: int


async def test_a_parent_waits_for_its_child_on_a_single_slot(jobs: Jobs) -> None:
    """Parent and child share a worker with one slot: the parent must leave it to the child, and gets its result as the
    type the child declares."""

    @jobs.task
    async def resize(name: str, width: int) -> Picture:
        return Picture(name=name, width=width)

    @jobs.task
    async def parent(ctx: Context) -> str:
        picture = await ctx.run(resize.options(labels={"kind": "small"}).call("cat", 200))
        return f"{picture.name} {picture.width}"

    async with jobs.worker(concurrency=1):
        job = await parent.submit()
        assert await job.result(timeout=20) == "cat 200"
        (child,) = await jobs.find(parent=job.id)
        assert child.parent_id == job.id and child.labels == {"kind": "small"}
        assert await outcomes(job) == ["handed_over (waiting)", "completed"]


async def test_many_children_at_once(jobs: Jobs) -> None:
    """Ten children, two with the same arguments: all run, once each, and their results come in order."""
    called: list[int] = []

    @jobs.task
    async def square(n: int) -> int:
        called.append(n)
        return n * n

    @jobs.task
    async def parent(ctx: Context) -> list[int]:
        children = [await ctx.start(square.call(n)) for n in [*range(9), 8]]
        return await ctx.gather(*children)

    async with jobs.worker(concurrency=3):
        job = await parent.submit()
        assert await job.result(timeout=20) == [0, 1, 4, 9, 16, 25, 36, 49, 64, 64]
    assert sorted(called) == [*range(9), 8]


@pytest.mark.loops("asyncio")
async def test_a_gather_of_nothing(jobs: Jobs) -> None:
    """No children: nothing to wait for."""

    @jobs.task
    async def parent(ctx: Context) -> list[Any]:
        return await ctx.gather()

    async with jobs.worker():
        job = await parent.submit()
        assert await job.result(timeout=20) == []
        assert await outcomes(job) == ["completed"]


async def test_a_child_is_started_once(jobs: Jobs) -> None:
    """The parent fails behind the start of its child, twice: the next attempts have the same child."""
    ids: set[str] = set()

    @jobs.task
    async def child() -> str:
        return "child"

    @jobs.task(retries=2, backoff=AT_ONCE)
    async def parent(ctx: Context) -> str:
        started = await ctx.start(child.call())
        ids.add(started.id)
        if ctx.attempt < 3:
            raise OSError
        return await ctx.result(started)

    async with jobs.worker():
        job = await parent.submit()
        assert await job.result(timeout=20) == "child"
        assert [found.id for found in await jobs.find(parent=job.id)] == list(ids)


async def test_a_child_is_started_once_although_its_parent_is_lost_in_between(store: Store) -> None:
    """The child is submitted, and before the parent has written that down its worker is taken for dead: the parent's
    next attempt finds the same child."""
    clock = VirtualClock()
    engine = Faulty(store.engine(clock))
    first, second = Jobs(engine), store.jobs(clock)

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="child")
        async def child() -> str:
            return "child"

        @jobs.task(name="parent")
        async def parent(ctx: Context) -> str:
            return await ctx.run(child.call())

        return parent

    parent = declare(first)
    declare(second)
    async with first.worker(concurrency=1):
        engine.held["record_step"] = asyncio.Event()
        job = await parent.submit()
        await eventually(lambda: "record_step" in engine.calls)
        assert len(await first.find(task="child")) == 1
        clock.advance(100)
        async with second.worker():
            assert await second.job(job.id).result(timeout=20) == "child"
            assert await outcomes(job) == ["lost", "handed_over (waiting)", "completed"]
            assert len(await second.find(task="child")) == 1
            engine.held["record_step"].set()


async def test_long_arguments_with_the_same_beginning_are_not_mixed_up(jobs: Jobs) -> None:
    """Two branches start a child each, whose arguments differ only far behind, and come in another order in the second
    attempt: each branch gets its own child."""
    folder = "a/very/long/folder/" * 10

    @jobs.task
    async def index(path: str) -> str:
        return path[-1]

    @jobs.task
    async def parent(ctx: Context) -> list[str]:
        first = asyncio.Event()

        async def branch(name: str, goes_first: bool) -> str:
            if not goes_first:
                await set_within(first)
            child = await ctx.start(index.call(folder + name))
            first.set()
            return await ctx.result(child)

        odd = ctx.attempt % 2 == 1
        return list(await asyncio.gather(branch("a", odd), branch("b", not odd)))

    async with jobs.worker():
        job = await parent.submit()
        assert await job.result(timeout=20) == ["a", "b"]


@pytest.mark.loops("asyncio")
async def test_arguments_of_a_child_that_cannot_be_printed(jobs: Jobs) -> None:
    """A child's argument has a character that is no part of a name."""

    @jobs.task
    async def child(text: str) -> int:
        return len(text)

    @jobs.task
    async def parent(ctx: Context) -> int:
        return await ctx.run(child.call("a\u2028\u200d\u00a0b"))

    async with jobs.worker():
        assert await (await parent.submit()).result(timeout=20) == 5


async def test_a_child_that_fails(jobs: Jobs) -> None:
    """One of three children fails: its parent gets an error that tells which and why, and may handle it."""

    @jobs.task
    async def child(n: int) -> int:
        if n == 1:
            raise OSError("no such picture")
        return n

    @jobs.task
    async def parent(ctx: Context) -> str:
        children = [await ctx.start(child.call(n)) for n in range(3)]
        try:
            await ctx.gather(*children)
        except JobFailed as error:
            assert children[1].id in str(error) and error.error["type"] == "OSError"
            return error.error["message"]
        return "nothing failed"

    async with jobs.worker():
        assert await (await parent.submit()).result(timeout=20) == "no such picture"


async def test_a_child_that_is_retried_by_hand_before_its_parent(jobs: Jobs) -> None:
    """A child has failed, and its parent with it. Somebody retries the child, and the parent while that one runs: the
    parent waits for its new end."""
    standing, go = asyncio.Event(), asyncio.Event()

    @jobs.task
    async def child(ctx: Context) -> str:
        if ctx.attempt == 1:
            raise OSError("no such picture")
        standing.set()
        await set_within(go)
        return "mended"

    @jobs.task
    async def parent(ctx: Context) -> list[str]:
        return await ctx.gather(await ctx.start(child.call()))

    async with jobs.worker():
        job = await parent.submit()
        assert await ended(job) == "failed"
        (found,) = await jobs.find(parent=job.id)
        await jobs.job(found.id).retry()
        await set_within(standing)
        await job.retry()
        await reaches(job, "waiting")
        go.set()
        assert await job.result(timeout=20) == ["mended"]


async def test_a_child_that_is_cancelled(jobs: Jobs) -> None:
    """Somebody cancels the child: its parent is woken, and told so."""

    @jobs.task
    async def child() -> None: ...

    @jobs.task
    async def parent(ctx: Context) -> str:
        started = await ctx.start(child.options(delay=3600).call())
        try:
            await ctx.result(started)
        except JobCancelled as error:
            return str(error)
        return "not cancelled"

    async with jobs.worker():
        job = await parent.submit()
        await reaches(job, "waiting")
        (found,) = await jobs.find(parent=job.id)
        await jobs.job(found.id).cancel()
        assert found.id in await job.result(timeout=20)


async def test_a_parent_that_is_cancelled_while_it_waits(jobs: Jobs) -> None:
    """The parent ends at once; its child is a job of its own, and goes on."""
    go = asyncio.Event()

    @jobs.task
    async def child() -> str:
        await set_within(go)
        return "done"

    @jobs.task
    async def parent(ctx: Context) -> str:
        return await ctx.run(child.call())

    async with jobs.worker():
        job = await parent.submit()
        await reaches(job, "waiting")
        assert await job.cancel() == "cancelled"
        go.set()
        (found,) = await jobs.find(parent=job.id)
        assert await jobs.job(found.id).result(timeout=20) == "done"


async def test_waiting_for_a_job_that_is_no_child(jobs: Jobs) -> None:
    """The job waits for one that somebody else has submitted."""
    go = asyncio.Event()

    @jobs.task
    async def other() -> str:
        await set_within(go)
        return "other"

    @jobs.task
    async def work(ctx: Context, job_id: str) -> Any:
        return await ctx.result(jobs.job(job_id))

    async with jobs.worker():
        first = await other.submit()
        job = await work.submit(first.id)
        await reaches(job, "waiting")
        go.set()
        assert await job.result(timeout=20) == "other"


@pytest.mark.loops("asyncio")
async def test_waiting_for_a_job_that_does_not_exist(jobs: Jobs) -> None:
    """Its id was never one: a clear error, and no wait for ever."""

    @jobs.task
    async def work(ctx: Context) -> Any:
        missing: Job[Any] = jobs.job("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
        return await ctx.result(missing)

    async with jobs.worker():
        job = await work.submit()
        info = await job.wait(timeout=20)
        assert info.error is not None and info.error["type"] == "UnknownJob"


async def test_a_child_with_a_key_is_shared(jobs: Jobs) -> None:
    """Two parents start a child with the same key: it runs once, and both get its result; a third one, with other
    arguments, is refused and may go on."""
    called: list[str] = []

    @jobs.task
    async def fetch(url: str) -> str:
        called.append(url)
        return f"content of {url}"

    @jobs.task
    async def parent(ctx: Context, url: str) -> str:
        try:
            content = await ctx.run(fetch.options(key="same").call(url))
        except ValueError as error:
            content = type(error).__name__
        return await ctx.step(str, content)

    async with jobs.worker():
        first, second = [await parent.submit("a") for _ in range(2)]
        assert await first.result(timeout=20) == await second.result(timeout=20) == "content of a"
        assert await (await parent.submit("b")).result(timeout=20) == "KeyConflict"
    assert called == ["a"]


@pytest.mark.loops("asyncio")
async def test_one_call_is_good_for_several_children(jobs: Jobs) -> None:
    """A call is a value: started twice under two names, and submitted besides, it makes three jobs."""

    @jobs.task
    async def child() -> str:
        return "child"

    @jobs.task
    async def parent(ctx: Context) -> list[str]:
        call = child.call()
        children = [await ctx.start(call, name="one"), await ctx.start(call, name="two")]
        await jobs.submit_many([call])
        assert len({started.id for started in children}) == 2
        return await ctx.gather(*children)

    async with jobs.worker():
        job = await parent.submit()
        assert await job.result(timeout=20) == ["child", "child"]
        assert len(await jobs.find(parent=job.id)) == 2
        assert await ended(jobs.job((await jobs.find(task="child"))[0].id)) == "completed"
