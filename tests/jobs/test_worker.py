"""The worker: how it starts, whose manager it uses, and that nothing is left of it."""

import asyncio
import signal
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from lastcall import TaskGroup, TaskManager, current_shutdown
from lastcall.exceptions import BadDeclaration, EngineUnavailable, NotOpen, ShuttingDown
from lastcall.jobs import Context, Jobs, Worker
from tests.jobs.conftest import Store
from tests.jobs.running import Faulty, ended, eventually, manager, outcomes, set_within
from tests.support.processes import Program


def declare(jobs: Jobs) -> Any:
    @jobs.task(name="work")
    async def work() -> str:
        return "done"

    return work


async def runs_a_job(jobs: Jobs, work: Any) -> bool:
    return bool(await (await work.submit()).result(timeout=20) == "done")


# --- whose manager ---------------------------------------------------------------------------------------


async def test_a_worker_of_its_own(jobs: Jobs) -> None:
    """Nobody has a manager: the worker opens one, and closes it with itself."""
    work = declare(jobs)
    async with jobs.worker() as worker:
        assert await runs_a_job(jobs, work)
        assert worker.manager.state == "open"
    assert worker.manager.state == "closed"
    assert worker.manager.report is not None and worker.manager.report.clean


async def test_the_manager_around_it(jobs: Jobs) -> None:
    """The worker is made in the block of a manager: its jobs are that one's tasks, listed and named by their ids."""
    standing, go = asyncio.Event(), asyncio.Event()

    @jobs.task(name="stand")
    async def stand() -> str:
        standing.set()
        await set_within(go)
        return "done"

    async with manager() as mine, jobs.worker() as worker:
        assert worker.manager is mine
        job = await stand.submit()
        await set_within(standing)
        (task,) = mine.tasks(status="running")
        assert task.name == f"stand {job.id}"
        go.set()
        assert await job.result(timeout=20) == "done"
    assert mine.report is not None and mine.report.clean


async def test_a_group_around_it_is_no_manager(jobs: Jobs) -> None:
    """A group without a manager has tasks, but no plan by which jobs could drain."""
    work = declare(jobs)
    async with TaskGroup():
        async with jobs.worker() as worker:
            assert await runs_a_job(jobs, work)
            assert isinstance(worker.manager, TaskManager)


