"""The local server that the other tests trust, held against the real client library."""

import asyncio

import openai
import pytest
from openai import AsyncOpenAI

from tests.jobs.running import eventually
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

pytestmark = pytest.mark.loops("asyncio")

TEXT = "the bar stops taking orders"


def client_of(server: OpenAIServer, **options: object) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0, **options)  # type: ignore[arg-type]


async def test_chat_plain_and_streamed() -> None:
    """The client library reads an answer, its usage and its pieces, and the ledger has both calls."""
    with OpenAIServer([Reply(TEXT)]) as server:
        async with client_of(server) as client:
            ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            plain = await client.chat.completions.create(**ask)
            assert plain.choices[0].message.content == TEXT
            assert plain.usage is not None and plain.usage.total_tokens == 15
            stream = await client.chat.completions.create(
                **ask, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
        assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 15
        assert [(call.finished, call.hung_up) for call in server.paid] == [(True, False)] * 2


async def test_responses_in_the_background() -> None:
    """A response goes on without its reader, is taken up again behind a number, and read whole at the end."""
    with OpenAIServer([Reply(TEXT)], faults={1: Fault(cut_after=2)}) as server:
        async with client_of(server) as client:
            stream = await client.responses.create(model="m", input="hi", background=True, stream=True)
            seen, at, id = "", 0, ""
            with pytest.raises(openai.APIConnectionError):
                async for event in stream:
                    at = event.sequence_number
                    if event.type == "response.created":
                        id = event.response.id
                    if event.type == "response.output_text.delta":
                        seen += event.delta
            assert seen == "the bar "
            again = await client.responses.retrieve(id, stream=True, starting_after=at)
            async for event in again:
                assert event.sequence_number == at + 1
                at = event.sequence_number
                if event.type == "response.output_text.delta":
                    seen += event.delta
            assert seen == TEXT
            final = await client.responses.retrieve(id)
            assert (final.status, final.output_text) == ("completed", TEXT)
        assert len(server.paid) == 1


async def test_tools_refusals_and_a_client_that_leaves() -> None:
    """Calls of tools come as the library expects them; a 429 has its Retry-After; who hangs up is seen."""
    script = [Reply(tools=[Tool("search", {"q": "x"}), Tool("read")]), Reply(TEXT)]
    faults = {2: Fault(status=429, retry_after_seconds=7), 3: Fault(hold_after=1)}
    with OpenAIServer(script, faults=faults) as server:
        async with client_of(server) as client:
            ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            first = await client.chat.completions.create(**ask)
            calls = first.choices[0].message.tool_calls or []
            assert [call.function.name for call in calls if call.type == "function"] == ["search", "read"]
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(**ask)
            assert refused.value.response.headers["retry-after"] == "7"
            history = [*ask["messages"], {"role": "assistant", "content": "said"}]
            stream = await client.chat.completions.create(model="m", messages=history, stream=True)
            await anext(aiter(stream))
            await eventually(lambda: server.calls[-1].sent == 1)
            await stream.close()
            await eventually(lambda: server.calls[-1].hung_up)
            cancelled = asyncio.ensure_future(client.responses.create(model="m", input="hi"))
            await asyncio.wait({cancelled})
            assert [item.type for item in cancelled.result().output] == ["function_call", "function_call"]
        assert [call.finished for call in server.calls] == [True, False, False, True]
        assert len(server.paid) == 3
