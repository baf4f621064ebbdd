"""What a queue promises wherever its runs live: the tutorial's verbs, and the same answers in memory and as jobs."""

import asyncio
from typing import Any

import pytest

from lastcall.agents import Run, RunStatus, Turn
from lastcall.exceptions import BadCursor, KeyConflict, QueueFull, RunCancelled, RunFailed, UnknownRun
from lastcall.jobs import CancelOutcome
from tests.agents.places import PATIENCE_SECONDS, Gated, Place, ended, eventually, reaches


async def upper(prompt: str) -> str:
    return prompt.upper()


async def words(prompt: str):
    for word in prompt.split():
        yield f"{word} "


async def fails(turn: Turn, prompt: str) -> str:
    await turn.write("half an ans")
    raise LookupError(f"nothing is known of {prompt}")


async def test_a_run_is_known_from_its_submission_to_its_result(place: Place) -> None:
    """A prompt is submitted, runs, and answers; each status is seen, and the result is the agent's."""
    agent = Gated()
    async with place.queue(agent, concurrency=1) as queue:
        first, second = await queue.submit("a"), await queue.submit("b", user="ann", priority=3)
        await agent.has_begun("a")
        assert await first.status() is RunStatus.RUNNING
        assert await second.status() is RunStatus.PENDING
        assert agent.begun == ["a"]
        agent.let_all()
        assert await first.result(PATIENCE_SECONDS) == "answer to a"
        assert await second.result(PATIENCE_SECONDS) == "answer to b"
        info = await second.info()
        assert (info.id, info.prompt, info.user, info.priority) == (second.id, "b", "ann", 3)
        assert (info.status, info.result, info.error, info.attempt) == ("completed", "answer to b", None, 1)
        assert info.started_at is not None and info.ended_at is not None
        assert info.created_at <= info.started_at <= info.ended_at
        assert (await queue.stats())[RunStatus.COMPLETED] == 2
        assert [run.id for run in await queue.runs()] == [second.id, first.id]
        assert [run.id for run in await queue.runs(user="ann", status="completed")] == [second.id]
        assert await queue.runs(user="ann", status=["failed", "pending"]) == []


async def test_what_an_agent_streams_is_its_text_and_its_events(place: Place) -> None:
    """An async generator's pieces are written as they come, read by number, and are together its answer."""
    async with place.queue(words) as queue:
        run = await queue.submit("one two three")
        assert await run.result(PATIENCE_SECONDS) == "one two three "
        assert await run.text() == "one two three "
        events = [event async for event in run.events()]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert "".join(e.data["text"] for e in events if e.type == "stream.text") == "one two three "
        assert [event async for event in run.events(after=events[-2].seq)] == events[-1:]
        assert [event async for event in run.events(after=events[-1].seq)] == []


async def test_a_reader_that_comes_early_sees_everything_as_it_comes(place: Place) -> None:
    """A reader that follows from the start, and one from the middle, see each event once and then the end."""
    go = asyncio.Event()

    async def slow(turn: Turn, prompt: str) -> str:
        for number in range(20):
            await turn.write(f"{number} ")
            if number == 9:
                await go.wait()
        return "done"

    async with place.queue(slow) as queue:
        run = await queue.submit("count")

        async def seen(after: int) -> list[int]:
            return [event.seq async for event in run.events(after)]

        early = asyncio.create_task(seen(0))
        await eventually(lambda: _has(run, "9 "))
        late = asyncio.create_task(seen(1))
        go.set()
        whole = await asyncio.wait_for(early, PATIENCE_SECONDS)
        assert whole == list(range(1, len(whole) + 1))
        assert await asyncio.wait_for(late, PATIENCE_SECONDS) == whole[1:]
        assert await run.text() == "".join(f"{number} " for number in range(20))


async def _has(run: Run, text: str) -> bool:
    return text in await run.text()


async def test_a_failure_is_told_and_what_was_written_stays(place: Place) -> None:
    """A model raises half-way: the error is clear in the result and the info, and the last text can be read."""
    async with place.queue(fails) as queue:
        run = await queue.submit("tea")
        with pytest.raises(RunFailed, match=r"LookupError: .*nothing is known of tea") as caught:
            await run.result(PATIENCE_SECONDS)
        assert caught.value.error["type"] == "LookupError"
        assert "fails" in caught.value.error["traceback"]
        info = await run.info()
        assert info.status is RunStatus.FAILED
        assert info.error == caught.value.error
        assert await run.text() == "half an ans"
        assert await run.cancel() is CancelOutcome.ALREADY_ENDED


