"""Agents of the OpenAI Agents SDK whose workers are killed with kill -9: what had ended is not paid for again."""

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.agents.libraries.play_openai_agents import handing_off, openai_agents
from tests.agents.libraries.theatre import Theatre, play
from tests.jobs.running import reaches
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio"), pytest.mark.timeout(90)]

ANSWER = "the bar stops taking orders and nobody is locked in"
SEARCH = [Reply("Let me look. ", [Tool("search", {"q": "bar"})]), Reply(ANSWER)]
MODULE = "play_openai_agents"


def on_stage(server: OpenAIServer, folder: Path) -> AbstractAsyncContextManager[Theatre]:
    return play(server, folder, MODULE, "openai_agents", openai_agents)


async def check_answer(theatre: Theatre) -> None:
    assert await theatre.result() == ANSWER
    assert await theatre.text() == "Let me look. " + ANSWER


async def test_killed_in_the_second_request(tmp_path: Path) -> None:
    """The worker dies while the last answer is streamed: only that request is made again, and the reader is told."""
    with OpenAIServer(SEARCH, faults={2: Fault(hold_after=4)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await theatre.shows("taking ")
                first.signal(signal.SIGKILL)
                first.wait()
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert theatre.stage.effects == ["search bar"]
            resets = [event.data for event in await theatre.events() if event.type == "step.reset"]
            assert resets == [{"step": "model #2"}]
        assert [call.finished for call in server.paid] == [True, False, True]


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
                await theatre.job.resolve(
                    "tool:charge call_c", happened=True, value="the bank says: charged 5"
                )
                assert await theatre.result() == ANSWER
            assert theatre.stage.effects == ["charge 5"]
        assert server.paid[1].body["input"][-1]["output"] == "the bank says: charged 5"
        assert len(server.paid) == 2


async def test_killed_while_it_waits_for_approval(tmp_path: Path) -> None:
    """A call that somebody must approve holds no worker: the job waits without one, and goes on with the word."""
    script = [Reply(tools=[Tool("delete", {"name": "a.txt"}, id="call_d")]), Reply(ANSWER)]
    with OpenAIServer(script) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await reaches(theatre.job, "waiting")
                first.signal(signal.SIGKILL)
                first.wait()
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


async def test_a_deploy_behind_a_handoff(tmp_path: Path) -> None:
    """An agent has handed off to another one, whose tool runs when the deploy comes: nothing is asked or done twice."""
    script = [Reply(tools=[Tool("transfer_to_second")]), *SEARCH]
    with OpenAIServer(script) as server:
        async with play(server, tmp_path, MODULE, "handing_off", handing_off) as theatre:
            theatre.stage.hold("search bar")
            with theatre.worker() as first:
                await theatre.acted("search bar")
                first.signal(signal.SIGTERM)
                theatre.stage.release()
                first.wait()
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert theatre.stage.effects == ["search bar"]
            attempts = await theatre.job.attempts()
            assert [str(attempt.outcome) for attempt in attempts] == ["handed_over", "completed"]
        assert [call.finished for call in server.paid] == [True, True, True]
