"""What only runs that are jobs promise: fairness over processes, limits over workers, crashes at chosen moments."""

import asyncio
from typing import Any

import pytest

from lastcall.agents import AgentQueue, Budget, Run, Turn
from lastcall.exceptions import BadArguments, BadDeclaration, RunFailed, UnknownRun
from lastcall.jobs import Jobs
from lastcall.testing import run_jobs
from lastcall.testing._run import When
from tests.agents.places import PATIENCE_SECONDS, Gated, Place, ended, eventually

pytestmark = pytest.mark.loops("asyncio")


def unopened() -> Jobs:
    return Jobs("sqlite:///never-opened.db")


async def test_users_take_turns_over_all_processes(durable: Place) -> None:
    """Three programs on one store: two submit, for one user each, the third works. They are served in turns."""
    agent = Gated()
    agent.let_all()
    first, second = durable.jobs(), durable.jobs()
    assert first is not None and second is not None
    async with first, second:
        many, few = AgentQueue(agent, jobs=first), AgentQueue(agent, jobs=second)
        runs = [*await asyncio.gather(*(many.submit(f"many {n}", user="many") for n in range(30)))]
        runs += [await few.submit(f"few {n}", user="few") for n in range(3)]
        async with durable.queue(agent, concurrency=1) as worker:
            await ended(worker.run(run.id) for run in runs)
    assert {f"few {n}" for n in range(3)} <= set(agent.begun[:7])


async def test_the_limits_are_of_all_workers_together(durable: Place) -> None:
    """Two workers with four places each on one store: of all at most four run, of one user at most two."""
    agent = Gated()
    options: dict[str, Any] = {"concurrency": 4, "concurrency_per_user": 2}
    async with durable.queue(agent, **options) as one, durable.queue(agent, **options) as two:
        runs = [await one.submit(f"a{n}", user="a") for n in range(5)]
        runs += [await two.submit(f"b{n}", user="b") for n in range(5)]
        await eventually(lambda: len(agent.running) == 4)
        assert sorted(prompt[0] for prompt in agent.running) == ["a", "a", "b", "b"]
        agent.let_all()
        await ended(one.run(run.id) for run in runs)
        assert agent.most == 4


async def test_a_crash_after_the_answer_was_written_down_asks_nobody_again() -> None:
    """The worker dies between the answer in the conversation and the end of the job: the answer stands, once."""
    asked = []

    async def agent(turn: Turn, prompt: str) -> str:
        asked.append(prompt)
        return f"answer {len(asked)}"

    jobs = unopened()
    queue = AgentQueue(agent, jobs=jobs)
    real = queue._transcript.answer

    async with run_jobs(jobs) as run_of:

        async def crashes(*args: Any) -> None:
            await real(*args)
            queue._transcript.answer = real  # type: ignore[method-assign]
            run_of._dying = asyncio.create_task(run_of.crash())
            await asyncio.sleep(PATIENCE_SECONDS)

        queue._transcript.answer = crashes  # type: ignore[method-assign]
        chat = queue.conversation()
        run = await chat.send("a")
        await run_of.until_idle()
        assert run_of.crashes == 1
        assert await run.result(PATIENCE_SECONDS) == "answer 1"
        assert await chat.history() == [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "answer 1"},
        ]
    assert asked == ["a"]


async def test_a_crash_in_a_step_takes_its_text_back() -> None:
    """The worker dies after a step that wrote: the step runs again, and a reader has its text once."""

    async def agent(turn: Turn, prompt: str) -> str:
        async def write(what: str) -> str:
            await turn.write(f"{what} ")
            await turn.emit("wrote", what)  # returns when it is stored, and what was written before it
            return what

        return " ".join([await turn.step(write, what, name=what) for what in ("one", "two", "three")])

    jobs = unopened()
    queue = AgentQueue(agent, jobs=jobs)
    async with run_jobs(jobs) as run_of:
        run_of.crash_at("two")
        run = await queue.submit("a")
        await run_of.until_idle()
        assert run_of.crashes == 1
        assert await run.result(PATIENCE_SECONDS) == "one two three"
        assert await run.text() == "one two three "
        assert "step.reset" in [event.type async for event in run.events()]


@pytest.mark.parametrize("when", ["before", "after", "recorded"])
@pytest.mark.parametrize("step", ["one", "two", "three"])
async def test_a_reader_has_the_text_once_whenever_the_worker_dies(step: str, when: When) -> None:
    """Each step writes, and the worker dies around one of them: no piece is missing, none is there twice."""

    async def agent(turn: Turn, prompt: str) -> str:
        async def write(what: str) -> str:
            for letter in what:
                await turn.write(letter)
            await turn.write(" ")
            return what

        return " ".join([await turn.step(write, what, name=what) for what in ("one", "two", "three")])

    jobs = unopened()
    queue = AgentQueue(agent, jobs=jobs)
    async with run_jobs(jobs) as run_of:
        run_of.crash_at(step, when=when)
        run = await queue.submit("a")
        await run_of.until_idle()
        assert run_of.crashes == 1
        assert await run.result(PATIENCE_SECONDS) == "one two three"
        assert await run.text() == "one two three "


