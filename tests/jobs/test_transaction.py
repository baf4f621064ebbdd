"""`ctx.transaction`: the user's own rows and the memory of the step are committed together."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs import Context, Jobs
from lastcall.testing import VirtualClock
from tests.jobs.running import AT_ONCE, ended, eventually, outcomes, reaches, set_within


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "jobs.db")
    asyncio.run(make_file(path))
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE account (name TEXT PRIMARY KEY, euros INT CHECK (euros >= 0))")
        connection.execute("INSERT INTO account VALUES ('ann', 10), ('bob', 0)")
    connection.close()
    return path


@pytest.fixture
def jobs(path: str) -> Jobs:
    return Jobs(SqliteEngine(path, synchronous="off"))


async def make_file(path: str) -> None:
    """The store's own tables come first; a file that has others already is not taken for one of ours."""
    engine = SqliteEngine(path, synchronous="off")
    await engine.open()
    await engine.close()


def accounts(path: str) -> dict[str, int]:
    connection = sqlite3.connect(path)
    try:
        return dict(connection.execute("SELECT name, euros FROM account").fetchall())
    finally:
        connection.close()


def move(connection: sqlite3.Connection, giver: str, taker: str, euros: int) -> int:
    connection.execute("UPDATE account SET euros = euros + ? WHERE name = ?", (euros, taker))
    connection.execute("UPDATE account SET euros = euros - ? WHERE name = ?", (euros, giver))
    return euros


async def test_rows_and_step_are_one(jobs: Jobs, path: str) -> None:
    """The job fails behind its transaction and is tried again: the money has moved once, and what the function returned
    is there."""

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def pay(ctx: Context) -> int:
        euros = await ctx.transaction(move, "ann", "bob", 3)
        if ctx.attempt == 1:
            raise OSError
        return euros

    async with jobs.worker():
        job = await pay.submit()
        assert await job.result(timeout=20) == 3
        (step,) = await job.steps()
        assert step.key == 'move("ann","bob",3)' and step.value == 3
    assert accounts(path) == {"ann": 7, "bob": 3}


async def test_what_it_raises_undoes_it(jobs: Jobs, path: str) -> None:
    """The second statement breaks a rule of the table: the first one is undone, the job gets the very error, and may go
    on another way."""

    @jobs.task
    async def pay(ctx: Context) -> str:
        try:
            await ctx.transaction(move, "ann", "bob", 11)
        except sqlite3.IntegrityError:
            await ctx.transaction(move, "ann", "bob", 10)
            await ctx.wait_for("x")
            return "ten"
        return "eleven"

    async with jobs.worker():
        job = await pay.submit()
        await reaches(job, "waiting")
        assert accounts(path) == {"ann": 0, "bob": 10}
        await job.send("x")
        assert await job.result(timeout=20) == "ten"
    assert accounts(path) == {"ann": 0, "bob": 10}


@pytest.mark.loops("asyncio")
async def test_an_error_in_its_sql_is_the_jobs_own(jobs: Jobs) -> None:
    """A table that does not exist is no trouble with the store, for which one would wait."""

    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT * FROM nowhere")

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.transaction(bad)

    async with jobs.worker():
        info = await (await work.submit()).wait(timeout=20)
        assert info.error is not None
        assert (info.error["type"], info.error["message"]) == ("OperationalError", "no such table: nowhere")


@pytest.mark.loops("asyncio")
async def test_a_value_that_cannot_be_stored_undoes_it_too(jobs: Jobs, path: str) -> None:
    """The rows are written, but what the function returned is no JSON: neither is kept."""

    def give_all(connection: sqlite3.Connection) -> Any:
        move(connection, "ann", "bob", 10)
        return connection

    @jobs.task(retries=3, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        await ctx.transaction(give_all)

    async with jobs.worker():
        job = await work.submit()
        info = await job.wait(timeout=20)
        assert info.error is not None and info.error["type"] == "BadResult"
        assert len(await job.attempts()) == 1
    assert accounts(path) == {"ann": 10, "bob": 0}


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "DELETE FROM lastcall_job"])
@pytest.mark.loops("asyncio")
async def test_it_must_not_end_the_transaction(jobs: Jobs, path: str, statement: str) -> None:
    """The function tries to commit by itself, or to touch what is ours: refused, and nothing is written."""

    def sly(connection: sqlite3.Connection) -> None:
        move(connection, "ann", "bob", 1)
        connection.execute(statement)

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.transaction(sly)

    async with jobs.worker():
        info = await (await work.submit()).wait(timeout=20)
        assert info.error is not None and info.error["type"] == "BadDeclaration"
    assert accounts(path) == {"ann": 10, "bob": 0}


