"""One attempt at one job: how it leaves. Its steps and waits come here; `_executor` starts it and writes its end.

Theory of operation. A job leaves its worker before its end in two ways: it is *handed over* (a shutdown, at the next
checkpoint) or *suspended* (it waits). Both happen alike. Whoever asks for something that cannot begin now *parks*: it
awaits a future that nobody will ever set. When nothing is in flight any more, the attempt *unwinds*: its task is
cancelled, once. A cancellation, and no exception of our own, because that is what user code lets pass, what
`asyncio.TaskGroup` and `timeout` understand, and what runs `finally` blocks. The executor then tells what was meant.

*In flight* is everything of ours that must not be cut: steps, writes, reading what is recorded. Nothing else of a job
is: beside a wait, code that is no step is cancelled with it and runs again.

What can go wrong: user code that swallows the cancellation (whatever it asks for then is refused by another one, and
when its grace is over the executor gives it up), steps that do not end (the shutdown's deadline cancels them), the
fence (a lost attempt writes nothing).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from .._core._diagnose import error_text
from .._core._record import Record
from .._core._roster import Roster, logger
from .._core._state import StopReason
from .._core._stop import StopNode
from .._core._threads import ThreadLane
from ..exceptions import EngineUnavailable, NotInJob
from ._client import Client
from ._codec import ValueCodec
from ._rows import Claimed, HandedOver, StepRecord, StepRow, Suspended, Wait
from ._state import WaitKind
from ._steps import WAIT_MARK, Steps

if TYPE_CHECKING:
    from ._outgoing import Outgoing
    from ._told import Told

T = TypeVar("T")

# Turns of the loop between "nothing is in flight" and unwinding, for a gather's other branches to ask for their things,
# and for an error to come out of the groups it was raised in: each task it passes through takes up to three turns.
_SETTLING_TURNS = 10

# Who is cancelled and asks for something all the same may do so in a loop; it must not keep the event loop busy.
_REFUSAL_SECONDS = 0.01

# How often a critical section of the job is looked at, which holds back the cancellation.
_CRITICAL_LOOK_SECONDS = 0.02

# How long a write goes on being tried for an attempt that was cancelled meanwhile.
_LAST_TRY_SECONDS = 2.0

# Before and after the deadline of a drain; with any other reason the attempt is not one that could be handed over.
_LEAVING = (None, StopReason.SHUTDOWN, StopReason.GROUP)

_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

current_attempt: ContextVar[Attempt | None] = ContextVar("lastcall_job_attempt", default=None)


async def persist(write: Callable[[], Awaitable[T]], what: str, attempt: Attempt | None = None) -> T:
    """Carry out a write however long the store is away: what it holds is done, and must not be lost or done again.

    For an attempt no longer than it lasts: whoever was given up must not wait for the store on its own.
    """
    tries = 0
    while True:
        try:
            return await write()
        except EngineUnavailable as error:
            if attempt is not None:
                attempt.require_running()
            if tries == 0:
                logger.warning(
                    "%s waits for the store to come back: %s", what, error, extra={"event": "store.away"}
                )
            await asyncio.sleep(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
            tries += 1


# Called beside a step: "before" it runs, "after" it has run and before that is written, and when it is "recorded".
Probe = Callable[[str, "Attempt", str], Awaitable[None]]


class Crew:
    """What the attempts of one worker share.

    `give_up`: called when one that was cancelled has not ended within `cancel_grace_seconds`. `codecs`: of the values
    of steps. `probe`: for tests that let things go wrong at a chosen step.
    """

    __slots__ = (
        "cancel_grace_seconds",
        "client",
        "codecs",
        "engine",
        "ensure_lease",
        "give_up",
        "lane",
        "loop",
        "probe",
        "roster",
    )

    def __init__(
        self,
        client: Client,
        roster: Roster,
        lane: ThreadLane,
        ensure_lease: Callable[[], Awaitable[None]],
        cancel_grace_seconds: float,
    ) -> None:
        self.client = client
        self.engine = client.engine
        self.roster = roster
        self.lane = lane
        self.loop = roster.loop
        self.ensure_lease = ensure_lease
        self.cancel_grace_seconds = cancel_grace_seconds
        self.give_up: Callable[[Attempt], None] = lambda attempt: None
        self.codecs: dict[Any, ValueCodec] = {}
        self.probe: Probe | None = None


class Holding:
    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        self._attempt.in_flight += 1

    def __exit__(self, *exc_info: object) -> None:
        self._attempt.in_flight -= 1
        self._attempt.consider_unwinding()


class Released:
    """The inverse of `Holding`: inside it, one of those who hold says that it may be cut here."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        self._attempt.in_flight -= 1

    def __exit__(self, *exc_info: object) -> None:
        self._attempt.in_flight += 1


