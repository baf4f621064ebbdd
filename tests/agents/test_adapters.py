"""What may be an agent: functions, generators, objects with `run`, runnables; and what may not, told with a list."""

import asyncio
import functools
import sys
import threading
import types
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import pytest

from lastcall import current_shutdown
from lastcall.agents import AgentQueue, Turn
from lastcall.agents._adapters import adapter_for
from lastcall.exceptions import RunFailed, UnknownAgent
from lastcall.jobs import Jobs
from tests.agents.places import PATIENCE_SECONDS, Place

pytestmark = pytest.mark.loops("asyncio")


async def function(prompt: str) -> str:
    return f"{prompt}!"


async def with_turn(turn: Turn, prompt: str) -> str:
    await turn.write("...")
    return f"{prompt}!"


async def with_named_turn(turn: "Turn", prompt: str, history: Sequence[Any] = ()) -> str:
    return f"{prompt}!" + "?" * len(history)


def plain(prompt: str) -> str:
    assert threading.current_thread() is not threading.main_thread()
    assert not current_shutdown().requested
    return f"{prompt}!"


async def with_more(prompt: str, temperature: float = 1.0, *, model: str = "m") -> str:
    return f"{prompt}!"


async def generator(prompt: str) -> AsyncIterator[str]:
    yield prompt
    yield "!"


def returns_awaitable(prompt: str) -> Any:
    return function(prompt)


class Runs:
    async def run(self, prompt: str) -> str:
        return f"{prompt}!"


class RunsInThread:
    def run(self, prompt: str) -> str:
        return plain(prompt)


class Called:
    async def __call__(self, prompt: str) -> str:
        return f"{prompt}!"


