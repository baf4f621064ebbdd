"""TaskManager: the verbs. What it decides itself is little: who is let in where, and when a shutdown begins."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import Context, ContextVar, Token
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, TypeVarTuple

from ..exceptions import DuplicateTask, ManagerClosed, NotOpen, ShuttingDown, UnknownTask, WrongLoop
from ._clock import check_count, check_seconds
from ._diagnose import task_stack, thread_stack
from ._group import OnChildError, TaskGroup, check_stop_after
from ._hold import Hold
from ._observer import TaskObserver, tell
from ._plan import ShutdownPlan
from ._record import Record, Stats, TaskInfo
from ._report import ShutdownReport
from ._resources import Resources
from ._roster import Intake, OnError, Roster, logger
from ._runner import ShutdownRunner
from ._scope import Scope, current_scope
from ._service import OnGiveUp, RestartPolicy, supervise
from ._state import MANAGER_TRANSITIONS, CancelAnswer, Kind, ManagerState, StopReason, TaskStatus
from ._threads import ThreadLane

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Home(Protocol):
    """Who carries the process' signals to the managers opened under it: `lastcall.run`."""

    def manager_opened(self, manager: TaskManager) -> None: ...
    def manager_leaving(self, manager: TaskManager) -> None: ...


current_home: ContextVar[Home | None] = ContextVar("lastcall_home", default=None)


