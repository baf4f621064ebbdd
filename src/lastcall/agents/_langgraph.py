"""LangGraph: each superstep of a graph is a step of the job. The only file that imports langgraph.

Who calls it: `_adapters`, for compiled graphs. Theory of operation: a run has a checkpointer of its own, in memory.
Before a second superstep begins, LangGraph's drain (`RunControl`) ends the graph at that very place; what the superstep
has put into the checkpointer is the value of a step, written under the fence of the attempt; and the next step goes on
from there. So a run that is started again fills its checkpointer from its steps, and a deploy hands over between two
supersteps, of the graph or of a subgraph in it.

What can go wrong: the process dies inside a superstep; then all its nodes run again, also those that had ended beside
the others. A subgraph compiled with `checkpointer=False` begins anew when a deploy comes in its middle. State that
LangGraph cannot serialise, or more of it than a job's payload may have (`PayloadTooLarge`).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained, GraphRecursionError
from langgraph.pregel import Pregel
from langgraph.runtime import RunControl
from langgraph.types import Command

from ..exceptions import BadArguments, BadDeclaration
from ._asking import ask, hear
from ._turn import AgentAdapter, Turn

# LangGraph's own default, nearly. Its count begins anew with each step of ours, so we count.
_SUPERSTEPS_MAX = 10_000


class GraphAgent:
    """A compiled graph, with what it needs for a run. A graph of messages needs no wrapping.

    `make_input(prompt, history)`: the graph's input; default: `{"messages": [...]}`. `read_output(state)`: the answer
    in its final state; default: the text of the last message, or the whole state. `config` and `context` as for
    `ainvoke`; the graph's own checkpointer is not used. Nodes that write text with `get_stream_writer()` write the
    answer; what else they write there is an event `langgraph.custom`.

        queue = AgentQueue(GraphAgent(graph, make_input=lambda prompt, history: {"question": prompt}), jobs=jobs)
    """

    def __init__(
        self,
        graph: Pregel[Any, Any, Any, Any],
        *,
        make_input: Callable[[Any, Sequence[Any]], Any] | None = None,
        read_output: Callable[[Any], Any] | None = None,
        config: RunnableConfig | None = None,
        context: Any = None,
    ) -> None:
        if not isinstance(graph, Pregel):
            raise BadDeclaration(
                f"GraphAgent takes a compiled graph of LangGraph, not {graph!r}: call .compile()"
            )
        self.graph = graph
        self.config: RunnableConfig = config or {}
        self.context = context
        self.make_input = make_input or messages_in
        self.read_output = read_output or answer_in

    async def run(self, turn: Turn, prompt: Any, history: Sequence[Any]) -> Any:
        """The graph's answer. In a job, supersteps that have ended are not run again."""
        return await _GraphRun(self, turn).to_end(self.make_input(prompt, history))


def adapt(agent: Any) -> AgentAdapter | None:
    """An adapter, if this is a compiled graph."""
    if isinstance(agent, GraphAgent):
        return agent
    return GraphAgent(agent) if isinstance(agent, Pregel) else None


def messages_in(prompt: Any, history: Sequence[Any]) -> dict[str, Any]:
    """The input of a graph whose state has messages. Raises `BadArguments` for a history of anything else."""
    for said in history:
        if not isinstance(said, BaseMessage | Mapping):
            raise BadArguments(
                f"a conversation with a graph has messages or mappings with a role, not {said!r}"
            )
    asked = {"role": "user", "content": prompt} if isinstance(prompt, str) else prompt
    return {"messages": [*history, asked]}


def answer_in(state: Any) -> Any:
    """What a final state says: the text of its last message, or all of it."""
    messages = state.get("messages") if isinstance(state, Mapping) else None
    if isinstance(messages, Sequence) and messages and isinstance(messages[-1], BaseMessage):
        return str(messages[-1].text)
    return state


