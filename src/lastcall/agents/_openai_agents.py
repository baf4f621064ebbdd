"""The OpenAI Agents SDK: each request of a model and each call of a function tool is a step. The only file that
imports agents, the package of that SDK; its responses are openai's.

Who calls it: `_adapters`, for agents of the SDK. Theory of operation: the SDK's runner is left as it is, and is given a
copy of the agent (and of those that it hands off to) whose models and tools go through the run's `Turn`. A run that is
started again runs the runner again, and takes from the job what has ended. So the SDK's own `RunState` is only needed
inside one attempt, for approvals, and is never stored.

What can go wrong: tools that are not functions (a computer, a shell) and sessions are the SDK's own business: they are
no steps. An agent that is used as a tool is one step as a whole, and nobody can be asked in its middle.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from agents import Agent, FunctionTool, Handoff, Model, ModelProvider, ModelResponse, RunConfig, Runner, Usage
from agents.items import ToolApprovalItem
from agents.run_config import DEFAULT_MAX_TURNS
from agents.tool_context import ToolContext
from openai.types.responses import Response

from ..exceptions import AgentError, BadArguments, BadDeclaration
from ..jobs import StepPolicy
from ._asking import answer_in, ask, hear, shown
from ._turn import AgentAdapter, Turn


class SdkAgent:
    """An agent of the OpenAI Agents SDK, with what it needs for a run. One without any of it needs no wrapping.

    `context`, `run_config` and `max_turns`: as for `Runner.run`. `once`: names of function tools which are not called
    again by themselves when the process died in the middle of a call.

        queue = AgentQueue(SdkAgent(agent, once={"charge"}), jobs=jobs)
    """

    def __init__(
        self,
        agent: Agent[Any],
        *,
        context: Any = None,
        run_config: RunConfig | None = None,
        max_turns: int | None = DEFAULT_MAX_TURNS,
        once: Collection[str] = (),
    ) -> None:
        if not isinstance(agent, Agent):
            raise BadDeclaration(f"SdkAgent takes an agent of the OpenAI Agents SDK, not {agent!r}")
        if isinstance(once, str):
            raise BadDeclaration(f"SdkAgent(once=...) takes a collection of names, not {once!r}")
        self.agent = agent
        self.context = context
        self.run_config = run_config or RunConfig()
        self.max_turns = max_turns
        self.once = frozenset(once)

    @property
    def returns(self) -> Any:
        """By which type its output is stored and read again; that of another agent may be of another one."""
        output = self.agent.output_type
        return output if isinstance(output, type) and not self.agent.handoffs else Any

    async def run(self, turn: Turn, prompt: Any, history: Sequence[Any]) -> Any:
        """The final output. In a job, finished requests and tool calls are not made again."""
        steps = _Steps(turn, self.once)
        agent, config = steps.agent(self.agent), steps.config(self.run_config)
        given: Any = input_of(prompt, history)
        while True:
            result = await Runner.run(
                agent, given, context=self.context, run_config=config, max_turns=self.max_turns
            )
            if not result.interruptions:
                return result.final_output
            given = result.to_state()
            for asked in result.interruptions:
                about = {"tool": asked.tool_name, "arguments": _json(asked.arguments or "null")}
                await ask(turn, "approval", _id_of(asked), about)
            for asked in result.interruptions:
                await _decide(turn, given, asked)


def adapt(agent: Any) -> AgentAdapter | None:
    """An adapter, if this is an agent of the SDK."""
    if isinstance(agent, SdkAgent):
        return agent
    return SdkAgent(agent) if isinstance(agent, Agent) else None


def input_of(prompt: Any, history: Sequence[Any]) -> Any:
    """The conversation as the SDK takes it. Raises `BadArguments` for what is neither text nor mappings."""
    if isinstance(prompt, str) and not history:
        return prompt
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    items = [*history, *([asked] if isinstance(asked, Mapping) else asked)]
    for item in items:
        if not isinstance(item, Mapping):
            raise BadArguments(
                f"a conversation with the Agents SDK has mappings with role and content, not {item!r}"
            )
    return items


async def _decide(turn: Turn, state: Any, asked: ToolApprovalItem) -> None:
    """Somebody's word about one call, into the state that the runner goes on with."""
    answer = answer_in(await hear(turn, "approval", _id_of(asked)))
    if answer.approved:
        state.approve(asked)
    else:
        state.reject(asked, rejection_message=answer.message)


def _id_of(asked: ToolApprovalItem) -> str:
    return asked.call_id or asked.tool_name or "call"


