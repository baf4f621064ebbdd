"""What handles, declarations and workers share: the engine, opened when first needed, and the news about jobs.

Who calls it: everybody in this package. What it owns: the engine's life and the list of those who wait for news.
News comes from this process at once, from others by the engine's hint, and at last by asking now and then: a hint may
be lost, so nobody waits on hints alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from .._core._manager import TaskManager
from .._core._state import ManagerState
from ..exceptions import (
    BadConnection,
    BadDeclaration,
    EngineUnavailable,
    KeyConflict,
    PayloadTooLarge,
    UnknownJob,
    WrongLoop,
)
from ._engine import Engine, SupportsConnections
from ._ids import is_id
from ._observer import Observers, submit_started
from ._rows import JobRow, NewJob, Submitted
from ._settings import shown
from ._shutdowns import Reports
from ._tails import Tail, Tails

if TYPE_CHECKING:
    from ._attempt import Attempt

# How often those who wait ask although nobody told them anything.
_ASK_SECONDS = 2.0

_ENDING = (ManagerState.NOTICE, ManagerState.DRAINING, ManagerState.CANCELLING)


class Client:
    def __init__(self, engine: Engine, max_payload_bytes: int, queues: frozenset[str] | None = None) -> None:
        self.engine = engine
        self.queues = queues
        self.max_payload_bytes = max_payload_bytes
        self._is_open = False
        self._holders = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None
        self._on_work: list[Callable[[], None]] = []
        self._on_foreign: list[Callable[[], None]] = []
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {}  # for a JobRow
        self.tails = Tails()
        self.observers: Observers = ()
        self.reports = Reports()
        self.at_work: list[Mapping[str, Attempt]] = []  # the attempts of each worker of this process, by job
        self._asking: asyncio.Task[None] | None = None
        self._ask_now: asyncio.Event | None = None

    # --- open and close --------------------------------------------------------------------------------

    async def ready(self) -> Engine:
        """The engine, open. Concurrent callers open it once; one that is cancelled does not take it from the others.

        Raises `EngineUnavailable`, `SchemaTooNew`, and `WrongLoop` while another loop has it open.
        """
        loop = asyncio.get_running_loop()
        if self._is_open and self._loop is loop:
            return self.engine
        self._leave_dead_loop(loop)
        while not self._is_open:
            if self._closing is not None:
                await asyncio.wait({self._closing})
            else:
                self._opening = self._opening or asyncio.Task(
                    self._open(), loop=loop, name="open the job engine"
                )
                await asyncio.shield(self._opening)
        return self.engine

    async def _open(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            await self.engine.open()
            self._unlisten = self.engine.listen(self._foreign_change)
            self._is_open = True
        finally:
            self._opening = None

    @property
    def is_open(self) -> bool:
        return self._is_open and self._loop is not None and not self._loop.is_closed()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which the engine is open; None while it is closed."""
        return self._loop if self.is_open else None

    def use(self, engine: Engine) -> Engine:
        """Use another engine from now on, which a test does; the one that was used before. Only while it is closed."""
        if self.is_open:
            raise RuntimeError("the jobs are open; another engine can be used only when they are closed")
        before, self.engine = self.engine, engine
        return before

    async def hold(self) -> None:
        """Open the engine, and keep it open until `release`: blocks and workers end in any order, and the engine must
        not close under jobs that run. Raises as `ready`."""
        await self.ready()
        self._holders += 1

    async def release(self, manager: TaskManager | None = None) -> None:
        """Let go of it; the last one closes it.

        `manager`: in whose time this happens. If it shuts down, the store stays open until it closes its resources, so
        that its report can be left here, whoever else has let go by then.
        """
        if manager is not None and manager.state in _ENDING:
            manager.on_close(partial(self._leave, manager), name="jobs")
        elif manager is not None and manager.state in (ManagerState.CLOSING, ManagerState.CLOSED):
            await self._leave(manager)
        else:
            await self._let_go()

    async def _leave(self, manager: TaskManager) -> None:
        try:
            await self.reports.leave(self.engine, manager)
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        self._holders = max(0, self._holders - 1)
        await self.close()

    async def close(self) -> None:
        """Those who still wait for a job hear that nobody will tell them any more. Raises `WrongLoop`.

        While somebody holds the engine open, nothing: the last of them closes it.
        """
        loop = asyncio.get_running_loop()
        if self._holders and self._loop is loop:
            return
        if self._leave_dead_loop(loop):
            await self.ready()  # what was left open there is let go of by opening it here
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._is_open and self._closing is None:
            self._is_open = False  # from now on, and not when the task begins: nobody may come in between
            self._closing = asyncio.Task(self._close(), loop=loop, name="close the job engine")
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._unlisten is not None:
                self._unlisten()
                self._unlisten = None
            asking, self._asking = self._asking, None
            if asking is not None:
                asking.cancel()
                await asyncio.wait({asking})
            closed = EngineUnavailable("the jobs were closed while somebody waited for one")
            for waiters in self._waiting.values():
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_exception(closed)
            self._waiting.clear()
            await self.tails.close(closed)
            await self.engine.close()
        finally:
            self._closing = None

    def _leave_dead_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Forget a loop that ended without closing, as `asyncio.run` does in a script; whether there was one."""
        mine = self._loop
        if mine is None or mine is loop or not (self._is_open or self._opening or self._closing):
            return False
        if not mine.is_closed():
            raise WrongLoop(
                "these jobs are open on another event loop; close them there first, or make a Jobs for each loop"
            )
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        self._is_open = False
        self._holders = 0
        self._opening = self._closing = self._asking = None
        for left in (self._waiting, self._on_work, self._on_foreign):
            left.clear()
        self.tails.abandon()
        return True

    # --- submitting ------------------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[NewJob], connection: Any = None) -> list[Submitted]:
        """Write all or none, and tell the workers of this process. `connection`: in the transaction that it is in."""
        submit = self._submit if connection is None else partial(self._submit_within, connection)
        if not self.observers:
            return await submit(jobs)
        jobs, ended = submit_started(self.observers, jobs)
        try:
            answers = await submit(jobs)
        except BaseException as error:
            ended(error)
            raise
        ended(None)
        return answers

    async def _submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        ready = self._is_open and self._loop is asyncio.get_running_loop()
        engine = self.engine if ready else await self.ready()
        # So that a worker's claim shares the commit; it may come too early, hence once more below. Where each call is a
        # commit of its own it would only be under way, and find nothing, when the jobs are there.
        if engine.shares_commits:
            self.work_arrived()
        answers = await engine.submit(jobs)
        _check_keys(jobs, answers)
        self.work_arrived()
        return answers

    async def _submit_within(self, connection: Any, jobs: Sequence[NewJob]) -> list[Submitted]:
        engine = await self.ready()
        if not hasattr(engine, "submit_within"):
            raise BadConnection(
                f"{engine!r} cannot submit within a transaction of yours: only the PostgreSQL engine can, where your"
                " rows and the jobs are in one database. Submit after your commit, with a key= that makes it harmless"
                " to do so again; or move the jobs to PostgreSQL (`lastcall move`)"
            )
        answers = await cast(SupportsConnections, engine).submit_within(connection, jobs)
        _check_keys(jobs, answers)
        return answers

    def check_queue(self, name: str, what: str) -> str:
        """`name` itself, or `BadDeclaration` where the queues are declared and this is none of them."""
        if self.queues is not None and name not in self.queues:
            known = ", ".join(sorted(self.queues))
            raise BadDeclaration(
                f"{what} names the queue {name!r}, which is not declared; declared are: {known}"
            )
        return name

    def check_size(self, text: str, what: str, *whose: object) -> str:
        """`text` itself, or `PayloadTooLarge`, naming `what % whose`. Most texts are too short for a closer look."""
        limit = self.max_payload_bytes
        if len(text) * 4 > limit and (size := len(text.encode())) > limit:
            what = what % whose if whose else what
            raise PayloadTooLarge(
                f"{what}: {size} bytes of JSON, and at most {limit} are kept; store it elsewhere and pass its name, "
                "or raise Jobs(max_payload_bytes=...)"
            )
        return text

    # --- news ------------------------------------------------------------------------------------------

    def on_work(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when a job may have become claimable. Returns what ends it."""
        self._on_work.append(callback)
        return lambda: self._on_work.remove(callback)

    def on_foreign(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when another process has changed something. Returns what ends it."""
        self._on_foreign.append(callback)
        return lambda: self._on_foreign.remove(callback)

    def work_arrived(self) -> None:
        """A job may have become claimable."""
        for callback in self._on_work:
            callback()

    def cancel_requested(self) -> None:
        """A worker of this process may have to cancel something, and should ask at once."""
        for callback in self._on_foreign:
            callback()

    def _foreign_change(self) -> None:
        for callback in (*self._on_work, *self._on_foreign):
            callback()
        if self._ask_now is not None:
            self._ask_now.set()
        self.tails.all_changed()

    def changed(self, job_ids: Iterable[str]) -> None:
        """This process has changed these jobs: their status, their steps or their events."""
        if self._waiting and self._ask_now is not None:
            job_ids = list(job_ids)
            if any(job_id in self._waiting for job_id in job_ids):
                self._ask_now.set()
        self.tails.changed(job_ids)

    def tail(self, job_id: Any) -> Tail:
        """The end of a job's log. Raises `UnknownJob` for what is no id."""
        _check_id(job_id)
        return self.tails.of(job_id)

    # --- waiting for an end ----------------------------------------------------------------------------

    async def get(self, job_id: Any) -> JobRow:
        """Raises `UnknownJob`, also for what is no id."""
        _check_id(job_id)
        engine = await self.ready()
        rows = await engine.get([job_id])
        if not rows:
            raise UnknownJob(
                f"there is no job {job_id}; it was never submitted here, or was pruned or purged"
            )
        return rows[0]

    async def wait_final(self, job_id: str) -> JobRow:
        """The job, when it has ended. All who wait share one question to the engine."""
        _check_id(job_id)
        waiter: asyncio.Future[JobRow] = asyncio.get_running_loop().create_future()
        # Before the first look, so that an end in between is heard of.
        self._waiting.setdefault(job_id, []).append(waiter)
        try:
            row = await self.get(job_id)
            if row.status.final:
                return row
            # While it closes nobody begins to ask, for nobody would end that; the waiter is told of the close.
            if self._is_open and (self._asking is None or self._asking.done()):
                self._ask_now = asyncio.Event()
                self._asking = asyncio.create_task(self._ask(self._ask_now), name="wait for jobs to end")
            ended: JobRow = await waiter
            return ended
        finally:
            _leave(self._waiting, job_id, waiter)

    async def _ask(self, now: asyncio.Event) -> None:
        while self._waiting:
            now.clear()
            await self._ask_once()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_SECONDS):
                    await now.wait()

    async def _ask_once(self) -> None:
        asked = list(self._waiting)
        try:
            rows = {row.id: row for row in await self.engine.get(asked)}
        except EngineUnavailable:
            return  # it may come back; the next round asks again
        except Exception as error:  # it will not: a row that cannot be read
            self._tell(asked, error)
            return
        for job_id in asked:
            row = rows.get(job_id)
            if row is None:
                self._tell((job_id,), UnknownJob(f"the job {job_id} was purged while somebody waited for it"))
            elif row.status.final:
                for waiter in self._waiting.get(job_id, ()):
                    if not waiter.done():
                        waiter.set_result(row)

    def _tell(self, job_ids: Iterable[str], error: Exception) -> None:
        for job_id in job_ids:
            for waiter in self._waiting.get(job_id, ()):
                if not waiter.done():
                    waiter.set_exception(error)


def _check_id(job_id: Any) -> None:
    if not is_id(job_id):
        raise UnknownJob(f"{shown(job_id)} is no job id; ids look like 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")


def _leave(waiting: dict[str, list[asyncio.Future[Any]]], job_id: str, waiter: asyncio.Future[Any]) -> None:
    """This one waits no longer. An error that it was told meanwhile is nobody's news any more."""
    waiters = waiting.get(job_id, [])
    if waiter in waiters:
        waiters.remove(waiter)
    if not waiters:
        waiting.pop(job_id, None)
    if waiter.done() and not waiter.cancelled():
        waiter.exception()


def _check_keys(jobs: Sequence[NewJob], answers: Sequence[Submitted]) -> None:
    for answer in answers:
        if answer.conflict:
            raise _key_conflict(jobs, answers)


def _key_conflict(jobs: Sequence[NewJob], answers: Sequence[Submitted]) -> KeyConflict:
    job, answer = next((job, answer) for job, answer in zip(jobs, answers, strict=True) if answer.conflict)
    return KeyConflict(
        f"the key {job.key!r} of task {job.task!r} belongs to job {answer.id} ({answer.status}), which has other "
        "arguments; nothing was submitted. Choose another key, or look that job up"
    )
