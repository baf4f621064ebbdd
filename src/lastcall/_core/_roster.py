"""The roster: every piece of work from birth to its record. This is the hot path.

Who calls it: TaskManager and TaskGroup (spawn), the loop (done-callbacks), the runner and cancel verbs (cancel).
What it owns: strong references while work lives, counts, the bounded memory of what ended, reporting errors once.

Bookkeeping hangs on done-callbacks, never on a wrapper coroutine: a task cancelled before its first step
runs no line of any wrapper, yet must be counted; and a wrapper costs a frame per task.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Iterator, Mapping
from enum import Enum
from time import time as wall_time
from types import CoroutineType, MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from ..exceptions import DuplicateTask, ManagerClosed, NotACoroutine, ShuttingDown, WrongLoop
from ._clock import Clock, clock_of
from ._diagnose import error_text
from ._memory import Memory
from ._observer import TaskObserver, tell
from ._plan import Deadlines
from ._planner import cancel_due
from ._record import NO_LABELS, Extra, Record, TaskInfo
from ._scope import Scope, current_scope
from ._state import Kind, StopReason, TaskStatus
from ._stop import StopNode

if TYPE_CHECKING:
    from ._group import TaskGroup

logger = logging.getLogger("lastcall")

OnError = Callable[[TaskInfo, BaseException], object]

_COMPLETED, _FAILED, _CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED

_TASK_KINDS = frozenset({Kind.TASK, Kind.THREAD, Kind.SERVICE})


class Intake(Enum):
    """Who may be born: anybody; only children of work that is still draining; nobody."""

    OPEN = "open"
    CHILDREN = "children"
    CLOSED = "closed"


_OPEN = Intake.OPEN


class Roster:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        keep_ended: int,
        keep_ended_seconds: float,
        keep_results: bool,
        keep_errors: bool,
        on_error: OnError | None,
    ) -> None:
        self.loop = loop
        self.owner: object | None = None  # the manager, for those who find the roster through a scope
        self.clock: Clock = clock_of(loop)
        self.node = StopNode(self.clock)
        self.scope = Scope(self)
        self.live: dict[asyncio.Task[Any], Record] = {}
        self.holds: dict[int, Record] = {}
        self.daemons = 0
        self.completed = self.failed = self.cancelled = self.swallowed = 0
        self.intake = Intake.OPEN
        self.refused_births = 0
        self.closed = False
        # Told of every end. A tuple, replaced when it changes, so that a watcher may take itself out.
        self.watchers: tuple[Callable[[Record], None], ...] = ()
        self.observers: tuple[TaskObserver, ...] = ()
        self.replan: Callable[[], None] | None = None
        self.deadlines: Deadlines | None = None
        self._on_error = on_error
        self._number = itertools.count(1).__next__
        # One context for all done-callbacks: copying the caller's for each costs time and memory,
        # and would keep a request's variables alive as long as its longest task.
        self.context = contextvars.copy_context()
        self.memory = Memory(
            loop,
            self.clock,
            self.context,
            keep_ended=keep_ended,
            keep_ended_seconds=keep_ended_seconds,
            keep_results=keep_results,
            keep_errors=keep_errors,
        )
        self._remember = self.memory.remember
        self._done = self._on_done

    # --- birth -----------------------------------------------------------------------------------------

    def spawn(
        self,
        coro: Coroutine[Any, Any, Any],
        name: str | None,
        kind: Kind = Kind.TASK,
        group: TaskGroup | None = None,
        daemon: bool = False,
        context: contextvars.Context | None = None,
        extra: Extra | None = None,
        pending: bool = False,
    ) -> asyncio.Task[Any]:
        """Make the task with the loop's own factory and keep its record. The coroutine was checked before."""
        loop = self.loop
        shown = name or getattr(coro, "__qualname__", None) or type(coro).__qualname__
        record = Record(self._number(), shown, kind, group, daemon, None if pending else self.clock(), extra)
        if extra is not None and extra.id is not None:
            self.memory.ids[extra.id] = record  # before an eager first step could take the same id
        scope = current_scope.get()
        eager = False
        try:
            if self.observers and (group is None or group._is_observed):
                task = self._spawn_observed(coro, name, record, context)
                eager = task.done()
            elif (
                context is None
                and scope is not None
                and scope.roster is self
                and (scope.record is None or scope.record.ended_at is None)
                and loop.get_task_factory() is None
            ):
                task = loop.create_task(coro, name=name)
            else:
                task = self._spawn_in_scope(coro, name, record, context)
                eager = task.done()
        except BaseException:
            self.memory.forget_id(record)
            coro.close()
            if self.observers:  # they have heard of its birth
                record.status, record.ended_at = _FAILED, self.clock()
                self._tell_ended(record)
            raise
        record.task = task
        self.live[task] = record
        if daemon:
            self.daemons += 1
        if eager:
            self._on_done(task)  # its callback would come a turn late, after the caller has looked
        else:
            task.add_done_callback(self._done, context=self.context)
        return task

    def _spawn_in_scope(
        self,
        coro: Coroutine[Any, Any, Any],
        name: str | None,
        record: Record,
        context: contextvars.Context | None,
        inner: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """The rare way: a foreign context, or a task factory that may run the first step right now.

        That first step must find its record although we do not know its task yet, so the scope carries it.
        """
        scope = Scope(self, record)
        if context is None:
            inner = contextvars.copy_context() if inner is None else inner
            inner.run(current_scope.set, scope)
            return inner.run(lambda: self.loop.create_task(coro, name=name))
        try:
            context.run(current_scope.set, scope)
        except RuntimeError:
            pass  # the caller's own, entered context: it sees the scope it is in, and is the caller's to choose
        return self.loop.create_task(coro, name=name, context=context)

    def _spawn_observed(
        self,
        coro: Coroutine[Any, Any, Any],
        name: str | None,
        record: Record,
        context: contextvars.Context | None,
    ) -> asyncio.Task[Any]:
        """Observers are told before the first step, and may set variables in the context that it will have."""
        inner = contextvars.copy_context() if context is None else context
        group = record.group
        inside = group is not None and group._entered
        tell(self.observers, "task_started", self.info(record), inner, inside=inside)
        return self._spawn_in_scope(coro, name, record, context, inner)

    def make_extra(self, id: str | None, labels: Mapping[str, str] | None) -> Extra | None:
        """The rarely needed half of a record, after checking that the id is free."""
        if id is None and not labels:
            return None
        extra = Extra()
        if id is not None:
            if self.find(id) is not None:
                raise DuplicateTask(
                    f"the task id {id!r} is taken; choose another, or look it up with info({id!r})"
                )
            if not id or (id.startswith("t-") and id[2:].isdigit()):
                raise DuplicateTask(
                    f"the task id {id!r} is reserved: empty and 't-<number>' ids are the manager's own"
                )
            extra.id = id
        if labels:
            extra.labels = MappingProxyType({str(key): str(value) for key, value in labels.items()})
        return extra

    def hold(self, name: str, kind: Kind, grace_seconds: float | None) -> Record:
        """A record for work in somebody else's task. It counts until `release`."""
        record = Record(self._number(), name, kind, None, False, self.clock(), None)
        record.grace_seconds = grace_seconds
        record.task = asyncio.current_task()
        self.holds[record.number] = record
        return record

    def release(self, record: Record) -> None:
        """The held work is over; nothing of it is kept."""
        if self.holds.pop(record.number, None) is None:
            return
        record.ended_at = self.clock()
        record.status = _COMPLETED if record.cancelled_at is None else _CANCELLED
        self._detach(record)
        record.task = None
        for watcher in self.watchers:
            watcher(record)

    # --- end -------------------------------------------------------------------------------------------

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        record = self.live.pop(task)
        record.ended_at = self.clock()
        error: BaseException | None = None
        if task.cancelled():
            record.status = _CANCELLED
            self.cancelled += 1
        elif (error := task.exception()) is None:
            record.status = _COMPLETED
            self.completed += 1
        else:
            record.status = _FAILED
            self.failed += 1
        if record.daemon:
            self.daemons -= 1
        if record.cancelled_at is not None and record.status is not _CANCELLED:
            self._swallowed(record)
        if record.extra is not None:
            self._detach(record)
        group = record.group
        if error is not None and (group is None or not group._takes_error(error)):
            self.report_error(record, error)
        if group is not None:
            group._on_member_done(record, task, error)
        for watcher in self.watchers:
            watcher(record)  # before the memory, which may drop what they want to tell of
        self._remember(record, task)

    def _swallowed(self, record: Record) -> None:
        record.ensure_extra().swallowed = True
        self.swallowed += 1
        logger.warning(
            "%s was cancelled (%s) and ended as %s: it swallowed the cancellation; let CancelledError pass",
            record.describe(),
            record.reason,
            record.status,
            extra=record.log_fields("task.cancel_swallowed"),
        )

    def _detach(self, record: Record) -> None:
        if record.extra is not None and record.extra.node is not None:
            record.extra.node.detach()

    def report_error(self, record: Record, error: BaseException) -> None:
        """Report one exception, once: to the hook if there is one, otherwise to the logger."""
        if self._on_error is not None:
            try:
                self._on_error(self.info(record), error)
                return
            except (Exception, asyncio.CancelledError):
                # CancelledError too: out of a done-callback it would take the rest of the bookkeeping with it.
                logger.exception(
                    "on_error itself failed while told of %s",
                    record.describe(),
                    extra=record.log_fields("on_error.failed"),
                )
        reason, trace = error_text(error), (type(error), error, error.__traceback__)
        logger.error(
            "%s failed: %s", record.describe(), reason, exc_info=trace, extra=record.log_fields("task.failed")
        )

    def watch(self, watcher: Callable[[Record], None]) -> None:
        self.watchers = (*self.watchers, watcher)

    def unwatch(self, watcher: Callable[[Record], None]) -> None:
        self.watchers = tuple(w for w in self.watchers if w != watcher)

    def observe(self, observers: tuple[TaskObserver, ...]) -> None:
        """From now on these, and nobody else, are told of births and ends."""
        if bool(observers) != bool(self.observers):
            (self.watch if observers else self.unwatch)(self._tell_ended)
        self.observers = observers

    def _tell_ended(self, record: Record) -> None:
        if record.kind in _TASK_KINDS and (record.group is None or record.group._is_observed):
            tell(self.observers, "task_ended", self.info(record))

    def close(self) -> None:
        """The shutdown is over; stop the timer. Records stay readable."""
        self.closed = True
        self.memory.close()

    # --- looking ---------------------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """How much work the drain waits for."""
        return len(self.live) + len(self.holds) - self.daemons

    def records(self) -> Iterator[Record]:
        """All live work, holds included."""
        return itertools.chain(self.live.values(), self.holds.values())

    def find(self, key: asyncio.Task[Any] | str) -> Record | None:
        """By task or id. Ids given by the user are indexed; `t-<n>` is looked for, which only people and pages do."""
        if not isinstance(key, str):
            return self.live.get(key) or self.memory.find(key)
        if key in self.memory.ids:
            return self.memory.ids[key]
        if not (key.startswith("t-") and key[2:].isdecimal()) or len(key) > 20:
            return None
        number = int(key[2:])
        everything = itertools.chain(self.records(), self.memory.ended)
        return next((r for r in everything if r.number == number and r.id == key), None)

    def info(self, record: Record) -> TaskInfo:
        """The frozen snapshot of a record."""
        offset = wall_time() - self.clock()
        result, error = self.memory.end_of(record)
        extra = record.extra
        return TaskInfo(
            id=record.id,
            name=record.name,
            kind=record.kind,
            group=None if record.group is None else record.group.name,
            status=record.status,
            labels=NO_LABELS if extra is None else extra.labels,
            daemon=record.daemon,
            started_at=None if record.started_at is None else record.started_at + offset,
            ended_at=None if record.ended_at is None else record.ended_at + offset,
            result=result,
            error=error,
            reason=record.reason,
            swallowed_cancel=extra is not None and extra.swallowed,
        )

    # --- stop and cancel -------------------------------------------------------------------------------

    def node_of(self, record: Record | None) -> StopNode:
        """The node that speaks for this work: its own, its group's, or the root."""
        if record is not None:
            if record.extra is not None and record.extra.node is not None:
                return record.extra.node
            if record.group is not None:
                return record.group._node
        return self.node

    def own_node(self, record: Record) -> StopNode:
        extra = record.ensure_extra()
        if extra.node is None:
            extra.node = StopNode(self.clock, self.node_of(record))
        return extra.node

    def cancel(self, record: Record, reason: StopReason, *, latest: float | None = None) -> None:
        """Cancel once, with a reason the task can read. A critical section holds it back, never beyond `latest`."""
        if record.cancelled_at is not None or record.ended_at is not None:
            return
        extra = record.extra
        if extra is not None and extra.critical_depth:
            now = self.clock()
            until = extra.critical_until if latest is None else min(extra.critical_until, latest)
            if now < until:
                extra.cancel_due = extra.cancel_due or reason
                self.loop.call_later(until - now, self._cancel_overdue, record, context=self.context)
                return
        self._cancel_now(record, reason)

    def set_grace(self, record: Record, grace_seconds: float | None) -> None:
        """Give work a time of its own within the drain; while draining it is told of it at once."""
        record.grace_seconds = grace_seconds
        if self.deadlines is not None and self.node.reason is not None and record.ended_at is None:
            self.own_node(record).stop(self.node.reason, cancel_due(record, self.deadlines))
            if self.replan is not None:
                self.replan()

    def _cancel_now(self, record: Record, reason: StopReason) -> None:
        task = record.live_task
        if task is None or task.done():
            return  # over already, its callback is on the way: what has ended cannot swallow a cancel
        record.cancelled_at = now = self.clock()
        record.reason = reason = record.reason or reason
        extra = record.extra
        if extra is not None:
            extra.cancel_due = None
            if extra.node is not None:
                extra.node.stop(reason, now)
        task.cancel(msg=reason)

    def _cancel_overdue(self, record: Record) -> None:
        extra = record.extra
        if extra is not None and extra.cancel_due is not None and record.ended_at is None:
            self._cancel_now(record, extra.cancel_due)

    def enter_critical(self, record: Record, max_seconds: float) -> None:
        extra = record.ensure_extra()
        extra.critical_depth += 1
        extra.critical_until = max(extra.critical_until, self.clock() + max_seconds)

    def leave_critical(self, record: Record) -> None:
        extra = record.ensure_extra()
        extra.critical_depth -= 1
        if extra.critical_depth == 0:
            extra.critical_until = 0.0
            if extra.cancel_due is not None:
                if record.kind is Kind.THREAD:
                    self.loop.call_soon_threadsafe(self._cancel_overdue, record)
                else:
                    self._cancel_overdue(record)

    # --- checks ----------------------------------------------------------------------------------------

    def admit(self, coro: Any, *, daemon: bool = False, what: str | None = None) -> None:
        """Refuse what cannot become a task of this loop now, closing the coroutine so that nothing warns later."""
        if (
            type(coro) is CoroutineType
            and self.intake is _OPEN
            and not coro.cr_suspended
            and not coro.cr_running
            and _get_running_loop() is self.loop
        ):
            return
        if type(coro) is not CoroutineType and not asyncio.iscoroutine(coro):
            hint = "; call the function: create_task(f()), not create_task(f)" if callable(coro) else ""
            raise NotACoroutine(f"a coroutine was expected, not {coro!r}{hint}")
        if getattr(coro, "cr_running", False) or getattr(coro, "cr_suspended", False):
            raise NotACoroutine(f"{coro!r} already runs elsewhere; a coroutine can belong to one task only")
        if _get_running_loop() is not self.loop:
            coro.close()
            raise WrongLoop(
                "a task was created from another event loop, or from a thread without one; "
                "a manager belongs to the loop that opened it (from a thread: loop.call_soon_threadsafe)"
            )
        if self.intake is not Intake.OPEN and not self.admits_late(daemon=daemon):
            coro.close()
            self.refuse(what or str(getattr(coro, "__qualname__", repr(coro))))

    def admits_late(self, *, daemon: bool = False) -> bool:
        """The rule for tasks born while stopping: only children of work that is itself still draining.

        Not the children of daemons, nobody waits for those; and not of what was cancelled already:
        a `finally` that starts new work would never come to an end.
        """
        if self.intake is not Intake.CHILDREN:
            return False
        parent = self._draining_parent()
        return parent is not None and (daemon or not parent.daemon)

    def admits_late_in(self, group: TaskGroup) -> bool:
        """The same rule for one group that stops while its manager goes on."""
        parent = self._draining_parent()
        return parent is not None and parent.group is not None and parent.group in group._subtree()

    def _draining_parent(self) -> Record | None:
        scope = current_scope.get()
        parent = scope.current_record() if scope is not None and scope.roster is self else None
        return parent if parent is not None and parent.cancelled_at is None else None

    def refuse(self, what: str) -> NoReturn:
        """Say why this work is not let in."""
        self.refused_births += 1
        if self.closed:
            raise ManagerClosed(f"{what!r} was not started: the manager has shut down")
        raise ShuttingDown(
            f"{what!r} was not started: the manager is shutting down and takes no new work "
            "(only tasks that are still draining may start children)"
        )
