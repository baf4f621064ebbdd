"""Agents of real libraries, with the models that they bring for tests, behind a queue in memory and as jobs."""

from typing import Any

import pytest
from agents import Agent as SdkAgent
from agents import OpenAIChatCompletionsModel, set_tracing_disabled
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.agents.places import PATIENCE_SECONDS, Place
from tests.support.openai_server import OpenAIServer, Reply

pytestmark = pytest.mark.loops("asyncio")

# It would send its traces to OpenAI.
set_tracing_disabled(True)


async def answer(place: Place, agent: Any, prompt: Any = "tea") -> tuple[Any, str]:
    """What a run answers, and what it streams."""
    async with place.queue(agent) as queue:
        run = await queue.submit(prompt)
        return await run.result(PATIENCE_SECONDS), await run.text()


async def test_pydantic_ai(place: Place) -> None:
    """Its own test model calls every tool, and answers with what they gave; the text streams."""
    agent = Agent(TestModel())

    @agent.tool_plain
    def search(q: str) -> str:
        return f"found {q}"

    result, text = await answer(place, agent)
    assert "found a" in result
    assert text == result


async def test_a_runnable_of_langchain(place: Place) -> None:
    """A prompt template piped into a chat model: its chunks stream, its message is the answer."""
    model = FakeListChatModel(responses=["Tea is a leaf."])
    chain = ChatPromptTemplate.from_messages([("user", "{topic}")]) | model
    assert await answer(place, chain, {"topic": "tea"}) == ("Tea is a leaf.", "Tea is a leaf.")
    assert await answer(place, RunnableLambda(lambda prompt: {"asked": prompt})) == ({"asked": "tea"}, "")


async def test_a_graph_of_langgraph(place: Place) -> None:
    """A compiled graph whose node asks a chat model: the model's text streams, and is the answer."""
    model = FakeListChatModel(responses=["Tea is a leaf."])

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    result, text = await answer(place, builder.compile())
    assert "Tea is a leaf." in str(result)
    assert text == "Tea is a leaf."


async def test_the_agents_sdk_of_openai(place: Place) -> None:
    """An agent of the SDK over the local server."""
    with OpenAIServer([Reply("Tea is a leaf.")]) as server:
        async with AsyncOpenAI(base_url=server.url, api_key="none") as client:
            model = OpenAIChatCompletionsModel(model="scripted", openai_client=client)
            result, text = await answer(place, SdkAgent(name="helper", model=model))
    assert result == "Tea is a leaf."
    assert text in (result, "")


async def test_a_conversation_with_a_library(place: Place) -> None:
    """The second turn is given the first, and the model's server is sent both."""
    with OpenAIServer([Reply("one"), Reply("two")]) as server:
        provider = OpenAIProvider(base_url=server.url, api_key="none")
        async with place.queue(Agent(OpenAIChatModel("scripted", provider=provider))) as queue:
            chat = queue.conversation()
            answers = [await (await chat.send(prompt)).result(PATIENCE_SECONDS) for prompt in ("a", "b")]
        assert answers == ["one", "two"]
        sent = [(message["role"], message["content"]) for message in server.paid[1].body["messages"]]
        assert sent == [("user", "a"), ("assistant", "one"), ("user", "b")]
