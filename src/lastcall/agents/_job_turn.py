"""JobTurn: what a run can do beside computing, where it is a job: steps are remembered, waits hold no worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from .._core._scope import Shutdown
from ..jobs import Context, StepPolicy
from ..jobs._attempt import persist
from ..jobs._codec import load_plain
from ..jobs._function import is_coroutine_function, name_of, return_hint_of
from ..jobs._rows import ReadFrom
from ..jobs._settings import text as check_text
from ..jobs._stepping import running_step
from ..jobs._stream import OutStream
from ._budget import Budget, Spending
from ._run import ANSWER, STEP_NAME_LENGTH

_SPENT = "spent"
_READ_AT_ONCE = 1000


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
        self._last: OutStream | None = None
        self._opening = asyncio.Lock()
        self._spent_in: dict[str, Spending] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # All of them go out through one door, so to close one is enough, and says only once that the text has ended.
        if self._last is not None:
            await self._last.__aexit__(kind, error, traceback)

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

    async def recall(self) -> None:
        """Count what the steps of earlier attempts have spent, which are not run again: the log has it."""
        limited = self._budget.tokens is not None or self._budget.tool_calls is not None
        if self._ctx.attempt == 1 or not limited:
            return
        engine, after = self._ctx._attempt.crew.engine, 0
        while True:
            read = partial(engine.read_events, (ReadFrom(self.id, after),), _READ_AT_ONCE)
            (page,) = await self.keep(read)
            if page is None or not page.events:
                return
            for event in page.events:
                if event.type == _SPENT:
                    self.spend(**load_plain(event.data))
            after = page.events[-1].seq

    async def step(
        self, fn: Callable[..., Any], /, *args: Any, name: str, policy: StepPolicy | str = "replay"
    ) -> Any:
        check_text("the name of a step", name, longest=STEP_NAME_LENGTH)
        counted = self._counted(fn) if is_coroutine_function(fn) else fn
        return await self._ctx.step(counted, *args, name=name, policy=policy)

    def _counted(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, which at its end tells the log what was spent in it."""

        async def counted(*args: Any) -> Any:
            step = running_step.get()
            try:
                return await fn(*args)
            finally:
                if step is not None:
                    await self._tell_spent(step.key)

        counted.__annotations__["return"] = return_hint_of(fn)
        counted.__qualname__ = name_of(fn)
        return counted

    async def _tell_spent(self, key: str) -> None:
        attempt = self._ctx._attempt
        spent = self._spent_in.pop(key, None)
        self._outs.pop(key, None)
        if spent is not None and not (attempt.ended or attempt.lost or attempt.is_cancelled):
            await self._ctx.emit(_SPENT, {"tokens": spent.tokens, "tool_calls": spent.tool_calls})

    async def write(self, text: str) -> None:
        step = running_step.get()
        key = None if step is None else step.key
        async with self._opening:
            out = self._outs.get(key)
            if out is None:
                out = self._ctx.stream(ANSWER)
                await out.__aenter__()
                self._outs[key] = self._last = out
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
        step = running_step.get()
        if step is not None and step.job_id == self.id:
            self._spent_in.setdefault(step.key, Spending(Budget())).add(tokens, tool_calls)
        self._spending.add(tokens, tool_calls)
