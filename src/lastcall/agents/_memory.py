"""MemoryRuns: runs that live in this process, each a task of a manager.

Theory of operation. A run is a task from the moment it is submitted, so the manager lists it, and its shutdown counts
it. It first waits at a gate. The gates are opened here, in the order of `_limits`, as places get free: by the end of a
run, or by one that waits for a message and holds no place meanwhile. At a stop those that have not begun are cancelled
at once: nobody could go on with them, and a minute of an agent is no part of a drain. Those that run are told, may
finish, and are cancelled at the deadline of the plan.

Who calls it: `AgentQueue` and `Run`. What it owns: the group, the places, the runs that live and a bounded memory of
those that have ended. What can go wrong: a run that swallows its cancellation is given up by the manager; whoever waits
for it is told when the manager closes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import time
from traceback import format_exception
from types import CoroutineType
from typing import Any

from .._core._drain import Drain
from .._core._group import TaskGroup, _Subtree
from .._core._manager import TaskManager
from .._core._plan import ShutdownPlan
from .._core._report import ShutdownReport
from .._core._scope import current_scope
from .._core._state import ManagerState, StopReason, TaskStatus
from ..exceptions import KeyConflict, NotOpen, UnknownRun
from ..jobs._codec import dump_error, load_plain
from ..jobs._ids import new_id
from ..jobs._settings import shown
from ..jobs._state import CancelOutcome
from ..streams import Log
from ._limits import Limits
from ._live import EndedRuns, LiveRun
from ._places import Places
from ._run import OnBusy, Order, RunInfo, RunStatus, busy, cancelled, failed

# What a run does once it has its place: given by the queue, which knows the agent.
Work = Callable[[LiveRun], Awaitable[Any]]


class MemoryRuns:
    def __init__(
        self,
        name: str,
        limits: Limits,
        work: Work,
        *,
        keep_ended: int,
        keep_ended_seconds: float,
        keep_bytes: int,
        log_bytes: int,
    ) -> None:
        self._name = name
        self._limits = limits
        self._work = work
        self._log_bytes = log_bytes
        self.manager: TaskManager | None = None
        self._group: TaskGroup
        self._places = Places(limits)
        self._live: dict[str, LiveRun] = {}
        self._ended = EndedRuns(keep_ended, keep_ended_seconds, keep_bytes)
        self._keys: dict[str, str] = {}
        # Of each conversation the turns that have not ended, in order.
        self._talks: dict[str, list[LiveRun]] = {}
        self._stopping = False

    # --- open and close --------------------------------------------------------------------------------

    def bind(self, manager: TaskManager) -> None:
        """Run as tasks of this manager, which is open."""
        roster = manager._require_own_loop(f"the queue {self._name!r}")
        self._group = manager.group(on_error="isolate")
        self.manager = manager
        self._stopping = False
        self._places = Places(self._limits)
        manager.on_close(self._abandon, name=f"agents {self._name}")
        # In the manager's own context: begun in a request, it must not keep that request's variables.
        context = roster.context.copy()
        context.run(current_scope.set, roster.scope)
        watch = self._hear_of_stop(self._group)
        manager.create_task(watch, name=f"agents {self._name}: hear of a stop", daemon=True, context=context)

    @property
    def is_bound(self) -> bool:
        """Whether its manager lives, and is still the same: it may have been closed and opened again since."""
        manager = self.manager
        if manager is None or manager.state is ManagerState.CLOSED:
            return False
        return manager._roster is self._group._roster

    async def _hear_of_stop(self, group: TaskGroup) -> None:
        await group._node.wait()
        if group is self._group:
            self._refuse_pending(group._node.reason or StopReason.SHUTDOWN)

    def _refuse_pending(self, reason: StopReason) -> None:
        """Who has not begun never will, and is told why."""
        self._stopping = True
        assert self.manager is not None
        pending = [live for live in self._live.values() if live.started_at is None]
        self._places.clear_line()
        for live in pending:
            if live.record is not None:
                self.manager._roster.cancel(live.record, reason)

    async def shutdown(self, plan: ShutdownPlan) -> ShutdownReport | None:
        """Stop these runs alone, by this plan; the manager lives on. None: there is nothing to stop."""
        manager = self.manager
        if manager is None or manager.state is ManagerState.CLOSED:
            return None
        if manager.state not in (ManagerState.OPEN, ManagerState.NOTICE):
            # It drains already, and these with it; whoever waits here may be one of its tasks, which it waits for.
            while tasks := self._group.tasks:
                await asyncio.wait(tasks)
            return None
        roster = manager._roster
        deadlines = plan.deadlines(roster.clock(), skip_notice=True)
        self._group._tell(StopReason.SHUTDOWN, deadlines.drain_end)
        self._refuse_pending(StopReason.SHUTDOWN)
        subject = _Subtree(self._group, roster)
        drain = Drain(roster, subject, StopReason.SHUTDOWN, f"agents {self._name}", manager._threads)
        try:
            return await drain.run_alone(plan, deadlines)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """The manager has given up whatever still runs; nobody must wait for it for ever."""
        for live in list(self._live.values()):
            live.reason = live.reason or StopReason.SHUTDOWN
            live.told_error = {"type": "Refused", "message": "it swallowed its cancellation", "traceback": ""}
            self._end(live, RunStatus.CANCELLED)

    # --- submitting ------------------------------------------------------------------------------------

    async def submit(self, order: Order, on_busy: OnBusy) -> str:
        """Queue it; its id. Raises `QueueFull`, `ConversationBusy`, `ShuttingDown`, `NotOpen`, `KeyConflict`."""
        if order.key is not None and (known := self._of_key(order)) is not None:
            return known
        manager = self.manager
        if manager is None:
            raise NotOpen(f"the queue {self._name!r} is not open; use it inside `async with queue:`")
        before = self._talks.get(order.conversation, []) if order.conversation is not None else []
        if before and on_busy == "reject":
            raise busy(order.conversation, before[0].id)
        self._places.check_room(order.user, must_wait=bool(before))
        if order.conversation is not None and order.turn is not None and before:
            order = order._replace(turn=max(order.turn, (before[-1].order.turn or 0) + 1))
        ticket = self._places.register(new_id(), order.user, order.priority)
        live = LiveRun(order, ticket, self._log_bytes)
        try:
            self._begin(live, manager)
        except BaseException:
            self._places.forget(ticket)
            raise
        if on_busy == "interrupt":
            for earlier in list(before):
                if earlier is not live and earlier.record is not None:
                    manager._roster.cancel(earlier.record, StopReason.USER)
        return live.id

    def _of_key(self, order: Order) -> str | None:
        run_id = self._keys.get(order.key or "")
        if run_id is None:
            return None
        known = self._get(run_id).order
        if (known.prompt, known.user, known.budget) != (order.prompt, order.user, order.budget):
            raise KeyConflict(
                f"the key {order.key!r} belongs to run {run_id}, which was asked something else; nothing was queued"
            )
        return run_id

    def _begin(self, live: LiveRun, manager: TaskManager) -> None:
        """Make its task, which waits for its place."""
        order, roster = live.order, manager._roster
        live.gate = roster.loop.create_future()
        name, coro = f"{self._name}: {live.id}", self._go(live)
        if isinstance(coro, CoroutineType):
            coro.__qualname__ = name  # by which a refusal calls it
        task = self._group.create_task(coro, name=name)
        live.task = task
        live.record = record = roster.live.get(task)
        if record is not None:
            record.status, record.started_at = TaskStatus.PENDING, None  # `_take_places` turns it back
        self._live[live.id] = live
        if order.key is not None:
            self._keys[order.key] = live.id
        live.log.append("status", {"status": "pending"})
        task.add_done_callback(partial(self._on_done, live), context=roster.context)
        if order.conversation is not None:
            talk = self._talks.setdefault(order.conversation, [])
            talk.append(live)
            if talk[0] is not live:
                return  # the turn before it lets it into the line
        self._places.join(live.ticket)
        self._take_places()

    # --- places ----------------------------------------------------------------------------------------

    def _take_places(self) -> None:
        while (ticket := self._places.take()) is not None:
            live = self._live[ticket.run_id]
            live.status = RunStatus.RUNNING
            if live.started_at is None:
                live.started_at = time()
                if live.record is not None and self.manager is not None:
                    live.record.status = TaskStatus.RUNNING
                    live.record.started_at = self.manager._roster.clock()
            live.log.append("status", {"status": "running"})
            if live.gate is not None and not live.gate.done():
                live.gate.set_result(None)

    async def _go(self, live: LiveRun) -> Any:
        assert live.gate is not None
        await live.gate
        return await self._work(live)

    async def wait_for(self, live: LiveRun, name: str, timeout: float | None) -> Any:
        """A message, without a place meanwhile. Raises TimeoutError, with a place again."""
        if live.has_mail(name):
            return await live.take(name)
        self._places.give_back(live.ticket)
        live.status = RunStatus.WAITING
        live.log.append("status", {"status": "waiting"})
        self._take_places()
        try:
            async with asyncio.timeout(timeout):
                return await live.take(name)
        except TimeoutError:
            raise TimeoutError(f"no message {name!r} came within {timeout:g} s") from None
        finally:
            if live.record is not None and live.record.cancelled_at is None:
                await self._come_back(live)

    async def _come_back(self, live: LiveRun) -> None:
        """Wait for a place again, together with whatever else of this run waits for it."""
        if self._places.holds(live.ticket):
            return
        gate = live.gate
        if gate is None or gate.done():
            gate = live.gate = asyncio.get_running_loop().create_future()
            self._places.join(live.ticket)
            self._take_places()
        await asyncio.wait({gate})

    # --- ends ------------------------------------------------------------------------------------------

    def _on_done(self, live: LiveRun, task: asyncio.Task[Any]) -> None:
        if live.ended_at is not None:
            return  # given up before
        record = live.record
        was_cancelled = record is not None and record.cancelled_at is not None
        live.reason = record.reason if record is not None and was_cancelled else None
        if task.cancelled():
            self._end(live, RunStatus.CANCELLED)
        elif (error := task.exception()) is not None:
            live.error = error
            live.told_error = load_plain(dump_error(error, "".join(format_exception(error))))
            # What was asked of it comes before what it raised while it cleaned up.
            self._end(live, RunStatus.CANCELLED if was_cancelled else RunStatus.FAILED)
        else:
            live.result = task.result()
            self._end(live, RunStatus.COMPLETED)

    def _end(self, live: LiveRun, status: RunStatus) -> None:
        live.status = status
        live.ended_at = time()
        del self._live[live.id]
        self._places.forget(live.ticket)
        told = {"status": str(status), "reason": live.reason}
        live.log.append("status", {name: value for name, value in told.items() if value is not None})
        live.log.close()
        live.ended.set()
        for gone in self._ended.remember(live):
            if gone.order.key is not None:
                self._keys.pop(gone.order.key, None)
        self._let_next_turn(live)
        self._take_places()

    def _let_next_turn(self, live: LiveRun) -> None:
        """The turns of a conversation go one after the other, whatever becomes of each."""
        talk = self._talks.get(live.order.conversation or "", [])
        was_first = bool(talk) and talk[0] is live
        if live in talk:
            talk.remove(live)
        if not talk:
            self._talks.pop(live.order.conversation or "", None)
        elif was_first and not self._stopping:
            self._places.join(talk[0].ticket)

    # --- what handles ask ------------------------------------------------------------------------------

    def _get(self, run_id: str) -> LiveRun:
        known = isinstance(run_id, str)
        live = (self._live.get(run_id) or self._ended.get(run_id)) if known else None
        if live is None:
            raise UnknownRun(
                f"the queue {self._name!r} knows no run {shown(run_id)}; ended ones are remembered for some time only"
            )
        return live

    async def info(self, run_id: str) -> RunInfo:
        return self._get(run_id).info()

    async def wait(self, run_id: str, timeout: float | None) -> RunInfo:
        return (await self._final(run_id, timeout)).info()

    async def _final(self, run_id: str, timeout: float | None) -> LiveRun:
        live = self._get(run_id)
        if live.ended_at is None:  # one look is free: with a timeout of 0 as well
            async with asyncio.timeout(timeout):
                await live.ended.wait()
        return live

    async def result(self, run_id: str, timeout: float | None) -> Any:
        live = await self._final(run_id, timeout)
        if live.status is RunStatus.COMPLETED:
            return live.result
        if live.status is RunStatus.FAILED:
            raise failed(live.id, live.told_error) from live.error
        raise cancelled(live.id, live.reason)

    async def cancel(self, run_id: str, reason: StopReason) -> CancelOutcome:
        live = self._get(run_id)
        if live.ended_at is not None or live.record is None or self.manager is None:
            return CancelOutcome.ALREADY_ENDED
        had_begun = live.started_at is not None
        self.manager._roster.cancel(live.record, reason)
        if had_begun:
            return CancelOutcome.REQUESTED
        await live.ended.wait()
        return CancelOutcome.CANCELLED

    async def send(self, run_id: str, name: str, data: Any) -> RunStatus:
        live = self._get(run_id)
        if live.ended_at is None:
            live.deliver(name, data)
        return live.status

    def log(self, run_id: str) -> Log:
        return self._get(run_id).log

    async def again(self, run_id: str) -> str:
        """Ask the same once more, as a new run: nothing of the old one can be gone on with."""
        live = self._get(run_id)
        if live.ended_at is None or live.status is RunStatus.COMPLETED:
            return live.id
        return await self.submit(live.order._replace(key=None), "queue")

    async def find(
        self, statuses: Sequence[RunStatus] | None, user: str | None, conversation: str | None, limit: int
    ) -> list[RunInfo]:
        found = [
            live
            for live in (*self._ended, *self._live.values())
            if (statuses is None or live.status in statuses)
            and (user is None or live.order.user == user)
            and (conversation is None or live.order.conversation == conversation)
        ]
        found.sort(key=lambda live: live.ticket.number, reverse=True)
        return [live.info() for live in found[:limit]]

    async def counts(self) -> dict[RunStatus, int]:
        """How many are known, by status."""
        counted = Counter(live.status for live in (*self._ended, *self._live.values()))
        return {status: counted[status] for status in RunStatus}
