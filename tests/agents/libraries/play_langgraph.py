"""Graphs of LangGraph, for the tests of crashes. Their chat model is LangChain's base class over openai's client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt
from openai import AsyncOpenAI

from tests.agents.libraries.plays import Play, Stage, main


class Scripted(BaseChatModel):
    """A chat model that streams from the local server."""

    url: str

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked: Any = convert_to_openai_messages(messages)
        async with AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="scripted", messages=asked, stream=True, stream_options={"include_usage": True}
            )
            async with stream:
                async for chunk in stream:
                    yield ChatGenerationChunk(message=_message(chunk))


def _message(chunk: Any) -> AIMessageChunk:
    if chunk.usage is not None:
        usage = UsageMetadata(
            input_tokens=chunk.usage.prompt_tokens,
            output_tokens=chunk.usage.completion_tokens,
            total_tokens=chunk.usage.total_tokens,
        )
        return AIMessageChunk("", usage_metadata=usage)
    delta = chunk.choices[0].delta
    calls = [
        tool_call_chunk(id=call.id, name=call.function.name, args=call.function.arguments, index=call.index)
        for call in delta.tool_calls or ()
    ]
    return AIMessageChunk(delta.content or "", tool_call_chunks=calls)


def langgraph(stage: Stage) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A model and its tools, in turn; `delete` asks somebody first."""
    model = Scripted(url=stage.url)

    @tool
    async def search(q: str) -> str:
        """Search."""
        await stage.act(f"search {q}")
        return f"found {q}"

    @tool
    async def delete(name: str) -> str:
        """Delete."""
        if interrupt({"delete": name}) is not True:
            return "denied"
        await stage.act(f"delete {name}")
        return f"deleted {name}"

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode([search, delete]))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition)
    graph.add_edge("tools", "think")
    return graph.compile()


def nested(stage: Stage, inner_checkpointer: bool | None = None) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A graph in a graph, each of its nodes an effect."""

    def node(name: str) -> Any:
        async def run(state: MessagesState) -> dict[str, Any]:
            await stage.act(name)
            return {"messages": [ToolMessage(json.dumps(name), tool_call_id=name)]}

        return run

    inner = StateGraph(MessagesState)
    outer = StateGraph(MessagesState)
    for graph, names in ((inner, ("first", "second")), (outer, ("before",))):
        for name in names:
            graph.add_node(name, node(name))
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    inner.add_edge("second", END)
    outer.add_node("inner", inner.compile(checkpointer=inner_checkpointer))
    outer.add_edge(START, "before")
    outer.add_edge("before", "inner")
    outer.add_edge("inner", END)
    return outer.compile()


def forgetful(stage: Stage) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The same, with an inner graph that keeps no checkpoints."""
    return nested(stage, inner_checkpointer=False)


PLAYS: dict[str, Play] = {"langgraph": langgraph, "nested": nested, "forgetful": forgetful}

if __name__ == "__main__":
    main(PLAYS)
