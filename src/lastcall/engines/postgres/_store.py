"""What verbs work with: one connection, for the time of one call; and the locks that a transaction takes.

Who makes it: the database, one for each try of a call. The isolation is READ COMMITTED: every statement sees what was
committed before it began, so whatever is decided by looking is decided under a lock that was taken by an earlier
statement. Locks, in the order in which they are taken, so that nobody waits in a circle:

1. *tasks*: an advisory lock for each task with limits that a claim may start; claims alone take it.
2. *limit keys*: an advisory lock for each limit key. Whoever changes who has a place under a key (submit, an end, a
   wake, cancel, retry) holds it.
3. *jobs*: the row of each job that changes, FOR UPDATE, in the order of their numbers; with a job also those that wait
   for it. A claim alone skips locked rows instead of waiting, and it is the only one that takes rows in another order.

What turns out only under way to be needed is locked then, out of order; should two meet like that, the server breaks
the circle, and the database tries the one again from the beginning.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from ...jobs._processes import ProcessIdentity
from ...jobs._rows import NewEvent
from ._clock import NOW, Clock
from ._driver import Connection
from ._leases import Leases

# How long the server waits for us in the middle of a transaction. A worker that is stopped there (SIGSTOP, a frozen
# virtual machine) holds locks that all claims need; at first it could hold them for a minute, and nobody got a job.
_IDLE_SECONDS = 5.0
_CALLERS_IDLE_SECONDS = 60.0

_TIME = f"SELECT {NOW}"
_LOCK = """SELECT pg_advisory_xact_lock($1::int, h) FROM (SELECT DISTINCT hashtext(name) AS h
    FROM unnest($2::text[]) AS name ORDER BY h) AS hashes"""
_LOCK_STREAMS = "SELECT pg_advisory_xact_lock($1::bigint)"
_LOCK_STREAMS_SHARED = "SELECT pg_advisory_xact_lock_shared($1::bigint)"
_TASKS, _KEYS, _STREAMS = 7811888, 7811889, 7811890
# Rows are found by `= ANY (ARRAY (...))` wherever they are few: for `IN (...)` the planner, which cannot know that,
# may go through all jobs there are.
_WAITERS = """SELECT wait.job FROM lastcall.wait_job JOIN lastcall.wait ON wait.n = wait_job.wait
    WHERE wait_job.job_id = ANY($1::text[])"""
_LIMIT_KEYS = f"""SELECT limit_key FROM lastcall.job WHERE id = ANY($1::text[]) AND limit_key IS NOT NULL
    UNION SELECT limit_key FROM lastcall.job WHERE n = ANY(ARRAY({_WAITERS})) AND limit_key IS NOT NULL"""
_LOCK_JOBS = f"""SELECT n FROM lastcall.job
    WHERE n = ANY(ARRAY(SELECT n FROM lastcall.job WHERE id = ANY($1::text[]) UNION {_WAITERS}))
    ORDER BY n FOR UPDATE"""
_LOCK_ROWS = "SELECT n FROM lastcall.job WHERE n = ANY($1::bigint[]) ORDER BY n FOR UPDATE"


class Lane(NamedTuple):
    """Where jobs stand in line: one queue, one task, one version."""

    queue: str
    task: str
    version: str


class Entry(NamedTuple):
    """Something to be appended to a job's log. `attempt` 0: outside of one."""

    n: int
    attempt: int
    event: NewEvent


class TryAgain(Exception):
    """What was looked at before a lock is another thing now; from the beginning."""