async def test_cancelling_one_that_waits_and_one_that_runs(place: Place) -> None:
    """A pending run is cancelled at once and never begins; a running one is told, and ends as cancelled by its user."""
    agent = Gated()
    async with place.queue(agent, concurrency=1) as queue:
        running, waiting = await queue.submit("a"), await queue.submit("b")
        await agent.has_begun("a")
        assert await waiting.cancel() is CancelOutcome.CANCELLED
        assert await waiting.status() is RunStatus.CANCELLED
        assert await running.cancel() is CancelOutcome.REQUESTED
        assert await ended([running, waiting]) == ["cancelled", "cancelled"]
        for run in (running, waiting):
            assert (await run.info()).reason == "user"
            with pytest.raises(RunCancelled, match="cancelled \\(user\\)") as caught:
                await run.result(PATIENCE_SECONDS)
            assert caught.value.reason == "user"
        after = await queue.submit("c")
        agent.let("c")
        assert await after.result(PATIENCE_SECONDS) == "answer to c"
        assert agent.begun == ["a", "c"]


async def test_a_result_that_is_not_there_yet_costs_a_timeout_and_nothing_else(place: Place) -> None:
    """Who waits for too short a time is told so; the run goes on."""
    agent = Gated()
    async with place.queue(agent) as queue:
        run = await queue.submit("a")
        with pytest.raises(TimeoutError):
            await run.result(timeout=0)
        with pytest.raises(TimeoutError):
            await run.wait(timeout=0.01)
        agent.let_all()
        assert await run.result(PATIENCE_SECONDS) == "answer to a"
        assert await run.result(timeout=0) == "answer to a"


async def test_the_same_key_is_the_same_run(place: Place) -> None:
    """A browser submits twice: with the same key it gets the same run; with another prompt it is refused."""
    agent = Gated()
    async with place.queue(agent) as queue:
        first = await queue.submit("a", key="k1")
        again = await queue.submit("a", key="k1")
        assert first.id == again.id
        with pytest.raises(KeyConflict, match="k1"):
            await queue.submit("b", key="k1")
        agent.let_all()
        await ended([first])
        assert (await queue.submit("a", key="k1")).id == first.id
        assert agent.begun == ["a"]


async def test_higher_priorities_go_first(place: Place) -> None:
    """What is more urgent overtakes what waits, and nothing that runs."""
    agent = Gated()
    async with place.queue(agent, concurrency=1) as queue:
        runs = [await queue.submit("first")]
        await agent.has_begun("first")
        for priority in (0, -9, 9, 0, 5):
            runs.append(await queue.submit(f"{priority} {len(runs)}", priority=priority))
        agent.let_all()
        assert await ended(runs) == ["completed"] * 6
        assert agent.begun == ["first", "9 3", "5 5", "0 1", "0 4", "-9 2"]
        assert [(await run.info()).priority for run in runs] == [0, 0, -9, 9, 0, 5]


async def test_a_user_with_many_prompts_does_not_keep_the_others_waiting(place: Place) -> None:
    """One user sends thirty prompts; two others, who come later with two each, are served after one of his each."""
    agent = Gated()
    async with place.queue(agent, concurrency=1) as queue:
        runs = [await queue.submit("many 0", user="many")]
        await agent.has_begun("many 0")
        runs += await asyncio.gather(*(queue.submit(f"many {n}", user="many") for n in range(1, 30)))
        for user in ("ann", "bob"):
            runs += [await queue.submit(f"{user} {n}", user=user) for n in range(2)]
        agent.let_all()
        assert set(await ended(runs)) == {"completed"}
        assert set(agent.begun[1:6]) == {"many 1", "ann 0", "ann 1", "bob 0", "bob 1"}
        assert [one for one in agent.begun if one.startswith("many")] == [f"many {n}" for n in range(30)]


async def test_who_comes_again_and_again_does_not_starve_who_has_many(place: Place) -> None:
    """A user sends one prompt after the other; somebody's ten, which came first, are served in turns with his."""
    agent = Gated()
    async with place.queue(agent, concurrency=1) as queue:
        runs = [await queue.submit(f"many {n}", user="many") for n in range(10)]
        await agent.has_begun("many 0")
        for number in range(10):
            runs.append(await queue.submit(f"one {number}", user="one"))
            while f"one {number}" not in agent.begun:
                now = agent.begun[-1]
                agent.let(now)
                await eventually(lambda now=now: agent.begun[-1] != now)
        agent.let_all()
        assert set(await ended(runs)) == {"completed"}
        served = agent.begun[:20]
        assert sum(one.startswith("many") for one in served[:10]) in (4, 5, 6)


