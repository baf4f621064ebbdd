"""One engine object and several event loops, one after the other; and what is called in the wrong place."""

import asyncio
import gc
import time

import pytest

from lastcall.engines.postgres import PostgresEngine
from lastcall.exceptions import NotOpen, WrongLoop
from lastcall.jobs import Context, Jobs
from lastcall.jobs._rows import NewJob
from tests.support.loops import LoopFactory
from tests.support.postgres import shared_url

from .support import PATIENCE_SECONDS, clear, empty_schema, query


# The sockets of a loop that is closed can be closed by nobody; asyncio warns of them when they are collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.loops("asyncio", "uvloop")
def test_a_loop_that_ended_without_closing(loop_factory: LoopFactory) -> None:
    """A script calls `asyncio.run` twice and closes the engine in the second one only: that opens it anew, and the
    server is told to let go of what the first one left."""
    with empty_schema() as schema:
        engine = PostgresEngine(shared_url(), schema=schema)

        async def first() -> None:
            await clear(schema)
            await engine.open()
            engine.listen(lambda: None)
            await asyncio.gather(
                *(engine.submit([NewJob(f"{n}", "work", "[]", key=f"{n}")]) for n in range(3))
            )

        async def second() -> None:
            await engine.open()
            assert len(await engine.get(["0", "1", "2"])) == 3
            await engine.close()

        for main in (first, second):
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lastcall' AND query LIKE $1"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while asyncio.run(query(ours, f"%{schema}%")) != [(0,)]:
            assert time.monotonic() < deadline, "the server still has our connections"
        gc.collect()


@pytest.mark.loops("asyncio")
async def test_not_open() -> None:
    """Before it was opened, and after it was closed."""
    with empty_schema() as schema:
        engine = PostgresEngine(shared_url(), schema=schema)
        with pytest.raises(NotOpen):
            await engine.get(["a"])
        await engine.open()
        await engine.close()
        for call in (engine.get(["a"]), engine.submit([NewJob("a", "work", "[]")])):
            with pytest.raises(NotOpen):
                await call


@pytest.mark.loops("asyncio")
async def test_another_loop() -> None:
    """It is open on one loop, and used on another one in a thread."""
    with empty_schema() as schema:
        engine = PostgresEngine(shared_url(), schema=schema)
        await engine.open()

        async def elsewhere() -> None:
            with pytest.raises(WrongLoop):
                await engine.get(["a"])

        await asyncio.to_thread(asyncio.run, elsewhere())
        await engine.close()


@pytest.mark.loops("asyncio", "uvloop")
async def test_a_program() -> None:
    """Steps, waits, messages, children and streams of a program, on PostgreSQL, from its submit to its result."""
    with empty_schema() as schema:
        await clear(schema)
        jobs = Jobs(f"{shared_url()}?schema={schema}")

        @jobs.task
        async def child(x: int) -> int:
            return x + 1

        @jobs.task(retries=2)
        async def parent(ctx: Context, x: int) -> int:
            first = await ctx.step(str, x)
            await ctx.sleep(0.01)
            answer = await ctx.wait_for("go")
            async with ctx.stream("out") as out:
                await out.write("token")
            job = await child.submit(int(first) + answer)
            return await job.result(timeout=30)

        async with jobs, jobs.worker(concurrency=3):
            job = await parent.submit(1)
            await job.send("go", 40)
            assert await job.result(timeout=30) == 42
            types = [event.type async for event in job.events(after=0)]
            assert "step" in types and "stream.text" in types
