"""MemoryTurn: what a run can do beside computing, where it lives in this process: steps are plain calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .._core._clock import check_seconds
from .._core._scope import Shutdown, current_shutdown
from ..jobs import Context, StepPolicy
from ..jobs._function import awaited, is_coroutine_function
from ..jobs._settings import text as check_text
from ..jobs._stepping import policy_of
from ._adapters import in_thread
from ._budget import Spending
from ._live import LiveRun
from ._memory import MemoryRuns
from ._run import ANSWER, STEP_NAME_LENGTH


class MemoryTurn:
    """A `Turn`. `timer`: of the budget's seconds; it stands still while the run waits for a message."""

    durable = False
    context: Context | None = None

    def __init__(self, runs: MemoryRuns, live: LiveRun) -> None:
        self.id = live.id
        self.shutdown: Shutdown = current_shutdown()
        self.timer: asyncio.Timeout | None = None
        self._runs = runs
        self._live = live
        self._spending = Spending(live.order.budget)

    async def step(
        self, fn: Callable[..., Any], /, *args: Any, name: str, policy: StepPolicy | str = "replay"
    ) -> Any:
        policy_of(policy)
        check_text("the name of a step", name, longest=STEP_NAME_LENGTH)
        if is_coroutine_function(fn):
            return await fn(*args)
        return await awaited(await in_thread(lambda: fn(*args), name=name))

    async def write(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"an agent writes text, not {type(text).__name__}; `emit` takes data")
        if text:
            self._live.log.append("stream.text", {"stream": ANSWER, "text": text})

    async def emit(self, type: str, data: Any) -> None:
        self._live.log.append(check_text("the type of an event", type), data)

    async def wait_for(self, name: str, *, timeout: float | None = None) -> Any:
        check_text("the name of a message", name)
        timeout = None if timeout is None else check_seconds("wait_for(timeout)", timeout)
        timer, loop = self.timer, asyncio.get_running_loop()
        due = None if timer is None else timer.when()
        if timer is None or due is None:
            return await self._runs.wait_for(self._live, name, timeout)
        left = due - loop.time()
        timer.reschedule(None)
        try:
            return await self._runs.wait_for(self._live, name, timeout)
        finally:
            timer.reschedule(loop.time() + left)

    async def keep(self, write: Callable[[], Awaitable[Any]]) -> Any:
        """Something that must be written or read: here there is nothing that could be away."""
        return await write()

    def spend(self, *, tokens: int = 0, tool_calls: int = 0) -> None:
        self._spending.add(tokens, tool_calls)
