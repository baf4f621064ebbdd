"""What each library can do beside the simple case, as durable runs; and what is refused."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import pytest
from agents import Agent as SdkOnly
from agents import OpenAIResponsesModel
from agents.mcp import MCPServer
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import END, START, StateGraph
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as McpTool
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, FunctionToolset, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from lastcall.agents import AgentQueue
from lastcall.agents._langgraph import messages_in
from lastcall.agents._openai import input_of
from lastcall.agents._openai_agents import input_of as sdk_input_of
from lastcall.agents._pydantic_ai import messages_of
from lastcall.agents.langgraph import GraphAgent
from lastcall.agents.openai_agents import SdkAgent
from lastcall.agents.pydantic_ai import PydanticAgent
from lastcall.exceptions import BadArguments, BadDeclaration, RunFailed
from lastcall.jobs import Jobs
from lastcall.testing import run_jobs
from tests.agents.libraries import play_openai_agents  # it switches the SDK's tracing off
from tests.agents.places import Place
from tests.support.openai_server import OpenAIServer, Reply, Tool

pytestmark = pytest.mark.loops("asyncio")

assert play_openai_agents


class Fact(BaseModel):
    """An answer with a form."""

    text: str
    year: int


async def steps_of(queue: AgentQueue, jobs: Jobs, prompt: str) -> tuple[Any, list[str]]:
    """The result of a run, and the names of its steps."""
    run = await queue.submit(prompt)
    result = await run.result(timeout=30)
    return result, [step.key for step in await jobs.job(run.id).steps() if not step.key.startswith("~")]


# --- pydantic-ai -----------------------------------------------------------------------------------------


async def test_tools_side_by_side(tmp_path: Path) -> None:
    """One tool is called three times at once, and the worker dies in the middle: only what was cut off is repeated."""
    called: list[int] = []
    gate = asyncio.Event()

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart("work", {"n": n}, tool_call_id=f"c{n}") for n in range(3)])

    agent = Agent(FunctionModel(model), name="three")

    @agent.tool_plain
    async def work(n: int) -> int:
        called.append(n)
        if len(called) < 3:
            await gate.wait()
        gate.set()
        return n

    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
    queue = AgentQueue(PydanticAgent(agent, stream=False), jobs=jobs)
    async with run_jobs(jobs) as run:
        run.crash_at("tool:work c1", when="after")
        asked = await queue.submit("hello")
        await run.until_idle()
        assert await asked.result() == "done"
        assert called.count(1) == 2
        assert len(called) <= 5


async def test_several_approvals_are_asked_for_at_once(durable: Place) -> None:
    """A model calls two tools that must be approved: both are asked for before either is answered, in any order."""

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart("work", {"n": n}, tool_call_id=f"c{n}") for n in range(2)])

    agent = Agent(FunctionModel(model), name="two")
    done: list[int] = []

    @agent.tool_plain(requires_approval=True)
    def work(n: int) -> int:
        done.append(n)
        return n

    async with durable.queue(PydanticAgent(agent, stream=False)) as queue:
        run = await queue.submit("hello")
        asked: list[str] = []
        async for event in run.events():
            if event.type == "approval.requested":
                asked.append(event.data["wait_for"])
                if len(asked) == 2:
                    for name in reversed(asked):
                        await run.send(name, True)
        assert await run.result(timeout=30) == "done"
    assert (asked, sorted(done)) == (["approval c0", "approval c1"], [0, 1])


async def test_an_agent_in_a_tool_is_one_step(tmp_path: Path) -> None:
    """A tool runs another agent: its requests are a part of the tool's step."""
    inner = Agent(TestModel(custom_output_text="inner answer"), name="inner")
    outer = Agent(TestModel(), name="outer")

    @outer.tool_plain
    async def ask() -> str:
        return (await inner.run("question")).output

    async with Jobs(f"sqlite:///{tmp_path}/jobs.db") as jobs:
        queue = AgentQueue(outer, jobs=jobs)
        async with queue:
            result, steps = await steps_of(queue, jobs, "hello")
    assert result == '{"ask":"inner answer"}'
    assert [step.split()[0] for step in steps] == ["model", "tool:ask", "model"]


