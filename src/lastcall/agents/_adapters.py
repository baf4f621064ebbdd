"""Which kind of agent this is, and how to run it: a table of adapters, asked in order.

Who calls it: the queue, once for its agent. A library has a file of its own, which exposes `adapt(agent)` and answers
None for what is not its; here is what belongs to no library. What can go wrong: an agent with no known interface
(`UnknownAgent`, which lists those that there are).
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from .._core._manager import TaskManager
from .._core._scope import current_scope
from ..exceptions import UnknownAgent
from ..jobs._function import awaited, bare, is_coroutine_function, name_of, return_hint_of
from ..jobs._settings import shown
from ._turn import AgentAdapter, Turn

Adapt = Callable[[Any], AgentAdapter | None]

_ACCEPTED = """accepted are:
  - an async function of the prompt, `async def agent(prompt)`; it may take a `Turn` first and `history=`
  - an async generator of the prompt, which yields the pieces of its answer
  - an object with `.run(prompt)`, async or not
  - an object with `.ainvoke(input)` or `.astream(input)`: the runnables of LangChain and LangGraph
  - the agents of pydantic-ai and of the OpenAI Agents SDK
Wrap anything else in an async function."""


def adapter_for(agent: Any) -> AgentAdapter:
    """How this agent is run. Raises `UnknownAgent`."""
    for adapt in _table():
        adapter = adapt(agent)
        if adapter is not None:
            return adapter
    hint = ""
    if inspect.isclass(agent):
        hint = f" It is a class: give an instance, {agent.__name__}()."
    elif inspect.iscoroutine(agent):
        agent.close()
        hint = " It is a coroutine: give the function, not what it returned."
    raise UnknownAgent(f"no interface of an agent is known of {shown(agent)}.{hint} {_ACCEPTED}")


# --- functions -----------------------------------------------------------------------------------------


class FunctionAdapter:
    """A function of the prompt, or a bound method. `returns`: what it says it returns, by which it is stored."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._on_loop = is_coroutine_function(fn) or inspect.isasyncgenfunction(bare(fn))
        parameters = _parameters_of(fn)
        self._takes_turn = bool(parameters) and _is_turn(parameters[0].annotation)
        self._takes_history = any(parameter.name == "history" for parameter in parameters)

    @property
    def returns(self) -> Any:
        return Any if inspect.isasyncgenfunction(bare(self._fn)) else _returned_by(self._fn)

    async def run(self, turn: Turn, prompt: Any, history: Sequence[Any]) -> Any:
        args = (turn, prompt) if self._takes_turn else (prompt,)
        kwargs: dict[str, Any] = {"history": list(history)} if self._takes_history else {}
        if self._on_loop:
            value = self._fn(*args, **kwargs)
        else:
            value = await in_thread(lambda: self._fn(*args, **kwargs), name=f"agent {name_of(self._fn)}")
        if isinstance(value, AsyncIterator):
            return await _written(turn, value)
        return await awaited(value)


def _function(agent: Any) -> AgentAdapter | None:
    if inspect.isclass(agent) or not callable(agent):
        return None
    return FunctionAdapter(agent) if _takes_prompt(agent) else None


def _run_method(agent: Any) -> AgentAdapter | None:
    run = getattr(agent, "run", None)
    if inspect.isclass(agent) or not callable(run):
        return None
    return FunctionAdapter(run) if _takes_prompt(run) else None


def _parameters_of(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError):  # it does not tell; then it is given the prompt alone
        return []


def _takes_prompt(fn: Callable[..., Any]) -> bool:
    """Whether it can be called with the prompt, and the turn if it wants one. A plain generator has no answer."""
    if inspect.isgeneratorfunction(bare(fn)):
        return False
    parameters = _parameters_of(fn)
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError):
        return True
    args = ("turn", "prompt") if parameters and _is_turn(parameters[0].annotation) else ("prompt",)
    kwargs: dict[str, Any] = (
        {"history": []} if any(parameter.name == "history" for parameter in parameters) else {}
    )
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _is_turn(annotation: Any) -> bool:
    """By the annotation as it is written, as for a job's Context."""
    return annotation is Turn or (isinstance(annotation, str) and annotation.rpartition(".")[2] == "Turn")


