"""`ctx.stream`: text that is stored soon, in order and once; written again, it is taken back or gone on with."""

import asyncio
from typing import Any

import pytest

from lastcall import ShutdownPlan, TaskManager
from lastcall.exceptions import BadDeclaration, BadResult, EntriesGone, PayloadTooLarge, StreamClosed
from lastcall.jobs import Context, Job, Jobs
from lastcall.streams import TextView, follow
from lastcall.testing import run_jobs
from tests.jobs.conftest import Store
from tests.jobs.running import AT_ONCE, PATIENCE_SECONDS, Faulty, ended, eventually, outcomes, set_within


async def entries(job: Job[Any]) -> list[tuple[str, Any]]:
    """Type and data of the whole log, but for the events of lastcall's own."""
    return [(event.type, event.data) async for event in job.events() if event.type not in ("status", "step")]


async def texts(job: Job[Any]) -> list[str]:
    return [data["text"] for type, data in await entries(job) if type == "stream.text"]


# --- one attempt ---------------------------------------------------------------------------------------


async def test_what_is_written_is_read(jobs: Jobs) -> None:
    """Text, data and events of two streams, mixed: all of it there, each stream's in order, the ends marked."""

    @jobs.task
    async def work(ctx: Context) -> str:
        async with ctx.stream("answer") as out, ctx.stream("thoughts") as aside:
            await out.write("Hel")
            await out.write("lo, ")
            await aside.write("hm")
            await out.send({"n": 1})
            await ctx.emit("beside", 2)
            await out.write("w\u00f6rld \U0001f30d\u2028")
            await out.write("")
            return out.text_so_far

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(PATIENCE_SECONDS) == "Hello, w\u00f6rld \U0001f30d\u2028"
        assert await job.text("answer") == "Hello, w\u00f6rld \U0001f30d\u2028"
        assert await job.text("thoughts") == "hm" and await job.text("nothing") == ""
        told = await entries(job)
    kinds = [(type, data.get("stream") if isinstance(data, dict) else data) for type, data in told]
    assert kinds[-2:] == [("stream.end", "thoughts"), ("stream.end", "answer")]
    order = [kind for kind, whose in kinds if kind in ("stream.data", "beside") or whose == "answer"]
    assert [*dict.fromkeys(order)] == ["stream.text", "stream.data", "beside", "stream.end"]


async def test_tokens_share_writes(store: Store) -> None:
    """Two thousand tokens in one go: joined into few events, in few writes, none lost."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)  # type: ignore[arg-type]

    @jobs.task
    async def work(ctx: Context) -> None:
        async with ctx.stream() as out:
            for n in range(2000):
                await out.write(f"{n} ")

    async with jobs.worker():
        job = await work.submit()
        await job.result(PATIENCE_SECONDS)
        assert await job.text("answer") == "".join(f"{n} " for n in range(2000))
        assert len(await texts(job)) < 100 and engine.calls.count("append_events") < 100


async def test_the_first_token_is_seen_while_the_second_is_awaited(jobs: Jobs, store: Store) -> None:
    """A reader in this process and one in another see a token although the writer says nothing more."""
    go_on, elsewhere = asyncio.Event(), store.jobs()

    @jobs.task
    async def work(ctx: Context) -> None:
        async with ctx.stream() as out:
            await out.write("first")
            await go_on.wait()
            await out.write(" second")

    async def first(job: Job[Any]) -> str:
        async for event in job.events():
            if event.type == "stream.text":
                return str(event.data["text"])
        raise AssertionError("it ended")

    async with jobs.worker(), elsewhere:
        job = await work.submit()
        async with asyncio.timeout(PATIENCE_SECONDS):
            readers = (first(job), first(elsewhere.job(job.id)))
            assert await asyncio.gather(*readers) == ["first", "first"]
        go_on.set()
        await job.result(PATIENCE_SECONDS)
        assert await job.text("answer") == "first second"


async def test_many_readers_cost_one_read(store: Store) -> None:
    """Two hundred readers of one log, each told everything once: the store is asked about as often as for one."""
    engine, go_on = Faulty(store.engine()), asyncio.Event()
    jobs = Jobs(engine)  # type: ignore[arg-type]

    @jobs.task
    async def work(ctx: Context) -> None:
        await go_on.wait()
        for n in range(20):
            await ctx.emit("n", n)

    async def read(job: Job[Any]) -> list[int]:
        return [event.data async for event in job.events() if event.type == "n"]

    async with jobs.worker():
        job = await work.submit()
        readers = [asyncio.ensure_future(read(job)) for _ in range(200)]
        tail = jobs._client.tail(job.id)
        await eventually(lambda: len(tail._waiting) == len(readers))
        engine.calls.clear()
        go_on.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await asyncio.gather(*readers) == [[*range(20)]] * len(readers)
        assert engine.calls.count("read_events") <= 60
    assert jobs._client.tails.is_idle


async def test_an_idle_reader_asks_for_nothing(store: Store) -> None:
    """One reader of a job that says nothing: when it has looked, the store is left alone."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)  # type: ignore[arg-type]

    @jobs.task
    async def work() -> None: ...

    async with jobs:
        job = await work.submit()
        reading = asyncio.ensure_future(anext(job.events()))
        tail = jobs._client.tail(job.id)
        await eventually(lambda: len(tail._waiting) == 1)
        engine.calls.clear()
        for _ in range(200):
            await asyncio.sleep(0.001)
        assert len(tail._waiting) == 1 and engine.calls.count("read_events") <= 1
        reading.cancel()


