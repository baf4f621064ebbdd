"""Agents of pydantic-ai whose workers are killed with kill -9: what had ended is not paid for again.

The ledgers are outside: a local server that counts model calls, and a file that counts the effects of tools.
"""

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.agents.libraries.play_pydantic_ai import continuing, in_background, pydantic_ai
from tests.agents.libraries.theatre import Theatre, play
from tests.jobs.running import eventually, reaches
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio"), pytest.mark.timeout(90)]

ANSWER = "the bar stops taking orders and nobody is locked in"
SEARCH = [Reply("Let me look. ", [Tool("search", {"q": "bar"})]), Reply(ANSWER)]
MODULE, NAME = "play_pydantic_ai", "pydantic_ai"


def on_stage(server: OpenAIServer, folder: Path) -> AbstractAsyncContextManager[Theatre]:
    return play(server, folder, MODULE, NAME, pydantic_ai)


async def check_answer(theatre: Theatre) -> None:
    assert await theatre.result() == ANSWER
    assert await theatre.text() == "Let me look. " + ANSWER


async def test_killed_in_the_first_request(tmp_path: Path) -> None:
    """The worker dies while the first answer is streamed: that request is made again, and the reader is told."""
    with OpenAIServer(SEARCH, faults={1: Fault(hold_after=2)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await theatre.shows("Let me ")
                first.signal(signal.SIGKILL)
                first.wait()
            await eventually(lambda: server.paid[0].hung_up)
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert [event.data for event in await theatre.events() if event.type == "step.reset"] == [
                {"step": "model"}
            ]
            assert theatre.stage.effects == ["search bar"]
        assert [call.finished for call in server.paid] == [False, True, True]


async def test_killed_in_a_tool(tmp_path: Path) -> None:
    """The worker dies in a tool, after its effect: the request that asked for it is not made again, the tool is."""
    with OpenAIServer(SEARCH) as server:
        async with on_stage(server, tmp_path) as theatre:
            theatre.stage.hold("search bar")
            with theatre.worker() as first:
                await theatre.acted("search bar")
                first.signal(signal.SIGKILL)
                first.wait()
            assert len(server.paid) == 1
            theatre.stage.release()
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert theatre.stage.effects == ["search bar", "search bar"]
        assert [call.finished for call in server.paid] == [True, True]


async def test_killed_in_a_tool_that_is_declared_once(tmp_path: Path) -> None:
    """The worker dies in a tool declared `once`: it is not called again, and the job waits for somebody who knows."""
    script = [Reply(tools=[Tool("charge", {"amount": 5}, id="call_c")]), Reply(ANSWER)]
    with OpenAIServer(script) as server:
        async with on_stage(server, tmp_path) as theatre:
            theatre.stage.hold("charge 5")
            with theatre.worker() as first:
                await theatre.acted("charge 5")
                first.signal(signal.SIGKILL)
                first.wait()
            theatre.stage.release()
            async with theatre.jobs.worker():
                await reaches(theatre.job, "waiting")
                assert (await theatre.job.info()).waits_for == ("step_outcome_unknown",)
                await theatre.job.resolve(
                    "tool:charge call_c", happened=True, value="the bank says: charged 5"
                )
                assert await theatre.result() == ANSWER
            assert theatre.stage.effects == ["charge 5"]
        told = server.paid[1].body["messages"][-1]
        assert (told["role"], told["content"]) == ("tool", "the bank says: charged 5")
        assert len(server.paid) == 2


async def test_killed_in_the_second_request(tmp_path: Path) -> None:
    """The worker dies while the last answer is streamed: only that request is made again."""
    with OpenAIServer(SEARCH, faults={2: Fault(hold_after=4)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await theatre.shows("taking ")
                first.signal(signal.SIGKILL)
                first.wait()
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert theatre.stage.effects == ["search bar"]
        assert [call.finished for call in server.paid] == [True, False, True]


async def test_killed_while_it_waits_for_approval(tmp_path: Path) -> None:
    """A call that somebody must approve holds no worker: the job waits without one, and goes on with the word."""
    script = [Reply(tools=[Tool("delete", {"name": "a.txt"}, id="call_d")]), Reply(ANSWER)]
    with OpenAIServer(script) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await reaches(theatre.job, "waiting")
                first.signal(signal.SIGKILL)
                first.wait()
            assert (await theatre.job.info()).waits_for == ("signal approval call_d",)
            assert theatre.stage.effects == []
            await theatre.job.send("approval call_d", True)
            async with theatre.jobs.worker():
                assert await theatre.result() == ANSWER
            asked = [event.data for event in await theatre.events() if event.type == "approval.requested"]
            assert asked == [
                {"wait_for": "approval call_d", "tool": "delete", "arguments": {"name": "a.txt"}}
            ]
            assert theatre.stage.effects == ["delete a.txt"]
        assert len(server.paid) == 2


async def test_a_deploy_costs_nothing(tmp_path: Path) -> None:
    """The worker is stopped in order while a tool runs: the tool ends, and another worker goes on behind it."""
    with OpenAIServer(SEARCH) as server:
        async with on_stage(server, tmp_path) as theatre:
            theatre.stage.hold("search bar")
            with theatre.worker() as first:
                await theatre.acted("search bar")
                first.signal(signal.SIGTERM)
                theatre.stage.release()
                first.wait()
            assert len(server.paid) == 1
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert theatre.stage.effects == ["search bar"]
            attempts = await theatre.job.attempts()
            assert [str(attempt.outcome) for attempt in attempts] == ["handed_over", "completed"]
        assert [call.finished for call in server.paid] == [True, True]


async def test_a_deploy_while_it_answers(tmp_path: Path) -> None:
    """A deploy lets an answer that comes end, because nobody could go on with it: it is paid for once."""
    with OpenAIServer(SEARCH, faults={2: Fault(slow_seconds=0.05)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await theatre.shows("the ")
                first.signal(signal.SIGTERM)
                first.wait()
            async with theatre.jobs.worker():
                await check_answer(theatre)
        assert [call.finished for call in server.paid] == [True, True]


def going_on(body: dict[str, Any]) -> Reply:
    """A model that is given the beginning of its answer says the rest."""
    before = body["messages"][-2:-1]
    if before and before[0]["role"] == "assistant" and before[0].get("content"):
        return Reply(ANSWER.removeprefix(before[0]["content"]))
    return SEARCH[1] if body["messages"][-1]["role"] == "tool" else SEARCH[0]


async def test_a_deploy_while_it_answers_what_can_be_gone_on_with(tmp_path: Path) -> None:
    """The policy `continue`: a deploy hands over between two words, and the next worker has the model go on."""
    with OpenAIServer(going_on, faults={2: Fault(slow_seconds=0.3)}) as server:
        async with play(server, tmp_path, MODULE, "continuing", continuing) as theatre:
            with theatre.worker() as first:
                await theatre.shows("the ")
                first.signal(signal.SIGTERM)
                first.wait()
            assert server.paid[1].hung_up
            async with theatre.jobs.worker():
                await check_answer(theatre)
            attempts = await theatre.job.attempts()
            assert [str(attempt.outcome) for attempt in attempts] == ["handed_over", "completed"]
        assert [call.finished for call in server.paid] == [True, False, True]


async def test_killed_while_it_answers_and_gone_on_with(tmp_path: Path) -> None:
    """The policy `continue`: the model is given what it had said and goes on; readers take nothing back."""
    with OpenAIServer(going_on, faults={2: Fault(hold_after=4)}) as server:
        async with play(server, tmp_path, MODULE, "continuing", continuing) as theatre:
            with theatre.worker() as first:
                await theatre.shows("taking ")
                first.signal(signal.SIGKILL)
                first.wait()
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert theatre.stage.effects == ["search bar"]
            assert [event.type for event in await theatre.events() if event.type == "step.reset"] == []
        assert [call.finished for call in server.paid] == [True, False, True]
        assert [message["role"] for message in server.paid[2].body["messages"]][-2:] == ["assistant", "user"]


async def test_killed_while_the_provider_works(tmp_path: Path) -> None:
    """A background response of OpenAI is asked for again by its id, and bought once; its tools are called once."""
    with OpenAIServer(SEARCH, faults={1: Fault(hold_after=1)}) as server:
        async with play(server, tmp_path, MODULE, "in_background", in_background) as theatre:
            with theatre.worker() as first:
                await eventually(lambda: len(server.calls) >= 2)  # bought, and asked for once
                first.signal(signal.SIGKILL)
                first.wait()
            server.release()
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert theatre.stage.effects == ["search bar"]
        assert len(server.paid) == 2
        assert server.cancelled == []


async def test_a_deploy_while_the_provider_works(tmp_path: Path) -> None:
    """A deploy between two looks at a background response does not cancel it: another worker goes on looking."""
    with OpenAIServer(SEARCH, faults={1: Fault(hold_after=1)}) as server:
        async with play(server, tmp_path, MODULE, "in_background", in_background) as theatre:
            with theatre.worker() as first:
                await eventually(lambda: len(server.calls) >= 2)
                first.signal(signal.SIGTERM)
                first.wait()
            server.release()
            async with theatre.jobs.worker():
                await check_answer(theatre)
        assert len(server.paid) == 2
        assert server.cancelled == []