def _returned_by(fn: Callable[..., Any]) -> Any:
    """What a plain object says it returns is often a type variable or a class that cannot be stored; then it is Any."""
    hint = return_hint_of(fn) if inspect.isfunction(bare(fn)) else Any
    return Any if hint is inspect.Signature.empty else hint


async def _written(turn: Turn, pieces: AsyncIterator[Any]) -> str:
    """The answer of an agent that yields its pieces."""
    text: list[str] = []
    async with _closing(pieces):
        async for piece in pieces:
            if not isinstance(piece, str):
                raise TypeError(
                    f"an agent that yields its answer yields text, not {shown(piece)}; `turn.emit` takes data"
                )
            text.append(piece)
            await turn.write(piece)
    return "".join(text)


@asynccontextmanager
async def _closing(pieces: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close it with the block. A cancel that comes while a piece is written would otherwise leave it open, and its
    connection to the model, until the garbage collector comes by."""
    try:
        yield
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def in_thread(fn: Callable[[], Any], *, name: str) -> Any:
    """Call a blocking function in a thread of the manager whose task runs now."""
    scope = current_scope.get()
    assert scope is not None, "runs are tasks of a manager"
    return await cast(TaskManager, scope.roster.owner).run_in_thread(fn, name=name)


# --- runnables -----------------------------------------------------------------------------------------


class RunnableAdapter:
    """What LangChain calls a runnable: `astream` if it has one, whose chunks are written as they come, or `ainvoke`."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    async def run(self, turn: Turn, prompt: Any, history: Sequence[Any]) -> Any:
        given = [*history, {"role": "user", "content": prompt}] if history else prompt
        if not callable(getattr(self._agent, "astream", None)):
            return _plain(await self._agent.ainvoke(given))
        whole: Any = None
        chunks = self._agent.astream(given)
        async with _closing(chunks):
            async for chunk in chunks:
                text = _text_in(chunk)
                if text:
                    await turn.write(text)
                whole = chunk if whole is None else _sum(whole, chunk)
        return _plain(whole)


def _runnable(agent: Any) -> AgentAdapter | None:
    if inspect.isclass(agent):
        return None
    known = any(callable(getattr(agent, verb, None)) for verb in ("ainvoke", "astream"))
    return RunnableAdapter(agent) if known else None


def _sum(whole: Any, chunk: Any) -> Any:
    """Chunks of messages and texts add up to the whole; of other things the last one is it."""
    try:
        return whole + chunk
    except TypeError:
        return chunk


def _text_in(chunk: Any) -> str:
    """The text of a chunk: its own, or the content of a message, which may be a list of parts."""
    content = chunk if isinstance(chunk, str) else getattr(chunk, "content", None)
    if isinstance(content, list):
        parts = (part.get("text", "") if isinstance(part, dict) else part for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _plain(whole: Any) -> Any:
    """A message is its text; anything else is itself."""
    return _text_in(whole) if hasattr(whole, "content") else whole


# --- the table -----------------------------------------------------------------------------------------

# Asked from the top down, before what follows: agents of libraries often have a `run` or an `ainvoke`, too. A library
# that nobody has imported can have no agents here; so ours for it is imported, by name, only if it was. The SDK of
# OpenAI is called `agents`, like many a program's own package; what is named here is a module that only the SDK has.
_LIBRARIES: Final = (
    ("pydantic_ai", "lastcall.agents._pydantic_ai"),
    ("langgraph", "lastcall.agents._langgraph"),
    ("agents.models.openai_responses", "lastcall.agents._openai_agents"),
    ("openai", "lastcall.agents._openai"),
)

_OTHERS: Final[tuple[Adapt, ...]] = (_runnable, _run_method, _function)


def _table() -> Iterator[Adapt]:
    for library, module in _LIBRARIES:
        if library in sys.modules:
            yield importlib.import_module(module).adapt
    yield from _OTHERS