class TaskManager:
    """Owns background work: knows it by name, shows it, cancels it, and ends it by plan.

    `plan`: the budget of its shutdown. `name`: in logs and reports.
    `keep_ended` (default 1000) and `keep_ended_seconds` (3600): how many ended tasks stay listed, and how
    long; with `keep_results` and `keep_errors` (both True) their results and exceptions stay too.
    `on_error(info, error)`: called once per failed task, in place of the logger `lastcall`.
    `max_threads`: how many `run_in_thread` calls run at once (default: cores + 4, at most 32).

    Raises `InvalidPlan` for impossible seconds, ValueError for impossible counts.

        async with TaskManager() as manager:
            manager.create_task(poll(), name="poll")
        print(manager.report)                             # leaving the block has drained
    """

    def __init__(
        self,
        *,
        plan: ShutdownPlan | None = None,
        name: str = "lastcall",
        keep_ended: int = 1000,
        keep_ended_seconds: float = 3600.0,
        keep_results: bool = True,
        keep_errors: bool = True,
        on_error: OnError | None = None,
        max_threads: int | None = None,
    ) -> None:
        if max_threads is not None:
            check_count("max_threads", max_threads, 1)
        if on_error is not None and (not callable(on_error) or inspect.iscoroutinefunction(on_error)):
            raise TypeError(f"on_error must be a plain function of (info, error), not {on_error!r}")
        self._plan = ShutdownPlan() if plan is None else plan
        self._name = name
        self._keep_ended = check_count("keep_ended", keep_ended, 0)
        self._keep_ended_seconds = check_seconds("keep_ended_seconds", keep_ended_seconds)
        self._keep_results = keep_results
        self._keep_errors = keep_errors
        self._on_error = on_error
        self._max_threads = max_threads
        self._state = ManagerState.NEW
        self._report: ShutdownReport | None = None
        self._groups: weakref.WeakValueDictionary[str, TaskGroup] = weakref.WeakValueDictionary()
        self._runner: ShutdownRunner | None = None
        self._shutdown_task: asyncio.Task[ShutdownReport] | None = None
        self._token: Token[Scope | None] | None = None
        self._home: Home | None = None
        self._observers: tuple[TaskObserver, ...] = ()
        self._roster: Roster
        self._threads: ThreadLane
        self._resources: Resources

    def __repr__(self) -> str:
        work = f" {len(self._roster.live)} tasks" if self._state is not ManagerState.NEW else ""
        return f"<TaskManager {self._name!r} {self._state}{work}>"

    # --- open and close --------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Bind to the running loop and take work. `async with manager` calls it; a closed manager may be opened again.

        Raises RuntimeError if it is open already.
        """
        if self._state not in (ManagerState.NEW, ManagerState.CLOSED):
            raise RuntimeError(f"{self!r} is open already; a manager is opened once at a time")
        self._roster = Roster(
            asyncio.get_running_loop(),
            keep_ended=self._keep_ended,
            keep_ended_seconds=self._keep_ended_seconds,
            keep_results=self._keep_results,
            keep_errors=self._keep_errors,
            on_error=self._on_error,
        )
        self._roster.owner = self
        self._roster.observe(self._observers)
        self._threads = ThreadLane(self._roster, self._max_threads)
        self._resources = Resources(self._roster.clock)
        self._groups = weakref.WeakValueDictionary()
        self._runner = self._shutdown_task = None
        self._report = None
        self._enter(ManagerState.OPEN)
        return self

    async def __aenter__(self) -> Self:
        await self.open()
        self._token = current_scope.set(self._roster.scope)
        self._home = current_home.get()
        if self._home is not None:
            self._home.manager_opened(self)
        return self

    async def __aexit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        home, self._home = self._home, None
        if home is not None:
            home.manager_leaving(self)
        try:
            await self.shutdown(skip_notice=True)
        finally:
            token, self._token = self._token, None
            if token is not None:
                current_scope.reset(token)

    @property
    def plan(self) -> ShutdownPlan:
        """The budget of the shutdown."""
        return self._plan

    @property
    def name(self) -> str:
        """The name in logs and reports."""
        return self._name

    @property
    def state(self) -> ManagerState:
        """Where the manager is between `new` and `closed`."""
        return self._state

    @property
    def ready(self) -> bool:
        """Whether new work is welcome: what a readiness probe asks. False from the first moment of a shutdown."""
        return self._state is ManagerState.OPEN

    @property
    def report(self) -> ShutdownReport | None:
        """The report of the last shutdown; None before its end."""
        return self._report

    @property
    def report_so_far(self) -> ShutdownReport | None:
        """The report of the shutdown under way: what has ended until now; None outside of one.

        For a resource that closes and wants to tell of it: all work has ended then, and `phases` has all but `close`.

            manager.on_close(lambda: path.write_text(manager.report_so_far.to_json()))
        """
        return None if self._runner is None else self._runner.report_so_far()

    # --- work ------------------------------------------------------------------------------------------

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        daemon: bool = False,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a coroutine as a tracked task: a real `asyncio.Task`, made by the loop's own task factory.

        `name` (default: the function's qualified name) need not be unique, `id` must be.
        `daemon=True`: never waited for, cancelled with the rest at the end of the drain.
        `context` (default: a copy of the current one) as in `asyncio.create_task`.

        If the task fails, its exception is reported once, whether or not somebody awaits it.

        Raises `NotACoroutine`, `NotOpen`, `ShuttingDown`, `WrongLoop`, `DuplicateTask`; the coroutine is closed then.
        While stopping only children of tasks that are still draining are let in.

            task = manager.create_task(send(mail), name="send mail", labels={"to": mail.to})
        """
        if self._state is ManagerState.NEW:
            raise self._not_open(coro)
        roster = self._roster
        roster.admit(coro, daemon=daemon)
        if id is None and labels is None:
            return roster.spawn(coro, name, Kind.TASK, None, daemon, context)
        try:
            extra = roster.make_extra(id, labels)
        except BaseException:
            coro.close()
            raise
        return roster.spawn(coro, name, Kind.TASK, None, daemon, context, extra)

    def run_in_thread(
        self,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        name: str | None = None,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        daemon: bool = False,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Call a blocking function in a thread of the manager's own; `pending` until one is free.

        No thread can be cancelled: at the stop and at a cancel it is told (`current_shutdown()` works in
        it), and if it will not return, the plan goes on without it and the report shows its stack. The
        threads are daemons: a stuck one does not keep the process. Keyword arguments: `functools.partial`.

        Raises as `create_task`, and TypeError if `fn` is a coroutine function or not callable.

            digest = await manager.run_in_thread(hash_file, path, name=f"hash {path}")
        """
        if not callable(fn) or inspect.iscoroutinefunction(fn):
            _close_if_coroutine(fn)
            raise TypeError(f"run_in_thread needs a plain function, not {fn!r}; coroutines go to create_task")
        if self._state is ManagerState.NEW:
            raise self._not_open(None)
        roster = self._roster
        if asyncio._get_running_loop() is not roster.loop:
            raise WrongLoop("run_in_thread was called from another event loop, or from a thread without one")
        if roster.intake is not Intake.OPEN and not roster.admits_late(daemon=daemon):
            roster.refuse(name or str(getattr(fn, "__qualname__", repr(fn))))
        return self._threads.start(fn, args, name, daemon, context, roster.make_extra(id, labels))

    def group(
        self,
        name: str | None = None,
        *,
        limit: int | None = None,
        max_pending: int | None = None,
        on_error: OnChildError = "cancel",
        stop_after: Collection[str | TaskGroup] = (),
    ) -> TaskGroup:
        """A group of this manager's tasks; use it as a block, or keep it and call `await group.shutdown(timeout)`.

        `stop_after`: the groups (or their names) that must be empty before this one is told to stop, so that
        consumers outlive their producers. At the end of the drain everybody is told.

        Raises `NotOpen`, `ManagerClosed`, `ShuttingDown`, `DuplicateTask` if a live group has this name,
        ValueError for impossible limits.

            workers = manager.group("workers", limit=10, on_error="isolate")
            writers = manager.group("writers", stop_after=[workers])
        """
        roster = self._require_roster()
        if roster.closed:
            raise ManagerClosed(f"group {name!r} was not made: the manager {self._name!r} has shut down")
        if roster.intake is not Intake.OPEN and not roster.admits_late():
            raise ShuttingDown(f"group {name!r} was not made: the manager {self._name!r} is shutting down")
        group = TaskGroup(name=name, limit=limit, max_pending=max_pending, on_error=on_error)
        group._stop_after = check_stop_after(stop_after)
        if name is not None:
            namesake = self._groups.get(name)
            if namesake is not None and not namesake._is_over():
                raise DuplicateTask(f"a group named {name!r} is alive; names of live groups are unique")
            unknown = group._stop_after - set(self._groups)
            if unknown:
                raise ValueError(
                    f"group {name!r} should stop after {sorted(unknown)}, which do not exist; make them first"
                )
            self._groups[name] = group
        elif stop_after:
            raise ValueError("a group with stop_after needs a name")
        group._bind(roster, late=bool(group._stop_after))
        return group

    def service(
        self,
        fn: Callable[[], Coroutine[Any, Any, Any]],
        *,
        name: str | None = None,
        restart: RestartPolicy | None = None,
        on_give_up: OnGiveUp = "log",
        daemon: bool = False,
    ) -> asyncio.Task[None]:
        """Run `fn()` for as long as the manager lives, and start it again when it fails, as `restart` allows.

        It ends when `fn` returns. At a stop it is told like every task; `daemon=True` if it need not be waited
        for. When it fails too often it ends with `ServiceGaveUp`, which is reported; with
        `on_give_up="shutdown"` the manager then begins to shut down, because a service nobody notices
        missing is worse than a restart.

            manager.service(consume, restart=RestartPolicy(max_restarts=3), on_give_up="shutdown")
        """
        if not callable(fn):
            _close_if_coroutine(fn)
            raise TypeError(
                f"service needs a function that returns a coroutine, not {fn!r}; it is called anew at each start"
            )
        if on_give_up not in ("log", "shutdown"):
            raise ValueError(f"on_give_up must be 'log' or 'shutdown', not {on_give_up!r}")
        roster = self._require_roster()
        label = name or str(getattr(fn, "__qualname__", "service"))

        def report(error: BaseException) -> None:
            # Through the scope: an eager first step fails before `spawn` has returned the task.
            scope = current_scope.get()
            record = scope.current_record() if scope is not None else None
            if record is not None:
                roster.report_error(record, error)

        def gave_up() -> None:
            if on_give_up == "shutdown" and self._state is ManagerState.OPEN:
                self.begin_shutdown(skip_notice=True)

        coro = supervise(fn, label, restart or RestartPolicy(), roster.clock, report, gave_up)
        roster.admit(coro, daemon=daemon, what=label)
        task: asyncio.Task[None] = roster.spawn(coro, label, Kind.SERVICE, None, daemon)
        return task

    def hold(self, name: str, *, kind: Kind = Kind.WORK, grace_seconds: float | None = None) -> Hold:
        """Hold the shutdown for work that runs in somebody else's task: a request, a consumer's callback.

        A context manager. Inside it `current_shutdown()` speaks for this work; at its deadline (`grace_seconds`
        after the drain began, at most the drain's end) the current task is cancelled once; the caller sees
        `hold.cancelled` and is expected to end, and may swallow that cancellation.

            with manager.hold("GET /report", kind=Kind.REQUEST) as hold:
                await handle(request)
        """
        if grace_seconds is not None:
            check_seconds("grace_seconds", grace_seconds)
        return Hold(self._require_roster(), name, kind, grace_seconds)

    async def enter(self, manager: AbstractAsyncContextManager[T], *, name: str | None = None) -> T:
        """Open a resource that closes after all work, the last opened first. Its errors at opening are raised here."""
        roster = self._require_roster()
        if roster.closed:
            raise ManagerClosed(f"{manager!r} was not opened: the manager {self._name!r} has shut down")
        if roster.intake is not Intake.OPEN:
            raise ShuttingDown(f"{manager!r} was not opened: the manager {self._name!r} is shutting down")
        return await self._resources.enter(manager, name)

    def on_close(self, callback: Callable[[], Any], *, name: str | None = None) -> None:
        """Call `callback` (sync or async) when all work has ended, the last registered first.

        Raises `NotOpen`, `ManagerClosed`, TypeError if it is not callable.
        """
        if not callable(callback):
            _close_if_coroutine(callback)
            raise TypeError(f"on_close needs a function, not {callback!r}")
        self._require_roster()
        if self._state in (ManagerState.CLOSING, ManagerState.CLOSED):
            raise ManagerClosed(f"{callback!r} was not registered: the manager {self._name!r} is closed")
        self._resources.add(callback, name)

    # --- looking ---------------------------------------------------------------------------------------

    def info(self, task: asyncio.Task[Any] | str) -> TaskInfo:
        """A snapshot of one task, by the task itself or its id. Raises `UnknownTask`."""
        roster = self._require_roster()
        record = roster.find(task)
        if record is None:
            raise UnknownTask(
                f"{self._name!r} knows no task {task!r}: not its own, or its record was dropped"
            )
        return roster.info(record)

    def tasks(
        self,
        *,
        status: TaskStatus | str | None = None,
        group: TaskGroup | str | None = None,
        kind: Kind | str | None = None,
    ) -> list[TaskInfo]:
        """Snapshots of the tasks that live or are still remembered, in order of birth, filtered.

        Raises ValueError for a status or kind that does not exist.
        """
        roster = self._require_roster()
        wanted = None if status is None else TaskStatus(status)
        kind_wanted = None if kind is None else Kind(kind)
        name = group.name if isinstance(group, TaskGroup) else group
        found = [
            record
            for record in (*roster.memory.ended, *roster.live.values())
            if (wanted is None or record.status is wanted)
            and (kind_wanted is None or record.kind is kind_wanted)
            and (name is None or (record.group is not None and record.group.name == name))
            and (not isinstance(group, TaskGroup) or record.group is group)
        ]
        return [roster.info(record) for record in sorted(found, key=lambda record: record.number)]

    def calls(self) -> list[TaskInfo]:
        """Snapshots of the work of others that is held now: requests, streams, WebSockets."""
        roster = self._require_roster()
        return [roster.info(record) for record in roster.holds.values()]

    def stats(self) -> Stats:
        """Counts by status."""
        roster = self._require_roster()
        pending = sum(1 for record in roster.live.values() if record.status is TaskStatus.PENDING)
        return Stats(
            pending=pending,
            running=len(roster.live) - pending,
            completed=roster.completed,
            failed=roster.failed,
            cancelled=roster.cancelled,
            swallowed=roster.swallowed,
            calls=len(roster.holds),
        )

    def observe(self, observer: TaskObserver) -> Callable[[], None]:
        """Tell `observer` of every task and shutdown from now on. Returns what ends it. See `TaskObserver`."""
        self._observers = (*self._observers, observer)
        self._pass_on_observers()

        def stop() -> None:
            self._observers = tuple(other for other in self._observers if other is not observer)
            self._pass_on_observers()

        return stop

    def _pass_on_observers(self) -> None:
        if self._state is not ManagerState.NEW:
            self._roster.observe(self._observers)

    # --- stop and cancel -------------------------------------------------------------------------------

    def stop_task(self, task: asyncio.Task[Any] | str, *, reason: StopReason = StopReason.USER) -> bool:
        """Ask one task to stop; it sees that in `current_shutdown()`. False if it is unknown or has ended."""
        roster = self._require_roster()
        record = roster.find(task)
        if record is None or record.ended_at is not None:
            return False
        record.reason = record.reason or StopReason(reason)
        roster.own_node(record).stop(StopReason(reason), float("inf"))
        return True

    async def cancel_task(
        self, task: asyncio.Task[Any] | str, *, timeout: float = 5.0, reason: StopReason = StopReason.USER
    ) -> CancelAnswer:
        """Cancel one task, once, and wait at most `timeout` seconds for its end.

        `ended`: it is over. `refused`: it runs on (it swallowed the cancel, cleans up longer than that, or is a
        thread); its stack is logged. `already_ended`, `unknown`: nothing was done. Asking again waits again,
        but cancels no second time, which would interrupt its cleaning up.
        """
        timeout = check_seconds("cancel_task(timeout)", timeout)
        reason = StopReason(reason)
        roster = self._require_own_loop("cancel_task")
        record = roster.find(task)
        if record is None:
            return CancelAnswer.UNKNOWN
        if record.ended_at is not None:
            return CancelAnswer.ALREADY_ENDED
        roster.cancel(record, reason)
        await self._wait_ended(record, timeout)
        if record.ended_at is not None:
            return CancelAnswer.ENDED
        stack = "\n    ".join(self._stack_of(record))
        logger.warning(
            "%s was cancelled (%s) and still runs after %g s:\n    %s",
            record.describe(),
            reason,
            timeout,
            stack,
            extra=record.log_fields("task.cancel_refused"),
        )
        return CancelAnswer.REFUSED

    def _stack_of(self, record: Record) -> list[str]:
        task = record.live_task
        if task is None:
            return []
        ident = self._threads.ident_of(task)
        return task_stack(task) if ident is None else thread_stack(ident, below="ThreadLane._work")

    async def _wait_ended(self, record: Record, timeout: float) -> None:
        task = record.live_task
        if task is not None and task in self._roster.live:
            # By its own callback: thousands who watch every end would make a mass cancellation quadratic.
            await asyncio.wait({task}, timeout=timeout)
            return
        ended: asyncio.Future[None] = self._roster.loop.create_future()

        def watch(candidate: Record) -> None:
            if candidate is record and not ended.done():
                ended.set_result(None)

        self._roster.watch(watch)
        try:
            await asyncio.wait({ended}, timeout=timeout)
        finally:
            self._roster.unwatch(watch)

    # --- shutdown --------------------------------------------------------------------------------------

    def begin_shutdown(self, reason: StopReason = StopReason.SHUTDOWN, *, skip_notice: bool = False) -> None:
        """Begin to shut down by plan and return at once; the plan carries itself out. Safe to repeat.

        Call it on the loop's thread (from others: `loop.call_soon_threadsafe(manager.begin_shutdown)`).
        `skip_notice`: nobody sends requests any more. Raises `NotOpen` if the manager was never opened.
        """
        roster = self._require_roster()
        if self._runner is not None:
            if skip_notice:
                self._runner.skip_notice()
            return
        if self._state is ManagerState.CLOSED:
            return
        self._runner = ShutdownRunner(
            name=self._name,
            roster=roster,
            threads=self._threads,
            resources=self._resources,
            late_groups=lambda: dict(self._groups),
            plan=self._plan,
            reason=StopReason(reason),
            enter=self._enter,
        )
        self._runner.begin(skip_notice=skip_notice)
        # In the opener's context: begun inside a task, the shutdown must not run as that task's child.
        # And not by the loop's task factory: an eager one would carry out all of it before this call returns.
        self._shutdown_task = asyncio.Task(
            self._carry_out(self._runner),
            loop=roster.loop,
            name=f"shutdown of {self._name}",
            context=roster.context.copy(),
        )

    def force(self) -> None:
        """End the drain now and go on to cancel; called again, end the cancel phase too. No-op outside a shutdown."""
        if self._runner is not None:
            self._runner.force()

    async def shutdown(
        self, reason: StopReason = StopReason.SHUTDOWN, *, skip_notice: bool = False
    ) -> ShutdownReport:
        """Begin to shut down if nobody has, and wait for its end. Concurrent callers share one shutdown and its report.

        If the caller is cancelled meanwhile, the shutdown is forced, finished within its cancel and close
        budgets, and only then the cancellation goes on.

        Raises `NotOpen`, and RuntimeError inside the manager's own tasks and holds, which it would wait for.
        """
        if self._state is ManagerState.CLOSED and self._report is not None:
            return self._report
        self._require_own_loop("shutdown")
        self._leave_before_waiting()
        self.begin_shutdown(reason, skip_notice=skip_notice)
        task = self._shutdown_task
        assert task is not None
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
                self.force()
        if cancelled is not None:
            raise cancelled
        return task.result()

    async def _carry_out(self, runner: ShutdownRunner) -> ShutdownReport:
        try:
            self._report = report = await runner.run()
        finally:
            self._roster.intake = Intake.CLOSED
            self._threads.close()
            self._roster.close()
            self._state = ManagerState.CLOSED
            self._runner = None
        tell(self._observers, "shutdown_ended", report)
        return report

    # --- helpers ---------------------------------------------------------------------------------------

    def _leave_before_waiting(self) -> None:
        """Whoever waits for the shutdown must not be waited for by it."""
        roster, current = self._require_roster(), asyncio.current_task()
        inside = next(
            (r for r in roster.holds.values() if current is not None and r.live_task is current), None
        )
        if inside is not None and inside.kind is Kind.MAIN and self._home is not None:
            self._home.manager_leaving(self)
            return
        inside = inside or (roster.live.get(current) if current is not None else None)
        if inside is not None:
            raise RuntimeError(
                f"{inside.describe()} cannot wait for a shutdown that waits for it; "
                "call begin_shutdown(), which returns at once"
            )

    def _enter(self, state: ManagerState) -> None:
        if state not in MANAGER_TRANSITIONS[self._state]:
            raise RuntimeError(f"{self!r} cannot go from {self._state} to {state}")
        self._state = state

    def _require_roster(self) -> Roster:
        if self._state is ManagerState.NEW:
            raise self._not_open(None)
        return self._roster

    def _require_own_loop(self, verb: str) -> Roster:
        roster = self._require_roster()
        if asyncio.get_running_loop() is not roster.loop:
            raise WrongLoop(f"{verb} was called on another event loop than that which opened {self._name!r}")
        return roster

    def _not_open(self, coro: Any) -> NotOpen:
        _close_if_coroutine(coro)
        return NotOpen(f"the manager {self._name!r} is not open; use it inside `async with manager:`")


def _close_if_coroutine(given: object) -> None:
    """What is refused must not warn later that it was never awaited."""
    if asyncio.iscoroutine(given):
        given.close()
