"""Asking somebody in the middle of a run, and what the answer says: the same for every library of agents.

Who calls it: the adapters, for calls of tools that must be approved and for a graph's interrupts. It owns the names: of
the events that ask, and of the messages that answer. What can go wrong: nobody answers; then the run waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ._turn import Turn

# How long an id of a call may be as a part of a name.
_ID_SHOWN = 100


class Answer(NamedTuple):
    """What was said about a call. `arguments`: others than the model's, if it may be made with these alone."""

    approved: bool
    message: str | None
    arguments: dict[str, Any] | None


def shown(call_id: str) -> str:
    """The id of a call as a part of the name of a step or a message. Providers make it, and it may hold anything."""
    return "".join(c if c.isprintable() and c != "#" else "_" for c in call_id)[:_ID_SHOWN]


async def ask(turn: Turn, what: str, id: str, about: Mapping[str, Any]) -> None:
    """Ask, once, however often the run is started again; the event says under which name it waits for the answer."""
    name = f"{what} {shown(id)}"

    async def tell() -> None:
        await turn.emit(f"{what}.requested", {"wait_for": name, **about})

    await turn.step(tell, name=f"ask for {name}")


async def hear(turn: Turn, what: str, id: str) -> Any:
    """The answer. In a job nobody is kept waiting for it."""
    return await turn.wait_for(f"{what} {shown(id)}")


def answer_in(said: Any) -> Answer:
    """True, or `{"approved": True}`, is a yes, and nothing else is."""
    told = said if isinstance(said, Mapping) else {"approved": said}
    message, arguments = told.get("message"), told.get("arguments")
    return Answer(
        told.get("approved") is True,
        str(message) if message else None,
        dict(arguments) if isinstance(arguments, Mapping) else None,
    )