@pytest.mark.loops("asyncio")
async def test_only_plain_functions(jobs: Jobs) -> None:
    """A coroutine function cannot run between the store's own writes."""

    async def asynchronous(connection: sqlite3.Connection) -> None: ...

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.transaction(asynchronous)

    async with jobs.worker():
        info = await (await work.submit()).wait(timeout=20)
        assert info.error is not None and "plain function" in info.error["message"]


async def test_a_lost_attempt_moves_no_money(path: str) -> None:
    """The worker was taken for dead before the transaction: its rows are not written, those of the other worker are."""
    clock = VirtualClock()
    first, second = (Jobs(SqliteEngine(path, synchronous="off", clock=clock)) for _ in range(2))
    standing, go = asyncio.Event(), asyncio.Event()

    def declare(jobs: Jobs) -> Any:
        @jobs.task(name="pay")
        async def pay(ctx: Context) -> None:
            if ctx.attempt == 1:
                standing.set()
                await set_within(go)
            await ctx.transaction(move, "ann", "bob", 1)

        return pay

    pay = declare(first)
    declare(second)
    async with first.worker() as worker:
        job = await pay.submit()
        await set_within(standing)
        clock.advance(100)
        async with second.worker():
            assert await ended(second.job(job.id)) == "completed"
            go.set()
            await eventually(lambda: worker.running == 0)
            assert await outcomes(job) == ["lost", "completed"]
    assert accounts(path) == {"ann": 9, "bob": 1}


async def test_a_cancel_in_the_middle_waits_for_the_commit(jobs: Jobs, path: str) -> None:
    """The job is cancelled while its function runs in the store's thread: what is committed is remembered, whichever
    way the job ends."""
    inside, go = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        euros = move(connection, "ann", "bob", 1)
        inside.set()
        go.wait(20)
        return euros

    @jobs.task
    async def pay(ctx: Context) -> int:
        return await ctx.transaction(slow)

    async with jobs.worker() as worker:
        job = await pay.submit()
        await eventually(inside.is_set)
        (task,) = worker.manager.tasks(status="running")
        cancelling = asyncio.create_task(worker.manager.cancel_task(task.id))
        await eventually(lambda: worker.manager.info(task.id).reason is not None)
        go.set()
        await cancelling
        assert await ended(job) == "cancelled"
        assert [step.value for step in await job.steps()] == [1]
        await job.retry()
        assert await job.result(timeout=20) == 1
    assert accounts(path) == {"ann": 9, "bob": 1}


async def test_an_error_in_the_middle_of_a_cancel_is_not_lost(
    jobs: Jobs, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is cancelled while its function runs in the store's thread, and then that fails: the job is cancelled,
    nothing was written, and the log has the error."""
    inside, go = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        move(connection, "ann", "bob", 1)
        inside.set()
        go.wait(20)
        raise OSError("no more")

    @jobs.task
    async def pay(ctx: Context) -> None:
        await ctx.transaction(slow)

    async with jobs.worker() as worker:
        job = await pay.submit()
        await eventually(inside.is_set)
        (task,) = worker.manager.tasks(status="running")
        cancelling = asyncio.create_task(worker.manager.cancel_task(task.id))
        await eventually(lambda: worker.manager.info(task.id).reason is not None)
        go.set()
        await cancelling
        assert await ended(job) == "cancelled"
        assert await job.steps() == []
    assert "OSError: no more" in caplog.text
    assert accounts(path) == {"ann": 10, "bob": 0}
