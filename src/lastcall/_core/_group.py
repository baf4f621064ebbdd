"""TaskGroup: `asyncio.TaskGroup`, and what services need beyond it.

The contract of `async with` is asyncio's own, to the letter: CPython's tests run against this class.
The algorithm in one paragraph. The first failing child aborts the group: all children are cancelled and the
parent, which may be waiting for anything inside the block, is cancelled too, and that request is taken back
(`uncancel`) at the end, so that only a cancel from outside leaves the block as CancelledError.

Beyond it: a limit with a queue in front, `on_error="isolate"`, life without a block (inside a manager),
subgroups, `shutdown(timeout)` of one subtree, and an order of stopping between groups.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Collection, Coroutine, Iterator, Mapping
from contextvars import Context, Token
from types import CoroutineType, TracebackType
from typing import Any, Literal, Self, TypeVar

from ..exceptions import GroupFull, ShuttingDown
from ._clock import check_count, check_seconds
from ._drain import Drain
from ._plan import ShutdownPlan
from ._record import Extra, Record
from ._report import ShutdownReport
from ._roster import Roster
from ._scope import Scope, current_scope
from ._slots import Slots, behind
from ._state import Kind, StopReason
from ._stop import StopNode

T = TypeVar("T")
OnChildError = Literal["cancel", "isolate"]


class TaskGroup:
    """Tasks that stop together. A drop-in for `asyncio.TaskGroup`, with or without a manager.

    `limit`: at most so many run at once; the others wait as `pending`, first come, first served.
    `max_pending`: at most so many wait; beyond that `create_task` refuses with `GroupFull`,
    while `await group.spawn(...)` waits for room.
    `on_error="cancel"` (default): a failing child cancels the others and the block raises an
    ExceptionGroup, as asyncio does. `"isolate"`: failures are reported, one by one, the others go on.

    Inside a manager's context the tasks are the manager's: listed, counted, drained.
    `manager.group(...)` makes groups that live without a block.

        async with TaskGroup(limit=10) as group:
            for url in urls:
                group.create_task(fetch(url))
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        limit: int | None = None,
        max_pending: int | None = None,
        on_error: OnChildError = "cancel",
    ) -> None:
        if limit is not None:
            check_count(f"the limit of group {name!r}", limit, 1)
        if max_pending is not None:
            check_count(f"max_pending of group {name!r}", max_pending, 0)
            if limit is None:
                raise ValueError(f"max_pending of group {name!r} needs a limit; without one nothing waits")
        if on_error not in ("cancel", "isolate"):
            raise ValueError(f"on_error of group {name!r} must be 'cancel' or 'isolate', not {on_error!r}")
        self.name = name
        self.limit = limit
        self.max_pending = max_pending
        self.on_error = on_error
        self._roster: Roster | None = None
        self._node: StopNode
        self._tasks: set[asyncio.Task[Any]] = set()
        self._subgroups: weakref.WeakSet[TaskGroup] = weakref.WeakSet()
        self._above: TaskGroup | None = None
        self._stop_after: frozenset[str] = frozenset()
        self._errors: list[BaseException] = []
        self._base_error: BaseException | None = None
        self._parent: asyncio.Task[Any] | None = None
        self._parent_cancelled = False
        self._cancel_arrived = False
        self._token: Token[Scope | None] | None = None
        self._entered = False
        self._is_observed = True  # a worker's are not: its jobs have observers of their own
        self._exiting = False
        self._aborting = False
        self._stopping = False
        self._emptied: asyncio.Future[None] | None = None
        self._slots = Slots(limit, max_pending)

    def __repr__(self) -> str:
        words = [f" {self.name!r}" if self.name else ""]
        words += [f" tasks={len(self._tasks)}"] if self._tasks else []
        words += [f" pending={self.pending}"] if self.pending else []
        words += [" cancelling" if self._aborting else " stopping" if self._stopping else ""]
        return f"<TaskGroup{''.join(words)}>"

    @property
    def pending(self) -> int:
        """How many tasks wait for a slot."""
        return len(self._slots.gates)

    @property
    def tasks(self) -> frozenset[asyncio.Task[Any]]:
        """The tasks of this group that have not ended, subgroups not included."""
        return frozenset(self._tasks)

    # --- the block -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError(f"{self!r} has already been entered")
        parent = asyncio.current_task()
        if parent is None:
            raise RuntimeError(f"{self!r} cannot determine the parent task")
        ambient = _ambient_roster()
        if ambient is None:
            ambient = _lone_roster()
            self._token = current_scope.set(ambient.scope)
        self._bind(ambient)
        self._entered = True
        self._parent = parent
        return self

    async def __aexit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        self._exiting = True
        if exc is not None:
            if _is_base(exc) and self._base_error is None:
                self._base_error = exc
            if not self._aborting:
                self._abort()
        cancelled = exc if isinstance(exc, asyncio.CancelledError) else None
        self._cancel_arrived = cancelled is not None
        cancelled = await self._wait_for_children(cancelled)
        try:
            return await self._settle(exc, cancelled)
        finally:
            self._errors = []
            self._parent = None
            self._node.detach()
            for below in self._subtree():
                below._stopping = (
                    below._stopping or below is not self
                )  # nobody would wait for their tasks any more
            token, self._token = self._token, None
            if token is not None:
                current_scope.reset(token)

    async def _wait_for_children(
        self, cancelled: asyncio.CancelledError | None
    ) -> asyncio.CancelledError | None:
        """Until no child is left, in subgroups neither, whoever cancels the parent; the first cancel aborts."""
        while self._is_busy():
            self._emptied = asyncio.get_running_loop().create_future()
            try:
                await self._emptied
            except asyncio.CancelledError as error:
                self._cancel_arrived = True
                if not self._aborting:
                    cancelled = error
                    self._abort()
            finally:
                self._emptied = None
        return cancelled

    async def _settle(
        self, exc: BaseException | None, cancelled: asyncio.CancelledError | None
    ) -> bool | None:
        """What the block raises, now that all children have ended."""
        if self._base_error is not None:
            raise self._base_error
        parent = self._parent
        assert parent is not None
        if self._parent_cancelled:
            if not self._cancel_arrived:
                # An eager child failed inside create_task, and the block ended without an await since:
                # our own cancel still waits to be delivered, and before 3.13 uncancel() does not take that
                # back; it would hit whatever the parent awaits next (gh-128588).
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    pass
            if parent.uncancel() == 0:
                cancelled = None
        if cancelled is not None and not self._errors:
            raise cancelled
        if exc is not None and not isinstance(exc, asyncio.CancelledError):
            if self.on_error == "isolate":
                return None
            self._errors.append(exc)
        if self._errors:
            if parent.cancelling():
                # Cancelled from outside as well: keep the count, and make the next await raise.
                parent.uncancel()
                parent.cancel()
            raise BaseExceptionGroup("unhandled errors in a TaskGroup", self._errors) from None
        return None

    # --- new tasks -------------------------------------------------------------------------------------

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> asyncio.Task[T]:
        """Start a task in this group, or queue it as `pending` behind the limit. The task is real in both cases.

        Raises `GroupFull` where `max_pending` is reached, `ShuttingDown` while the group or manager stops,
        RuntimeError outside the block, `NotACoroutine`, `DuplicateTask`; the coroutine is closed then.
        """
        roster = self._admit(coro)
        try:
            extra = None if id is None and labels is None else roster.make_extra(id, labels)
            if self.limit is None:
                task = roster.spawn(coro, name, Kind.TASK, self, False, context, extra)
            elif self._slots.is_one_free:
                task = self._start(roster, coro, name, context, extra)
            else:
                return self._queue(roster, coro, name, context, extra)
        except BaseException:
            coro.close()
            raise
        if not task.done():
            self._tasks.add(task)
        return task

    async def spawn(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> asyncio.Task[T]:
        """`create_task` that waits for room instead of refusing: back-pressure on whoever produces work."""
        try:
            await self._slots.wait_for_room()
        except BaseException:
            coro.close()
            raise
        try:
            return self.create_task(coro, name=name, context=context, id=id, labels=labels)
        except BaseException:
            self._slots.signal_room()  # not taken; and if the group is stopping, the next one is told so, too
            raise

    def group(
        self,
        name: str | None = None,
        *,
        limit: int | None = None,
        max_pending: int | None = None,
        on_error: OnChildError = "cancel",
    ) -> TaskGroup:
        """A group below this one: it stops when this one stops, and can be stopped alone."""
        if self._roster is None:
            raise RuntimeError(f"{self!r} has not been entered")
        below = TaskGroup(name=name, limit=limit, max_pending=max_pending, on_error=on_error)
        below._bind(self._roster, parent_node=self._node)
        below._above = self
        self._subgroups.add(below)
        return below

    def _bind(self, roster: Roster, *, parent_node: StopNode | None = None, late: bool = False) -> None:
        """Become part of a roster. A group that stops late hangs on no node; the runner tells it in its turn."""
        if self._roster is not None:
            return
        self._roster = roster
        if parent_node is None and not late:
            scope = current_scope.get()
            record = scope.current_record() if scope is not None and scope.roster is roster else None
            parent_node = roster.node_of(record)
        self._node = StopNode(roster.clock, parent_node)

    def _admit(self, coro: Any) -> Roster:
        roster = self._roster
        if (
            roster is None
            or self._exiting
            or self._aborting
            or self._stopping
            or self.max_pending is not None
        ):
            self._check_open(roster, coro)
        assert roster is not None
        roster.admit(coro)
        return roster

    def _check_open(self, roster: Roster | None, coro: Any) -> None:
        problem: RuntimeError | None = None
        if roster is None:
            problem = RuntimeError(f"{self!r} has not been entered")
        elif self._exiting and not self._tasks:
            problem = RuntimeError(f"{self!r} is finished")
        elif self._aborting or (self._stopping and not roster.admits_late_in(self)):
            problem = ShuttingDown(f"{self!r} is shutting down and takes no new tasks")
        elif self._slots.are_full:
            problem = GroupFull(
                f"{self!r} is full: {self._slots.running} run (limit {self.limit}) and {self.pending} wait "
                f"(max_pending {self.max_pending}); try later, or wait with `await group.spawn(...)`"
            )
        if problem is not None:
            _close_soon(coro)
            raise problem

    def _start(
        self,
        roster: Roster,
        coro: Coroutine[Any, Any, T],
        name: str | None,
        context: Context | None,
        extra: Extra | None,
    ) -> asyncio.Task[T]:
        self._slots.running += 1
        try:
            return roster.spawn(coro, name, Kind.TASK, self, False, context, extra)
        except BaseException:
            self._slots.running -= 1
            raise

    def _queue(
        self,
        roster: Roster,
        coro: Coroutine[Any, Any, T],
        name: str | None,
        context: Context | None,
        extra: Extra | None,
    ) -> asyncio.Task[T]:
        gate = roster.loop.create_future()
        task = roster.spawn(behind(gate, coro), name, Kind.TASK, self, False, context, extra, pending=True)
        self._slots.wait(task, gate, coro)
        self._tasks.add(task)
        return task

    # --- called by the roster --------------------------------------------------------------------------

    def _takes_error(self, error: BaseException) -> bool:
        """Whether the block will raise this error, so that reporting it too would be twice."""
        parent = self._parent
        return self.on_error == "cancel" and parent is not None and not parent.done()

    def _on_member_done(self, record: Record, task: asyncio.Task[Any], error: BaseException | None) -> None:
        self._tasks.discard(task)
        if self.limit is not None and self._roster is not None:
            self._slots.release(record, task, self._roster)
        if not self._tasks:
            self._tell_emptied()
        if error is None or self.on_error == "isolate":
            return
        parent = self._parent
        if parent is not None and not parent.done():
            self._errors.append(error)
            if _is_base(error) and self._base_error is None:
                self._base_error = error
        if not self._aborting and not self._parent_cancelled:
            self._abort()
            if parent is None or parent.done():
                # A group without a block lives on after its members were cancelled.
                self._aborting = self._exiting
            else:
                self._parent_cancelled = True
                parent.cancel()

    def _tell_emptied(self) -> None:
        """Wake the block that waits for this group, or for one above it."""
        group: TaskGroup | None = self
        while group is not None:
            emptied = group._emptied
            if emptied is not None and not emptied.done() and not group._is_busy():
                emptied.set_result(None)
            group = group._above

    def _abort(self) -> None:
        """Cancel every child, once. What the parent itself was cancelled for is the children's reason too."""
        self._aborting = True
        assert self._roster is not None
        parent = self._roster.live.get(self._parent) if self._parent is not None else None
        inherited = parent.reason if parent is not None and parent.cancelled_at is not None else None
        for task in list(self._tasks):
            record = self._roster.live.get(task)
            if record is not None:
                self._roster.cancel(record, inherited or StopReason.GROUP)
        for below in tuple(self._subgroups):
            if not below._entered and below._is_busy():
                below._abort()
                below._aborting = False

    # --- stopping --------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask every task of this subtree to stop (reason `group`), take no new ones, and return at once."""
        self._tell(StopReason.GROUP, float("inf"))

    async def shutdown(self, timeout: float = 30.0, *, cancel_seconds: float = 5.0) -> ShutdownReport:
        """Stop this subtree: ask, wait up to `timeout` seconds, cancel what is left, wait up to `cancel_seconds`.

        What waits as `pending` was accepted, and runs if there is time. Calling it again, or before
        anything ran, is fine. Refusers are named in the report with their stacks, and not waited for.
        If the caller is cancelled meanwhile, the rest of the drain is skipped, and the cancellation goes on
        when the cancel phase is over.
        Raises `InvalidPlan` for impossible budgets, and RuntimeError inside the subtree's own tasks.
        """
        plan = ShutdownPlan(
            drain=check_seconds("shutdown(timeout)", timeout),
            cancel=check_seconds("cancel_seconds", cancel_seconds),
            close=0,
        )
        roster = self._roster
        if roster is None:
            raise RuntimeError(f"{self!r} has not been entered")
        current = asyncio.current_task()
        if any(current in group._tasks for group in self._subtree()):
            raise RuntimeError(
                f"a task of {self!r} cannot wait for its shutdown; call stop(), which returns at once"
            )
        deadlines = plan.deadlines(roster.clock())
        self._tell(StopReason.GROUP, deadlines.drain_end)
        drain = Drain(roster, _Subtree(self, roster), StopReason.GROUP, self.name or "group")
        return await drain.run_alone(plan, deadlines)

    def _tell(self, reason: StopReason, cancel_at: float) -> None:
        if self._roster is None:
            raise RuntimeError(f"{self!r} has not been entered")
        for group in self._subtree():
            group._stopping = True
        self._node.stop(reason, cancel_at)

    def _subtree(self) -> Iterator[TaskGroup]:
        yield self
        for below in tuple(self._subgroups):
            yield from below._subtree()

    def _is_over(self) -> bool:
        return (
            not self._tasks
            and (self._exiting or self._stopping)
            and all(g._is_over() for g in self._subgroups)
        )

    def _is_busy(self) -> bool:
        return any(group._tasks for group in self._subtree())


class _Subtree:
    """A group and all below it, as something that can be drained."""

    def __init__(self, group: TaskGroup, roster: Roster) -> None:
        self._group = group
        self._roster = roster

    def records(self) -> Iterator[Record]:
        live = self._roster.live
        for group in self._group._subtree():
            for task in group._tasks:
                if task in live:
                    yield live[task]

    def includes(self, record: Record) -> bool:
        return record.group is not None and any(record.group is group for group in self._group._subtree())

    def busy(self) -> int:
        return self.size()

    def size(self) -> int:
        return sum(len(group._tasks) for group in self._group._subtree())


def _close_soon(coro: Any) -> None:
    """Close a refused coroutine, unless the caller runs it himself in this very step.

    asyncio closes it at once since 3.13 and left it open before, and CPython's tests hold each version to that.
    """
    if not asyncio.iscoroutine(coro):
        return
    loop = asyncio._get_running_loop()
    if loop is None:
        coro.close()
    else:
        loop.call_soon(_close_unstarted, coro)


def _close_unstarted(coro: Coroutine[Any, Any, Any]) -> None:
    if not isinstance(coro, CoroutineType) or inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
        coro.close()


def _is_base(error: BaseException) -> bool:
    return isinstance(error, (SystemExit, KeyboardInterrupt))


def _ambient_roster() -> Roster | None:
    """The manager's roster in whose context we are, if it lives on this loop."""
    scope = current_scope.get()
    return scope.roster if scope is not None and scope.roster.loop is asyncio.get_running_loop() else None


def _lone_roster() -> Roster:
    return Roster(
        asyncio.get_running_loop(),
        keep_ended=0,
        keep_ended_seconds=0.0,
        keep_results=False,
        keep_errors=False,
        on_error=None,
    )


def check_stop_after(stop_after: Collection[str | TaskGroup]) -> frozenset[str]:
    """Names of the groups that stop before; unnamed groups cannot be referred to."""
    if isinstance(stop_after, str):
        return frozenset({stop_after})
    names = [g if isinstance(g, str) else g.name for g in stop_after]
    if any(name is None for name in names):
        raise ValueError("stop_after refers to groups by name; give that group a name")
    return frozenset(str(name) for name in names)
