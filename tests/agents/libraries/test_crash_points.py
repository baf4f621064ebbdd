"""The worker dies at each step of an agent's run: before it, after it, and when it is remembered.

What had ended is not done again, what was cut off is done once more, and a reader has every word once.
"""

from pathlib import Path
from typing import Any

import pytest

from lastcall.jobs import Jobs
from lastcall.testing import run_jobs
from tests.agents.libraries.play_langgraph import langgraph
from tests.agents.libraries.play_openai import openai
from tests.agents.libraries.play_openai_agents import openai_agents
from tests.agents.libraries.play_pydantic_ai import pydantic_ai
from tests.agents.libraries.plays import Play, Stage, queue_of
from tests.agents.libraries.theatre import generators_end, shown_by
from tests.support.openai_server import OpenAIServer, Reply, Tool

pytestmark = [pytest.mark.loops("asyncio")]

ANSWER = "the bar stops taking orders, " * 20
SEARCH = [Reply("Let me look. ", [Tool("search", {"q": "bar"}, id="call_1")]), Reply(ANSWER)]

MODELS = ("model", "model #2", "superstep #2", "superstep #4")
TOOLS = ("tool:search call_1", "superstep #3")

POINTS = [
    *[(pydantic_ai, step) for step in ("model", "tool:search call_1", "model #2")],
    *[(openai_agents, step) for step in ("model", "tool:search call_1", "model #2")],
    *[(langgraph, step) for step in ("superstep", "superstep #2", "superstep #3", "superstep #4")],
]
NAMES = [f"{play.__name__}, {step}" for play, step in POINTS]


async def played(
    play: Play, script: list[Reply], folder: Path, step: str, when: Any
) -> tuple[OpenAIServer, str, list[str]]:
    """The server, what a reader shows, and the effects of tools, after a crash at this point."""
    with OpenAIServer(script) as server:
        stage = Stage(server.url, folder)
        jobs = Jobs(f"sqlite:///{folder}/jobs.db")
        queue = queue_of(jobs, play, stage)
        async with run_jobs(jobs) as run:
            run.crash_at(step, when=when)
            asked = await queue.submit("hello")
            await run.until_idle()
            assert run.crashes == 1
            assert await asked.result() == ANSWER
            shown = shown_by([event async for event in asked.events()])
            await generators_end()
            return server, shown, stage.effects


@pytest.mark.parametrize("when", ["before", "after", "recorded"])
@pytest.mark.parametrize(("play", "step"), POINTS, ids=NAMES)
async def test_an_agent_with_a_tool(play: Play, step: str, when: str, tmp_path: Path) -> None:
    """A crash at this point repeats the step that was cut off, and nothing that had ended."""
    server, shown, effects = await played(play, SEARCH, tmp_path, step, when)
    assert shown == "Let me look. " + ANSWER
    assert len(server.paid) == 2 + (when == "after" and step in MODELS)
    assert len(effects) == 1 + (when == "after" and step in TOOLS)


@pytest.mark.parametrize("when", ["before", "after", "recorded"])
async def test_a_background_response(when: str, tmp_path: Path) -> None:
    """A crash at any point of the response buys it once."""
    server, shown, _ = await played(openai, [Reply(ANSWER)], tmp_path, "response", when)
    assert shown == ANSWER
    assert len(server.paid) == 1
