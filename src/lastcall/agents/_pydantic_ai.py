"""pydantic-ai agents: each model request and each tool call is a step. The only file that imports pydantic_ai.

Who calls it: `_adapters`, for agents of pydantic-ai. It owns one `_Durability` for each run, which is handed to that
run as a capability: pydantic-ai's own interface for durable engines. So what the agent does between its steps is run
again after a crash, and what has ended is not: its answer is taken from the job.

What can go wrong: a toolset without an `id` (pydantic-ai says which, and what to do), code of the agent that does other
things when it is run again (`StepMismatch`), a value of a step that is no JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, NamedTuple

from pydantic_ai import RunContext, ToolsetTool
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    CallableOperationBackend,
    CapabilityOperationId,
    DurabilityEngineSpec,
    DurableOperationBackend,
    DurableOperationId,
    EventStreamHandlerId,
    JournalOperationNamer,
    ModelRequestId,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    ToolsetGetInstructionsId,
    ToolsetGetToolsId,
    ToolsetValidateToolArgumentsId,
    conversation_id_from_run_id,
)
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.usage import UsageLimits

from ..exceptions import BadArguments, BadDeclaration
from ..jobs import StepPolicy
from ._asking import answer_in, ask, hear, shown
from ._so_far import emitted_so_far, text_in
from ._turn import AgentAdapter, Turn

# Under which key a tool's `metadata=` declares how its calls are run.
_METADATA = "lastcall"

# What a model is told that was cut off, after its own words.
_GO_ON = (
    "Your answer was cut off by a technical fault. Go on exactly where it stops, in the middle of the word if need be. "
    "Repeat nothing, and say nothing about this."
)

_in_step: ContextVar[bool] = ContextVar("lastcall_pydantic_ai_in_step", default=False)


class PydanticAgent:
    """A pydantic-ai agent, with what it needs for a run. An agent without any of it needs no wrapping.

    `deps`: what its tools get as `ctx.deps`. `usage_limits`: pydantic-ai's own, beside the queue's budget.
    `on_crash`: what becomes of a request whose answer was cut off in the middle of its text. `"replay"` (default): it
    is made again, and readers are told to take back what they had (`step.reset`). `"continue"`: the model is given what
    it had said, and asked to go on; that saves the rest of the answer, and how well it fits is up to the model.
    `stream`: False for requests that are not streamed; with `openai_background=True` in the model's settings they are
    bought once, whatever dies, for the provider's id of the response is what the first step remembers.

        queue = AgentQueue(PydanticAgent(agent, deps=Deps(db)), jobs=jobs)
    """

    def __init__(
        self,
        agent: AbstractAgent[Any, Any],
        *,
        deps: Any = None,
        usage_limits: UsageLimits | None = None,
        on_crash: StepPolicy | str = StepPolicy.REPLAY,
        stream: bool = True,
    ) -> None:
        if not isinstance(agent, AbstractAgent):
            raise BadDeclaration(f"PydanticAgent takes an agent of pydantic-ai, not {agent!r}")
        if on_crash not in (StepPolicy.REPLAY, StepPolicy.CONTINUE):
            raise BadDeclaration(f"PydanticAgent(on_crash=...) is 'replay' or 'continue', not {on_crash!r}")
        self.agent = agent
        self.deps = deps
        self.usage_limits = usage_limits
        self.on_crash = StepPolicy(on_crash)
        self.stream = stream

    @property
    def returns(self) -> Any:
        """By which type its output is stored and read again."""
        output = self.agent.output_type
        return output if isinstance(output, type) else Any

    async def run(self, turn: Turn, prompt: Any, history: Sequence[Any]) -> Any:
        """The agent's output. In a job, finished requests and tool calls are not made again."""

        async def sleep(seconds: float) -> None:
            # Between two looks at a response in the background; in a job a shutdown hands over at the next one.
            await (turn.shutdown.sleep(seconds) if turn.durable else asyncio.sleep(seconds))

        with self.agent.using_sleep(sleep):
            result = await self.agent.run(
                prompt,
                message_history=messages_of(history),
                deps=self.deps,
                usage_limits=self.usage_limits,
                capabilities=[_Durability(turn, self)],
            )
        return result.output


def adapt(agent: Any) -> AgentAdapter | None:
    """An adapter, if this is an agent of pydantic-ai."""
    if isinstance(agent, PydanticAgent):
        return agent
    return PydanticAgent(agent) if isinstance(agent, AbstractAgent) else None


