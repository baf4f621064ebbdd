"""Resources that close after the work which uses them, the last opened first."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from ._clock import Clock
from ._diagnose import error_text, task_stack
from ._disown import disown
from ._report import Outcome, ResourceOutcome

T = TypeVar("T")

# What is kept back from the close budget for a resource that was cancelled at its end, to unwind in.
_UNWIND_SHARE = 0.1

# What is kept back for each resource still to come, so that one that hangs does not take the time of the others.
_RESERVE_SHARE = 0.1


class Resources:
    """What `on_close` and `enter` registered, in order of opening.

    `until`: when the one that closes now must have ended; None: none does.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.until: float | None = None
        self.outcomes: list[ResourceOutcome] = []  # of those that are closed
        self._closers: list[tuple[str, Callable[[], Any], asyncio.Task[None] | None]] = []

    def add(
        self, callback: Callable[[], Any], name: str | None, keeper: asyncio.Task[None] | None = None
    ) -> None:
        """`keeper`: the task that does the real work of closing, whose stack is worth showing."""
        self._closers.append(
            (name or str(getattr(callback, "__qualname__", repr(callback))), callback, keeper)
        )

    async def enter(self, manager: AbstractAsyncContextManager[T], name: str | None) -> T:
        """Open it in a task of its own, which also closes it.

        anyio's cancel scopes, and so many clients, must be left by the task that entered them,
        and the shutdown runs in another one.
        """
        opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        closing = asyncio.Event()

        async def keep() -> None:
            async with manager as value:
                if not opened.cancelled():
                    opened.set_result(value)
                await closing.wait()

        keeper = asyncio.create_task(keep(), name=f"keeper of {type(manager).__qualname__}")

        async def close() -> None:
            closing.set()
            try:
                await asyncio.wait({keeper})
            except asyncio.CancelledError:
                keeper.cancel()
                await asyncio.wait({keeper})
                raise
            keeper.result()

        try:
            await asyncio.wait([keeper, opened], return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        except asyncio.CancelledError:
            opened.cancel()
            keeper.cancel()
            raise
        if not opened.done():
            opened.cancel()
            keeper.result()
            raise RuntimeError(f"{manager!r} suppressed the error of its own opening")
        self.add(close, name or type(manager).__qualname__, keeper)
        return opened.result()

    async def close(self, deadline: float) -> tuple[ResourceOutcome, ...]:
        """Close all, in reverse order, each within what is left until the deadline. Never raises."""
        budget = max(0.0, deadline - self._clock())
        reserve = min(budget * _RESERVE_SHARE, budget / (2 * max(1, len(self._closers))))
        while self._closers:
            name, callback, keeper = self._closers.pop()
            latest = deadline - reserve * len(self._closers)
            self.outcomes.append(await self._close_one(name, callback, keeper, latest))
        self.until = None
        return tuple(self.outcomes)

    async def _close_one(
        self, name: str, callback: Callable[[], Any], keeper: asyncio.Task[None] | None, deadline: float
    ) -> ResourceOutcome:
        began = self._clock()
        allowed = max(0.0, deadline - began) * (1 - _UNWIND_SHARE)
        self.until = began + allowed
        task = asyncio.create_task(_call(callback), name=f"close {name}")
        await _wait(task, allowed)
        stack: tuple[str, ...] = ()
        if not task.done():
            stack = tuple(task_stack(keeper or task))
            task.cancel()
            await _wait(task, max(0.0, deadline - self._clock()))
        seconds = self._clock() - began
        for stubborn in (task, keeper):
            if stubborn is not None and not stubborn.done():
                disown(stubborn)
        error = task.exception() if task.done() and not task.cancelled() else None
        if stack:
            return ResourceOutcome(name, Outcome.REFUSED, seconds, None, stack)
        if task.cancelled():
            return ResourceOutcome(name, Outcome.FAILED, seconds, "its closing was cancelled")
        if error is not None:
            return ResourceOutcome(name, Outcome.FAILED, seconds, error_text(error))
        return ResourceOutcome(name, Outcome.FINISHED, seconds)


async def _wait(task: asyncio.Task[None], seconds: float) -> None:
    """Wait for the task, not longer than that. A cancel of ours (the loop is torn down) means: the time is over."""
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        pass


async def _call(callback: Callable[[], Any]) -> None:
    result = callback()
    if inspect.isawaitable(result):
        await result
