"""What a run may use: time, tokens, tool calls; what counts and what does not."""

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.agents import AgentQueue, Budget, Turn
from lastcall.agents._budget import Spending
from lastcall.exceptions import BadDeclaration, BudgetExceeded, RunFailed
from lastcall.jobs import Jobs
from lastcall.testing import run_jobs
from tests.agents.places import PATIENCE_SECONDS, Gated, Place


async def spends(turn: Turn, prompt: dict[str, list[int]]) -> str:
    """Spends what the prompt says, and tells how often it came so far."""
    for n, tokens in enumerate(prompt["tokens"]):
        await turn.write(f"{n} ")
        turn.spend(tokens=tokens, tool_calls=1)
    return "within"


@pytest.mark.loops("asyncio")
async def test_a_run_over_its_tokens_or_tool_calls_fails_and_says_which(place: Place) -> None:
    """A run that uses what it may is fine; the next token or tool call ends it, and its text stays."""
    async with place.queue(spends, budget=Budget(tokens=30)) as queue:
        assert await (await queue.submit({"tokens": [10, 10, 10]})).result(PATIENCE_SECONDS) == "within"
        over = await queue.submit({"tokens": [10, 10, 11, 1]})
        with pytest.raises(RunFailed, match="BudgetExceeded: .*31 tokens of the 30"):
            await over.result(PATIENCE_SECONDS)
        assert await over.text() == "0 1 2 "
        calls = await queue.submit({"tokens": [1, 1, 1]}, budget=Budget(tool_calls=2))
        with pytest.raises(RunFailed, match="BudgetExceeded: .*tool"):
            await calls.result(PATIENCE_SECONDS)
        assert (await calls.info()).status == "failed"


@pytest.mark.loops("asyncio")
async def test_a_run_over_its_time_is_cut_and_has_failed(place: Place) -> None:
    """An agent hangs: after the seconds that it may run it is cut off, and that is a failure and no cancel."""
    cut = []

    async def hangs(prompt: str) -> str:
        try:
            await asyncio.sleep(1000)
        finally:
            cut.append(prompt)
        return "never"

    async with place.queue(hangs) as queue:
        run = await queue.submit("a", budget=Budget(seconds=0.05))
        with pytest.raises(RunFailed, match="BudgetExceeded: .*0.05 s"):
            await run.result(PATIENCE_SECONDS)
        assert cut == ["a"]


@pytest.mark.loops("asyncio")
async def test_a_timeout_of_the_agents_own_is_not_the_budget(place: Place) -> None:
    """A model call times out by its own clock: that is the error, whatever is left of the budget."""

    async def model(prompt: str) -> str:
        raise TimeoutError("the model took too long")

    async with place.queue(model, budget=Budget(seconds=60)) as queue:
        with pytest.raises(RunFailed, match="TimeoutError: the model took too long"):
            await (await queue.submit("a")).result(PATIENCE_SECONDS)


@pytest.mark.loops("virtual")
async def test_neither_the_queue_nor_a_wait_counts_as_time() -> None:
    """A run waits an hour in the queue and an hour for an approval, and runs for three of its five seconds."""

    async def careful(turn: Turn, prompt: str) -> str:
        if prompt == "long":
            await asyncio.sleep(3600)
            return "long"
        await asyncio.sleep(1.5)
        await turn.wait_for("approval")
        await asyncio.sleep(1.5)
        if prompt == "over":
            await asyncio.sleep(3)
        return "done"

    async with AgentQueue(careful, concurrency=1) as queue:
        runs = [await queue.submit("long")]
        runs += [await queue.submit(prompt, budget=Budget(seconds=5)) for prompt in ("good", "over")]
        await runs[0].result()
        await asyncio.sleep(3600)
        for run in runs[1:]:
            await run.send("approval")
        assert await runs[1].result() == "done"
        with pytest.raises(RunFailed, match="BudgetExceeded"):
            await runs[2].result()


@pytest.mark.loops("asyncio")
async def test_time_is_counted_over_all_attempts() -> None:
    """A durable run is handed over twice: what it ran before counts, what lies between does not."""
    jobs = Jobs("sqlite:///:never-opened:")
    began = 0

    async def agent(turn: Turn, prompt: str) -> str:
        nonlocal began
        began += 1
        await turn.wait_for("go on")
        return "done"

    queue = AgentQueue(agent, jobs=jobs)
    async with run_jobs(jobs) as run_of:
        run = await queue.submit("a", budget=Budget(seconds=5))
        await run_of.advance(3600)
        await run.send("go on")
        await run_of.until_idle()
        assert await run.result(PATIENCE_SECONDS) == "done"
        assert began == 2


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=20), st.integers(0, 200))
def test_spending_stops_exactly_when_there_is_none_left(spent: list[tuple[int, int]], tokens: int) -> None:
    """Whatever is spent in whatever pieces: it is refused at the first piece that goes beyond, never before."""
    count, total = Spending(Budget(tokens=tokens)), 0
    for piece, calls in spent:
        total += piece
        if total > tokens:
            with pytest.raises(BudgetExceeded):
                count.add(piece, calls)
            return
        count.add(piece, calls)
    assert count.tokens == total


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": 0},
        {"seconds": -1},
        {"seconds": math.nan},
        {"seconds": math.inf},
        {"seconds": "5"},
        {"tokens": -1},
        {"tokens": 1.5},
        {"tool_calls": True},
    ],
)
def test_an_impossible_budget_is_refused(wrong: dict[str, Any]) -> None:
    """A budget that nobody could keep is refused where it is made, by its name."""
    with pytest.raises(ValueError, match=f"Budget.{next(iter(wrong))}"):
        Budget(**wrong)


@pytest.mark.loops("asyncio")
async def test_a_budget_that_is_none_and_a_spending_that_is_none(place: Place) -> None:
    """A number in place of a budget is refused; an agent that gives tokens back is an error of the agent."""
    agent = Gated()
    with pytest.raises(BadDeclaration, match="Budget"):
        place.queue(agent, budget=100)

    async def gives_back(turn: Turn, prompt: str) -> None:
        turn.spend(tokens=-5)

    async with place.queue(gives_back) as queue:
        with pytest.raises(BadDeclaration, match="Budget"):
            await queue.submit("a", budget=5)  # type: ignore[arg-type]
        with pytest.raises(RunFailed, match=r"ValueError: spend\(tokens\)"):
            await (await queue.submit("a")).result(PATIENCE_SECONDS)
