"""JobTurn: what a run can do beside computing, where it is a job: steps are remembered, waits hold no worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from .._core._scope import Shutdown
from ..jobs import Context, StepPolicy
from ..jobs._attempt import persist
from ..jobs._settings import text as check_text
from ..jobs._stepping import running_step
from ..jobs._stream import OutStream
from ._budget import Budget, Spending
from ._run import ANSWER, STEP_NAME_LENGTH


class JobTurn:
    """A `Turn`. Use it as a block around the agent: leaving it stores what the agent has written."""

    durable = True
    timer: asyncio.Timeout | None = None

    def __init__(self, context: Context, budget: Budget) -> None:
        self.id = context.job_id
        self.context: Context | None = context
        self.shutdown: Shutdown = context.shutdown
        self._ctx = context
        self._budget = budget
        self._spending = Spending(budget)
        # For each step that writes one of its own, because what a step has written is taken back with the step.
        self._outs: dict[str | None, OutStream] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # All of them go out through one door, so to close one is enough, and says only once that the text has ended.
        if self._outs:
            _, last = self._outs.popitem()
            await last.__aexit__(kind, error, traceback)

    async def seconds_left(self) -> float | None:
        """What is left of the budget's time, after what earlier attempts have run."""
        if self._budget.seconds is None:
            return None
        if self._ctx.attempt == 1:
            return self._budget.seconds
        rows = await self.keep(lambda: self._ctx._attempt.crew.engine.attempts(self.id))
        earlier = (row for row in rows if row.attempt < self._ctx.attempt and row.ended_at is not None)
        used: float = sum((row.ended_at or 0) - row.started_at for row in earlier)
        return self._budget.seconds - used

    async def step(
        self, fn: Callable[..., Any], /, *args: Any, name: str, policy: StepPolicy | str = "replay"
    ) -> Any:
        check_text("the name of a step", name, longest=STEP_NAME_LENGTH)
        return await self._ctx.step(fn, *args, name=name, policy=policy)

    async def write(self, text: str) -> None:
        step = running_step.get()
        key = None if step is None else step.key
        async with self._opening:
            out = self._outs.get(key)
            if out is None:
                out = self._ctx.stream(ANSWER)
                await out.__aenter__()
                self._outs[key] = out
        await out.write(text)

    async def emit(self, type: str, data: Any) -> None:
        await self._ctx.emit(type, data)

    async def wait_for(self, name: str, *, timeout: float | None = None) -> Any:
        return await self._ctx.wait_for(name, timeout=timeout)

    async def keep(self, write: Callable[[], Awaitable[Any]]) -> Any:
        """Something that must be written or read, however long the store is away."""
        attempt = self._ctx._attempt
        with attempt.holding():
            return await persist(write, repr(attempt), attempt)

    def spend(self, *, tokens: int = 0, tool_calls: int = 0) -> None:
        self._spending.add(tokens, tool_calls)
