"""PostgresEngine: the verbs of the port. Each is one call for the database; nothing is decided here but which kind.

Who makes it: `from_url`, or a user. It belongs to the loop that opened it. Every call is carried out in a task of the
engine's own, so that a caller who is cancelled takes nothing back that is on its way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
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
from . import _reads, _within
from ._batches import Batches
from ._claims import Claims
from ._clock import Clock
from ._database import Database
from ._doubt import forget
from ._driver import Address
from ._finishes import Finishes
from ._hints import Hints
from ._last_words import last_words
from ._leases import Leases
from ._outside import Cancel, Send, ask_to_cancel, cancel, prune, purge, retry, send
from ._steps import Append, Step, all_completed, append_events, different_steps, record_steps
from ._store import Store, Terms, Texts
from ._streams import PostgresStreams
from ._submit import Tick, add_lanes, fire, is_plain, lanes_of, submit_carefully, submit_plain
from ._transact import CallersError, Transact, transact
from ._workers import any_orphan, bury, cancel_requests, find_dead, join, renew, resign

_T = TypeVar("_T")

RETENTION_SECONDS = 7 * 86400.0
# How long `close` waits for what is on its way: longer than any statement may take.
_CLOSE_SECONDS = 30.0
# PostgreSQL cuts longer names, and two schemas would become one.
_LONGEST_NAME = 50


class PostgresEngine:
    """Durable jobs in one PostgreSQL database, shared by any number of processes and machines.

    `address`: a URL like `postgresql://ann:secret@db/shop`. `schema`: where its tables live, apart from the user's own.
    `pool_size`: the most connections at once (4); one more keeps leases, and one listens. `pooled`: whether a pooler
    like PgBouncer stands in between (None: found out). `retention_seconds`: how long ended jobs are kept that say
    nothing themselves, 7 days by default. `clock`: another clock, for tests. Nothing is connected before `open()`.
    Raises `BadDeclaration` for an impossible schema or number.

        engine = PostgresEngine("postgresql://ann@db/shop", schema="jobs")
        await engine.open()
        ...
        await engine.close()
    """

    def __init__(
        self,
        address: str | Address,
        *,
        schema: str = "lastcall",
        pool_size: int = 4,
        pooled: bool | None = None,
        clock: Clock | None = None,
        retention_seconds: float = RETENTION_SECONDS,
    ) -> None:
        if (
            not schema
            or not schema.isprintable()
            or len(schema.encode()) > _LONGEST_NAME
            or schema.startswith("pg_")
        ):
            raise BadDeclaration(
                f"{schema!r} is no name for a schema of lastcall; give at most {_LONGEST_NAME} letters"
            )
        self.address = Address(address, address) if isinstance(address, str) else address
        self.schema = schema
        texts = Texts(schema)
        retention = check_seconds("retention_seconds", retention_seconds)
        self._terms = Terms(texts, clock, retention, this_process(), Leases(), set())
        self._outage = Outage()
        self._pool_size = pool_size
        self._pooled = pooled
        self._hints = Hints(texts)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._database: Database | None = None
        # Behind long transactions of users a lease would end.
        self._lease_database: Database | None = None
        # Also while `close` waits for the last calls, when nobody may make new ones.
        self._last: Database | None = None
        self._opening: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._claims = Claims(self._hints.written)
        self._finishes = Finishes()
        self._submits = Batches("submit", self._submit_plain)
        self._careful_submits = Batches("submit-with-keys", self._submit_carefully)
        self._steps = Batches("steps", self._record_steps)
        self._appends = Batches("events", self._append_events)
        self.streams = PostgresStreams(self._ready, self._do, self._written, self.listen)

    shares_commits = False

    def __repr__(self) -> str:
        return f"<PostgresEngine {self.address.shown} {'closed' if self._database is None else 'open'}>"

    # --- its own life ----------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._loop is not None and self._loop.is_closed():
            self._abandon()
        if self._database is not None:
            self._check_loop()
            return
        if self._opening is None or self._opening.get_loop().is_closed():
            self._opening = asyncio.get_running_loop().create_task(
                self._open(), name="lastcall-postgres-open"
            )
            self._opening.add_done_callback(self._opened)
        # One that is cancelled does not take the opening from the others.
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        database = Database(
            self.address, self._terms, self._outage, size=self._pool_size, pooled=self._pooled
        )
        try:
            await database.open()
            # The first look at the server's clock, by which later ones are judged.
            await database.read(lambda store: find_dead(store, "", self._outage))
        except BaseException:
            await database.close()
            raise
        self._loop, self._database, self._last = asyncio.get_running_loop(), database, database
        self._lease_database = database.beside(1)
        self._hints.start(self._loop, database)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # told to whoever still waits; not to the loop's handler if nobody does

    async def close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        database = self._database
        if database is None:
            return
        self._check_loop()
        self._database = None
        closing = asyncio.get_running_loop().create_task(
            self._close(database), name="lastcall-postgres-close"
        )
        # A close that is cancelled closes all the same.
        await asyncio.shield(closing)

    async def _close(self, database: Database) -> None:
        deadline = time.monotonic() + _CLOSE_SECONDS
        while tasks := self._under_way():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await asyncio.wait(tasks, timeout=left)
        for task in tasks:
            task.cancel()
        await self._hints.stop()
        await database.close()
        if self._lease_database is not None:
            await self._lease_database.close()
        if tasks:
            await asyncio.wait(tasks)
            raise EngineUnavailable(
                f"the database {self.address.shown} did not answer {len(tasks)} calls within {_CLOSE_SECONDS:g} s, and"
                " the engine was closed without their answers"
            )

    def _under_way(self) -> set[asyncio.Task[Any]]:
        batches = (self._submits, self._careful_submits, self._steps, self._appends)
        return {*self._calls, *(task for batch in batches for task in batch.tasks)}

    async def last_words(self, write: Write, seconds: float) -> Written:
        """See `SupportsLastWords`. Not in a task of our own, which closing would wait for."""
        database = self._ready()
        async with asyncio.timeout(seconds):
            return await database.transact(partial(last_words, write))

    def listen(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return self._hints.listen(on_change)

    def _abandon(self) -> None:
        """The loop that opened it is gone and nobody closed it; what is left of it is let go of."""
        self._hints.abandon()
        for database in (self._database, self._lease_database):
            if database is not None:
                database.abandon()
        self._loop = self._database = None
        self._calls.clear()
        self._claims = Claims(self._hints.written)
        for batches in (self._submits, self._careful_submits, self._steps, self._appends):
            batches.abandon()

    def _ready(self) -> Database:
        if self._database is None or self._loop is not asyncio.get_running_loop():
            self._refuse()
        return self._database

    def _ready_for_leases(self) -> Database:
        database = self._ready()
        return self._lease_database or database

    def _refuse(self) -> NoReturn:
        if self._database is None:
            raise NotOpen(f"the engine of {self.address.shown} is not open; `await engine.open()` first")
        raise WrongLoop(
            f"the engine of {self.address.shown} belongs to the event loop that opened it, and this is another"
        )

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            self._refuse()

    async def _do(self, doing: Coroutine[Any, Any, _T]) -> _T:
        """Carry out a call in a task of our own."""
        task = asyncio.get_running_loop().create_task(doing, name="lastcall-postgres-call")
        self._calls.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever still waits for it

    async def _written(self, doing: Coroutine[Any, Any, _T]) -> _T:
        """Carry out a call that others may want to hear of."""

        async def telling() -> _T:
            answer = await doing
            self._hints.written()
            return answer

        return await self._do(telling())

    # --- jobs, from outside ----------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        self._ready()
        batches = self._submits if all(map(is_plain, jobs)) else self._careful_submits
        return await batches.add(list(jobs))

    async def _submit_plain(self, calls: Sequence[Sequence[NewJob]]) -> list[list[Submitted]]:
        answers = await self._database_of_calls().write(lambda store: submit_plain(store, calls))
        self._hints.written()
        return answers

    async def _submit_carefully(self, calls: Sequence[Sequence[NewJob]]) -> list[list[Submitted]]:
        database = await self._with_lanes([job for call in calls for job in call])
        answers = await database.transact(lambda store: submit_carefully(store, calls))
        self._hints.written()
        return answers

    async def submit_within(self, connection: Any, jobs: Sequence[NewJob]) -> list[Submitted]:
        """`connection`: an asyncpg Connection, a psycopg AsyncConnection, SQLAlchemy's AsyncSession or AsyncConnection,
        to this database. Not in a task of our own: it is the caller's, who may use or close it once it is cancelled.
        """
        self._ready()
        users = await _within.connection_of(connection)
        if not jobs:
            return []
        database = await self._with_lanes(jobs)
        here = await self._do(database.read(lambda store: _within.look_here(store, jobs)))
        return await _within.submit_in(users, self._terms, here, self._hints.channel, jobs)

    async def _with_lanes(self, jobs: Sequence[NewJob]) -> Database:
        database = self._database_of_calls()
        lanes = lanes_of(jobs)
        if not lanes <= self._terms.lanes:
            await database.write(lambda store: add_lanes(store, lanes))
        return database

    def _database_of_calls(self) -> Database:
        if self._last is None:
            self._refuse()
        return self._last

    async def get(self, job_ids: Sequence[str]) -> list[JobRow]:
        return await self._do(self._ready().read(lambda store: _reads.get(store, job_ids)))

    async def find(self, query: JobQuery) -> list[JobRow]:
        return await self._do(self._ready().read(lambda store: _reads.find(store, query)))

    async def attempts(self, job_id: str) -> list[AttemptRow]:
        return await self._do(self._ready().read(lambda store: _reads.attempts(store, job_id)))

    async def steps(self, job_id: str) -> list[StepRow]:
        return await self._do(self._ready().read(lambda store: _reads.steps(store, job_id)))

    async def cancel(self, job_id: str, reason: StopReason) -> CancelOutcome:
        return await self._written(self._cancel(self._ready(), Cancel(job_id, reason)))

    async def _cancel(self, database: Database, call: Cancel) -> CancelOutcome:
        if await database.write(lambda store: ask_to_cancel(store, call)):
            return CancelOutcome.REQUESTED
        return await database.transact(lambda store: cancel(store, call))

    async def retry(self, job_id: str) -> JobStatus | None:
        return await self._written(self._ready().transact(lambda store: retry(store, job_id)))

    async def send(self, job_id: str, name: str, data: str) -> JobStatus | None:
        call = Send(job_id, name, data)
        return await self._written(self._ready().transact(lambda store: send(store, call)))

    async def purge(self, job_id: str) -> JobStatus | None:
        return await self._written(self._ready().transact(lambda store: purge(store, job_id)))

    async def append_events(self, job_id: str, attempt: int | None, events: Sequence[NewEvent]) -> int | None:
        self._ready()
        return await self._appends.add(Append(job_id, attempt, events))

    async def _append_events(self, calls: Sequence[Append]) -> list[int | None]:
        answers = await self._database_of_calls().transact(lambda store: append_events(store, calls))
        self._hints.written()
        return answers

    async def read_events(self, reads: Sequence[ReadFrom], limit: int) -> list[EventPage | None]:
        return await self._do(self._ready().read(lambda store: _reads.read_events(store, reads, limit)))

    async def overview(self) -> Overview:
        return await self._do(self._ready().read(_reads.overview))

    # --- jobs, from a worker ---------------------------------------------------------------------------

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        return await self._do(self._claims.claim(self._ready(), request))

    async def finish(self, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
        return await self._written(self._finishes.finish(self._ready(), list(ends)))

    async def record_step(self, job_id: str, attempt: int, step: StepRecord) -> bool:
        self._ready()
        return await self._steps.add(Step(job_id, attempt, step))

    async def _record_steps(self, calls: Sequence[Step]) -> list[bool]:
        database = self._database_of_calls()
        # Written again, a failed step would be told again; a completed one would not.
        write = database.write if all_completed(calls) else database.transact
        batches = [calls] if different_steps(calls) else [[call] for call in calls]
        answers = []
        for batch in batches:
            answers += await write(lambda store, batch=batch: record_steps(store, batch))  # type: ignore[misc]
        self._hints.written()
        return answers

    async def transact(
        self, job_id: str, attempt: int, step: StepRecord, work: Callable[[Any], str]
    ) -> str | None:
        """`work` gets a `TransactionConnection` and runs in a thread. It may use tables of its own in this database; it
        must not begin or end a transaction (`BadDeclaration`)."""
        call = Transact(job_id, attempt, step, work)
        try:
            return await self._written(self._ready().transact(lambda store: transact(store, call)))
        except CallersError as error:
            raise error.error from error.error.__cause__

    # --- workers ---------------------------------------------------------------------------------------

    async def join(self, worker: WorkerRow) -> None:
        database = self._ready_for_leases()
        database.hurry(worker.lease_seconds)
        await self._written(database.write(lambda store: join(store, worker)))

    async def renew(self, worker_id: str) -> Renewal:
        return await self._do(self._ready_for_leases().write(lambda store: renew(store, worker_id)))

    async def cancel_requests(self, worker_id: str) -> list[CancelRequest]:
        return await self._do(self._ready_for_leases().read(lambda store: cancel_requests(store, worker_id)))

    async def resign(self, worker_id: str) -> int:
        return await self._written(self._ready().transact(lambda store: resign(store, worker_id)))

    async def rescue(self, worker_id: str) -> list[Rescued]:
        return await self._do(self._rescue(self._ready(), self._ready_for_leases(), worker_id))

    async def _rescue(self, database: Database, for_leases: Database, worker_id: str) -> list[Rescued]:
        dead = await for_leases.read(lambda store: find_dead(store, worker_id, self._outage))
        if not dead and not await for_leases.read(any_orphan):
            return []
        # This may wait for somebody's lock on a job.
        rescued = await database.transact(lambda store: bury(store, dead))
        self._hints.written()
        return rescued

    # --- time ------------------------------------------------------------------------------------------

    async def fire(self, schedule: str, tick: float, job: NewJob | None) -> bool:
        return await self._written(self._fire(self._ready(), Tick(schedule, tick, job)))

    async def _fire(self, database: Database, tick: Tick) -> bool:
        if tick.job is not None:
            await self._with_lanes([tick.job])
        return await database.transact(lambda store: fire(store, tick))

    async def prune(self, limit: int) -> int:
        database = self._ready()

        async def work(store: Store) -> int:
            await forget(store)
            return await prune(store, limit)

        pruned = await self._written(database.transact(work))
        await self.streams.sweep(limit)
        return pruned