class Texts:
    """Statements with the schema's name in them."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.quoted = '"' + schema.replace('"', '""') + '"'
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = text.replace("lastcall.", f"{self.quoted}.")
        return known


class Terms(NamedTuple):
    """What is the same for all calls of one engine."""

    texts: Texts
    clock: Clock | None
    retention_seconds: float
    here: ProcessIdentity
    leases: Leases
    lanes: set[Lane]


def _may_idle(seconds: float) -> str:
    return f"SET LOCAL idle_in_transaction_session_timeout = {seconds * 1000:.0f}"


class Store:
    """One connection in the hands of one call. `again`: an earlier try may have been committed, nobody knows."""

    def __init__(
        self, connection: Connection, terms: Terms, *, wrap: bool = False, again: bool = False
    ) -> None:
        self.connection = connection
        self.terms = terms
        self.again = again
        # The time of the transaction; between transactions that of a test's clock, or None: the server's own.
        self.now: Any = self.clock_now()
        self._texts = terms.texts
        self._wrap = wrap
        self.told: list[Entry] = []
        self._keys: set[str] = set()
        self._jobs: set[int] = set()

    def clock_now(self) -> float | None:
        """What a test's clock says; None: the server's own is to be asked."""
        clock = self.terms.clock
        return None if clock is None else clock.wall()

    async def begin(self) -> None:
        """Begin a transaction. All that happens in it happens at the same time."""
        await self.connection.execute(f"BEGIN; {_may_idle(_IDLE_SECONDS)}")
        self._wrap = False
        self.now = await self.value(_TIME, self.now)

    async def lend(self) -> None:
        """Somebody's own code runs in this transaction: it may take its time, and go through all of its own tables."""
        await self.connection.execute(f"{_may_idle(_CALLERS_IDLE_SECONDS)}; SET LOCAL enable_seqscan = on")

    def tell(self, n: int, attempt: int, event: NewEvent) -> None:
        """Append to a job's log before the commit (see `_log`)."""
        self.told.append(Entry(n, attempt, event))

    # --- statements ------------------------------------------------------------------------------------

    async def rows(self, text: str, *values: Any) -> list[Any]:
        """Run one statement; its rows."""
        text = self._texts(text)
        if not self._wrap:
            rows: list[Any] = await self.connection.fetch(text, *values)
            return rows
        # Behind a pooler each round trip outside a transaction may meet another server connection.
        async with self.connection.transaction():
            rows = await self.connection.fetch(text, *values)
            return rows

    async def row(self, text: str, *values: Any) -> Any:
        rows = await self.rows(text, *values)
        return rows[0] if rows else None

    async def value(self, text: str, *values: Any) -> Any:
        row = await self.row(text, *values)
        return None if row is None else row[0]

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """All statements of this block see the same moment; they only read."""
        await self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._wrap = False
        self.now = await self.value(_TIME, self.now)
        yield
        # After an error the connection is given back by whoever lent it, who ends the transaction.
        await self.connection.execute("COMMIT")

    async def lock_stream(self, name: str) -> None:
        """Nobody else writes to this stream, nor creates or ends any, until this transaction is over."""
        await self.rows(_LOCK_STREAMS_SHARED, _STREAMS)
        await self.rows(_LOCK, _STREAMS, [name])

    async def lock_streams(self) -> None:
        """Nobody else writes to any stream until this transaction is over: what forks touch is not known before."""
        await self.rows(_LOCK_STREAMS, _STREAMS)

    # --- locks -----------------------------------------------------------------------------------------

    async def lock_tasks(self, tasks: Iterable[str]) -> None:
        """Nobody else starts jobs of these tasks until this transaction is over."""
        await self.rows(_LOCK, _TASKS, list(tasks))

    async def lock_keys(self, keys: Iterable[str | None]) -> None:
        """Nobody else gives or takes places under these limit keys until this transaction is over."""
        missing = {key for key in keys if key is not None} - self._keys
        if missing:
            await self.rows(_LOCK, _KEYS, list(missing))
            self._keys |= missing

    async def lock_jobs(self, ids: Sequence[str]) -> None:
        """Nobody else changes these jobs, nor those that wait for them; with the limit keys of all of them."""
        # Before the rows, and without a lock: a job's limit key never changes.
        await self.lock_keys([key for (key,) in await self.rows(_LIMIT_KEYS, ids)])
        self._jobs |= {n for (n,) in await self.rows(_LOCK_JOBS, ids)}

    async def lock_rows(self, numbers: Iterable[int]) -> None:
        """Nobody else changes these jobs; those that are locked already cost nothing."""
        missing = set(numbers) - self._jobs
        if missing:
            await self.rows(_LOCK_ROWS, list(missing))
            self._jobs |= missing