class _Steps:
    """The agents of one run, and what makes their requests and calls into steps."""

    def __init__(self, turn: Turn, once: Collection[str]) -> None:
        self._turn = turn
        self._once = once
        # By id, with the agent itself so that the id stays its own. Agents may hand off to each other in circles.
        self._copies: dict[int, tuple[Agent[Any], Agent[Any]]] = {}

    def config(self, config: RunConfig) -> RunConfig:
        """Models by name come from the run's provider."""
        model = _StepModel(self._turn, config.model) if isinstance(config.model, Model) else config.model
        provider = _StepProvider(self._turn, config.model_provider)
        return dataclasses.replace(config, model=model, model_provider=provider)

    def agent(self, agent: Agent[Any]) -> Agent[Any]:
        """A copy of it, and of those behind it."""
        known = self._copies.get(id(agent))
        if known is not None:
            return known[1]
        twin = agent.clone()
        self._copies[id(agent)] = (agent, twin)
        if isinstance(agent.model, Model):
            twin.model = _StepModel(self._turn, agent.model)
        twin.tools = [self._tool(tool) for tool in agent.tools]
        twin.handoffs = [self._handoff(one) for one in agent.handoffs]
        if agent.mcp_servers:
            self._wrap_mcp(twin)
        return twin

    def _wrap_mcp(self, twin: Agent[Any]) -> None:
        listed = twin.get_mcp_tools

        async def get_mcp_tools(run_context: Any) -> list[Any]:
            return [self._tool(tool) for tool in await listed(run_context)]

        # The SDK makes these tools anew for each request, so there is no list in which they could be replaced.
        twin.get_mcp_tools = get_mcp_tools  # type: ignore[method-assign]

    def _handoff(self, one: Any) -> Any:
        if isinstance(one, Agent):
            return self.agent(one)
        if not isinstance(one, Handoff):
            return one
        twin = copy.copy(one)

        async def invoke(ctx: Any, arguments: str) -> Any:
            return self.agent(await one.on_invoke_handoff(ctx, arguments))

        twin.on_invoke_handoff = invoke
        return twin

    def _tool(self, tool: Any) -> Any:
        if not isinstance(tool, FunctionTool):
            return tool
        twin = copy.copy(tool)

        async def invoke(ctx: ToolContext[Any], arguments: str) -> Any:
            return await self._call(tool, ctx, arguments)

        twin.on_invoke_tool = invoke
        return twin

    async def _call(self, tool: FunctionTool, ctx: ToolContext[Any], arguments: str) -> Any:
        turn, called = self._turn, {"id": ctx.tool_call_id, "name": tool.name}

        async def call() -> Any:
            await turn.emit("tool.call", {**called, "arguments": _json(arguments)})
            value = await tool.on_invoke_tool(ctx, arguments)
            await turn.emit("tool.result", called)
            return value.model_dump(mode="json") if hasattr(value, "model_dump") else value

        turn.spend(tool_calls=1)
        policy = StepPolicy.ONCE if tool.name in self._once else StepPolicy.REPLAY
        return await turn.step(call, name=f"tool:{tool.name} {shown(ctx.tool_call_id)}", policy=policy)


class _StepProvider(ModelProvider):
    def __init__(self, turn: Turn, inner: ModelProvider) -> None:
        self._turn = turn
        self._inner = inner

    def get_model(self, model_name: str | None) -> Model:
        return _StepModel(self._turn, self._inner.get_model(model_name))

    async def aclose(self) -> None:
        await self._inner.aclose()


class _StepModel(Model):
    """A model whose requests are steps. It streams, whether the runner asked for that or not."""

    def __init__(self, turn: Turn, inner: Model) -> None:
        self._turn = turn
        self._inner = inner

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        async def request() -> Any:
            return await self._request(*args, **kwargs)

        recorded = await self._turn.step(request, name="model")
        response = Response.model_validate(recorded)
        usage = response.usage
        if usage is None:
            return ModelResponse(response.output, Usage(requests=1), response.id)
        self._turn.spend(tokens=usage.total_tokens)
        counted = Usage(
            requests=1,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            input_tokens_details=usage.input_tokens_details,
            output_tokens_details=usage.output_tokens_details,
        )
        return ModelResponse(response.output, counted, response.id)

    async def _request(self, *args: Any, **kwargs: Any) -> Any:
        response: Any = None
        events: Any = self._inner.stream_response(*args, **kwargs)
        # Closed here and at once, so that a cancellation closes the connection to the model.
        async with aclosing(events):
            async for event in events:
                if event.type == "response.output_text.delta":
                    await self._turn.write(event.delta)
                elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                    response = event.response
        if response is None or response.status == "failed":
            error = None if response is None else response.error
            raise AgentError(
                f"the model's answer has not been completed: {error or 'its stream ended early'}"
            )
        return response.model_dump(mode="json", by_alias=True)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Not asked for by `Runner.run`."""
        return self._inner.stream_response(*args, **kwargs)

    async def close(self) -> None:
        await self._inner.close()


def _json(arguments: str) -> Any:
    """The arguments of a call, which a model may have written wrongly."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