async def test_text_outside_of_steps_is_taken_back_too() -> None:
    """A plain generator has no steps: after a crash it is asked again, and its text is there once."""
    asked = []

    async def agent(turn: Turn, prompt: str) -> str:
        asked.append(prompt)
        await turn.write(f"try {len(asked)} ")
        await turn.step(lambda: None, name="boom")
        await turn.write("done")
        return "done"

    jobs = unopened()
    queue = AgentQueue(agent, jobs=jobs)
    async with run_jobs(jobs) as run_of:
        run_of.crash_at("boom")
        run = await queue.submit("a")
        await run_of.until_idle()
        assert await run.result(PATIENCE_SECONDS) == "done"
        assert await run.text() == "try 2 done"


async def test_time_is_counted_over_all_attempts() -> None:
    """A run has five seconds: it runs for three, waits an hour, runs for three more, and has no fourth part."""
    begun = []

    async def agent(turn: Turn, prompt: str) -> str:
        begun.append(prompt)
        run_of.clock.advance(3)
        for number in range(len(begun)):
            await turn.wait_for(f"word {number}")
        return "done"

    jobs = unopened()
    queue = AgentQueue(agent, jobs=jobs)
    async with run_jobs(jobs) as run_of:
        run = await queue.submit("a", budget=Budget(seconds=5))
        for number in range(3):
            await run_of.advance(3600)
            await run.send(f"word {number}")
        await run_of.until_idle()
        with pytest.raises(RunFailed, match="BudgetExceeded"):
            await run.result(PATIENCE_SECONDS)
    assert begun == ["a", "a"]


async def test_what_steps_have_spent_counts_in_later_attempts() -> None:
    """Two steps spend inside, one is paid for beside it; two crashes later the sum is still what was used."""
    spent: list[int] = []  # really

    async def agent(turn: Turn, prompt: str) -> int:
        async def model(tokens: int) -> int:
            spent.append(tokens)
            turn.spend(tokens=tokens)
            return tokens

        await turn.step(model, 10, name="first")
        await turn.step(model, 40, name="second")
        turn.spend(tokens=await turn.step(_paid, 5, name="beside"))
        await turn.step(_paid, 0, name="boom")
        return await turn.step(model, int(prompt), name="last")

    jobs = unopened()
    queue = AgentQueue(agent, jobs=jobs, budget=Budget(tokens=100))
    async with run_jobs(jobs) as run_of:
        run_of.crash_at("boom", times=2)
        within = await queue.submit("45")
        await run_of.until_idle()
        assert run_of.crashes == 2
        assert await within.result(PATIENCE_SECONDS) == 45
        assert spent == [10, 40, 45]
        run_of.crash_at("boom", times=2)
        over = await queue.submit("46")
        await run_of.until_idle()
        with pytest.raises(RunFailed, match="BudgetExceeded: .*101 tokens of the 100"):
            await over.result(PATIENCE_SECONDS)
        events = [event.data async for event in over.events() if event.type == "spent"]
        assert [event["tokens"] for event in events] == [10, 40, 46]


async def _paid(tokens: int) -> int:
    return tokens


async def test_a_budget_that_is_used_up_is_not_tried_again() -> None:
    """A queue retries failures; a run over its budget would only buy the same once more."""
    asked = []

    async def agent(turn: Turn, prompt: str) -> str:
        asked.append(prompt)
        if prompt == "expensive":
            turn.spend(tokens=100)
        if len(asked) < 3:
            raise ConnectionError("the model is away")
        return "done"

    jobs = unopened()
    queue = AgentQueue(agent, jobs=jobs, retries=2, budget=Budget(tokens=10))
    async with run_jobs(jobs) as run_of:
        run = await queue.submit("expensive")
        await run_of.advance(3600)
        assert await run.status() == "failed"
        assert asked == ["expensive"]
        run = await queue.submit("flaky")
        for _ in range(3):
            await run_of.advance(3600)
        assert await run.result(PATIENCE_SECONDS) == "done"


async def test_other_jobs_are_no_runs_of_the_queue(durable: Place) -> None:
    """Two queues and a task share a store: what is one's is unknown to the other, and cannot be cancelled there."""
    jobs = durable.jobs()
    assert jobs is not None

    @jobs.task(name="other")
    async def other() -> None: ...

    agent = Gated()
    one, two = AgentQueue(agent, jobs=jobs, name="one"), AgentQueue(agent, jobs=jobs, name="two")
    async with jobs:
        job, run = await other.submit(), await one.submit("a")
        foreign: list[Run] = [one.run(job.id), two.run(run.id)]
        for handle in foreign:
            for verb in (handle.status, handle.cancel, handle.result, handle.wait):
                with pytest.raises(UnknownRun, match="no run of the queue"):
                    await verb()
        assert await job.status() == "queued"
        assert await two.runs() == []
        assert [info.id for info in await one.runs()] == [run.id]


async def test_what_cannot_be_stored_is_refused(durable: Place) -> None:
    """A prompt that is no JSON, options of a durable queue on one in memory, a name that is taken."""
    agent = Gated()
    jobs = durable.jobs()
    assert jobs is not None
    queue = AgentQueue(agent, jobs=jobs)
    async with jobs:
        with pytest.raises(BadArguments):
            await queue.submit(object())
        assert await queue.runs() == []
    with pytest.raises(BadDeclaration, match="'agent'.*used twice"):
        AgentQueue(agent, jobs=jobs)
    for option in ({"retries": 2}, {"version": "2"}):
        with pytest.raises(BadDeclaration, match="give jobs="):
            AgentQueue(agent, **option)
