"""Background responses of OpenAI are bought once, whatever dies, and read to their end, each character once."""

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from lastcall.agents._openai import BackgroundResponses, found_in
from lastcall.exceptions import BadDeclaration, JobFailed
from tests.agents.libraries.play_openai import openai
from tests.agents.libraries.theatre import Theatre, play
from tests.jobs.running import eventually, reaches
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio"), pytest.mark.timeout(90)]

ANSWER = "the bar stops taking orders, everyone served finishes their glass, and nobody is locked in"


def on_stage(server: OpenAIServer, folder: Path) -> AbstractAsyncContextManager[Theatre]:
    return play(server, folder, "play_openai", "openai", openai)


def asked(server: OpenAIServer) -> list[str]:
    """What was asked of the provider, in order."""
    return [
        call.method + (" from " + call.query["starting_after"] if "starting_after" in call.query else "")
        for call in server.calls
    ]


async def check_answer(theatre: Theatre) -> None:
    assert await theatre.result() == ANSWER
    assert await theatre.text() == ANSWER
    assert [event.type for event in await theatre.events() if event.type == "step.reset"] == []


async def test_killed_while_it_reads(tmp_path: Path) -> None:
    """The worker dies in the middle of the stream, the model goes on: another one takes the stream up, unpaid."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(hold_after=6)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await theatre.shows("everyone ")
                first.signal(signal.SIGKILL)
                first.wait()
            server.release()
            async with theatre.jobs.worker():
                await check_answer(theatre)
        assert asked(server) == ["POST", "GET from 0"]
        assert len(server.paid) == 1


async def test_handed_over_while_it_reads(tmp_path: Path) -> None:
    """A deploy does not wait for a long answer: it is cut at the end of the drain, not cancelled at the provider."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(hold_after=6)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker(drain=0.2) as first:
                await theatre.shows("everyone ")
                first.signal(signal.SIGTERM)
                first.wait()
            await eventually(lambda: server.calls[0].hung_up)
            server.release()
            async with theatre.jobs.worker():
                await check_answer(theatre)
        assert asked(server) == ["POST", "GET from 0"]


async def test_handed_over_between_two_words(tmp_path: Path) -> None:
    """While the answer comes, a deploy need not wait for its end: what can be taken up again is handed over at once."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(slow_seconds=0.3)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await theatre.shows("the ")
                first.signal(signal.SIGTERM)
                first.wait()
            assert server.calls[0].hung_up
            async with theatre.jobs.worker():
                await check_answer(theatre)
        assert asked(server) == ["POST", "GET from 0"]


async def test_the_connection_breaks(tmp_path: Path) -> None:
    """The stream is cut in the middle: the same worker takes it up behind the last event that it had."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(cut_after=5)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            async with theatre.jobs.worker():
                await check_answer(theatre)
        assert asked(server) == ["POST", "GET from 8"]


async def test_too_old_to_be_streamed(tmp_path: Path) -> None:
    """The provider streams only responses that are young enough: an older one is asked for until it has ended."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(cut_after=5)}) as server:
        server.streams_again = False
        async with on_stage(server, tmp_path) as theatre:
            async with theatre.jobs.worker():
                await check_answer(theatre)
        assert asked(server) == ["POST", "GET from 8", "GET"]


async def test_cancelled_by_its_user(tmp_path: Path) -> None:
    """Who cancels a run does not want to pay for the rest: the connection closes, and the provider is told to stop."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(hold_after=6)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            async with theatre.jobs.worker():
                await theatre.shows("everyone ")
                await theatre.job.cancel()
                await reaches(theatre.job, "cancelled")
            await eventually(lambda: server.calls[0].hung_up)
            assert server.cancelled == ["resp_1"]


async def test_the_provider_does_not_keep_it(tmp_path: Path) -> None:
    """The provider has forgotten it when the next worker comes: it is bought again, and readers are told."""
    with OpenAIServer([Reply(ANSWER)], faults={1: Fault(hold_after=6)}) as server:
        async with on_stage(server, tmp_path) as theatre:
            with theatre.worker() as first:
                await theatre.shows("everyone ")
                first.signal(signal.SIGKILL)
                first.wait()
            server.forget()
            async with theatre.jobs.worker():
                assert await theatre.result() == ANSWER
            assert await theatre.text() == ANSWER
            resets = [event.data for event in await theatre.events() if event.type == "step.reset"]
            assert resets == [{"step": "response"}]
        assert asked(server) == ["POST", "GET from 0", "POST"]


async def test_functions_that_nobody_carries_out(tmp_path: Path) -> None:
    """A model that calls functions needs an agent: the job fails, and says so."""
    with OpenAIServer([Reply(tools=[Tool("search")])]) as server:
        async with on_stage(server, tmp_path) as theatre:
            async with theatre.jobs.worker():
                with pytest.raises(
                    JobFailed, match="calls functions, which nobody here can carry out: .'search'"
                ):
                    await theatre.result()


def test_options_that_are_the_adapters_own() -> None:
    """What would make a response that cannot be taken up again is refused where it is written."""
    client = AsyncOpenAI(api_key="none")
    for options in ({"background": False}, {"stream": False}, {"store": False}, {"input": "hi"}):
        with pytest.raises(BadDeclaration, match="stored, works in the background, and is streamed"):
            BackgroundResponses(client, model="m", **options)  # type: ignore[arg-type]


def test_a_place_ahead_of_its_text_is_not_taken() -> None:
    """Text is written behind the place that belongs to it: then an earlier place is taken, and nothing is left out."""
    first = {"response_id": "r", "sequence_number": 0, "characters": 0}
    second = {"response_id": "r", "sequence_number": 9, "characters": 20}
    place, written = found_in([first, {"stream": "answer", "text": "x" * 19}, second])
    assert (place and place.sequence_number, written) == (0, 19)
    place, written = found_in([first, second, {"stream": "answer", "text": "x" * 21}])
    assert (place and place.sequence_number, written) == (9, 21)
    assert found_in([]) == (None, 0)
