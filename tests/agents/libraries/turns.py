"""A turn over a job's context, as small as it can be: what the adapters are tested with, without the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lastcall import Shutdown
from lastcall.jobs import Context, StepPolicy


class JobTurn:
    """A run that is a job. `spent` counts what the adapter reports."""

    durable = True

    def __init__(self, ctx: Context) -> None:
        self.context: Context | None = ctx
        self.id = ctx.job_id
        self.shutdown: Shutdown = ctx.shutdown
        self.tokens = 0
        self.tool_calls = 0
        self._ctx = ctx

    async def step(
        self, fn: Callable[..., Any], /, *args: Any, name: str, policy: StepPolicy | str = "replay"
    ) -> Any:
        return await self._ctx.step(fn, *args, name=name, policy=policy)

    async def write(self, text: str) -> None:
        await self._ctx.emit("stream.text", {"stream": "answer", "text": text})

    async def emit(self, type: str, data: Any) -> None:
        await self._ctx.emit(type, data)

    async def wait_for(self, name: str, *, timeout: float | None = None) -> Any:
        return await self._ctx.wait_for(name, timeout=timeout)

    def spend(self, *, tokens: int = 0, tool_calls: int = 0) -> None:
        self.tokens += tokens
        self.tool_calls += tool_calls