class _GraphRun:
    """One run: its checkpoints, and the steps that they are kept in."""

    def __init__(self, agent: GraphAgent, turn: Turn) -> None:
        self._agent = agent
        self._turn = turn
        self._saver = _StepSaver()
        self._graph = agent.graph.copy(update={"checkpointer": self._saver})
        config = agent.config
        self._config: RunnableConfig = {
            **config,
            "configurable": {**config.get("configurable", {}), "thread_id": turn.id},
        }
        limit = config.get("recursion_limit") or (agent.graph.config or {}).get("recursion_limit")
        self._supersteps_max = limit or _SUPERSTEPS_MAX

    async def to_end(self, given: Any) -> Any:
        for _ in range(self._supersteps_max):
            ended = await self._superstep(given)
            given = None
            if ended["interrupts"]:
                for one in ended["interrupts"]:
                    await ask(self._turn, "interrupt", one["id"], {"value": one["value"]})
                given = Command(
                    resume={
                        one["id"]: await hear(self._turn, "interrupt", one["id"])
                        for one in ended["interrupts"]
                    }
                )
            elif not ended["drained"]:
                state = await self._graph.aget_state(self._config)
                return self._agent.read_output(_output_of(self._graph, state.values))
        raise GraphRecursionError(
            f"run {self._turn.id}: the graph has not ended after {self._supersteps_max} supersteps; "
            "raise recursion_limit in its config, if that is meant"
        )

    async def _superstep(self, given: Any) -> Any:
        fresh = False

        async def run() -> Any:
            nonlocal fresh
            fresh = True
            return await self._run_one(given)

        ended = await self._turn.step(run, name="superstep")
        if not fresh:
            self._saver.fill(self._turn.id, ended["put"])
        self._turn.spend(tokens=ended["tokens"], tool_calls=ended["tool_calls"])
        return ended

    async def _run_one(self, given: Any) -> dict[str, Any]:
        """Inside a step: up to the next checkpoint."""
        control = _OneSuperstep()
        self._saver.begin()
        told = _Told(self._turn)
        drained = False
        try:
            async with self._draining(control):
                stream: Any = self._graph.astream(
                    given,
                    self._config,
                    context=self._agent.context,
                    stream_mode=["messages", "updates", "custom"],
                    control=control,
                )
                # Closed here and at once: a cancellation that comes in `hear` would leave its nodes, and their calls of
                # models, running until somebody collects the garbage.
                async with aclosing(stream):
                    async for mode, data in stream:
                        await told.hear(mode, data)
        except GraphDrained:
            drained = True
        return {
            "put": self._saver.put_since_begin(self._turn.id),
            "drained": drained,
            "interrupts": told.interrupts,
            "tokens": told.tokens,
            "tool_calls": told.tool_calls,
        }

    @asynccontextmanager
    async def _draining(self, control: RunControl) -> AsyncIterator[None]:
        """While the graph runs: a shutdown ends it at the next superstep of the subgraph that it is in."""
        if not self._turn.durable:
            yield  # nobody would go on
            return

        async def drain() -> None:
            await self._turn.shutdown.wait()
            control.request_drain()

        task = asyncio.create_task(drain(), name="drain of a graph")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class _OneSuperstep(RunControl):
    """Asks the graph to stop before its second superstep, and does not ask the subgraphs that run inside the first one.

    Every loop of a run asks its control before each superstep. That of the graph itself does so in the task that reads
    its stream; those of subgraphs are in tasks of their own, or in threads.
    """

    __slots__ = ("_asked", "_reader")

    def __init__(self) -> None:
        super().__init__()
        self._reader = asyncio.current_task()
        self._asked = 0

    @property
    def drain_requested(self) -> bool:
        if _task_here() is self._reader:
            self._asked += 1
        return self._asked > 1 or super().drain_requested


