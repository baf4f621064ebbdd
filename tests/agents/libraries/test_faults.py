"""Cancelling closes the connection to the model; and what a model's server does wrong costs what it must, not more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lastcall.jobs import Job, Jobs
from tests.agents.libraries.play_langgraph import langgraph
from tests.agents.libraries.play_openai_agents import openai_agents
from tests.agents.libraries.play_pydantic_ai import patient, pydantic_ai
from tests.agents.libraries.plays import Play, Stage, queue_of
from tests.agents.libraries.theatre import shown_by
from tests.jobs.running import eventually, reaches
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

pytestmark = [pytest.mark.loops("asyncio")]

ANSWER = "the bar stops taking orders and nobody is locked in"
SEARCH = [Reply(tools=[Tool("search", {"q": "bar"})]), Reply(ANSWER)]

with_tools = pytest.mark.parametrize(
    "play", [pydantic_ai, langgraph, openai_agents], ids=lambda play: play.__name__
)


@asynccontextmanager
async def asked(
    play: Play, server: OpenAIServer, folder: Path, retries: int = 0
) -> AsyncIterator[tuple[Job[Any], Stage]]:
    """A job whose worker runs in this process."""
    stage = Stage(server.url, folder)
    async with Jobs(f"sqlite:///{folder}/jobs.db") as jobs:
        queue = queue_of(jobs, play, stage, retries)
        async with jobs.worker():
            run = await queue.submit("hello")
            yield jobs.job(run.id), stage


async def streamed(job: Job[Any]) -> list[str]:
    return [event.data["text"] async for event in job.events() if event.type == "stream.text"]


@with_tools
async def test_a_cancel_in_a_tool(play: Play, tmp_path: Path) -> None:
    """A user cancels while a tool runs: the model is not asked again."""
    with OpenAIServer(SEARCH) as server:
        async with asked(play, server, tmp_path) as (job, stage):
            stage.hold("search bar")
            await eventually(lambda: stage.effects == ["search bar"])
            await job.cancel()
            await reaches(job, "cancelled")
        assert len(server.paid) == 1


@with_tools
async def test_a_stream_is_cut_in_the_middle(play: Play, tmp_path: Path) -> None:
    """The connection breaks in the second answer: the job's next attempt makes only this request again."""
    with OpenAIServer(SEARCH, faults={2: Fault(cut_after=4)}) as server:
        async with asked(play, server, tmp_path, retries=1) as (job, stage):
            assert await job.result(timeout=30) == ANSWER
            assert stage.effects == ["search bar"]
            assert shown_by([event async for event in job.events()]) == ANSWER
        assert [call.finished for call in server.paid] == [True, False, True]


@with_tools
async def test_the_models_server_fails(play: Play, tmp_path: Path) -> None:
    """The second request is answered with 500: it is made again by the job's retries, and the first one is not."""
    with OpenAIServer(SEARCH, faults={2: Fault(status=500)}) as server:
        async with asked(play, server, tmp_path, retries=1) as (job, stage):
            assert await job.result(timeout=30) == ANSWER
            assert stage.effects == ["search bar"]
        assert len(server.paid) == 2


async def test_too_many_requests(tmp_path: Path) -> None:
    """A 429 with Retry-After is the client library's business: it waits, and the run goes on in the same attempt."""
    faults = {1: Fault(status=429, retry_after_seconds=0.1)}
    with OpenAIServer(SEARCH, faults=faults) as server:
        async with asked(patient, server, tmp_path) as (job, _):
            assert await job.result(timeout=30) == ANSWER
            assert (await job.info()).attempt == 1
        assert [call.status for call in server.calls] == [429, 200, 200]


async def test_a_slow_model(tmp_path: Path) -> None:
    """A model that writes slowly is read as it writes: the first words are there before the last ones are made."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(slow_seconds=0.02, hold_after=5)}) as server:
        async with asked(pydantic_ai, server, tmp_path) as (job, _):
            seen: list[str] = []
            async for event in job.events():
                if event.type != "stream.text":
                    continue
                seen.append(event.data["text"])
                if "".join(seen) == "".join(Reply(ANSWER).pieces[:5]):
                    assert not server.calls[0].finished
                    server.release()
            assert "".join(seen) == ANSWER