async def test_jobs_do_not_inherit_what_surrounds_their_worker(jobs: Jobs) -> None:
    """A worker is started for one tenant, and a job submitted for another: whose it is stands in its arguments, and
    not in what happened to be around."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    @jobs.task
    async def work() -> str:
        return tenant.get()

    async with manager():
        tenant.set("ann")
        async with jobs.worker():
            tenant.set("bob")
            assert await (await work.submit()).result(timeout=20) == "nobody"


async def test_a_worker_in_a_task_that_is_told_to_stop(jobs: Jobs) -> None:
    """Only the task in which the worker runs is told to stop, its manager goes on: jobs leave at their checkpoints, and
    no others are claimed in their place."""
    standing, go = asyncio.Event(), asyncio.Event()
    began: list[int] = []

    @jobs.task
    async def work(ctx: Context) -> None:
        began.append(ctx.attempt)
        standing.set()
        await ctx.shutdown.wait()
        await ctx.step(str.upper, "a")

    async def serve() -> None:
        await current_shutdown().sleep(0)
        async with jobs.worker():
            await set_within(go)

    async with jobs, manager() as mine:
        serving = mine.create_task(serve())
        job = await work.submit()
        await set_within(standing)
        mine.stop_task(serving)

        async def has_left() -> bool:
            return await job.status() == "queued"

        await eventually(has_left)
        go.set()
        await asyncio.wait([serving])
        assert began == [1] and mine.state == "open"


async def test_a_manager_that_is_not_open(jobs: Jobs) -> None:
    """The manager that was given has not been opened, or is shutting down: a clear error, and nothing is left."""
    work = declare(jobs)
    closed = manager()
    with pytest.raises(NotOpen):
        async with jobs.worker(manager=closed):
            pass
    async with manager() as mine:
        mine.create_task(current_shutdown().wait())
        mine.begin_shutdown()
        with pytest.raises(ShuttingDown):
            async with jobs.worker(manager=mine):
                pass
    async with jobs:
        assert (await jobs.overview()).workers == []
    async with jobs.worker():
        assert await runs_a_job(jobs, work)


# --- nesting ---------------------------------------------------------------------------------------------


async def test_the_store_lives_as_long_as_anybody_needs_it(jobs: Jobs) -> None:
    """Blocks of the jobs, of a worker and of a second worker overlap in every order: a job that runs never meets a
    closed store."""
    standing, go = asyncio.Event(), asyncio.Event()

    @jobs.task(name="stand")
    async def stand(ctx: Context) -> str:
        standing.set()
        await set_within(go)
        return await ctx.step(str.upper, "done")

    async with jobs.worker():
        async with jobs:
            job = await stand.submit()
            await set_within(standing)
        go.set()
        assert await job.result(timeout=20) == "DONE"
    standing.clear()
    go.clear()
    both, first_left = asyncio.Event(), asyncio.Event()

    async def run_first() -> None:
        async with jobs.worker():
            await set_within(both)
        first_left.set()

    async def run_second() -> Any:
        async with jobs.worker():
            job = await stand.submit()
            await set_within(standing)
            both.set()
            go.set()
            await set_within(first_left)
            return await job.result(timeout=20)

    assert (await asyncio.gather(run_first(), run_second()))[1] == "DONE"
    async with jobs, jobs.worker():
        assert await (await stand.submit()).result(timeout=20) == "DONE"


async def test_a_worker_may_be_used_again(jobs: Jobs) -> None:
    """The same worker is started, stopped, and started again; twice at once it cannot be."""
    work = declare(jobs)
    worker = jobs.worker()
    ids = set()
    for _ in range(2):
        async with worker:
            ids.add(worker.id)
            assert await runs_a_job(jobs, work)
            with pytest.raises(RuntimeError, match="runs already"):
                await worker.__aenter__()
            assert await runs_a_job(jobs, work)
    assert len(ids) == 2
    async with jobs:
        assert (await jobs.overview()).workers == []


async def test_leaving_twice_is_harmless(jobs: Jobs) -> None:
    """The block is left although its manager has closed everything before."""
    work = declare(jobs)
    async with manager() as mine:
        worker = jobs.worker(manager=mine)
        await worker.__aenter__()
        assert await runs_a_job(jobs, work)
        await mine.shutdown()
        await worker.__aexit__(None, None, None)
        await worker.__aexit__(None, None, None)


# --- starting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["open", "join"])
@pytest.mark.parametrize("own", [True, False], ids=["own manager", "given manager"])
async def test_a_start_that_fails_leaves_nothing(store: Store, verb: str, own: bool) -> None:
    """The store cannot be opened, or takes no worker: the error comes out, no service runs, and another start works."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)
    work = declare(jobs)
    engine.away.add(verb)
    async with manager() as mine:
        before = asyncio.all_tasks()
        with pytest.raises(EngineUnavailable):
            async with jobs.worker(manager=None if own else mine):
                pass
        await eventually(lambda: asyncio.all_tasks() <= before)
        assert mine._roster.watchers == ()
        engine.away.clear()
        async with jobs.worker(manager=mine):
            assert await runs_a_job(jobs, work)
        assert mine._roster.watchers == ()


async def test_a_start_that_is_cancelled_leaves_nothing(store: Store) -> None:
    """The task that starts the worker is cancelled while the store is being asked."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)
    work = declare(jobs)
    engine.held["join"] = asyncio.Event()

    async def run() -> None:
        async with jobs.worker():
            pass

    before = asyncio.all_tasks()
    starting = asyncio.create_task(run())
    await eventually(lambda: "join" in engine.calls)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    await eventually(lambda: asyncio.all_tasks() <= before)
    engine.held.clear()
    async with jobs.worker():
        assert await runs_a_job(jobs, work)


async def test_a_stop_that_is_cancelled_still_ends(jobs: Jobs) -> None:
    """The task that leaves the worker's block is cancelled while jobs drain: the drain is cut short, jobs are handed
    over, and nothing runs on."""
    standing = asyncio.Event()

    @jobs.task(name="stand")
    async def stand() -> None:
        standing.set()
        await asyncio.sleep(60)

    leaving = asyncio.Event()

    async def run(mine: TaskManager) -> None:
        async with jobs.worker(manager=mine):
            await set_within(standing)
            leaving.set()

    async with jobs, manager() as mine:
        before = asyncio.all_tasks()
        job = await stand.submit()
        running = asyncio.create_task(run(mine))
        await set_within(leaving)
        await eventually(lambda: mine.stats().running == 1)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert await job.status() == "queued"
        assert await outcomes(job) == ["handed_over (shutdown)"]
        await eventually(lambda: asyncio.all_tasks() <= before)


async def test_an_error_in_the_block_comes_out(jobs: Jobs) -> None:
    """The body of the block fails: its jobs drain, and the error is the body's own."""
    standing = asyncio.Event()

    @jobs.task(name="stand")
    async def stand(ctx: Context) -> str:
        standing.set()
        await ctx.shutdown.wait()
        return "done"

    async with jobs:
        with pytest.raises(ZeroDivisionError):
            async with jobs.worker():
                job = await stand.submit()
                await set_within(standing)
                raise ZeroDivisionError
        assert await job.result(timeout=20) == "done"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"queues": "default"}, "queues"),
        ({"queues": []}, "queues"),
        ({"queues": [""]}, "queue"),
    ],
)
@pytest.mark.loops("asyncio")
async def test_impossible_workers(jobs: Jobs, options: dict[str, Any], named: str) -> None:
    """Numbers and queues that make no sense are refused before anything starts."""
    with pytest.raises(BadDeclaration, match=named):
        jobs.worker(**options)