class Message:
    """A message of a model, as LangChain has them: chunks add up."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __add__(self, other: "Message") -> "Message":
        return Message(self.content + other.content)


class Invoked:
    async def ainvoke(self, given: Any) -> Message:
        return Message(f"{given}!")


class Streamed:
    async def astream(self, given: Any) -> AsyncIterator[Message]:
        yield Message(given)
        yield Message("!")


class StreamedParts:
    async def astream(self, given: Any) -> AsyncIterator[Message]:
        yield Message([{"type": "text", "text": given}])
        yield Message([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "!"}])


class StreamedStates:
    """Its chunks do not add up; the last one is the answer."""

    async def astream(self, given: Any) -> AsyncIterator[dict[str, str]]:
        yield {"answer": given}
        yield {"answer": f"{given}!"}


AGENTS = [
    function,
    with_turn,
    with_named_turn,
    plain,
    with_more,
    generator,
    returns_awaitable,
    functools.partial(with_more, temperature=0.5),
    Runs(),
    Runs().run,
    RunsInThread(),
    Called(),
    Invoked(),
    Streamed(),
    StreamedParts(),
]


@pytest.mark.parametrize(
    "agent", AGENTS, ids=lambda agent: getattr(agent, "__qualname__", type(agent).__name__)
)
async def test_whatever_can_be_asked_is_an_agent(place: Place, agent: Any) -> None:
    """Each kind of agent is asked the same, in memory and as a job, and answers the same."""
    async with place.queue(agent) as queue:
        run = await queue.submit("tea")
        assert await run.result(PATIENCE_SECONDS) == "tea!"


@pytest.mark.parametrize("agent", [generator, Streamed(), StreamedParts()])
async def test_whatever_streams_is_read_as_it_streams(place: Place, agent: Any) -> None:
    """The pieces of those that stream are the text of the run."""
    async with place.queue(agent) as queue:
        run = await queue.submit("tea")
        await run.result(PATIENCE_SECONDS)
        assert await run.text() == "tea!"


async def test_chunks_that_do_not_add_up(place: Place) -> None:
    """A runnable yields states: the last one is its answer."""
    async with place.queue(StreamedStates()) as queue:
        assert await (await queue.submit("tea")).result(PATIENCE_SECONDS) == {"answer": "tea!"}


async def test_a_runnable_is_given_the_messages_of_a_conversation(place: Place) -> None:
    """What was said before and the prompt come to it as one list of messages."""
    given = []

    class Chat:
        async def ainvoke(self, messages: Any) -> str:
            given.append(messages)
            return "hm"

    async with place.queue(Chat()) as queue:
        chat = queue.conversation()
        for prompt in ("a", "b"):
            await (await chat.send(prompt)).result(PATIENCE_SECONDS)
    assert given == [
        "a",
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "hm"},
            {"role": "user", "content": "b"},
        ],
    ]


class Answer(NamedTuple):
    text: str
    sources: list[int]


async def test_an_answer_has_the_type_that_the_agent_declares(place: Place) -> None:
    """A function says what it returns: that is what the result is, also when it was stored in between."""

    async def typed(prompt: str) -> Answer:
        return Answer(prompt, [1, 2])

    async with place.queue(typed) as queue:
        answer = await (await queue.submit("tea")).result(PATIENCE_SECONDS)
        assert answer == Answer("tea", [1, 2])
        assert type(answer) is Answer


class Nothing:
    """No interface at all."""


async def nobody_asks() -> str:
    return ""


async def needs_two(prompt: str, other: str) -> str:
    return prompt


def plain_generator(prompt: str) -> Any:
    yield prompt


@pytest.mark.parametrize(
    "agent", [None, 5, "agent", Nothing(), nobody_asks, needs_two, plain_generator, Runs, object, [function]]
)
def test_what_cannot_be_asked_is_refused_with_a_list(agent: Any) -> None:
    """Something that is no agent is refused when the queue is made; the error lists what is accepted."""
    with pytest.raises(UnknownAgent) as caught:
        AgentQueue(agent)
    for accepted in ("async def agent(prompt)", ".run(prompt)", ".ainvoke(input)", "pydantic-ai", "OpenAI"):
        assert accepted in str(caught.value)
    with pytest.raises(TypeError):
        AgentQueue(agent, jobs=Jobs("sqlite:///never-opened.db"))


def test_a_class_and_a_coroutine_are_refused_with_a_hint() -> None:
    """The two usual slips are named: the class in place of an instance, the call in place of the function."""
    with pytest.raises(UnknownAgent, match=r"It is a class: give an instance, Runs\(\)"):
        AgentQueue(Runs)
    with pytest.raises(UnknownAgent, match="It is a coroutine: give the function"):
        AgentQueue(function("tea"))


async def test_a_generator_that_yields_no_text_fails_and_says_so(place: Place) -> None:
    """Only text is written; data is emitted."""

    async def numbers(prompt: str) -> AsyncIterator[int]:
        yield 1

    async with place.queue(numbers) as queue:
        with pytest.raises(RunFailed, match=r"TypeError: .*yields text, not 1; `turn.emit` takes data"):
            await (await queue.submit("tea")).result(PATIENCE_SECONDS)


class SlowReader:
    """A turn whose text nobody takes: `write` never returns."""

    def __init__(self) -> None:
        self.writing = asyncio.Event()

    async def write(self, text: str) -> None:
        self.writing.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("streams", ["generator", "runnable"])
async def test_a_cancel_while_a_piece_is_written_closes_the_model(streams: str) -> None:
    """The run is cancelled while its text waits to be stored: the agent's generator ends then, not some time later."""
    closed = asyncio.Event()

    async def pieces(prompt: str) -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            closed.set()

    class Runnable:
        def astream(self, prompt: Any) -> AsyncIterator[str]:
            self.kept = pieces(prompt)  # so that no collector closes it
            return self.kept

    turn: Any = SlowReader()
    running = asyncio.ensure_future(
        adapter_for(pieces if streams == "generator" else Runnable()).run(turn, "p", ())
    )
    await turn.writing.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert closed.is_set()


async def test_a_thread_hears_of_its_cancel(place: Place) -> None:
    """An agent that blocks a thread cannot be cut off; it is told, and ends itself."""
    begun = threading.Event()
    heard = []

    def blocking(prompt: str) -> str:
        begun.set()
        heard.append(current_shutdown().wait_sync(PATIENCE_SECONDS))
        return "late"

    async with place.queue(blocking) as queue:
        run = await queue.submit("tea")
        await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        await run.cancel()
        assert (await run.wait(PATIENCE_SECONDS)).status == "cancelled"
    assert heard == [True]


def test_a_program_may_call_a_package_of_its_own_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's SDK is a module `agents`; a user's own of that name is not taken for it."""
    monkeypatch.setitem(sys.modules, "agents", types.ModuleType("agents"))
    AgentQueue(function)