async def test_dependencies_output_types_and_a_dynamic_toolset(tmp_path: Path) -> None:
    """An agent with deps, a toolset that is made for each run, and an answer that has a form."""
    agent = Agent(
        TestModel(custom_output_args={"text": "last call", "year": 1872}),
        name="typed",
        deps_type=str,
        output_type=Fact,
    )
    seen: list[str] = []

    @agent.toolset(id="made")
    def tools(ctx: RunContext[str]) -> FunctionToolset[str]:
        toolset = FunctionToolset[str](id="inside")

        @toolset.tool
        async def note(ctx: RunContext[str]) -> str:
            seen.append(ctx.deps)
            return "noted"

        return toolset

    async with Jobs(f"sqlite:///{tmp_path}/jobs.db") as jobs:
        queue = AgentQueue(PydanticAgent(agent, deps="the bar"), jobs=jobs)
        async with queue:
            result, steps = await steps_of(queue, jobs, "hello")
    assert result == Fact(text="last call", year=1872)
    assert seen == ["the bar"]
    assert any(step.startswith("tool:note") for step in steps)


async def test_a_tool_that_is_no_step(tmp_path: Path) -> None:
    """A tool declared with False is called like any function of the agent."""
    agent = Agent(TestModel(), name="plain")

    @agent.tool_plain(metadata={"lastcall": False})
    def now() -> str:
        return "noon"

    async with Jobs(f"sqlite:///{tmp_path}/jobs.db") as jobs:
        queue = AgentQueue(agent, jobs=jobs)
        async with queue:
            _, steps = await steps_of(queue, jobs, "hello")
    assert steps == ["model", "model #2"]


async def test_a_tool_with_an_unknown_policy(place: Place) -> None:
    """A misspelled policy is an error that tells what there is, before the tool is called."""
    agent = Agent(TestModel(), name="wrong")
    called: list[str] = []

    @agent.tool_plain(metadata={"lastcall": {"policy": "twice"}})
    def work() -> str:
        called.append("work")
        return "done"

    async with place.queue(agent) as queue:
        run = await queue.submit("hello")
        with pytest.raises(RunFailed, match='tool .work. is declared with .*twice.* {"policy": "once"}'):
            await run.result(timeout=30)
    assert called == []


async def test_a_model_that_raises_half_way(place: Place) -> None:
    """The model's error is the run's, and what it had written stays."""

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> Any:
        yield "half an ans"
        raise ConnectionError("the model is away")

    agent = Agent(FunctionModel(stream_function=stream), name="broken")
    async with place.queue(agent) as queue:
        run = await queue.submit("hello")
        with pytest.raises(RunFailed, match="the model is away"):
            await run.result(timeout=30)
        assert await run.text() == "half an ans"


# --- LangGraph -------------------------------------------------------------------------------------------


class Count(TypedDict):
    n: int


def endless() -> Any:
    async def more(state: Count) -> Count:
        return {"n": state["n"] + 1}

    graph = StateGraph(Count)
    graph.add_node("more", more)
    graph.add_edge(START, "more")
    graph.add_conditional_edges("more", lambda state: END if state["n"] >= 100 else "more")
    return graph.compile()


async def test_a_graph_of_any_state(place: Place) -> None:
    """A state without messages is the answer as it is."""
    agent = GraphAgent(endless(), make_input=lambda prompt, history: {"n": prompt})
    async with place.queue(agent) as queue:
        assert await (await queue.submit(95)).result(timeout=30) == {"n": 100}


async def test_a_node_that_is_a_plain_function_and_runs_a_graph(place: Place) -> None:
    """A node in a thread calls another graph in the blocking way: it is a part of that node's superstep."""

    def more(state: Count) -> Count:
        return {"n": state["n"] + 1}

    inner = StateGraph(Count)
    for name in ("one", "two", "three"):
        inner.add_node(name, more)
    inner.add_edge(START, "one")
    inner.add_edge("one", "two")
    inner.add_edge("two", "three")
    compiled = inner.compile()

    outer = StateGraph(Count)
    outer.add_node("first", lambda state: compiled.invoke(state))
    outer.add_node("second", more)
    outer.add_edge(START, "first")
    outer.add_edge("first", "second")
    agent = GraphAgent(outer.compile(), make_input=lambda prompt, history: {"n": prompt})
    async with place.queue(agent) as queue:
        assert await (await queue.submit(0)).result(timeout=30) == {"n": 4}