def messages_of(history: Sequence[Any]) -> list[ModelMessage]:
    """pydantic-ai's messages of a conversation: its own, also as JSON, or `{"role": ..., "content": ...}`.

    Raises `BadArguments` for anything else.
    """
    messages: list[ModelMessage] = []
    for said in history:
        if isinstance(said, ModelRequest | ModelResponse):
            messages.append(said)
        elif isinstance(said, Mapping) and "kind" in said:
            messages.extend(ModelMessagesTypeAdapter.validate_python([said]))
        elif isinstance(said, Mapping) and said.get("role") == "user":
            messages.append(ModelRequest([UserPromptPart(said.get("content", ""))]))
        elif isinstance(said, Mapping) and said.get("role") == "assistant":
            messages.append(ModelResponse([TextPart(str(said.get("content", "")))]))
        else:
            raise BadArguments(
                "a conversation with an agent of pydantic-ai has its messages, or mappings with the role user or "
                f"assistant, not {said!r}"
            )
    return messages


class _Unit(NamedTuple):
    """How one operation is run: pydantic-ai calls this its config."""

    policy: StepPolicy


_REPLAY = _Unit(StepPolicy.REPLAY)


class _Durability(BaseDurabilityCapability[Any]):
    """Makes one run of an agent durable through its `Turn`."""

    engine_spec = DurabilityEngineSpec(
        engine_name="lastcall",
        durable_unit_noun="step",
        durable_container_noun="job",
        codec=JSON_CODEC,
        # Where a server is only needed by steps that are remembered, nobody connects to it.
        toolset_lifecycles={
            "function": "enter-always",
            "mcp": "enter-in-durable-unit",
            "dynamic": "enter-never",
        },
        tool_config_key=_METADATA,
    )

    def __init__(self, turn: Turn, options: PydanticAgent) -> None:
        handler = self._stream if options.stream else None
        super().__init__(name=options.agent.name or "agent", event_stream_handler=handler)
        self._turn = turn
        self._options = options

    @property
    def in_durable_context(self) -> bool:
        return not _in_step.get()

    def get_durable_operation_backend(self) -> DurableOperationBackend[Any]:
        return _Backend(self._turn, self._options)

    def get_wrapper_model(self, model: Model) -> Model | None:
        return _Continuing(model) if _in_step.get() else None

    def get_default_run_id(self) -> str | None:
        return self._turn.id if self.in_durable_context else None

    def get_default_conversation_id(self, run_id: str) -> str | None:
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def _stream(self, ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        """Inside the step of a streamed request: its text, as it comes."""
        async for event in events:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                text = event.part.content
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                text = event.delta.content_delta
            else:
                continue
            if text:
                await self._turn.write(text)

    async def after_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Also for a request that is remembered: each attempt counts from nothing."""
        if self.in_durable_context:
            self._turn.spend(tokens=response.usage.total_tokens)
        return response

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Calls that somebody must approve, or carry out elsewhere: wait for the word, without a worker."""
        if not self.in_durable_context:
            return None
        for call in requests.approvals:
            await ask(self._turn, "approval", call.tool_call_id, _about(call))
        for call in requests.calls:
            await ask(self._turn, "result", call.tool_call_id, _about(call))
        approvals = {call.tool_call_id: await self._approval(call) for call in requests.approvals}
        results = {
            call.tool_call_id: await hear(self._turn, "result", call.tool_call_id) for call in requests.calls
        }
        return requests.build_results(approvals=approvals, calls=results)

    async def _approval(self, call: ToolCallPart) -> ToolApproved | ToolDenied:
        answer = answer_in(await hear(self._turn, "approval", call.tool_call_id))
        if answer.approved:
            return ToolApproved(override_args=answer.arguments)
        return ToolDenied(answer.message) if answer.message is not None else ToolDenied()


def _about(call: ToolCallPart) -> dict[str, Any]:
    return {"tool": call.tool_name, "arguments": call.args_as_dict()}


class _Names(JournalOperationNamer):
    """Names of operations, as they are shown among a job's steps: `model`, `tool:search`. They are stored: never
    change one."""

    def operation_name(self, operation_id: DurableOperationId) -> str:
        match operation_id:
            case ModelRequestId():
                return "model"
            case ToolsetCallToolId(toolset_kind="mcp", toolset_id=toolset):
                return f"tool of {toolset}"
            case ToolsetCallToolId():
                return "tool"
            case ToolsetValidateToolArgumentsId():
                return "check"
            case ToolsetGetToolsId(toolset_id=toolset):
                return f"tools of {toolset}"
            case ToolsetGetInstructionsId(toolset_id=toolset):
                return f"instructions of {toolset}"
            case CapabilityOperationId(capability_id=capability, operation=operation):
                return f"{capability}.{operation}"
            case _:
                return type(operation_id).__name__.removesuffix("Id")


class _Backend(CallableOperationBackend[_Unit]):
    """Where pydantic-ai's operations become steps."""

    def __init__(self, turn: Turn, options: PydanticAgent) -> None:
        model = _Unit(options.on_crash if options.stream else StepPolicy.REPLAY)
        config = RoleBasedOperationConfig[_Unit](
            model=model, event=_REPLAY, capability=_REPLAY, tool=_REPLAY, resolve_tool=_unit_of_tool
        )
        super().__init__(namer=_Names("agent"), config=config)
        self._turn = turn

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: _Unit,
    ) -> object:
        # Of the cache key, whose form is nobody's business, only the run's context, as pydantic-ai's own engines do.
        ctx = next((part for part in cache_key if isinstance(part, RunContext)), None)
        match operation_id:
            case EventStreamHandlerId():
                return None  # what happens outside of model requests is told by the steps themselves
            case ModelRequestId(streaming=streaming):
                unit = partial(self._request, body, streaming)
            case ToolsetCallToolId():
                self._turn.spend(tool_calls=1)
                return await self._step_of_tool(name, body, ctx, config)
            case _:
                unit = partial(_run, body)
        return await self._turn.step(unit, name=_of_call(name, ctx), policy=config.policy)

    async def _request(self, body: Callable[[], Awaitable[object]], streaming: bool) -> Any:
        before = text_in(emitted_so_far())
        response: Any = await _run(body)
        if not streaming and response.get("state") != "suspended":
            for part in _text_parts(response):
                await self._turn.write(part["content"])
        if before:
            first = next(iter(_text_parts(response)), None)
            if first is None:
                response["parts"].insert(0, {"part_kind": "text", "content": before})
            else:
                first["content"] = before + first["content"]
        return response

    async def _step_of_tool(
        self, name: str, body: Callable[[], Awaitable[object]], ctx: RunContext[Any] | None, config: _Unit
    ) -> object:
        async def call() -> Any:
            if ctx is not None:
                await self._turn.emit("tool.call", _call_in(ctx))
            payload = await _run(body)
            if ctx is not None:
                await self._turn.emit("tool.result", {"id": ctx.tool_call_id, "name": ctx.tool_name})
            return {"recorded": payload}

        recorded = await self._turn.step(call, name=_of_call(name, ctx), policy=config.policy)
        if isinstance(recorded, Mapping) and recorded.keys() == {"recorded"}:
            return recorded["recorded"]
        # Somebody has decided what became of a call declared `once`: with the value alone, not with its envelope.
        return {"kind": "tool_return", "result": recorded}