def _task_here() -> asyncio.Task[Any] | None:
    """None in the thread of a node that is a plain function, which may run a graph, too."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class _Told:
    """What a superstep tells while it runs: text, calls of tools, tokens, questions."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.interrupts: list[dict[str, Any]] = []
        self.tokens = 0
        self.tool_calls = 0

    async def hear(self, mode: str, data: Any) -> None:
        if mode == "messages":
            message = data[0]
            if isinstance(message, AIMessage | AIMessageChunk) and message.text:
                await self._turn.write(str(message.text))
            return
        if mode == "custom":
            await (
                self._turn.write(data) if isinstance(data, str) else self._turn.emit("langgraph.custom", data)
            )
            return
        for node, update in data.items():
            if node == "__interrupt__":
                self.interrupts.extend({"id": one.id, "value": one.value} for one in update)
            for message in _messages_of(update):
                await self._hear_message(message)

    async def _hear_message(self, message: Any) -> None:
        if not isinstance(message, AIMessage):
            return
        if message.usage_metadata is not None:
            self.tokens += message.usage_metadata["total_tokens"]
        for call in message.tool_calls:
            self.tool_calls += 1
            called = {"id": call["id"], "name": call["name"], "arguments": call["args"]}
            await self._turn.emit("tool.call", called)


def _messages_of(update: Any) -> Sequence[Any]:
    messages = update.get("messages") if isinstance(update, Mapping) else None
    if isinstance(messages, BaseMessage):
        return (messages,)
    return messages if isinstance(messages, Sequence) and not isinstance(messages, str) else ()


def _output_of(graph: Pregel[Any, Any, Any, Any], values: Any) -> Any:
    """Of a graph whose output is a part of its state."""
    keys = graph.output_channels
    if isinstance(keys, str) or not isinstance(values, Mapping):
        return values
    return {key: values[key] for key in keys if key in values}


class _StepSaver(InMemorySaver):
    """LangGraph's checkpointer in memory, which tells what a superstep has put there, and takes it back from a step.

    Threads have one id here: the run's. Bytes are kept in base64, as steps are JSON.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: tuple[set[Any], set[Any], set[Any]] = (set(), set(), set())

    def begin(self) -> None:
        """A superstep runs from now on."""
        self._known = (set(self._checkpoints()), set(self._all_writes()), set(self.blobs))

    def _checkpoints(self) -> dict[tuple[str, str], Any]:
        return {
            (space, checkpoint_id): entry
            for spaces in self.storage.values()
            for space, checkpoints in spaces.items()
            for checkpoint_id, entry in checkpoints.items()
        }

    def _all_writes(self) -> dict[tuple[str, str, str, int], Any]:
        return {
            (space, checkpoint_id, task, index): entry
            for (_, space, checkpoint_id), writes in self.writes.items()
            for (task, index), entry in writes.items()
        }

    def put_since_begin(self, thread_id: str) -> dict[str, Any]:
        """What is new, as JSON."""
        checkpoints, writes, blobs = self._known
        return {
            "checkpoints": [
                [*key, _text(entry[0]), _text(entry[1]), entry[2]]
                for key, entry in self._checkpoints().items()
                if key not in checkpoints
            ],
            "writes": [
                [*key, entry[1], _text(entry[2]), entry[3]]
                for key, entry in self._all_writes().items()
                if key not in writes
            ],
            "blobs": [
                [space, channel, version, _text(blob)]
                for (thread, space, channel, version), blob in self.blobs.items()
                if (thread, space, channel, version) not in blobs
            ],
        }

    def fill(self, thread_id: str, put: Mapping[str, Any]) -> None:
        """As if the superstep had been run here."""
        for space, checkpoint_id, checkpoint, metadata, parent in put["checkpoints"]:
            self.storage[thread_id][space][checkpoint_id] = (_typed(checkpoint), _typed(metadata), parent)
        for space, checkpoint_id, task, index, channel, value, path in put["writes"]:
            entry = (task, channel, _typed(value), path)
            self.writes[(thread_id, space, checkpoint_id)][(task, index)] = entry
        for space, channel, version, blob in put["blobs"]:
            self.blobs[(thread_id, space, channel, version)] = _typed(blob)


def _text(typed: tuple[str, bytes]) -> list[str]:
    return [typed[0], base64.b64encode(typed[1]).decode()]


def _typed(text: Sequence[str]) -> tuple[str, bytes]:
    return text[0], base64.b64decode(text[1])