async def test_a_graph_that_does_not_end(place: Place) -> None:
    """The limit of recursions counts over all supersteps of a run, although each is a run of the graph."""
    agent = GraphAgent(
        endless(), make_input=lambda prompt, history: {"n": prompt}, config={"recursion_limit": 10}
    )
    async with place.queue(agent) as queue:
        run = await queue.submit(0)
        with pytest.raises(RunFailed, match="has not ended after 10 supersteps"):
            await run.result(timeout=30)


async def test_a_plain_runnable_of_langchain(place: Place) -> None:
    """A chain is no graph: its chunks are written as they come, and their sum is the answer."""
    model = GenericFakeChatModel(messages=iter([AIMessage("the bar stops taking orders")]))
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | model
    async with place.queue(chain) as queue:
        run = await queue.submit({"question": "hello"})
        assert await run.result(timeout=30) == "the bar stops taking orders"
        assert await run.text() == "the bar stops taking orders"


# --- the OpenAI Agents SDK -------------------------------------------------------------------------------


class Server(MCPServer):
    """A server of tools in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Any] = []

    @property
    def name(self) -> str:
        return "here"

    async def connect(self) -> None: ...

    async def cleanup(self) -> None: ...

    async def list_tools(self, *args: Any, **kwargs: Any) -> list[McpTool]:
        return [McpTool(name="look", input_schema={"type": "object", "properties": {}})]

    async def call_tool(self, tool_name: str, arguments: Any, *args: Any, **kwargs: Any) -> CallToolResult:
        self.called.append(tool_name)
        return CallToolResult(content=[TextContent(type="text", text="seen")])

    async def list_prompts(self) -> Any:
        raise NotImplementedError

    async def get_prompt(self, name: str, arguments: Any = None) -> Any:
        raise NotImplementedError


async def test_tools_of_an_mcp_server(tmp_path: Path) -> None:
    """The call of a tool of an MCP server is a step like any other: it is not made again after a crash."""
    with OpenAIServer([Reply(tools=[Tool("look", id="call_1")]), Reply("done")]) as server:
        tools = Server()
        client = AsyncOpenAI(base_url=server.url, api_key="none")
        model = OpenAIResponsesModel(model="scripted", openai_client=client)
        agent = SdkOnly(name="looker", model=model, mcp_servers=[tools])
        jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
        queue = AgentQueue(agent, jobs=jobs)
        async with run_jobs(jobs) as run:
            run.crash_at("tool:look call_1", when="recorded")
            asked = await queue.submit("hello")
            await run.until_idle()
            assert await asked.result() == "done"
        assert tools.called == ["look"]
        assert len(server.paid) == 2


async def test_an_output_with_a_form(durable: Place) -> None:
    """What an agent of the SDK declares as its output is what a durable run gives."""
    with OpenAIServer([Reply('{"text": "last call", "year": 1872}')]) as server:
        client = AsyncOpenAI(base_url=server.url, api_key="none")
        model = OpenAIResponsesModel(model="scripted", openai_client=client)
        agent = SdkOnly(name="typed", model=model, output_type=Fact)
        async with durable.queue(agent) as queue:
            run = await queue.submit("hello")
            assert await run.result(timeout=30) == Fact(text="last call", year=1872)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [messages_of, partial(messages_in, "hello"), partial(input_of, "hello"), partial(sdk_input_of, "hello")],
)
def test_histories_of_something_else(form: Any) -> None:
    """What is no message is refused with what it should be, not passed on to a model."""
    with pytest.raises(BadArguments, match="a conversation with .* not 42"):
        form([42])


def test_what_is_no_agent_of_the_library() -> None:
    """Each wrapper says what it takes."""
    with pytest.raises(BadDeclaration, match="an agent of pydantic-ai, not"):
        PydanticAgent("agent")  # type: ignore[arg-type]
    with pytest.raises(BadDeclaration, match="'replay' or 'continue', not 'once'"):
        PydanticAgent(Agent(TestModel()), on_crash="once")
    with pytest.raises(BadDeclaration, match="call .compile()"):
        GraphAgent(StateGraph(Count))  # type: ignore[arg-type]
    with pytest.raises(BadDeclaration, match="an agent of the OpenAI Agents SDK, not"):
        SdkAgent("agent")  # type: ignore[arg-type]
    with pytest.raises(BadDeclaration, match="a collection of names"):
        SdkAgent(SdkOnly(name="a"), once="refund")
