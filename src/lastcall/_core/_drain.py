"""Drain: ends a set of work, a whole manager's or one group's. Acts on what the planner decides.

Two phases: wait until nothing is left or the time is over; cancel each, once, and wait again.
It is woken by events only (the last task ended, a grace ran out, a group emptied, somebody forced), because
deciding looks at all live work: once per task that ends would be quadratic for a hundred thousand of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Protocol

from ._diagnose import error_text, task_stack, thread_stack
from ._disown import disown
from ._plan import Deadlines, Phase, ShutdownPlan
from ._planner import cancel_due, decide
from ._record import Record
from ._report import Outcome, PhaseReport, ResourceOutcome, ShutdownReport, TaskOutcome
from ._roster import Roster, logger
from ._state import Kind, StopReason, TaskStatus

# So many ends of each outcome are listed; the rest is counted. A drain of 100 000 tasks must not build a report
# of 100 000 entries that nobody reads. Who was left behind is always listed.
_LISTED = 1000

_BAD = frozenset({Outcome.CANCELLED, Outcome.FAILED, Outcome.REFUSED, Outcome.THREAD_LEFT})

_CANCELLED, _FAILED = TaskStatus.CANCELLED, TaskStatus.FAILED

_ENDLESS = frozenset({Kind.STREAM, Kind.WEBSOCKET})

# The share of the cancel budget a critical section may use up; the rest is for cleaning up after the cancel.
_CRITICAL_SHARE = 0.8


class Subject(Protocol):
    """What is drained."""

    def records(self) -> Iterable[Record]:
        """All of it that lives."""

    def includes(self, record: Record) -> bool:
        """Whether this record (which has just ended) belonged to it."""

    def busy(self) -> int:
        """How much of it the drain waits for."""

    def size(self) -> int:
        """How much of it lives, daemons included."""


class Threads(Protocol):
    """The side of the thread lane a drain needs."""

    def follows(self, task: asyncio.Task[Any]) -> bool: ...
    def ident_of(self, task: asyncio.Task[Any]) -> int | None: ...
    def abandon(self, task: asyncio.Task[Any]) -> None: ...


class Drain:
    """Made when the stop is told; from then on it takes down every end."""

    def __init__(
        self, roster: Roster, subject: Subject, reason: StopReason, name: str, threads: Threads | None = None
    ) -> None:
        self._roster = roster
        self._subject = subject
        self._reason = reason
        self._name = name
        self._threads = threads
        self._wake: asyncio.Future[None] | None = None
        self._given_up: set[int] = set()
        self._cut_off: set[int] = set()
        self._cancelling = False
        self._interrupted: asyncio.CancelledError | None = None
        self._began = roster.clock()
        self._began_wall = time.time()
        self._refused_before = roster.refused_births
        self.forced = 0
        self.counts = dict.fromkeys(Outcome, 0)
        self.tasks: list[TaskOutcome] = []
        self.unclean = 0
        self.phases: list[PhaseReport] = []
        roster.watch(self._on_ended)

    # --- waking ----------------------------------------------------------------------------------------

    def poke(self) -> None:
        """Decide again, at the next turn of the loop."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def force(self) -> None:
        """The first time: the drain is over. The second time: the cancel is, too."""
        self.forced += 1
        self.poke()

    async def pause(self, until: float) -> None:
        """Sleep until `until` or a poke. A cancel from outside (the loop is being torn down) counts as force."""
        loop = asyncio.get_running_loop()
        self._wake = wake = loop.create_future()
        timer = loop.call_later(max(0.0, until - self._roster.clock()), _set, wake)
        try:
            await wake
        except asyncio.CancelledError as error:
            self.forced += 1
            self._interrupted = error
        finally:
            timer.cancel()
            self._wake = None

    # --- the phases ------------------------------------------------------------------------------------

    async def wait_idle(self, deadlines: Deadlines) -> None:
        """The drain phase: return when nothing is busy, the time is over, or somebody forces."""
        while self._subject.busy() and not self.forced:
            now = self._roster.clock()
            if now >= deadlines.drain_end:
                return
            decision = decide(self._subject.records(), now, deadlines)
            self._cancel(decision.cancel, deadlines)
            await self.pause(min(decision.look_again_at, deadlines.drain_end))

    async def cancel_rest(self, deadlines: Deadlines) -> None:
        """The cancel phase: one cancel each; return when all have ended, or name those who did not."""
        self._cancelling = True
        while self._subject.size():
            now = self._roster.clock()
            if self.forced > 1:
                now = max(now, deadlines.cancel_end)
            decision = decide(self._subject.records(), now, deadlines)
            self._cancel(decision.cancel, deadlines)
            if decision.give_up:
                await self._turns()  # for those who were only just cancelled, with a budget of 0
                # Threads first: who merely waits for a stuck thread ends with it, and is not to blame.
                for give_up in (self._leave_thread, self._refused):
                    for record in decision.give_up:
                        give_up(record)
                    await self._turns()
                return
            await self.pause(decision.look_again_at)

    async def run_alone(self, plan: ShutdownPlan, deadlines: Deadlines) -> ShutdownReport:
        """Both phases and the report, for a group."""
        try:
            await self.timed(Phase.DRAIN, plan, self.wait_idle(deadlines))
            deadlines = deadlines.cancel_from(self._roster.clock(), plan)
            await self.timed(Phase.CANCEL, plan, self.cancel_rest(deadlines))
        finally:
            self.close()
        if self._interrupted is not None:
            raise self._interrupted  # the caller's own cancel, held back until the end was an orderly one
        return self.report(plan)

    async def timed(self, phase: Phase, plan: ShutdownPlan, work: Any) -> Any:
        """Run one phase and write down how long it took."""
        began = self._roster.clock()
        try:
            return await work
        finally:
            self.phases.append(PhaseReport(phase, plan.budget_seconds(phase), self._roster.clock() - began))

    def close(self) -> None:
        """Stop taking down ends."""
        self._roster.unwatch(self._on_ended)

    def grace_told(self, record: Record, deadlines: Deadlines) -> None:
        """Let work with a grace of its own read that grace as its remaining time."""
        self._roster.own_node(record).stop(self._reason, cancel_due(record, deadlines))

    async def _turns(self) -> None:
        """Let the loop turn until a task cancelled just now, and willing, has ended and its callbacks have run.

        Cancelling the innermost future, waking the task, its last step and its callbacks each take a turn.
        """
        for _ in range(5):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                self._interrupted = error

    # --- acting ----------------------------------------------------------------------------------------

    def _cancel(self, records: Iterable[Record], deadlines: Deadlines) -> None:
        now = self._roster.clock()
        latest = now if self.forced > 1 else now + max(0.0, deadlines.cancel_end - now) * _CRITICAL_SHARE
        for record in records:
            # Before the cancel, which may end it at once. Whom others cancelled is not in here: that was not us.
            # Nor is an endless stream that had its grace: it was ended properly, and nothing of it is lost.
            if record.grace_seconds is None or record.kind not in _ENDLESS:
                self._cut_off.add(record.number)
            self._roster.cancel(record, self._reason, latest=latest)

    def _leave_thread(self, record: Record) -> None:
        task, threads = record.live_task, self._threads
        if record.ended_at is None and task is not None and threads is not None and threads.follows(task):
            self._given_up.add(record.number)
            stack = thread_stack(threads.ident_of(task), below="ThreadLane._work")
            self._note(record, Outcome.THREAD_LEFT, stack=tuple(stack))
            threads.abandon(task)

    def _refused(self, record: Record) -> None:
        task = record.live_task
        if record.ended_at is None and task is not None and record.number not in self._given_up:
            self._given_up.add(record.number)
            disown(task)
            self._note(record, Outcome.REFUSED, stack=tuple(task_stack(task)))

    # --- taking down -----------------------------------------------------------------------------------

    def _on_ended(self, record: Record) -> None:
        if not self._subject.includes(record):
            return
        if record.number not in self._given_up:
            self._note(record, _outcome_of(record))
        if not (self._subject.size() if self._cancelling else self._subject.busy()):
            self.poke()

    def _note(self, record: Record, outcome: Outcome, stack: tuple[str, ...] = ()) -> None:
        self.counts[outcome] += 1
        cut_off = outcome is Outcome.CANCELLED and record.number in self._cut_off
        if outcome in _BAD and (outcome is not Outcome.CANCELLED or (cut_off and not record.daemon)):
            self.unclean += 1
        if self.counts[outcome] > _LISTED and not stack:
            return
        task, extra = record.live_task, record.extra
        error = task.exception() if outcome is Outcome.FAILED and task is not None and task.done() else None
        self.tasks.append(
            TaskOutcome(
                id=record.id,
                name=record.name,
                kind=record.kind,
                group=None if record.group is None else record.group.name,
                daemon=record.daemon,
                outcome=outcome,
                seconds=self._roster.clock() - self._began,
                reason=record.reason,
                cut_off=cut_off,
                error=None if error is None else error_text(error),
                swallowed_cancel=extra is not None and extra.swallowed,
                stack=stack,
            )
        )

    def report(self, plan: ShutdownPlan, resources: tuple[ResourceOutcome, ...] = ()) -> ShutdownReport:
        """What has been taken down, frozen."""
        return ShutdownReport(
            name=self._name,
            reason=self._reason,
            started_at=self._began_wall,
            seconds=self._roster.clock() - self._began,
            budget_seconds=plan.total_seconds,
            phases=tuple(self.phases),
            counts=dict(self.counts),
            tasks=tuple(self.tasks),
            resources=resources,
            forced=self.forced > 0,
            late_births_refused=self._roster.refused_births - self._refused_before,
            unclean=self.unclean,
        )

    def log(self, report: ShutdownReport) -> None:
        """One log record: info when clean, otherwise a warning with everything that went wrong."""
        (logger.info if report.clean else logger.warning)("%s", report, extra={"event": "shutdown.ended"})


def _outcome_of(record: Record) -> Outcome:
    if record.extra is not None and record.extra.handed_over:
        return Outcome.HANDED_OVER
    if record.status is _CANCELLED:
        return Outcome.CANCELLED
    if record.status is _FAILED:
        return Outcome.FAILED
    return Outcome.STOPPED if record.extra is not None and record.extra.observed else Outcome.FINISHED


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
