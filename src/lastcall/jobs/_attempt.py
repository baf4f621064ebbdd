"""One attempt at one job: how it leaves. Its steps and waits come here; `_executor` starts it and writes its end.

Theory of operation. A job leaves its worker before its end in two ways: it is *handed over* (a shutdown, at the next
checkpoint) or *suspended* (it waits). Both happen alike. Whoever asks for something that cannot begin now *parks*: it
awaits a future that nobody will ever set. When no step is in flight any more, the attempt *unwinds*: its task is
cancelled, once. A cancellation, and no exception of our own, because that is what user code lets pass, what
`asyncio.TaskGroup` and `timeout` understand, and what runs `finally` blocks. `why` then tells what was meant.

What can go wrong: user code that swallows the cancellation (it parks at the next thing it asks for; the executor gives
it up), steps that do not end (the shutdown's deadline cancels them), the fence (a lost attempt writes nothing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

from .._core._record import Record
from .._core._roster import Roster, logger
from .._core._state import StopReason
from .._core._stop import StopNode
from .._core._threads import ThreadLane
from ..exceptions import EngineUnavailable, NotInJob
from ._client import Client
from ._rows import Claimed, StepRecord, Wait
from ._steps import Steps

T = TypeVar("T")

# Turns of the loop between "nothing is in flight" and unwinding, for a gather's other branches to ask for their things.
_SETTLING_TURNS = 3

# How long a write goes on being tried for an attempt that was cancelled meanwhile.
_LAST_TRY_SECONDS = 2.0

_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

current_attempt: ContextVar[Attempt | None] = ContextVar("lastcall_job_attempt", default=None)


async def persist(write: Callable[[], Awaitable[T]], what: str) -> T:
    """Carry out a write however long the store is away: what it holds is done, and must not be lost or done again."""
    tries = 0
    while True:
        try:
            return await write()
        except EngineUnavailable as error:
            if tries == 0:
                logger.warning("%s waits for the store to come back: %s", what, error)
            await asyncio.sleep(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
            tries += 1


# Called beside a step: "before" it runs, "after" it has run and before that is written, and when it is "recorded".
Probe = Callable[[str, "Attempt", str], Awaitable[None]]


class Crew:
    """What the attempts of one worker share. `probe`: for tests that let things go wrong at a chosen step."""

    __slots__ = ("client", "engine", "ensure_lease", "lane", "loop", "probe", "roster")

    def __init__(
        self, client: Client, roster: Roster, lane: ThreadLane, ensure_lease: Callable[[], Awaitable[None]]
    ) -> None:
        self.client = client
        self.engine = client.engine
        self.roster = roster
        self.lane = lane
        self.loop = roster.loop
        self.ensure_lease = ensure_lease
        self.probe: Probe | None = None


class Attempt:
    __slots__ = (
        "_settling",
        "_side_tasks",
        "cancel_reason",
        "claimed",
        "crew",
        "ended",
        "in_flight",
        "leaving",
        "lost",
        "node",
        "record",
        "steps",
        "task",
        "timers",
        "told",
        "unwinding",
        "waits",
    )

    def __init__(self, crew: Crew, claimed: Claimed) -> None:
        self.crew = crew
        self.claimed = claimed
        self.task: asyncio.Task[None] | None = None
        self.record: Record | None = None
        self.node: StopNode | None = None
        self.steps: Steps | None = None
        self.waits: dict[str, Wait] = {}
        self.timers: list[asyncio.TimerHandle] = []
        self.cancel_reason: StopReason | None = None
        self.in_flight = 0
        self.leaving = False
        self.unwinding = False
        self.lost = False
        self.ended = False
        self.told: set[str] | None = None
        self._settling = False
        self._side_tasks: set[asyncio.Task[object]] | None = None

    def __repr__(self) -> str:
        return f"job {self.claimed.task!r} ({self.claimed.id}, attempt {self.claimed.attempt})"

    # --- what is asked of it ---------------------------------------------------------------------------

    @property
    def told_to_stop(self) -> bool:
        """Whether its worker drains."""
        return self.node is not None and self.node.reason is not None

    async def checkpoint(self) -> None:
        """Before anything new begins: leave if this is asked, and never begin without a valid lease.

        Raises `NotInJob` after the attempt's end.
        """
        self.require_running()
        if self.told_to_stop:
            self.leaving = True
        if self.leaving or self.unwinding or self.lost:
            await self.park()
        await self.crew.ensure_lease()
        if self.lost:
            await self.park()

    def require_running(self) -> None:
        """Raises `NotInJob` after the attempt's end; takes down which tasks work for it."""
        if self.ended:
            raise NotInJob(f"{self!r} has ended; its context is of no use any more")
        task = asyncio.current_task()
        if task is not self.task and task is not None:
            if self._side_tasks is None:
                self._side_tasks = set()
            self._side_tasks.add(task)

    @property
    def in_main_task(self) -> bool:
        return asyncio.current_task() is self.task

    async def load_steps(self) -> Steps:
        """What earlier attempts have recorded."""
        if self.steps is None:
            claimed = self.claimed
            rows = (
                await persist(lambda: self.crew.engine.steps(claimed.id), repr(self))
                if claimed.has_steps
                else []
            )
            # Steps side by side ask for it together; with a memory each, they would be numbered and expected wrongly.
            if self.steps is None:
                self.steps = Steps(f"{claimed.id} ({claimed.task})", rows)
        return self.steps

    async def wait_for(self, wait: Wait) -> None:
        """Suspend until it comes. Never returns: the attempt that goes on finds the wait's step recorded."""
        self.waits[wait.step] = wait
        await self.park()

    async def park(self) -> None:
        """Wait for the cancellation that ends this attempt."""
        self.consider_unwinding()
        await self.crew.loop.create_future()

    def consider_unwinding(self) -> None:
        """Called whenever something has changed that may have held the attempt here."""
        if self._is_idle() and not self._settling and not self.unwinding:
            self._settling = True
            self.crew.loop.call_soon(self._settle, _SETTLING_TURNS)

    def _is_idle(self) -> bool:
        return (self.leaving or bool(self.waits)) and not self.in_flight and not self.ended

    def _settle(self, turns: int) -> None:
        if turns and self._is_idle():
            self.crew.loop.call_soon(self._settle, turns - 1)
            return
        self._settling = False
        task = self.task
        if self._is_idle() and task is not None and not task.cancelling():
            self.unwinding = True
            task.cancel("the job leaves its worker")

    # --- cancelling ------------------------------------------------------------------------------------

    def cancel(self, reason: StopReason) -> None:
        """Cancel it once, for a reason of ours; the first reason stays."""
        if self.ended or self.cancel_reason is not None or self.record is None:
            return
        self.cancel_reason = reason
        self.crew.roster.cancel(self.record, reason)

    def lose(self) -> None:
        """The lease is gone: nothing this attempt does counts any more."""
        if not self.lost:
            self.lost = True
            self.cancel(StopReason.LEASE_LOST)

    def close(self) -> None:
        """It has ended. Tasks it started and did not wait for do not outlive it."""
        self.ended = True
        for timer in self.timers:
            timer.cancel()
        for task in self._side_tasks or ():
            if not task.done():
                task.cancel("the job has ended")

    # --- writing ---------------------------------------------------------------------------------------

    async def record_step(self, step: StepRecord) -> None:
        """Write a step under the fence. A cancellation meanwhile goes on after the write: what has happened is kept."""
        claimed = self.claimed
        applied = await self.finish_write(
            lambda: self.crew.engine.record_step(claimed.id, claimed.attempt, step),
            f"step {step.key!r} of {self!r}",
        )
        if not applied:
            self.lose()
            await self.park()

    async def finish_write(self, write: Callable[[], Awaitable[T]], what: str) -> T:
        """Carry out a write to its end, through cancellations; they are passed on afterwards."""
        loop = self.crew.loop
        task = asyncio.Task(
            persist(write, what), loop=loop
        )  # not by the loop's factory, which tools may have changed
        cancelled: asyncio.CancelledError | None = None
        deadline: float | None = None
        while not task.done():
            try:
                left = None if deadline is None else deadline - loop.time()
                if left is not None and left <= 0:
                    task.cancel()
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                deadline = deadline or loop.time() + _LAST_TRY_SECONDS
        if cancelled is not None:
            raise cancelled
        return task.result()