class Attempt:
    __slots__ = (
        "_held_back",
        "_parked",
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
        "outgoing",
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
        # With the moment at which each was asked for: its time runs from then on, not from when the job leaves.
        self.waits: dict[str, tuple[Wait, float]] = {}
        self.timers: list[asyncio.TimerHandle] = []
        self.cancel_reason: StopReason | None = None
        self.in_flight = 0
        self.leaving = False
        self.unwinding = False
        self.lost = False
        self.ended = False
        self.told: Told | None = None
        self.outgoing: Outgoing | None = None
        self._held_back = False
        self._settling = False
        self._parked: set[asyncio.Future[None]] | None = None
        self._side_tasks: set[asyncio.Task[object]] | None = None

    def __repr__(self) -> str:
        return f"job {self.claimed.task!r} ({self.claimed.id}, attempt {self.claimed.attempt})"

    def log_fields(self, event: str) -> dict[str, object]:
        """What a line of the log about this attempt carries, also where it is not its own task that writes it."""
        claimed = self.claimed
        return {"event": event, "job_id": claimed.id, "job_task": claimed.task, "attempt": claimed.attempt}

    # --- what is asked of it ---------------------------------------------------------------------------

    @property
    def told_to_stop(self) -> bool:
        """Whether its worker drains."""
        return self.node is not None and self.node.reason is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether its task has had the one cancellation that it gets."""
        return self.unwinding or (self.record is not None and self.record.cancelled_at is not None)

    @property
    def reason(self) -> StopReason | None:
        """Why it was cancelled, by whom ever: its own reason before its manager's."""
        record = self.record
        if self.cancel_reason is not None or record is None or record.cancelled_at is None:
            return self.cancel_reason
        return record.reason

    async def checkpoint(self) -> None:
        """Before anything new begins: leave if this is asked, and never begin without a valid lease.

        Raises `NotInJob` after the attempt's end.
        """
        self.enter()
        if self._must_leave():
            await self.park()
        with self.holding():
            await self.crew.ensure_lease()
        if self._must_leave():
            await self.park()

    def _must_leave(self) -> bool:
        # Who is cancelled for good, or has overrun its time, may clean up with steps also in a drain.
        if self.told_to_stop and self.reason in _LEAVING:
            self.leaving = self._held_back = True
        return self.leaving or self.unwinding or self.lost

    def require_running(self) -> None:
        """Raises `NotInJob` after the attempt's end."""
        if self.ended:
            raise NotInJob(f"{self!r} has ended; its context is of no use any more")

    def enter(self) -> None:
        """Something is asked for by the task that runs now. Raises `NotInJob` after the attempt's end."""
        self.require_running()
        task = asyncio.current_task()
        if task is not self.task and task is not None:
            if self._side_tasks is None:
                self._side_tasks = set()
            if task not in self._side_tasks:
                self._side_tasks.add(task)
                task.add_done_callback(self._side_tasks.discard)

    @property
    def in_main_task(self) -> bool:
        return asyncio.current_task() is self.task

    async def load_steps(self) -> Steps:
        """What earlier attempts have recorded."""
        if self.steps is None:
            claimed = self.claimed
            rows: Sequence[StepRow] = ()
            if claimed.has_steps:
                with self.holding():
                    rows = await persist(lambda: self.crew.engine.steps(claimed.id), repr(self), self)
            # Steps side by side ask for it together; with a memory each, they would be numbered and expected wrongly.
            if self.steps is None:
                self.steps = Steps(f"{claimed.id} ({claimed.task})", rows)
        return self.steps

    async def call_in_thread(self, fn: Callable[[], T]) -> T:
        """Call a blocking function as a part of this attempt. It hears of a cancel by `current_shutdown()`."""
        assert self.record is not None
        # A thread can only be woken at the node that it waits at; one made at the cancel would come too late.
        self.crew.roster.own_node(self.record)
        return await self.crew.lane.call(fn)

    # --- leaving ---------------------------------------------------------------------------------------

    async def wait_for(self, wait: Wait) -> None:
        """Suspend until it comes. Never returns: the attempt that goes on finds the wait's step recorded."""
        if self.is_cancelled:
            await self.park()
        self.waits[wait.step] = (wait, time.monotonic())
        try:
            await self.park()
        finally:
            # Somebody else's cancellation, a timeout around it for instance: then nobody waits for this any more.
            if not self.unwinding:
                del self.waits[wait.step]

    async def park(self) -> None:
        """Wait for the cancellation that ends this attempt; who has had it already gets another one."""
        if self.is_cancelled:
            await asyncio.sleep(_REFUSAL_SECONDS)
            raise asyncio.CancelledError("the job leaves its worker")
        self.consider_unwinding()
        parked = self.crew.loop.create_future()
        if self._parked is None:
            self._parked = set()
        self._parked.add(parked)
        try:
            await parked
        finally:
            self._parked.discard(parked)

    def holding(self) -> Holding:
        """A block in which something is in flight that must not be cut."""
        return Holding(self)

    def consider_unwinding(self) -> None:
        """Called whenever something has changed that may have held the attempt here."""
        if self._is_idle() and not self._settling:
            self._settling = True
            self.crew.loop.call_soon(self._settle, _SETTLING_TURNS)

    def _is_idle(self) -> bool:
        wants_to_leave = self.leaving or bool(self.waits)
        return wants_to_leave and not self.in_flight and not self.ended and not self.is_cancelled

    def _settle(self, turns: int) -> None:
        if turns and self._is_idle():
            self.crew.loop.call_soon(self._settle, turns - 1)
            return
        self._settling = False
        task, record = self.task, self.record
        if not self._is_idle() or task is None or task.done():
            return
        if record is not None and record.extra is not None and record.extra.critical_depth:
            self._settling = True
            self.later(_CRITICAL_LOOK_SECONDS, self._settle, 0)
            return
        self.unwinding = True
        task.cancel("the job leaves its worker")
        self._expect_end()

    def leave(self) -> Suspended | HandedOver:
        """With what it leaves. Waits keep the time that has passed since they were asked for."""
        if not self.waits:
            return HandedOver()
        now = time.monotonic()
        waits = [
            wait if wait.seconds is None else wait._replace(seconds=max(0.0, wait.seconds - (now - since)))
            for wait, since in self.waits.values()
        ]
        if self._held_back:
            # Beside its waits it has things to do, which only the shutdown keeps it from: it must not wait for them.
            mark = f"{WAIT_MARK}handed over in attempt {self.claimed.attempt}"
            waits.append(Wait(mark, WaitKind.SLEEP, seconds=0.0))
        return Suspended(tuple(waits))

    # --- cancelling ------------------------------------------------------------------------------------

    def cancel(self, reason: StopReason) -> None:
        """Cancel it once, for a reason of ours; the first reason stays."""
        if self.ended or self.cancel_reason is not None or self.record is None:
            return
        self.cancel_reason = reason
        self.crew.roster.cancel(self.record, reason)
        self._expect_end()

    def _expect_end(self) -> None:
        """It was cancelled, and has so much time to end by itself."""
        self.later(self.crew.cancel_grace_seconds, self.crew.give_up, self)

    def later(self, seconds: float, callback: Callable[..., object], *args: object) -> None:
        """Call back, unless the attempt has ended before. Not in the job's context: a timer that was cancelled keeps
        its context until its time has come, and with it everything that the job has put there, and this attempt."""
        context = self.crew.roster.context
        self.timers.append(self.crew.loop.call_later(seconds, callback, *args, context=context))

    def lose(self) -> None:
        """The lease is gone: nothing this attempt does counts any more."""
        if not self.lost:
            self.lost = True
            self.cancel(StopReason.LEASE_LOST)

    def close(self) -> None:
        """It has ended. Tasks it started and did not wait for do not outlive it, nor does what it asked for."""
        self.ended = True
        for timer in self.timers:
            timer.cancel()
        if self.outgoing is not None:
            self.outgoing.close()
        for task in list(self._side_tasks or ()):
            if not task.done():
                task.cancel("the job has ended")
        for parked in list(self._parked or ()):
            parked.cancel("the job has ended")

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
        self.crew.client.changed((claimed.id,))  # the engine has told it in the job's log

    async def finish_write(self, write: Callable[[], Awaitable[T]], what: str) -> T:
        """Carry out a write to its end, through cancellations; they are passed on afterwards."""
        self.require_running()
        if self.lost:
            await self.park()
        with self.holding():
            return await self._finish_write(write, what)

    async def _finish_write(self, write: Callable[[], Awaitable[T]], what: str) -> T:
        loop = self.crew.loop
        # Not by the loop's factory, which tools may have changed.
        task = asyncio.Task(persist(write, what, self), loop=loop)
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
            if not task.cancelled() and (failure := task.exception()) is not None:
                logger.warning("%s failed while it was cancelled: %s", what, error_text(failure))
            raise cancelled
        return task.result()
