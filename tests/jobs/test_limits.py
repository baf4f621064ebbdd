"""Limits: how many jobs of a task, and per key, run at once, and how many begin per time, over all workers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lastcall.jobs import Context, Job, Jobs, Rate
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import AT_ONCE, eventually, reaches, set_within


class Crowd:
    """Counts who is inside at once, and lets one out when told."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.began = 0
        self._doors: list[asyncio.Event] = []

    @asynccontextmanager
    async def enter(self, key: str = "") -> AsyncIterator[None]:
        self.began += 1
        self.inside[key] += 1
        self.most[key] = max(self.most[key], self.inside[key])
        door = asyncio.Event()
        self._doors.append(door)
        try:
            await set_within(door)
            yield
        finally:
            self.inside[key] -= 1

    def let_out(self) -> None:
        """The one that came first."""
        self._doors.pop(0).set()

    async def let_all_out(self, jobs: list[Job[Any]]) -> None:
        """One after the other, until these jobs have ended."""
        waiting = asyncio.gather(*(job.wait(timeout=20) for job in jobs))
        while not waiting.done():
            if self._doors:
                self.let_out()
            await asyncio.sleep(0.001)
        await waiting


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


async def test_at_most_so_many_of_a_task_over_all_workers(jobs: Jobs, store: Store, crowd: Crowd) -> None:
    """Two workers with ten slots each, twelve jobs of a task of which three may run: never more than three do, three
    do when there are as many, and another task is not held up."""

    def declare(on: Jobs) -> Any:
        @on.task(name="limited", concurrency=3)
        async def limited(n: int) -> int:
            async with crowd.enter():
                return n

        @on.task(name="free")
        async def free() -> str:
            return "free"

        return limited, free

    (limited, free), other = declare(jobs), store.jobs()
    declare(other)
    async with jobs.worker(), other.worker():
        submitted = await jobs.submit_many(limited.call(n) for n in range(12))
        await eventually(lambda: crowd.inside[""] == 3)
        assert await (await free.submit()).result(timeout=20) == "free"
        assert crowd.inside[""] == 3
        await crowd.let_all_out(submitted)
        assert [await job.result() for job in submitted] == list(range(12))
    assert crowd.most[""] == 3


async def test_at_most_so_many_per_key(jobs: Jobs, store: Store, crowd: Crowd) -> None:
    """One job per customer at once, two per folder: keys do not hold each other up."""

    def declare(on: Jobs) -> Any:
        @on.task(name="mail", concurrency_key="customer")
        async def mail(customer: str, n: int = 0) -> None:
            async with crowd.enter(customer):
                pass

        @on.task(
            name="index",
            concurrency_key=lambda path: path.partition("/")[0],
            concurrency_per_key=2,
        )
        async def index(path: str) -> None:
            async with crowd.enter(path.partition("/")[0]):
                pass

        return mail, index

    (mail, index), other = declare(jobs), store.jobs()
    declare(other)
    async with jobs.worker(concurrency=20), other.worker(concurrency=20):
        submitted: list[Job[Any]] = [
            *await jobs.submit_many(mail.call(name, n) for n in range(3) for name in ("ann", "bob")),
            *await jobs.submit_many(
                index.call(f"{folder}/{n}") for n in range(4) for folder in ("docs", "src")
            ),
        ]
        await eventually(lambda: sum(crowd.inside.values()) == 6)
        assert +crowd.inside == {"ann": 1, "bob": 1, "docs": 2, "src": 2}
        await crowd.let_all_out(submitted)
    assert crowd.most == {"ann": 1, "bob": 1, "docs": 2, "src": 2}


async def test_a_waiting_job_gives_up_its_place(jobs: Jobs) -> None:
    """The first of two jobs with one key waits for a message: the second one runs meanwhile, and the first goes on when
    the place is free again."""
    standing, go = asyncio.Event(), asyncio.Event()
    inside: list[str] = []

    @jobs.task(concurrency_key="key")
    async def work(ctx: Context, key: str, what: str) -> str:
        if what == "waits":
            await ctx.wait_for("x")
        inside.append(what)
        if what == "stands":
            standing.set()
            await set_within(go)
        return what

    async with jobs.worker():
        first = await work.submit("k", "waits")
        await reaches(first, "waiting")
        second = await work.submit("k", "stands")
        await set_within(standing)
        await first.send("x")
        assert await first.status() == "queued" and inside == ["stands"]
        go.set()
        assert await second.result(timeout=20) == "stands"
        assert await first.result(timeout=20) == "waits"


@pytest.mark.parametrize("how", ["fails", "is cancelled", "is tried again"])
async def test_however_a_job_ends_its_place_is_free(jobs: Jobs, how: str) -> None:
    """Jobs with one key end in every way there is: the next one runs."""
    standing = asyncio.Event()

    @jobs.task(concurrency_key="key", retries=1, backoff=AT_ONCE)
    async def work(ctx: Context, key: str, what: str) -> str:
        if what == "is tried again" and ctx.attempt == 1:
            raise OSError
        if what == "fails":
            raise OSError
        if what == "is cancelled":
            standing.set()
            await asyncio.sleep(60)
        return what

    async with jobs.worker():
        first = await work.submit("k", how)
        second = await work.submit("k", "next")
        if how == "is cancelled":
            await set_within(standing)
            await first.cancel()
        await first.wait(timeout=20)
        assert await second.result(timeout=20) == "next"


async def test_so_many_begin_per_time(store: Store) -> None:
    """Three per minute, over two workers: three begin at once, then one each twenty seconds."""
    clock = VirtualClock()
    # Their leases must outlast the time that passes here, in which nobody renews.
    jobs, other = (store.jobs(clock, lease_seconds=1000) for _ in range(2))
    began: list[int] = []

    def declare(on: Jobs) -> Any:
        @on.task(name="call", rate=Rate(3, seconds=60))
        async def call(n: int) -> None:
            began.append(n)

        @on.task(name="free")
        async def free() -> None: ...

        return call, free

    call, free = declare(jobs)
    declare(other)
    async with jobs.worker(), other.worker():
        await jobs.submit_many(call.call(n) for n in range(6))
        await eventually(lambda: len(began) == 3)
        for n in (3, 4, 5):
            clock.advance(19)
            # A job that is free to run shows that the workers have looked.
            await (await free.submit()).result(timeout=20)
            assert len(began) == n
            clock.advance(1)
            await (await free.submit()).result(timeout=20)
            await eventually(lambda: len(began) == n + 1)  # noqa: B023
    assert sorted(began) == list(range(6))
