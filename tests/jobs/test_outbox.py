"""A store that is away: what is done is kept until it can be written, and what cannot be is told."""

import asyncio

import pytest

from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import Context, Jobs
from tests.engines.model import ModelEngine, ModelStore
from tests.jobs.conftest import Store
from tests.jobs.running import Faulty, ended, eventually, manager, outcomes, set_within


@pytest.fixture
def engine(store: Store) -> Faulty:
    return Faulty(store.engine())


@pytest.fixture
def jobs(engine: Faulty) -> Jobs:
    return Jobs(engine)


async def test_results_wait_for_the_store_and_slots_do_not(
    engine: Faulty, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    """Ends cannot be written for a while: the work goes on in a free slot, nothing is done twice, and all results are
    written when the store is back."""
    called: list[int] = []

    @jobs.task
    async def work(n: int) -> int:
        called.append(n)
        return n

    async with jobs.worker(concurrency=1) as worker:
        engine.away.add("finish")
        submitted = [await work.submit(n) for n in range(5)]
        await eventually(lambda: len(called) == 5)
        assert worker.running == 0
        assert {await job.status() for job in submitted} == {"running"}
        engine.away.clear()
        assert [await job.result(timeout=20) for job in submitted] == list(range(5))
        for job in submitted:
            assert await outcomes(job) == ["completed"]
    assert called == list(range(5))
    assert caplog.text.count("waits for the store to come back") == 1


async def test_ends_are_written_in_batches(engine: Faulty, jobs: Jobs) -> None:
    """A hundred jobs end while one write is under way: they need one more, not a hundred."""
    go = asyncio.Event()
    ready: list[int] = []

    @jobs.task
    async def work(n: int) -> None:
        ready.append(n)
        await set_within(go)

    async with jobs.worker(concurrency=100):
        submitted = await jobs.submit_many(work.call(n) for n in range(100))
        await eventually(lambda: len(ready) == 100)
        go.set()
        for job in submitted:
            await job.wait(timeout=20)
        assert engine.calls.count("finish") <= 5


async def test_a_step_is_kept_while_the_store_is_away(engine: Faulty, jobs: Jobs) -> None:
    """A step has run, its value cannot be written, nor an event, nor a child: the job goes on where it is when the
    store is back."""
    called: list[str] = []

    @jobs.task
    async def child() -> str:
        return "child"

    @jobs.task
    async def work(ctx: Context) -> str:
        async def step() -> str:
            called.append("step")
            return "step"

        found = await ctx.step(step)
        await ctx.progress(1, 1)
        started = await ctx.start(child.call())
        return found + await ctx.result(started)

    async with jobs.worker():
        for verb in ("record_step", "append_events", "submit", "get", "steps"):
            if verb != "submit":
                engine.away.add(verb)
        job = await work.submit()
        await eventually(lambda: engine.calls.count("record_step") >= 2)
        engine.away.add("submit")
        engine.away.remove("record_step")
        await eventually(lambda: engine.calls.count("append_events") >= 2)
        engine.away.remove("append_events")
        await eventually(lambda: engine.calls.count("submit") >= 3)
        engine.away.remove("submit")
        await eventually(lambda: engine.calls.count("steps") >= 2)
        engine.away.remove("steps")
        await eventually(lambda: engine.calls.count("get") >= 2)
        engine.away.clear()
        assert await job.result(timeout=20) == "stepchild"
        assert await outcomes(job) == ["handed_over (waiting)", "completed"]
    assert called == ["step"]


async def test_who_submits_is_told(engine: Faulty, jobs: Jobs) -> None:
    """A caller is there who can be told: it is, at once, and nothing was written."""

    @jobs.task
    async def work() -> None: ...

    async with jobs:
        engine.away.add("submit")
        with pytest.raises(EngineUnavailable):
            await work.submit()
        engine.away.clear()
        assert await jobs.find() == []


async def test_workers_pause_and_come_back(
    engine: Faulty, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing can be claimed or renewed for a while: each service says so once, and all go on by themselves."""

    @jobs.task
    async def work() -> str:
        return "done"

    caplog.set_level("INFO", "lastcall")
    async with jobs.worker():
        engine.away |= {"claim", "rescue"}
        job = await work.submit()
        tries = engine.calls.count("claim")
        await eventually(lambda: engine.calls.count("claim") >= tries + 2)
        engine.away.clear()
        assert await job.result(timeout=20) == "done"
    assert caplog.text.count("the fetcher pauses") == 1
    assert "the fetcher goes on" in caplog.text


async def test_a_stop_waits_for_the_store_within_its_budget(engine: Faulty, jobs: Jobs) -> None:
    """The worker is stopped while its ends cannot be written; the store comes back in time: nothing is lost."""

    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs:
        async with manager(close=5) as mine, jobs.worker(manager=mine) as worker:
            engine.away.add("finish")
            job = await work.submit()
            await eventually(lambda: "finish" in engine.calls and worker.running == 0)
            mine.begin_shutdown()
            tries = engine.calls.count("finish")
            await eventually(lambda: mine.state == "closing" and engine.calls.count("finish") > tries)
            engine.away.clear()
        assert await job.result(timeout=20) == "done"
        assert mine.report is not None and mine.report.clean


@pytest.mark.parametrize("how", ["away", "hangs"])
async def test_a_stop_without_the_store_ends_by_the_plan_and_is_told(
    engine: Faulty, jobs: Jobs, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The store does not come back, or does not even answer: the worker ends within its budget all the same, and log
    and report name the job whose attempt is lost with the lease. That is no clean end."""
    called: list[int] = []

    @jobs.task
    async def work(ctx: Context) -> int:
        called.append(ctx.attempt)
        return ctx.attempt

    loop = asyncio.get_running_loop()
    async with jobs:
        async with manager(close=1) as mine, jobs.worker(manager=mine) as worker:
            if how == "away":
                engine.away |= {"finish", "resign", "renew"}
            else:
                engine.held = dict.fromkeys(["finish", "resign", "renew", "rescue"], asyncio.Event())
            job = await work.submit()
            await eventually(lambda: "finish" in engine.calls and worker.running == 0)
            began = loop.time()
        assert loop.time() - began < 5
        assert job.id in caplog.text and "was not written in time" in caplog.text
        assert "could not resign" in caplog.text
        assert mine.report is not None and mine.report.exit_code == 1
        [failed] = [resource for resource in mine.report.resources if resource.outcome != "finished"]
        assert failed.name == f"worker {worker.id}" and failed.outcome == "failed"
        assert f"job {job.id} (attempt 1, Completed)" in str(failed.error)
        assert "loses its attempt when the lease of 15 s is over" in str(failed.error) and str(
            failed.error
        ) in str(mine.report)
        for event in engine.held.values():
            event.set()
        engine.away.clear()
        engine.held = {}


@pytest.mark.loops("asyncio")
async def test_what_could_not_be_written_is_handed_over(engine: Faulty, jobs: Jobs) -> None:
    """Ends cannot be written, but the lease can be resigned: the job is handed over by that, and runs again."""
    called: list[int] = []

    @jobs.task
    async def work(ctx: Context) -> int:
        called.append(ctx.attempt)
        return ctx.attempt

    async with jobs:
        async with manager(close=2) as mine, jobs.worker(manager=mine) as worker:
            engine.away.add("finish")
            job = await work.submit()
            await eventually(lambda: "finish" in engine.calls and worker.running == 0)
        assert await job.status() == "queued"
        assert await outcomes(job) == ["handed_over (shutdown)"]
        assert mine.report is not None and mine.report.exit_code == 1
        assert f"job {job.id} (attempt 1, Completed)" in str(mine.report)
        assert "was handed over" in str(mine.report)
        engine.away.clear()
        async with jobs.worker():
            assert await job.result(timeout=20) == 2


@pytest.fixture
def in_memory() -> Faulty:
    """Without threads, so that the clock of a virtual loop can jump over its waits."""
    return Faulty(ModelEngine(None, ModelStore()))


@pytest.mark.loops("virtual")
async def test_a_hand_over_that_the_resignation_makes_is_clean(in_memory: Faulty) -> None:
    """The hand-over of a job cannot be written, but its worker can resign, which says the same: nothing was lost."""
    jobs = Jobs(in_memory)
    running = asyncio.Event()

    @jobs.task
    async def work(ctx: Context) -> None:
        running.set()
        await ctx.shutdown.wait()
        await ctx.step(str.upper, "not any more")

    async with jobs:
        async with manager() as mine, jobs.worker(manager=mine):
            in_memory.away.add("finish")
            job = await work.submit()
            await set_within(running)
        assert await outcomes(job) == ["handed_over (shutdown)"]
        assert mine.report is not None and mine.report.clean, mine.report


@pytest.mark.loops("virtual")
@pytest.mark.parametrize("resigns", [True, False])
async def test_a_close_phase_too_short_for_the_store_still_names_the_jobs(
    in_memory: Faulty, resigns: bool
) -> None:
    """The manager stops first and its close phase cuts short a store that hangs, with more to close after the worker:
    the report names each job, and what becomes of it; also of more jobs than a line can hold."""
    jobs = Jobs(in_memory, lease_seconds=30)

    @jobs.task
    async def work() -> None: ...

    async with jobs:
        async with manager(close=1) as mine:
            for n in range(3):
                mine.on_close(lambda: None, name=f"closes after the worker {n}")
            async with jobs.worker(manager=mine, concurrency=30) as worker:
                hung = asyncio.Event()
                in_memory.held = dict.fromkeys(
                    ["finish", "renew"] if resigns else ["finish", "renew", "resign"], hung
                )
                submitted = await jobs.submit_many(work.call() for _ in range(25))
                await eventually(lambda: in_memory.calls.count("finish") == 1 and worker.running == 0)
                report = await mine.shutdown()
        assert report.exit_code == 1
        failed = report.resources[0]
        assert (failed.name, failed.outcome) == (f"worker {worker.id}", "failed"), report
        assert "and 5 more" in str(failed.error)
        assert sum(job.id in str(failed.error) for job in submitted) == 20
        fate = "was handed over" if resigns else "loses its attempt when the lease of 30 s is over"
        assert fate in str(failed.error)
        assert {await job.status() for job in submitted} == {"queued" if resigns else "running"}


@pytest.mark.loops("virtual")
async def test_a_worker_that_stops_alone_tells_the_manager_that_lives_on(in_memory: Faulty) -> None:
    """The worker's block is left, its manager goes on for long and closes cleanly: its report still tells of the end
    that was not written."""
    jobs = Jobs(in_memory)

    @jobs.task
    async def work() -> None: ...

    async with jobs:
        async with manager() as mine:
            async with jobs.worker(manager=mine) as worker:
                in_memory.away |= {"finish", "resign"}
                job = await work.submit()
                await eventually(lambda: "finish" in in_memory.calls and worker.running == 0)
            in_memory.away.clear()
        assert mine.report is not None and mine.report.exit_code == 1
        assert job.id in str(mine.report)


async def test_an_engine_with_a_bug(engine: Faulty, jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """Writing ends fails with an error that no engine should raise: they are kept, and tried again."""

    @jobs.task
    async def work() -> str:
        return "done"

    async with jobs.worker():
        finish, failures = engine.finish, iter([ZeroDivisionError("a bug"), ZeroDivisionError("a bug")])

        async def sometimes(ends: object) -> object:
            for error in failures:
                raise error
            return await finish(ends)

        engine.finish = sometimes  # type: ignore[attr-defined]
        job = await work.submit()
        assert await ended(job) == "completed"
    assert caplog.text.count("a bug") >= 1 and "tried again" in caplog.text


async def test_who_was_given_up_does_not_wait_for_the_store(engine: Faulty, jobs: Jobs) -> None:
    """A cancelled job cleans up with a step, which can be neither written nor looked up: when its grace is over it is
    given up, and does not go on trying by itself."""
    running = asyncio.Event()

    @jobs.task
    async def work(ctx: Context) -> None:
        try:
            running.set()
            await asyncio.sleep(60)
        finally:
            await ctx.step(str.upper, "clean up")

    async with manager(cancel=0.1, close=1) as mine, jobs.worker(manager=mine):
        job = await work.submit()
        await set_within(running)
        engine.away.add("record_step")
        await job.cancel()
        assert await ended(job) == "cancelled"
        await eventually(lambda: mine.stats().running == 0)
        assert await job.steps() == []


@pytest.mark.loops("asyncio")
async def test_a_cancel_does_not_wait_for_the_store_for_ever(engine: Faulty, jobs: Jobs) -> None:
    """A step's value cannot be written when its job is cancelled: that is tried a little longer, then the job ends."""

    async def step() -> None: ...

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.step(step)

    async with jobs.worker() as worker:
        engine.away.add("record_step")
        job = await work.submit()
        await eventually(lambda: "record_step" in engine.calls)
        await job.cancel()
        assert await ended(job) == "cancelled"
        assert worker.running == 0
        assert await job.steps() == []