async def test_a_store_that_is_away_holds_the_writer_back(store: Store) -> None:
    """Nothing can be stored for a while: the writer waits with a bounded amount in memory, and loses nothing."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)  # type: ignore[arg-type]
    written = 0

    @jobs.task
    async def work(ctx: Context) -> None:
        nonlocal written
        async with ctx.stream() as out:
            for _ in range(1000):
                await out.write("x" * 1000)
                written += 1

    async with jobs.worker():
        engine.away.add("append_events")
        job = await work.submit()
        await eventually(lambda: written > 250)
        before = written
        for _ in range(50):
            await asyncio.sleep(0)
        assert written == before < 300
        engine.away.clear()
        await job.result(PATIENCE_SECONDS)
        assert await job.text("answer") == "x" * 1_000_000


async def test_what_no_stream_takes(store: Store) -> None:
    """No text, no Unicode, too much, outside of the block, a bad name: an error that names it, nothing written."""
    jobs = store.jobs(max_payload_bytes=2000)
    errors: list[type[Exception]] = []

    @jobs.task
    async def work(ctx: Context) -> None:
        async def fails(kind: type[Exception], write: Any) -> None:
            with pytest.raises(kind, match=r"answer|stream"):
                await write
            errors.append(kind)

        async with ctx.stream() as out:
            await fails(BadResult, out.write(5))  # type: ignore[arg-type]
            await fails(BadResult, out.write("\ud800"))
            await fails(PayloadTooLarge, out.write("x" * 2001))
            await fails(PayloadTooLarge, out.send("x" * 2001))
            await fails(BadResult, out.send({1, object()}))
            await fails(StreamClosed, out.__aenter__())
            await out.write("fine")
        await fails(StreamClosed, out.write("late"))
        for name in ("", "\n", "x" * 300):
            with pytest.raises(BadDeclaration):
                ctx.stream(name)
        with pytest.raises(BadDeclaration, match="replay or continue"):
            ctx.stream(policy="once")

    async with jobs.worker():
        job = await work.submit()
        await job.result(PATIENCE_SECONDS)
        assert len(errors) == 7 and await job.text("answer") == "fine"
        assert [type for type, _ in await entries(job)] == ["stream.text", "stream.end"]


# --- written again -------------------------------------------------------------------------------------


async def test_a_step_that_runs_again_takes_its_text_back(jobs: Jobs) -> None:
    """A streaming step fails half-way: the reader is told, and what it shows is the second try's text only."""
    tries = 0

    async def speak(ctx: Context) -> str:
        nonlocal tries
        tries += 1
        async with ctx.stream() as out:
            await out.write(f"try {tries}: one")
            if tries == 1:
                raise ConnectionError("cut off")
            await out.write(", two")
            return out.text_so_far

    @jobs.task(retries=3, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        async with ctx.stream("kept") as kept:
            await kept.write(f"attempt {ctx.attempt}")
        return await ctx.step(speak, ctx, name="speak")

    async with jobs.worker():
        job = await work.submit()
        view, seen = TextView(), []
        async for portion in follow(job.log()):
            view.apply(portion)
            seen += [entry.type for entry in portion if entry.type.endswith(".reset")]
        assert await job.result(PATIENCE_SECONDS) == "try 2: one, two" == view.text("answer")
        assert view.text("kept") == "attempt 2" == await job.text("kept")
        assert sorted(seen) == ["step.reset", "stream.reset"]


@pytest.mark.parametrize("inside_a_step", [True, False])
async def test_a_stream_that_goes_on(jobs: Jobs, inside_a_step: bool) -> None:
    """Cut off twice, it is given what it has said and goes on there: nothing is taken back, nothing said twice."""
    given: list[str] = []
    words = ["one ", "two ", "three ", "four"]

    async def speak(ctx: Context) -> str:
        policy = "replay" if inside_a_step else "continue"
        async with ctx.stream(policy=policy) as out:
            given.append(out.text_so_far)
            said = len(out.text_so_far.split())
            for word in words[said:]:
                await out.write(word)
                if len(given) <= 2 and word == words[len(given)]:
                    raise ConnectionError("cut off")
            return out.text_so_far

    @jobs.task(retries=3, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        if inside_a_step:
            return await ctx.step(speak, ctx, name="speak", policy="continue")
        return await speak(ctx)

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(PATIENCE_SECONDS) == "one two three four" == await job.text("answer")
        assert given == ["", "one two ", "one two three "]
        assert not [type for type, _ in await entries(job) if type.endswith(".reset")]


async def test_a_stream_opened_twice_in_one_attempt(jobs: Jobs) -> None:
    """The second block appends to the first; in the next attempt both are taken back, once."""

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        for part in ("a", "b"):
            async with ctx.stream() as out:
                await out.write(part)
        if ctx.attempt == 1:
            raise ValueError("again")

    async with jobs.worker():
        job = await work.submit()
        await job.result(PATIENCE_SECONDS)
        assert await job.text("answer") == "ab"
        assert [type for type, _ in await entries(job)].count("stream.reset") == 1


async def test_a_hand_over_in_the_middle_of_a_stream(store: Store) -> None:
    """The worker stops while a step streams: the step ends within the drain, its text is stored, and the worker that
    goes on repeats nothing."""
    jobs, other = store.jobs(), store.jobs()
    speaking, go_on = asyncio.Event(), asyncio.Event()
    attempts: list[int] = []

    async def speak(ctx: Context) -> str:
        async with ctx.stream() as out:
            await out.write("one ")
            speaking.set()
            await go_on.wait()
            await out.write("two")
            return out.text_so_far

    async def work(ctx: Context) -> str:
        attempts.append(ctx.attempt)
        first = await ctx.step(speak, ctx, name="speak")
        return first + await ctx.step(str.upper, "!", name="after")

    first, _second = (each.task(work) for each in (jobs, other))
    async with other:
        async with jobs.worker():
            job = await first.submit()
            await set_within(speaking)
            asyncio.get_running_loop().call_later(0.05, go_on.set)
        handle = other.job(job.id)
        async with other.worker():
            assert await handle.result(PATIENCE_SECONDS) == "one two!"
        assert await handle.text("answer") == "one two" and attempts == [1, 2]
        assert not [type for type, _ in await entries(handle) if type.endswith(".reset")]


async def test_a_lost_attempt_writes_nothing(store: Store) -> None:
    """The lease goes over while a stream is open: what the old attempt writes afterwards is seen by nobody."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)  # type: ignore[arg-type]
    speaking, go_on = asyncio.Event(), asyncio.Event()
    reasons: list[object] = []

    @jobs.task
    async def work(ctx: Context) -> str:
        async with ctx.stream() as out:
            await out.write(f"attempt {ctx.attempt}")
            await out.flush()
            if ctx.attempt == 1:
                speaking.set()
                await go_on.wait()
                try:
                    await out.write(", stale")
                    await out.flush()
                finally:
                    reasons.append(ctx.cancel_reason)
        return out.text_so_far

    worker = jobs.worker()
    async with worker:
        job = await work.submit()
        await set_within(speaking)
        other = store.jobs()
        other.task(work.fn, name=work.name)
        async with other:
            await other.engine.resign(worker.id)  # somebody has ended its lease
            go_on.set()
            async with other.worker():
                assert await ended(job) == "completed"
            assert await other.job(job.id).text("answer") == "attempt 2"
            assert not any("stale" in text for text in await texts(other.job(job.id)))
    assert reasons == ["lease_lost"]


@pytest.mark.parametrize("inside_a_step", [True, False])
async def test_a_stream_that_goes_on_is_handed_over_in_the_middle(store: Store, inside_a_step: bool) -> None:
    """The worker stops while a long answer is written: it leaves at the next word, not at the deadline, and another
    worker says the rest; no word is lost or said twice, and nothing is taken back."""
    jobs, other = store.jobs(), store.jobs()
    speaking, told = asyncio.Event(), asyncio.Event()

    async def speak(ctx: Context) -> str:
        async with ctx.stream(policy="replay" if inside_a_step else "continue") as out:
            for n in range(len(out.text_so_far.split()), 200):
                await out.write(f"{n} ")
                if n == 20:
                    speaking.set()
                    await told.wait()
            return out.text_so_far

    async def work(ctx: Context) -> str:
        return await ctx.step(speak, ctx, policy="continue", name="s") if inside_a_step else await speak(ctx)

    first, _second = (each.task(work) for each in (jobs, other))
    async with other:
        async with TaskManager(plan=ShutdownPlan(drain=600)) as own, jobs.worker(manager=own):
            job = await first.submit()
            await set_within(speaking)
            own.begin_shutdown()
            told.set()
        handle = other.job(job.id)
        assert await outcomes(handle) == ["handed_over (shutdown)"]
        async with other.worker():
            assert await handle.result(PATIENCE_SECONDS) == "".join(f"{n} " for n in range(200))
        assert await handle.text("answer") == "".join(f"{n} " for n in range(200))
        assert not [type for type, _ in await entries(handle) if type.endswith(".reset")]


async def test_a_step_is_recorded_after_what_it_has_told(store: Store) -> None:
    """A step writes to a stream that is open around it, and its worker dies as soon as the step is recorded: the text
    is there, for the step is not run again."""
    jobs = store.jobs()

    @jobs.task
    async def work(ctx: Context) -> None:
        async def speak(n: int) -> None:
            await out.write(f"{n} ")

        async with ctx.stream(policy="continue") as out:
            for n in range(5):
                await ctx.step(speak, n, name=f"speak {n}")

    async with run_jobs(jobs) as run:
        job = await work.submit()
        for n in range(5):
            run.crash_at(f"speak {n}", when="recorded")
        await run.until_idle()
        assert run.crashes == 5 and await job.status() == "completed"
        assert await job.text("answer") == "0 1 2 3 4 "


# --- what is kept --------------------------------------------------------------------------------------


async def test_a_log_is_kept_within_its_bounds(jobs: Jobs) -> None:
    """A job says more than its log keeps: who follows it is told everything, who comes late where to begin."""
    seen: list[int] = []

    @jobs.task(log_max_bytes=20_000)
    async def work(ctx: Context) -> None:
        for n in range(300):
            await ctx.emit("n", {"n": n, "much": "x" * 1000})
            await eventually(lambda n=n: len(seen) + 5 > n)  # type: ignore[misc]

    async with jobs.worker():
        job = await work.submit()
        async for event in job.events():
            if event.type == "n":
                seen.append(event.data["n"])
        assert seen == [*range(300)]
        with pytest.raises(EntriesGone, match="are not kept") as gone:
            await anext(job.events())
        first = gone.value.first
        assert first > 200
        late = [event.seq async for event in job.events(after=first - 1)]
        assert late == [*range(first, late[-1] + 1)] and len(late) < 60


async def test_text_whose_beginning_is_gone_is_taken_back(jobs: Jobs) -> None:
    """A long answer is cut off, and its beginning is not kept: it cannot be gone on with, so it begins anew."""
    given: list[str] = []

    async def speak(ctx: Context) -> None:
        async with ctx.stream() as out:
            given.append(out.text_so_far)
            for _ in range(100):
                await out.send("y" * 1000)
            await out.write("end")
            if len(given) == 1:
                raise ConnectionError("cut off")

    @jobs.task(retries=1, backoff=AT_ONCE, log_max_bytes=20_000)
    async def work(ctx: Context) -> None:
        await ctx.step(speak, ctx, name="speak", policy="continue")

    async with jobs.worker():
        job = await work.submit()
        await job.result(PATIENCE_SECONDS)
        assert given == ["", ""] and await job.status() == "completed"


async def test_who_only_looks_does_not_wait_for_who_has_left(jobs: Jobs) -> None:
    """The last follower leaves while another reader waits for what it had asked for: that one asks for itself."""

    @jobs.task
    async def work() -> None: ...

    async with jobs:
        job = await work.submit()
        for turns in range(30):
            with job.log().watch():
                looking = asyncio.ensure_future(job.log().read(0, 10))
                for _ in range(turns):
                    await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert not (await looking).entries


async def test_events_that_only_look_like_a_stream(jobs: Jobs) -> None:
    """A job emits events of the types that streams use, with data of any form, and is tried again: it and its readers
    pass over them."""

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        for kind in ("stream.text", "stream.data", "step.reset", "stream.reset"):
            for data in (
                None,
                5,
                "answer",
                [],
                {},
                {"stream": 5, "step": []},
                {"text": "x"},
            ):
                await ctx.emit(kind, data)
        async with ctx.stream(policy="continue") as out:
            await out.write("fine")
            if ctx.attempt == 1:
                raise ConnectionError("cut off")
            return out.text_so_far

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(PATIENCE_SECONDS) == await job.text("answer")
