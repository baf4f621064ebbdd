"""What an agent is given for one run, and what is asked of an adapter: the two sides of one small port.

Who calls it: adapters (one file for each library of agents) use a `Turn`; the queue makes one for each run, in memory
or in a job, and hands it to an `AgentAdapter`. It owns nothing. What can go wrong is told at each verb.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .._core._scope import Shutdown
from ..jobs import Context, StepPolicy


class Turn(Protocol):
    """What a run of an agent can do beside computing: the same in memory and in a job.

    An agent that is a function and wants one takes it as its first parameter, annotated `Turn`:

        async def answer(turn: Turn, prompt: str) -> str:
            found = await turn.step(search, prompt, name="search")
            async for token in model(prompt, found):
                await turn.write(token)
            return ...
    """

    id: str
    """The run's id."""
    durable: bool
    """Whether it is a job: steps are remembered, and a crash is survived."""
    context: Context | None
    """The job's context, where there is a job."""
    shutdown: Shutdown
    """Whether the run was asked to stop, why, and how long it has left."""

    async def step(
        self, fn: Callable[..., Any], /, *args: Any, name: str, policy: StepPolicy | str = "replay"
    ) -> Any:
        """`fn(*args)`, remembered: in a job that is run again it is not called again. In memory a plain call.

        Raises what `fn` raises, and what `ctx.step` does.
        """

    async def write(self, text: str) -> None:
        """A piece of the answer, for those who read along. Raises `PayloadTooLarge` for one that is far too long."""

    async def emit(self, type: str, data: Any) -> None:
        """An event of any other kind into the run's log. Raises `BadArguments` for data that is no JSON."""

    async def wait_for(self, name: str, *, timeout: float | None = None) -> Any:
        """The data of a message of this name (an approval), sent with `run.send`; in a job no slot is held meanwhile.

        Raises `TimeoutError` after `timeout` seconds.
        """

    def spend(self, *, tokens: int = 0, tool_calls: int = 0) -> None:
        """Count what was used against the run's budget. Raises `BudgetExceeded` when there is none left.

        Beside steps or inside async ones: what a step has spent is remembered with it, and counts in later attempts.
        """


class AgentAdapter(Protocol):
    """How one kind of agent is run."""

    async def run(self, turn: Turn, prompt: Any, history: Sequence[Any]) -> Any:
        """The answer to `prompt`, after what was said before (`history`: the messages of the conversation so far)."""