class _Continuing(WrapperModel):
    """Asks a model to go on where an earlier attempt at the step was cut off."""

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        text = text_in(emitted_so_far())
        if text:
            said = ModelResponse([TextPart(text)])
            messages = [*messages, said, ModelRequest([UserPromptPart(_GO_ON)])]
        async with self.wrapped.request_stream(
            messages, model_settings, model_request_parameters, run_context
        ) as stream:
            yield stream


async def _run(body: Callable[[], Awaitable[object]]) -> Any:
    """As a step, which is remembered as a whole: agents that run inside one make no steps of their own."""
    token = _in_step.set(True)
    try:
        return await body()
    finally:
        _in_step.reset(token)


def _of_call(name: str, ctx: RunContext[Any] | None) -> str:
    """The name of a step that belongs to the call of a tool: calls of one tool run side by side."""
    return name if ctx is None or ctx.tool_call_id is None else f"{name} {shown(ctx.tool_call_id)}"


def _call_in(ctx: RunContext[Any]) -> dict[str, Any]:
    """The call of a tool that the run is at."""
    called = {"id": ctx.tool_call_id, "name": ctx.tool_name, "arguments": None}
    for message in reversed(ctx.messages):
        for part in message.parts:
            if isinstance(part, ToolCallPart) and part.tool_call_id == ctx.tool_call_id:
                return {**called, "arguments": part.args_as_dict()}
    return called


def _text_parts(response: Any) -> list[dict[str, Any]]:
    return [part for part in response.get("parts", ()) if part.get("part_kind") == "text"]


def _unit_of_tool(operation_id: DurableOperationId, tool: object | None, name: str) -> _Unit | Literal[False]:
    """How the calls of a tool are run: by its `metadata={"lastcall": {"policy": "once"}}`, or False for no step."""
    metadata = tool.tool_def.metadata if isinstance(tool, ToolsetTool) else None
    declared = (metadata or {}).get(_METADATA)
    if declared is None or declared is False:
        return False if declared is False else _REPLAY
    allowed = (StepPolicy.REPLAY, StepPolicy.ONCE)
    if (
        not isinstance(declared, Mapping)
        or declared.keys() - {"policy"}
        or declared.get("policy") not in allowed
    ):
        raise BadDeclaration(
            f"tool {name!r} is declared with metadata={{{_METADATA!r}: {declared!r}}}; what is known is "
            '{"policy": "replay"}, {"policy": "once"}, and False for a tool whose calls are no steps'
        )
    if isinstance(operation_id, ToolsetValidateToolArgumentsId):
        return _REPLAY
    return _Unit(StepPolicy(declared["policy"]))
