"""`assert_survives`: it plays every place, lets right jobs through, and names the places of wrong ones."""

import asyncio
import itertools
import sqlite3

import pytest

from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs import AttemptOutcome, Backoff, Context, Decision, Job, Jobs, JobStatus
from lastcall.jobs._rows import StepRow
from lastcall.testing import JobsRun, assert_survives, run_jobs

pytestmark = pytest.mark.loops("asyncio")


class Shop:
    """A program with a job of everything that there is; what its steps did is taken down outside the store."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.jobs = Jobs("sqlite:///never-opened.db")

        def charge(order: str) -> str:
            self.done.append(f"charge {order}")
            return f"receipt {order}"

        async def pack(order: str, box: int) -> int:
            await asyncio.sleep(0)
            return box

        def book(connection: sqlite3.Connection, order: str) -> int:
            connection.execute("CREATE TABLE IF NOT EXISTS booked (name TEXT)")
            connection.execute("INSERT INTO booked VALUES (?)", (order,))
            return int(connection.execute("SELECT count(*) FROM booked").fetchone()[0])

        async def on_unknown() -> Decision:
            return Decision(happened=True, value=f"receipt {order_of_now[0]}")

        order_of_now = [""]

        @self.jobs.task(name="notify")
        async def notify(order: str) -> str:
            return f"told of {order}"

        @self.jobs.task(name="fulfil", retries=1, backoff=Backoff(first_seconds=30, jitter=0))
        async def fulfil(ctx: Context, order: str) -> list[object]:
            order_of_now[0] = order
            receipt = await ctx.step(charge, order, name="charge", policy="once", on_unknown=on_unknown)
            boxes = await asyncio.gather(*(ctx.step(pack, order, box) for box in range(2)))
            await ctx.sleep(3600)
            booked = await ctx.transaction(book, order)
            async with ctx.stream("note") as out:
                await out.write("done")
            return [receipt, boxes, booked, await ctx.run(notify.call(order))]

        self.fulfil = fulfil

    def reset(self) -> None:
        self.done.clear()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_right_job_survives_everything() -> None:
    """Steps, side by side too, a wait, a transaction, a stream, a child: killed everywhere, always the same."""
    shop = Shop()

    async def check(job: Job[list[object]]) -> None:
        assert await job.result() == ["receipt tea", [0, 1], 1, "told of tea"]
        assert shop.done == ["charge tea"] or shop.done == []  # `once`: in flight at the crash, and decided

    survived = await assert_survives(
        shop.jobs, shop.fulfil.call("tea"), before_each=shop.reset, check=check, at_most=500
    )
    assert set(survived.places) == {"await", "commit", "committed"}
    assert min(survived.places.values()) >= 5
    # What is told within an interval is written together, so some places are not passed in every play.
    assert survived.crashes >= 0.9 * sum(survived.places.values())


async def test_memory_does_not_survive() -> None:
    """A job counts in memory what it should have counted in a step: the places where that shows are named."""
    jobs = Jobs("sqlite:///never-opened.db")
    numbers = itertools.count()

    @jobs.task(name="count")
    async def count(ctx: Context) -> int:
        number = next(numbers)
        await ctx.step(asyncio.sleep, 0, name="nap")
        return number

    def restart() -> None:
        nonlocal numbers
        numbers = itertools.count()

    with pytest.raises(
        AssertionError, match=r"(?s)does not survive.*await 1 \(in attempt 1 of 'count'\): its result: '1'"
    ):
        await assert_survives(jobs, count.call(), before_each=restart)


async def test_one_place_can_be_looked_at() -> None:
    """A step's name is another one each time, so it cannot be found again: one place of it is played alone."""
    jobs = Jobs("sqlite:///never-opened.db")
    numbers = itertools.count()

    @jobs.task(name="lottery")
    async def lottery(ctx: Context) -> None:
        await ctx.step(asyncio.sleep, 0, name=f"draw {next(numbers)}")

    with pytest.raises(AssertionError, match=r"committed 2 \(step draw \d completed\): its status: 'failed'"):
        await assert_survives(jobs, lottery.call(), only=("committed", 2), before_each=lambda: None)


async def test_a_job_that_needs_somebody_is_driven() -> None:
    """A job waits for a message: undisturbed already it does not end by itself, and with a driver it survives."""
    jobs = Jobs("sqlite:///never-opened.db")

    @jobs.task(name="ask")
    async def ask(ctx: Context) -> str:
        return f"they said {await ctx.wait_for('answer')}"

    with pytest.raises(
        AssertionError, match="without any crash: the job has not ended; it is waiting for signal answer"
    ):
        await assert_survives(jobs, ask.call())

    async def drive(run: JobsRun, job: Job[str]) -> None:
        await run.until_idle()
        await job.send("answer", "yes")

    survived = await assert_survives(jobs, ask.call(), drive=drive)
    assert survived.crashes == sum(survived.places.values())


async def test_what_the_check_finds_is_told_with_its_place() -> None:
    """The job itself is right, but charges twice where it dies in the middle: `check` finds it."""
    jobs = Jobs("sqlite:///never-opened.db")
    charged: list[str] = []

    async def charge() -> None:
        charged.append("tea")
        await asyncio.sleep(0)

    @jobs.task(name="fulfil")
    async def fulfil(ctx: Context) -> None:
        await ctx.step(charge, name="charge")

    def check(job: Job[None]) -> None:
        assert charged == ["tea"], f"charged {len(charged)} times"

    with pytest.raises(AssertionError) as caught:
        await assert_survives(jobs, fulfil.call(), before_each=charged.clear, check=check)
    told = str(caught.value)
    assert "commit 1 (step charge completed): AssertionError: charged 2 times" in told
    assert "committed 2" not in told  # recorded by then


async def test_a_deploy_at_a_step() -> None:
    """The worker is stopped in order while a step runs: the step ends, the job goes on, nothing is charged."""
    shop = Shop()
    async with run_jobs(shop.jobs) as run:
        run.drain_at("charge")
        job = await shop.fulfil.submit("tea")
        await run.until_idle()
        await run.advance(3600)
        assert await job.status() is JobStatus.COMPLETED
        attempts = await job.attempts()
        assert [(a.outcome, a.reason) for a in attempts][:2] == [
            (AttemptOutcome.HANDED_OVER, "shutdown"),
            (AttemptOutcome.HANDED_OVER, "waiting"),
        ]
        assert (await job.info()).failures == 0
    assert shop.done == ["charge tea"]


async def test_a_step_that_runs_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that forgets what it has recorded, so that a completed step runs again: that is told, with the step."""
    jobs = Jobs("sqlite:///never-opened.db")

    @jobs.task(name="nap")
    async def nap(ctx: Context) -> None:
        await ctx.step(asyncio.sleep, 0, name="first")
        await ctx.step(asyncio.sleep, 0, name="second")

    await assert_survives(jobs, nap.call())
    steps = SqliteEngine.steps
    asked = 0

    async def forgetful(self: SqliteEngine, job_id: str) -> list[StepRow]:
        nonlocal asked
        asked += 1
        return (
            await steps(self, job_id) if asked % 2 else []
        )  # every other time it is asked by the tool itself

    monkeypatch.setattr(SqliteEngine, "steps", forgetful)
    with pytest.raises(AssertionError, match="step 'first' ran again, although it was recorded"):
        await assert_survives(jobs, nap.call(), only=("commit", 2))
