"""Agents of real libraries do the same in memory and as jobs: answers, text, tools, budgets, conversations."""

from pathlib import Path
from typing import Any

import pytest

from lastcall.agents import Budget
from lastcall.exceptions import RunFailed
from tests.agents.libraries.play_langgraph import langgraph
from tests.agents.libraries.play_openai import openai
from tests.agents.libraries.play_openai_agents import openai_agents
from tests.agents.libraries.play_pydantic_ai import pydantic_ai
from tests.agents.libraries.plays import Play, Stage
from tests.agents.libraries.theatre import generators_end, shown_by
from tests.agents.places import Place
from tests.jobs.running import eventually
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

ANSWER = "the bar stops taking orders and nobody is locked in"
SEARCH = [Reply("Let me look. ", [Tool("search", {"q": "bar"}, id="call_1")]), Reply(ANSWER)]

with_tools = pytest.mark.parametrize(
    "play", [pydantic_ai, langgraph, openai_agents], ids=lambda play: play.__name__
)
every_library = pytest.mark.parametrize(
    "play", [pydantic_ai, langgraph, openai_agents, openai], ids=lambda play: play.__name__
)


@with_tools
async def test_an_agent_with_a_tool(play: Play, place: Place, tmp_path: Path) -> None:
    """The answer is the agent's, its text is in the log as it was streamed, and calls of tools are told."""
    with OpenAIServer(SEARCH) as server:
        stage = Stage(server.url, tmp_path)
        async with place.queue(play(stage)) as queue:
            run = await queue.submit("hello")
            assert await run.result(timeout=30) == ANSWER
            events = [event async for event in run.events()]
        assert shown_by(events) == "Let me look. " + ANSWER
        called = [event.data for event in events if event.type == "tool.call"]
        assert called == [{"id": "call_1", "name": "search", "arguments": {"q": "bar"}}]
        assert stage.effects == ["search bar"]
        assert len(server.paid) == 2


@every_library
async def test_a_cancel_closes_the_connection(play: Play, place: Place, tmp_path: Path) -> None:
    """A user cancels in the middle of an answer: the model's server sees the connection close, or is told to stop."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(hold_after=3)}) as server:
        async with place.queue(play(Stage(server.url, tmp_path))) as queue:
            run = await queue.submit("hello")
            await eventually(lambda: bool(server.calls) and server.calls[0].sent == 3)
            assert not server.calls[0].hung_up
            await run.cancel()
            assert (await run.wait(timeout=30)).status == "cancelled"
            await eventually(lambda: server.calls[0].hung_up)
            assert (await run.text()) in ANSWER
            await generators_end()
        assert len(server.paid) == 1
        assert server.cancelled == (["resp_1"] if play is openai else [])


@pytest.mark.loops("asyncio")
@every_library
async def test_a_conversation(play: Play, place: Place, tmp_path: Path) -> None:
    """In the second turn the model is told what was said in the first one."""
    with OpenAIServer([Reply("first answer"), Reply("second answer")]) as server:
        async with place.queue(play(Stage(server.url, tmp_path))) as queue:
            chat = queue.conversation()
            assert await (await chat.send("first question")).result(timeout=30) == "first answer"
            assert await (await chat.send("second question")).result(timeout=30) == "second answer"
        said = str(server.paid[1].body)
        order = [said.index(text) for text in ("first question", "first answer", "second question")]
        assert order == sorted(order)


@pytest.mark.loops("asyncio")
@with_tools
async def test_a_budget_of_tool_calls(play: Play, place: Place, tmp_path: Path) -> None:
    """A run that may call no tool fails before it does."""
    with OpenAIServer(SEARCH) as server:
        stage = Stage(server.url, tmp_path)
        async with place.queue(play(stage), budget=Budget(tool_calls=0)) as queue:
            run = await queue.submit("hello")
            with pytest.raises(RunFailed, match="tool"):
                await run.result(timeout=30)
        assert stage.effects == []
        assert len(server.paid) == 1


@pytest.mark.loops("asyncio")
@with_tools
async def test_a_budget_of_tokens(play: Play, place: Place, tmp_path: Path) -> None:
    """A run whose first request has used its tokens up does not make a second one."""
    with OpenAIServer(SEARCH) as server:
        async with place.queue(play(Stage(server.url, tmp_path)), budget=Budget(tokens=5)) as queue:
            run = await queue.submit("hello")
            with pytest.raises(RunFailed, match="token"):
                await run.result(timeout=30)
        assert len(server.paid) == 1


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize(
    ("play", "answers"),
    [
        (pydantic_ai, [True, {"approved": True, "arguments": {"name": "b.txt"}}]),
        (openai_agents, [True, {"approved": True}]),
        (langgraph, [True]),
    ],
    ids=["pydantic_ai", "openai_agents", "langgraph"],
)
async def test_approvals(play: Play, answers: list[Any], place: Place, tmp_path: Path) -> None:
    """Calls that somebody must approve are carried out with a yes, and not with a no; the model hears of both."""
    script = [Reply(tools=[Tool("delete", {"name": "a.txt"}, id="call_d")]), Reply(ANSWER)]
    for number, answer in enumerate([False, *answers]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with OpenAIServer(script) as server:
            stage = Stage(server.url, folder)
            async with place.queue(play(stage), name=f"queue{number}") as queue:
                run = await queue.submit("hello")
                asked = ""
                async for event in run.events():
                    if event.type in ("approval.requested", "interrupt.requested"):
                        asked = event.data["wait_for"]
                        await run.send(asked, answer)
                assert asked
                assert await run.result(timeout=30) == ANSWER
            if answer is False:
                assert stage.effects == []
            elif answer is True or "arguments" not in answer:
                assert stage.effects == ["delete a.txt"]
            else:
                assert stage.effects == ["delete b.txt"]
            assert len(server.paid) == 2