# --- what it runs ----------------------------------------------------------------------------------------


async def test_only_its_queues_and_no_more_than_its_slots(jobs: Jobs) -> None:
    """A worker for one queue with three slots, and twenty jobs in two queues."""
    now, most = 0, 0

    @jobs.task
    async def work() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    async with jobs:
        mine = [await work.options(queue="mine").submit() for _ in range(20)]
        others = [await work.options(queue="others").submit() for _ in range(3)]
        async with jobs.worker(concurrency=3, queues=["mine"]):
            for job in mine:
                assert await ended(job) == "completed"
        assert {await job.status() for job in others} == {"queued"}
    assert most == 3


async def test_priority_and_age(jobs: Jobs) -> None:
    """One slot: the more important first, and among equals the older."""
    order: list[str] = []

    @jobs.task
    async def work(name: str) -> None:
        order.append(name)

    async with jobs:
        submitted = [
            await work.options(priority=priority).submit(name)
            for name, priority in (("c", 0), ("d", 0), ("e", -5), ("a", 10), ("b", 5))
        ]
        async with jobs.worker(concurrency=1):
            for job in submitted:
                await job.wait(timeout=20)
    assert order == ["a", "b", "c", "d", "e"]


async def test_a_task_that_nobody_declares_waits(jobs: Jobs, store: Store) -> None:
    """A new program submits what an old worker does not know: it is left alone until a worker comes that does."""
    new, known = store.jobs(), declare(jobs)

    @new.task(name="new")
    async def new_task() -> str:
        return "new"

    async with new, jobs.worker():
        job = await new_task.submit()
        assert await runs_a_job(jobs, known)
        assert (await job.status(), await job.attempts()) == ("queued", [])
        async with new.worker():
            assert await job.result(timeout=20) == "new"


async def test_many_jobs_on_two_workers_run_once_each(jobs: Jobs, store: Store) -> None:
    """Three hundred jobs, two workers on one store that hear of each other by hints only: each job runs once."""
    ran: list[int] = []

    def declare_count(on: Jobs) -> Any:
        @on.task(name="count")
        async def count(n: int) -> int:
            ran.append(n)
            return n

        return count

    count, other = declare_count(jobs), store.jobs()
    declare_count(other)
    async with jobs.worker(concurrency=7), other.worker(concurrency=5):
        submitted = await jobs.submit_many(count.call(n) for n in range(300))
        assert [await job.result(timeout=20) for job in submitted] == list(range(300))
    assert sorted(ran) == list(range(300))


async def test_a_worker_shows_itself(jobs: Jobs) -> None:
    """What is known of a worker: its process, slots, queues, and how many jobs it runs."""
    standing, go = asyncio.Event(), asyncio.Event()

    @jobs.task(name="stand")
    async def stand() -> None:
        standing.set()
        await set_within(go)

    async with jobs.worker(concurrency=4, queues=["b", "a", "default"]) as worker:
        assert isinstance(worker, Worker) and worker.running == 0
        await stand.submit()
        await set_within(standing)
        assert worker.running == 1
        (row,) = (await jobs.overview()).workers
        assert (row.id, row.concurrency, row.queues, row.running) == (
            worker.id,
            4,
            frozenset({"a", "b", "default"}),
            1,
        )
        go.set()


# --- under lastcall.run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["own", "given", "body ignores", "in a task"])
@pytest.mark.loops("asyncio")
@pytest.mark.slow
def test_a_worker_in_a_program_of_its_own(program: str, tmp_path: Path) -> None:
    """A program runs a worker under `lastcall.run` and gets SIGTERM in the middle of a step: its job is handed over
    behind it, and the program ends with 0; or, at the deadline, with 1, if its body does not look at the stop, also
    where the worker runs in another task."""
    with Program("../../jobs/programs/under_run", program, str(tmp_path / "jobs.db")) as running:
        running.expect("step 1 begins")
        running.send(signal.SIGTERM)
        running.expect("told: shutdown")
        assert running.wait() == (1 if program in ("body ignores", "in a task") else 0)
        assert running.lines[-3:] == ["step 1 ends", "queued, 1 steps", "handed_over (shutdown)"]
        assert "Traceback" not in running.errors
