"""SqliteEngine: the verbs of the port. Each is one call for the writer or the reader thread; nothing is decided here.

Who makes it: `from_url`, or a user. It belongs to the loop that opened it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from os.path import abspath
from typing import Any, NoReturn, TypeVar

from ..._core._clock import check_seconds
from ..._core._state import StopReason
from ...exceptions import BadDeclaration, EngineUnavailable, NotOpen, WrongLoop
from ...jobs._processes import this_process
from ...jobs._rows import (
    AttemptEnd,
    AttemptRow,
    CancelRequest,
    ClaimRequest,
    ClaimResult,
    EventPage,
    JobQuery,
    JobRow,
    NewEvent,
    NewJob,
    Overview,
    ReadFrom,
    Renewal,
    Rescued,
    StepRecord,
    StepRow,
    Submitted,
    WorkerRow,
)
from ...jobs._state import CancelOutcome, JobStatus
from ...streams._port import Write, Written
from .._outage import Outage
from . import _reads
from ._claim import claim
from ._clock import Clock, SystemClock
from ._database import Database
from ._ends import finish
from ._hints import Hints
from ._last_words import last_words
from ._outside import Cancel, Prune, Send, cancel, prune, purge, retry, send
from ._reader import Reader
from ._steps import Append, Step, append_events, record_steps
from ._store import Answer, Call, Store, Verb, each
from ._streams import SqliteStreams
from ._submit import Tick, fire, submit
from ._transact import Transact, transact
from ._workers import cancel_requests, join, renew, rescue, resign
from ._writer import Writer

_T = TypeVar("_T")

RETENTION_SECONDS = 7 * 86400.0
_SYNCHRONOUS = ("full", "normal", "off")
# How long `close` waits for the threads: longer than any lock is waited for.
_CLOSE_SECONDS = 30.0
# A pruning looks at so many jobs, so many at a time.
_PRUNE_SLICE = 2_000
_PRUNE_SLICES = 25
# So many calls go through the whole file, however large it is, if nothing is to be deleted.
_PRUNE_CALLS = 10

# The order within one commit: what is new, what was done, how it ended, everything else, and last who takes what.
_SUBMIT = Verb(0, submit)
_STEP = Verb(1, record_steps)
_APPEND = Verb(1, append_events)
_FINISH = Verb(2, finish)
_CANCEL = Verb(3, each(cancel))
_RETRY = Verb(3, each(retry))
_SEND = Verb(3, each(send))
_PURGE = Verb(3, each(purge))
_PRUNE = Verb(3, each(prune))
_FIRE = Verb(3, each(fire))
_JOIN = Verb(3, each(join))
# Behind a hundred thousand submits a lease would end.
_RENEW = Verb(3, each(renew), urgent=True)
_RESIGN = Verb(3, each(resign))
_RESCUE = Verb(3, each(rescue))
_CLAIM = Verb(4, each(claim))
_TRANSACT = Verb(3, each(transact), alone=True)


class SqliteEngine:
    """Durable jobs in one SQLite file, shared by any number of processes of one machine.

    `synchronous`: `full` (default: what was answered survives a power cut), `normal` (it survives a crash of the
    process, not of the machine), `off`. `retention_seconds`: how long ended jobs are kept that say nothing
    themselves, 7 days by default. `clock`: another clock, for tests. Nothing is opened before `open()`.
    Raises `BadDeclaration` for a path or an option that cannot be.

        engine = SqliteEngine("jobs.db")
        await engine.open()
        ...
        await engine.close()
    """

    def __init__(
        self,
        path: str,
        *,
        synchronous: str = "full",
        clock: Clock | None = None,
        retention_seconds: float = RETENTION_SECONDS,
        _inotify: bool = True,
    ) -> None:
        if not path or path == ":memory:" or "\0" in path:
            raise BadDeclaration(f"jobs need a file to survive in, and {path!r} names none; write a path")
        if synchronous not in _SYNCHRONOUS:
            raise BadDeclaration(f"synchronous must be full, normal or off, not {synchronous!r}")
        self.path = path
        self.synchronous = synchronous
        # Also after the process has changed its folder.
        self._file = abspath(path)
        self._clock = clock or SystemClock()
        self._retention_seconds = check_seconds("retention_seconds", retention_seconds)
        self._hints = Hints(inotify=_inotify)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._opening: asyncio.Task[None] | None = None
        self._prune_after = 0
        self._prune_passed = self._prune_slices = 0  # in this passage through the file, and in the one before
        self._outage = Outage()
        self.streams = SqliteStreams(self._write, self._read, self.listen, self._clock)

    shares_commits = True

    def __repr__(self) -> str:
        return f"<SqliteEngine {self.path!r} {'closed' if self._writer is None else 'open'}>"

    # --- its own life ----------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._loop is not None and self._loop.is_closed():
            self._abandon()
        if self._writer is not None:
            self._check_loop()
            return
        if self._opening is None or self._opening.get_loop().is_closed():
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="lastcall-sqlite-open")
            self._opening.add_done_callback(self._opened)
        # One that is cancelled does not take the opening from the others.
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        path = self._file
        writer = Writer(
            Database(path, self.synchronous, writer=True),
            self._make_store,
            loop,
            self._outage,
            self._hints.changed,
            self._hints.reopened,
        )
        reader = Reader(Database(path, self.synchronous, writer=False), loop)
        try:
            await writer.start()
            await reader.start()
        except BaseException:
            reader.stop()
            writer.stop()
            raise
        self._loop, self._writer, self._reader = loop, writer, reader
        self._hints.start(loop, path, writer)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # told to whoever still waits; not to the loop's handler if nobody does

    async def close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        writer, reader = self._writer, self._reader
        if writer is None or reader is None:
            return
        self._check_loop()
        self._hints.stop()
        self._writer = self._reader = None
        # The writer last, because the last connection tidies the log away. By callback, so that a close that
        # is cancelled still ends both.
        reader.stop().add_done_callback(lambda _: writer.stop())
        await asyncio.wait([writer.ended], timeout=_CLOSE_SECONDS)
        if not writer.ended.done():
            raise EngineUnavailable(
                f"the database {self.path!r} was not closed within {_CLOSE_SECONDS:g} s: it is blocked, or code in a"
                " transaction does not end"
            )
        reader.join(1.0)
        writer.join(1.0)

    async def last_words(self, write: Write, seconds: float) -> Written:
        """See `SupportsLastWords`."""
        if self._writer is None or self._loop is not asyncio.get_running_loop():
            self._refuse()
        return await last_words(self._file, self.synchronous, self._clock.wall(), write, seconds)

    def listen(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return self._hints.listen(on_change)

    def _abandon(self) -> None:
        """The loop that opened it is gone and nobody closed it; what its threads hold is let go of."""
        self._hints.stop()
        for thread in (self._reader, self._writer):
            if thread is not None:
                thread.stop()
        self._loop = self._writer = self._reader = None

    def _make_store(self, connection: sqlite3.Connection) -> Store:
        return Store(connection, self._clock, self._retention_seconds, this_process(), self._outage)

    def _write(self, verb: Verb[Call, Answer], call: Call) -> asyncio.Future[Answer]:
        if self._writer is None or self._loop is not asyncio.get_running_loop():
            self._refuse()
        return self._writer.call(verb, call)

    def _read(self, function: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        if self._reader is None or self._loop is not asyncio.get_running_loop():
            self._refuse()
        return self._reader.read(function, *arguments)

    def _refuse(self) -> NoReturn:
        if self._writer is None:
            raise NotOpen(f"the engine of {self.path!r} is not open; `await engine.open()` first")
        raise WrongLoop(
            f"the engine of {self.path!r} belongs to the event loop that opened it, and this is another"
        )

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            self._refuse()

    # --- jobs, from outside ----------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        return await self._write(_SUBMIT, jobs)

    async def get(self, job_ids: Sequence[str]) -> list[JobRow]:
        return await self._read(_reads.get, job_ids)

    async def find(self, query: JobQuery) -> list[JobRow]:
        return await self._read(_reads.find, query)

    async def attempts(self, job_id: str) -> list[AttemptRow]:
        return await self._read(_reads.attempts, job_id)

    async def steps(self, job_id: str) -> list[StepRow]:
        return await self._read(_reads.steps, job_id)

    async def cancel(self, job_id: str, reason: StopReason) -> CancelOutcome:
        return await self._write(_CANCEL, Cancel(job_id, reason))

    async def retry(self, job_id: str) -> JobStatus | None:
        return await self._write(_RETRY, job_id)

    async def send(self, job_id: str, name: str, data: str) -> JobStatus | None:
        return await self._write(_SEND, Send(job_id, name, data))

    async def purge(self, job_id: str) -> JobStatus | None:
        return await self._write(_PURGE, job_id)

    async def append_events(self, job_id: str, attempt: int | None, events: Sequence[NewEvent]) -> int | None:
        return await self._write(_APPEND, Append(job_id, attempt, events))

    async def read_events(self, reads: Sequence[ReadFrom], limit: int) -> list[EventPage | None]:
        return await self._read(_reads.read_events, reads, limit)

    async def overview(self) -> Overview:
        return await self._read(_reads.overview, self._clock.wall())

    # --- jobs, from a worker ---------------------------------------------------------------------------

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        return await self._write(_CLAIM, request)

    async def finish(self, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
        return await self._write(_FINISH, ends)

    async def record_step(self, job_id: str, attempt: int, step: StepRecord) -> bool:
        return await self._write(_STEP, Step(job_id, attempt, step))

    async def transact(
        self, job_id: str, attempt: int, step: StepRecord, work: Callable[[Any], str]
    ) -> str | None:
        """`work` gets the writer's `sqlite3.Connection`. It may use tables of its own in this file; it must not end the
        transaction, attach, use PRAGMA or write into lastcall's tables (`BadDeclaration`)."""
        return await self._write(_TRANSACT, Transact(job_id, attempt, step, work))

    # --- workers ---------------------------------------------------------------------------------------

    async def join(self, worker: WorkerRow) -> None:
        return await self._write(_JOIN, worker)

    async def renew(self, worker_id: str) -> Renewal:
        return await self._write(_RENEW, worker_id)

    async def cancel_requests(self, worker_id: str) -> list[CancelRequest]:
        return await self._read(cancel_requests, worker_id)

    async def resign(self, worker_id: str) -> int:
        return await self._write(_RESIGN, worker_id)

    async def rescue(self, worker_id: str) -> list[Rescued]:
        return await self._write(_RESCUE, worker_id)

    # --- time ------------------------------------------------------------------------------------------

    async def fire(self, schedule: str, tick: float, job: NewJob | None) -> bool:
        return await self._write(_FIRE, Tick(schedule, tick, job))

    async def prune(self, limit: int) -> int:
        """Looks at a part of the file in each call, and goes on there in the next one."""
        deleted = 0
        # Of a large file as much more, or it would grow faster than anybody looks through it.
        for _ in range(max(_PRUNE_SLICES, self._prune_slices // _PRUNE_CALLS)):
            after = self._prune_after
            found, self._prune_after = await self._read(
                _reads.expired, after, _PRUNE_SLICE, self._clock.wall()
            )
            if found:
                deleted += await self._write(_PRUNE, Prune(found, limit - deleted))
            if deleted >= limit:
                self._prune_after = after  # the rest of this slice is for the next call
                break
            self._prune_passed += 1
            if self._prune_after == 0:
                self._prune_slices, self._prune_passed = self._prune_passed, 0
                break
        await self.streams.sweep(limit)
        return deleted
