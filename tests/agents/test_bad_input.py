"""What nobody should send: each is refused with a clear error, nothing is queued, and the queue goes on."""

import asyncio
from typing import Any

import pytest

from lastcall import TaskManager
from lastcall.agents import AgentQueue, Turn
from lastcall.exceptions import BadDeclaration, BadResult, LastcallError, NotOpen, RunFailed
from tests.agents.places import PATIENCE_SECONDS, Gated, Place

pytestmark = pytest.mark.loops("asyncio")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"user": ""}, "user"),
        ({"user": "two\nlines"}, "user"),
        ({"user": 5}, "user"),
        ({"priority": 10}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"key": ""}, "key"),
        ({"key": 5}, "key"),
        ({"on_busy": "wait"}, "on_busy"),
        ({"conversation": "x" * 101}, "conversation"),
        ({"conversation": "c", "key": "k"}, "key"),
        ({"budget": {"seconds": 5}}, "budget"),
    ],
)
async def test_an_option_that_is_none(place: Place, options: dict[str, Any], named: str) -> None:
    """An impossible option of a submission is refused by its name."""
    agent = Gated()
    agent.let_all()
    async with place.queue(agent) as queue:
        with pytest.raises(ValueError, match=named):
            await queue.submit("a", **options)
        assert await queue.runs() == []
        assert await (await queue.submit("b")).result(PATIENCE_SECONDS) == "answer to b"
        with pytest.raises(ValueError, match="nonsense"):
            await queue.runs(status="nonsense")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency_per_user": -1}, "concurrency_per_user"),
        ({"max_pending": 1.5}, "max_pending"),
        ({"max_pending_per_user": -1}, "max_pending_per_user"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"on_busy": None}, "on_busy"),
        ({"budget": 7}, "budget"),
        ({"keep_ended": -1}, "keep_ended"),
        ({"keep_ended_seconds": float("nan")}, "keep_ended_seconds"),
    ],
)
def test_a_queue_that_is_none(options: dict[str, Any], named: str) -> None:
    """An impossible option of a queue is refused where the queue is made, by its name."""
    with pytest.raises(ValueError, match=named) as caught:
        AgentQueue(Gated(), **options)
    assert isinstance(caught.value, LastcallError | ValueError)


@pytest.mark.parametrize("name", ["", "two\nlines", 5, "x" * 1001])
async def test_names_of_steps_events_and_messages(place: Place, name: Any) -> None:
    """An agent that misnames a step, an event or a message fails, and its error says which."""

    async def steps(turn: Turn, prompt: str) -> None:
        await turn.step(asyncio.sleep, 0, name=name)

    async def emits(turn: Turn, prompt: str) -> None:
        await turn.emit(name, 1)

    async def waits(turn: Turn, prompt: str) -> None:
        await turn.wait_for(name)

    async def agent(turn: Turn, prompt: str) -> None:
        await {"step": steps, "event": emits, "message": waits}[prompt](turn, prompt)

    async with place.queue(agent) as queue:
        for what in ("step", "event", "message"):
            run = await queue.submit(what)
            with pytest.raises(RunFailed, match=rf"(BadDeclaration|TypeError): .*{what}"):
                await run.result(PATIENCE_SECONDS)


async def test_what_cannot_be_sent_to_a_run(place: Place) -> None:
    """A message with a bad name or no JSON, and a cancel for a reason that ends no run: refused, the run goes on."""
    agent = Gated()
    async with place.queue(agent) as queue:
        run = await queue.submit("a")
        for bad in ("", "two\nlines", 5):
            with pytest.raises(BadDeclaration, match="name of a message"):
                await run.send(bad, 1)  # type: ignore[arg-type]
        with pytest.raises(BadResult, match="the message 'm'"):
            await run.send("m", object())
        for reason in ("shutdown", "timeout", "nonsense", None):
            with pytest.raises(BadDeclaration, match="not for the reason"):
                await run.cancel(reason)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="limit"):
            await queue.runs(limit=0)
        agent.let_all()
        assert await run.result(PATIENCE_SECONDS) == "answer to a"


async def test_text_that_is_none(place: Place) -> None:
    """An agent writes something else than text: it fails and says so; nothing of it is in the log."""

    async def agent(turn: Turn, prompt: str) -> None:
        await turn.write("good ")
        await turn.write(5)  # type: ignore[arg-type]

    async with place.queue(agent) as queue:
        run = await queue.submit("a")
        with pytest.raises(RunFailed, match="text"):
            await run.result(PATIENCE_SECONDS)
        assert await run.text() == "good "


async def test_data_that_is_no_json(place: Place) -> None:
    """An event with data that nobody could store fails the run that emits it, in memory as in a job."""

    async def agent(turn: Turn, prompt: str) -> None:
        await turn.emit("thing", object())

    async with place.queue(agent) as queue:
        with pytest.raises(RunFailed, match="BadResult: .*thing"):
            await (await queue.submit("a")).result(PATIENCE_SECONDS)


async def test_a_manager_that_is_not_open() -> None:
    """A queue is given a manager that nobody has opened: refused, by the manager's name."""
    manager = TaskManager(name="closed")
    queue = AgentQueue(Gated(), manager=manager)
    with pytest.raises(NotOpen, match="closed"):
        await queue.submit("a")
    with pytest.raises(NotOpen, match="closed"):
        async with queue:
            raise AssertionError("it was opened")