async def test_limits_hold_and_are_told(place: Place) -> None:
    """At most so many run of all and of one user; at most so many wait of one user and of all; more are refused."""
    agent = Gated()
    options = {"concurrency": 3, "concurrency_per_user": 2, "max_pending": 3, "max_pending_per_user": 1}
    async with place.queue(agent, **options) as queue:
        runs = [await queue.submit(f"a{n}", user="a") for n in range(2)]
        await eventually(lambda: len(agent.running) == 2)
        runs.append(await queue.submit("a2", user="a"))
        with pytest.raises(QueueFull, match="user 'a'"):
            await queue.submit("a3", user="a")
        runs.append(await queue.submit("b0", user="b"))
        await agent.has_begun("b0")
        assert agent.running == {"a0", "a1", "b0"}
        runs += [await queue.submit("b1", user="b"), await queue.submit("c0", user="c")]
        with pytest.raises(QueueFull, match="3 prompts wait"):
            await queue.submit("d0", user="d")
        with pytest.raises(QueueFull, match="3 prompts wait"):
            await queue.submit("nobody's")
        agent.let_all()
        assert await ended(runs) == ["completed"] * 6
        assert agent.most == 3
        assert await (await queue.submit("d0", user="d")).result(PATIENCE_SECONDS) == "answer to d0"


async def test_a_run_that_waits_for_a_word_holds_no_place(place: Place) -> None:
    """An agent asks for an approval: meanwhile another run has its place, and the word reaches it, before or after."""

    async def careful(turn: Turn, prompt: str) -> Any:
        if prompt == "quick":
            return "quick"
        return [await turn.wait_for("approval"), await turn.wait_for("approval")]

    async with place.queue(careful, concurrency=1) as queue:
        run = await queue.submit("careful")
        await reaches(run, "waiting")
        assert await (await queue.submit("quick")).result(PATIENCE_SECONDS) == "quick"
        await run.send("approval", {"by": "ann"})
        await run.send("approval", 2)
        assert await run.result(PATIENCE_SECONDS) == [{"by": "ann"}, 2]
        assert await run.send("approval", 3) is RunStatus.COMPLETED


async def test_a_run_may_wait_for_several_words_at_once(place: Place) -> None:
    """An agent asks two people side by side, and goes on when both have answered; its place is counted once."""

    async def careful(turn: Turn, prompt: str) -> Any:
        if prompt == "quick":
            return "quick"
        return await asyncio.gather(*(turn.wait_for(f"approval of {who}") for who in ("ann", "bob", "cid")))

    async with place.queue(careful, concurrency=1, concurrency_per_user=1) as queue:
        run = await queue.submit("careful", user="ann")
        await reaches(run, "waiting")
        for who in ("bob", "ann"):
            await run.send(f"approval of {who}", who)
        quick = await queue.submit("quick")
        await run.send("approval of cid", "cid")
        assert await run.result(PATIENCE_SECONDS) == ["ann", "bob", "cid"]
        assert await quick.result(PATIENCE_SECONDS) == "quick"
        assert await (await queue.submit("quick", user="ann")).result(PATIENCE_SECONDS) == "quick"


async def test_a_word_that_does_not_come_in_time(place: Place) -> None:
    """The wait has a timeout, which the agent hears of."""

    async def careful(turn: Turn, prompt: str) -> str:
        try:
            await turn.wait_for("approval", timeout=0.05)
        except TimeoutError as error:
            return str(error)
        return "approved"

    async with place.queue(careful) as queue:
        run = await queue.submit("a")
        assert await run.result(PATIENCE_SECONDS) == "no message 'approval' came within 0.05 s"


async def test_steps_and_events_are_the_same_verbs(place: Place) -> None:
    """An agent that uses steps, plain and async, and emits its own events, runs in both places unchanged."""

    def look_up(word: str) -> dict[str, int]:
        return {word: len(word)}

    async def ask(found: dict[str, int]) -> str:
        return f"asked about {found}"

    async def agent(turn: Turn, prompt: str) -> str:
        found = await turn.step(look_up, prompt, name="look up")
        await turn.emit("found", found)
        turn.spend(tokens=10, tool_calls=1)
        return await turn.step(ask, found, name="ask", policy="once")

    async with place.queue(agent) as queue:
        run = await queue.submit("tea")
        assert await run.result(PATIENCE_SECONDS) == "asked about {'tea': 3}"
        assert [event.data async for event in run.events() if event.type == "found"] == [{"tea": 3}]


async def test_unknown_runs_and_cursors_are_refused(place: Place) -> None:
    """Ids that never were, and cursors that are none: a clear error each time, and no harm to the run."""
    async with place.queue(upper) as queue:
        run = await queue.submit("a")
        await run.result(PATIENCE_SECONDS)
        for id in ("", "nonsense", run.id[:-1] + ("0" if run.id[-1] != "0" else "1")):
            for verb in (
                queue.run(id).status,
                queue.run(id).result,
                queue.run(id).cancel,
                queue.run(id).text,
            ):
                with pytest.raises(UnknownRun):
                    await verb()
        for id in (None, 5, ["a"]):
            with pytest.raises(UnknownRun):
                await queue.run(id).status()  # type: ignore[arg-type]
        for cursor in (-1, 10_000):
            with pytest.raises(BadCursor):
                _ = [event async for event in run.events(after=cursor)]
        assert await run.result() == "A"
