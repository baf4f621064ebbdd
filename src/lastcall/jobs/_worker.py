"""The worker: its services put together, with one order to start and one to stop.

A worker runs jobs as tasks of a `TaskManager`, so they drain by its plan, beside requests and streams. The order of its
stop is text here, a reason beside each line; in many queues it is the order that loses or doubles jobs.

    stop fetching         at once: what is claimed now would only be handed back
    let jobs leave        those with checkpoints hand over at their next one, the others may finish; the manager's
                          plan waits, and cancels at its deadline
    keep the lease        meanwhile, renewed: a lease that ends in the drain means that jobs run twice
    write all ends        results and hand-overs; before the lease goes, while the fence still lets them pass
    resign                hands over whatever would not end, so that nobody has to wait for the lease; ends that could
                          not be written make the manager's report unclean, and the process exit with 1
    close the engine      last, if nobody else uses it
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from .._core._drain import Drain
from .._core._group import TaskGroup
from .._core._manager import TaskManager
from .._core._plan import ShutdownPlan
from .._core._record import Record
from .._core._roster import Roster, logger
from .._core._scope import current_scope
from .._core._state import Kind, ManagerState, StopReason
from ..exceptions import EngineUnavailable
from ._attempt import Crew
from ._client import Client
from ._declaration import Task
from ._executor import Executor
from ._fetcher import Fetcher
from ._lease import Lease, Rescuer
from ._outbox import Outbox, tell_unwritten
from ._pruner import Pruner
from ._rows import AttemptEnd, TaskLimits
from ._scheduler import Cron, Scheduler
from ._service import Service
from ._state import JobStatus

_RUNNING = (ManagerState.OPEN, ManagerState.NOTICE)

# How much of the time for cleaning up its jobs may use, if the block of the worker is cancelled with them.
_CLEANING_SHARE = 0.8

_LEAST_CLOSING_SECONDS = 0.5


class Declared(NamedTuple):
    """What a worker has from the `Jobs` whose jobs it runs: the way to them, what it can run, and its schedules."""

    client: Client
    tasks: dict[tuple[str, str], Task[Any, Any]]
    crons: dict[str, Cron]
    lease_seconds: float


class Worker:
    """Claims jobs and runs them, at most `concurrency` at once. Made by `jobs.worker(...)`, used as a block.

    Leaving the block stops it in order: jobs are told, finish or hand over, and are cancelled when the plan's drain is
    over. If its manager shuts down first, they drain with everything else the manager has.
    """

    def __init__(
        self,
        declared: Declared,
        *,
        manager: TaskManager | None,
        concurrency: int,
        queues: frozenset[str] | None,
    ) -> None:
        self._client, self._tasks, self._crons, self._lease_seconds = declared
        self._given_manager = manager
        self._own_manager: TaskManager | None = None
        self._concurrency = concurrency
        self._queues = queues
        self._entered = False
        self._holds_engine = False
        self._closed: asyncio.Task[str] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._unlisten: list[Any] = []
        self._manager: TaskManager
        self._crew: Crew
        self._group: TaskGroup
        self._executor: Executor
        self._outbox: Outbox
        self._lease: Lease
        self._fetcher: Fetcher
        self._services: list[Service] = []

    @property
    def id(self) -> str:
        """The id of its lease; another one after that was lost."""
        return self._lease.worker_id

    @property
    def running(self) -> int:
        """How many jobs it runs now."""
        return len(self._executor.running)

    @property
    def manager(self) -> TaskManager:
        """The manager whose tasks its jobs are."""
        return self._manager

    # --- start -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this worker runs already; make another one with jobs.worker(...)")
        self._entered = True
        self._closed = None
        try:
            self._manager = await self._find_manager()
        except BaseException:
            self._entered = False
            raise
        try:
            # Before the first wait: a manager that is told to stop meanwhile makes no group any more, and a worker
            # that is stopped while it starts is one that has nothing to do.
            self._assemble()
            await self._client.hold()
            self._holds_engine = True
            await self._start()
        except BaseException:
            try:
                if self._own_manager is not None:
                    await self._own_manager.__aexit__(None, None, None)
            finally:
                await self._let_go()
            raise
        return self

    async def _find_manager(self) -> TaskManager:
        """The one given, or else one of its own."""
        if self._given_manager is not None:
            return self._given_manager
        self._own_manager = own = await TaskManager(name="worker").__aenter__()
        # First, to be closed last: by then its jobs have left, and the store is still open.
        own.on_close(lambda: self._client.reports.leave(self._client.engine, own), name="report")
        return own

    def _assemble(self) -> None:
        client, manager = self._client, self._manager
        roster = manager._require_own_loop("jobs.worker")
        lane = manager._threads
        lane.add_room(self._concurrency)
        self._group = manager.group(on_error="isolate")
        self._group._is_observed = False
        cancel_grace_seconds = max(0.1, manager.plan.cancel)
        self._crew = crew = Crew(client, roster, lane, self._ensure_lease, cancel_grace_seconds)
        self._outbox = Outbox(client.engine, self._on_written)
        self._executor = Executor(crew, self._group, self._tasks, self._on_end)
        limits = {key: task.settings.limits for key, task in self._tasks.items()}
        self._fetcher = self._make_fetcher(limits)
        self._lease = Lease(
            client.engine,
            self._executor,
            lease_seconds=self._lease_seconds,
            concurrency=self._concurrency,
            queues=self._queues,
            on_joined=self._on_joined,
        )
        self._services = self._make_services()

    def _make_fetcher(self, limits: dict[tuple[str, str], TaskLimits | None]) -> Fetcher:
        return Fetcher(self._client, self._executor, self._outbox, self._concurrency, limits, self._queues)

    def _make_services(self) -> list[Service]:
        """All but the lease, which is started before them and stopped after them."""
        client = self._client
        rescuer = Rescuer(client.engine, self._lease, client.work_arrived)
        scheduler = Scheduler(client, list(self._tasks.values()), self._crons)
        return [self._fetcher, rescuer, scheduler, Pruner(client.engine)]

    async def _start(self) -> None:
        client, manager = self._client, self._manager
        await self._lease.join()
        self._unlisten = [client.on_work(self._fetcher.wake), client.on_foreign(self._lease.look_soon)]
        manager.on_close(self._close, name=f"worker {self.id}")
        self._executor.open()
        context = _context_of(manager._roster)
        context.run(self._start_services)

    def _start_services(self) -> None:
        self._lease.start()
        for service in self._services:
            service.start()
        loop = asyncio.get_running_loop()
        self._watching = asyncio.Task(self._watch_for_stop(), loop=loop, name="lastcall worker's watch")

    # --- between ---------------------------------------------------------------------------------------

    async def _ensure_lease(self) -> None:
        await self._lease.ensure()

    def _on_joined(self, worker_id: str) -> None:
        self._client.reports.joined(self._manager, worker_id)
        self._fetcher.worker_id = worker_id
        self._fetcher.wake()

    def _on_end(self, end: AttemptEnd | None) -> None:
        if end is not None:
            self._outbox.add(end)
        self._fetcher.slot_freed()

    def _on_written(self, ends: list[AttemptEnd], statuses: list[JobStatus | None]) -> None:
        for end, status in zip(ends, statuses, strict=True):
            if status is None:
                logger.warning(
                    "job %s: the end of attempt %d was refused, because the job is no longer this worker's",
                    end.id,
                    end.attempt,
                    extra={"event": "attempt.end_refused", "job_id": end.id, "attempt": end.attempt},
                )
        self._client.changed(end.id for end in ends)
        # Parents may have been woken, places under a limit freed, and what was handed over wants a worker.
        self._client.work_arrived()

    async def _watch_for_stop(self) -> None:
        # The group's node and not the manager's: a worker in a task that is stopped alone must claim nothing either.
        await self._group._node.wait()
        self._fetcher.tell_to_stop()

    # --- stop ------------------------------------------------------------------------------------------

    async def __aexit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # Told to stop; a block that ends by itself is no end of a worker.
        if self._manager.state is not ManagerState.OPEN:
            self._client.reports.expect(self._manager)
        try:
            if self._own_manager is not None:
                await self._own_manager.__aexit__(et, exc, tb)
            elif self._manager.state in _RUNNING:
                await self._stop_alone(self._manager.plan)
            else:
                await self._leave_with_manager()
        finally:
            try:
                await self._end()
            finally:
                await self._let_go()

    async def _let_go(self) -> None:
        self._entered = False
        own, self._own_manager = self._own_manager, None
        held, self._holds_engine = self._holds_engine, False
        if held:
            await self._client.release(None if own is not None else self._manager)

    async def _stop_alone(self, plan: ShutdownPlan) -> None:
        """The manager lives on; only this worker's jobs drain, and for them it is a shutdown like any other."""
        self._fetcher.tell_to_stop()
        roster = self._manager._roster
        deadlines = plan.deadlines(roster.clock(), skip_notice=True)
        self._group._tell(StopReason.SHUTDOWN, deadlines.drain_end)
        subject = _Tasks(self._group, roster)
        drain = Drain(roster, subject, StopReason.SHUTDOWN, f"worker {self.id}", self._manager._threads)
        report = await drain.run_alone(plan, deadlines)
        if not report.clean:
            logger.warning("%s", report, extra={"event": "shutdown.ended"})

    async def _leave_with_manager(self) -> None:
        """The manager's plan is under way. A block under `lastcall.run` counts as work, and need not: it only waits for
        what counts itself. Whoever else cancels us here: the jobs still need the lease while they clean up."""
        self._fetcher.tell_to_stop()
        self._stop_counting_as_work()
        loop = asyncio.get_running_loop()
        shutdown = self._manager._shutdown_task
        cancelled: asyncio.CancelledError | None = None
        left: float | None = None
        deadline = 0.0
        while (tasks := self._group.tasks) and shutdown is not None and not shutdown.done():
            try:
                await asyncio.wait({*tasks, shutdown}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as error:
                if cancelled is None:
                    deadline = loop.time() + self._manager.plan.cancel * _CLEANING_SHARE
                cancelled = cancelled or error
            if cancelled is not None and (left := deadline - loop.time()) <= 0:
                break
        if cancelled is not None:
            raise cancelled

    def _stop_counting_as_work(self) -> None:
        manager, current = self._manager, asyncio.current_task()
        # Only if it is the program's body that waits here; a worker in another task must not speak for it.
        bodies = [hold for hold in manager._roster.holds.values() if hold.kind is Kind.MAIN]
        if manager._home is not None and any(body.live_task is current for body in bodies):
            manager._home.manager_leaving(manager)

    async def _close(self) -> None:
        """For the manager, whose report tells what this raises: which ends of jobs are not written."""
        unwritten = await self._end()
        if unwritten:
            raise EngineUnavailable(unwritten)

    async def _end(self) -> str:
        """After the jobs have ended or were given up. Once, whoever comes first; the close phase bounds it."""
        if self._closed is None:
            loop = asyncio.get_running_loop()
            self._closed = asyncio.Task(self._close_once(), loop=loop, name="close the worker")
        return await asyncio.shield(self._closed)

    async def _close_once(self) -> str:
        """In the order that stands on top, and within the budget: a store that hangs must not hold the process. Which
        ends are not written, in words."""
        loop = asyncio.get_running_loop()
        budget_seconds = self._closing_seconds()
        end = loop.time() + budget_seconds
        for unlisten in self._unlisten:
            unlisten()
        await asyncio.gather(*(service.stop(budget_seconds * 0.15) for service in self._services))
        if self._watching is not None:
            self._watching.cancel()
        unwritten: list[AttemptEnd] = []
        if not await self._outbox.flush(budget_seconds * 0.5):
            unwritten = await self._outbox.close()
        self._executor.abandon_all()
        await self._lease.stop(budget_seconds * 0.05)
        resigned = await self._resign(end)
        return tell_unwritten(unwritten, self._lease_seconds, resigned=resigned)

    def _closing_seconds(self) -> float:
        """A little less than the manager waits for it: who is cut off there cannot say any more what is not written."""
        until, manager = self._manager._resources.until, self._manager
        left = manager.plan.close if until is None else until - manager._roster.clock()
        return max(_LEAST_CLOSING_SECONDS, left * 0.9)

    async def _resign(self, end: float) -> bool:
        try:
            async with asyncio.timeout_at(end):
                handed_over = await self._lease.resign()
        except (EngineUnavailable, TimeoutError) as error:
            why = str(error) or "the store does not answer"
            logger.error(
                "worker %s could not resign; its lease runs out by itself: %s",
                self.id,
                why,
                extra={"event": "worker.not_resigned"},
            )
            return False
        if handed_over:
            logger.warning(
                "worker %s: %d jobs that would not end were handed over",
                self.id,
                handed_over,
                extra={"event": "worker.jobs_left"},
            )
        return True


class _Tasks:
    """The tasks of a worker's group, as something that can be drained."""

    def __init__(self, group: TaskGroup, roster: Roster) -> None:
        self._group = group
        self._roster = roster

    def records(self) -> Iterator[Record]:
        live = self._roster.live
        return (live[task] for task in self._group.tasks if task in live)

    def includes(self, record: Record) -> bool:
        return record.group is self._group

    def busy(self) -> int:
        return self.size()

    def size(self) -> int:
        return len(self._group.tasks)


def _context_of(roster: Roster) -> contextvars.Context:
    """A context that belongs to the manager and to nobody's request: jobs inherit it."""
    context = roster.context.copy()
    context.run(current_scope.set, roster.scope)
    return context
