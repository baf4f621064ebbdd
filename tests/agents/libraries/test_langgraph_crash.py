"""Graphs of LangGraph whose workers are killed or replaced: supersteps that have ended are not run again."""

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.agents.libraries.play_langgraph import forgetful, langgraph, nested
from tests.agents.libraries.plays import Play
from tests.agents.libraries.theatre import Theatre, play
from tests.jobs.running import reaches
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio"), pytest.mark.timeout(90)]

ANSWER = "the bar stops taking orders and nobody is locked in"
SEARCH = [Reply("Let me look. ", [Tool("search", {"q": "bar"})]), Reply(ANSWER)]


def on_stage(server: OpenAIServer, folder: Path) -> AbstractAsyncContextManager[Theatre]:
    return play(server, folder, "play_langgraph", "langgraph", langgraph)


async def check_answer(theatre: Theatre) -> None:
    assert await theatre.result() == ANSWER
    assert await theatre.text() == "Let me look. " + ANSWER


async def outcomes(theatre: Theatre) -> list[str]:
    return [str(attempt.outcome) for attempt in await theatre.job.attempts()]


async def test_killed_in_the_second_request(tmp_path: Path) -> None:
    """The worker dies while the last answer is streamed: only that superstep is run again, and the reader is told."""
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
            assert resets == [{"step": "superstep #4"}]
        assert [call.finished for call in server.paid] == [True, False, True]


async def test_killed_in_a_tool(tmp_path: Path) -> None:
    """The worker dies in a tool: the request before it is not made again, the tool's superstep is run again."""
    with OpenAIServer(SEARCH) as server:
        async with on_stage(server, tmp_path) as theatre:
            theatre.stage.hold("search bar")
            with theatre.worker() as first:
                await theatre.acted("search bar")
                first.signal(signal.SIGKILL)
                first.wait()
            theatre.stage.release()
            async with theatre.jobs.worker():
                await check_answer(theatre)
            assert theatre.stage.effects == ["search bar", "search bar"]
        assert [call.finished for call in server.paid] == [True, True]


async def test_a_deploy_between_supersteps(tmp_path: Path) -> None:
    """A deploy while a tool runs: the tool ends, and another worker goes on with the next superstep."""
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
            assert await outcomes(theatre) == ["handed_over", "completed"]
        assert [call.finished for call in server.paid] == [True, True]


@pytest.mark.parametrize(
    ("inner", "again"), [(nested, []), (forgetful, ["first"])], ids=["nested", "forgetful"]
)
async def test_a_deploy_inside_a_subgraph(inner: Play, again: list[str], tmp_path: Path) -> None:
    """A deploy in a node of a subgraph: the subgraph is left behind this node, and nothing in it is run again, unless
    it keeps no checkpoints."""
    with OpenAIServer([]) as server:
        async with play(server, tmp_path, "play_langgraph", inner.__name__, inner) as theatre:
            theatre.stage.hold("first")
            with theatre.worker() as first:
                await theatre.acted("before", "first")
                first.signal(signal.SIGTERM)
                theatre.stage.release()
                first.wait()
            assert theatre.stage.effects == ["before", "first"]
            async with theatre.jobs.worker():
                assert await theatre.result() == '"second"'
            assert theatre.stage.effects == ["before", "first", *again, "second"]
            assert await outcomes(theatre) == ["handed_over", "completed"]


async def test_an_interrupt_waits_without_a_worker(tmp_path: Path) -> None:
    """A graph asks somebody: the job waits without a worker, and goes on with the answer on another one."""
    script = [Reply(tools=[Tool("delete", {"name": "a.txt"})]), Reply(ANSWER)]
    with OpenAIServer(script) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await reaches(theatre.job, "waiting")
                first.signal(signal.SIGKILL)
                first.wait()
            info = await theatre.job.info()
            (waits_for,) = info.waits_for
            name = waits_for.removeprefix("signal ")
            assert theatre.stage.effects == []
            await theatre.job.send(name, True)
            async with theatre.jobs.worker():
                assert await theatre.result() == ANSWER
            asked = [event.data for event in await theatre.events() if event.type == "interrupt.requested"]
            assert asked == [{"wait_for": name, "value": {"delete": "a.txt"}}]
            assert theatre.stage.effects == ["delete a.txt"]
        assert len(server.paid) == 2
