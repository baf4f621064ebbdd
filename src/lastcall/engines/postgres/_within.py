"""Jobs that are submitted within a user's own transaction, through the user's own connection.

Who calls it: the engine, for `submit(connection=...)`. What it owns: how a job is written there so that it exists when
that transaction commits, and not otherwise; and the words for connections that cannot carry one. The connection may be
of several libraries: each has a file of its own (`_within_*`), found by the name of the module that the connection's
class comes from, and imported only then, so that nothing is imported that is not installed.

The user's transaction may stay open for long, so nothing is locked in it that a worker would wait for: a job under a
limit key is written as due now, and the next claim puts it in line under that key's lock. Lanes are made before, in a
transaction of our own. A savepoint keeps the user's transaction usable when the submission is refused.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from ...exceptions import BadConnection, EngineUnavailable, JobError
from ...jobs._rows import NewJob, Submitted
from ._clock import NOW
from ._driver import StatementFailed
from ._store import Store, Terms, TryAgain
from ._submit import lanes_of, submit_within

# The library's name, which its classes' modules begin with, and where its connections are understood.
_LIBRARIES: Final = {
    "asyncpg": "lastcall.engines.postgres._within_asyncpg",
    "psycopg": "lastcall.engines.postgres._within_psycopg",
    "sqlalchemy": "lastcall.engines.postgres._within_sqlalchemy",
}
_KNOWN: Final = (
    "an asyncpg Connection, a psycopg AsyncConnection, or SQLAlchemy's AsyncSession or AsyncConnection"
)

# How often keys are looked up again that somebody else has taken meanwhile.
_TRIES = 20

# Two servers do not start in the same microsecond, and a database's number is its own on each.
_SERVER = """(SELECT extract(epoch FROM pg_postmaster_start_time())::text) AS since,
    (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS database"""
_HERE = f"""SELECT lane.queue, lane.task, lane.version, lane.id, {_SERVER}
    FROM (SELECT 1) AS one LEFT JOIN (lastcall.lane JOIN unnest($1::text[], $2::text[], $3::text[])
    AS asked (queue, task, version) USING (queue, task, version)) ON true"""
_THERE = f"SELECT {NOW} AS now, {_SERVER}"
# In the user's transaction, so that whoever listens hears of it when the job is there, and not before.
_TELL = "SELECT pg_notify($1, $2), nextval('lastcall.news')"

_LOST = ("08", "57P")
_TAKEN_BACK = ("40001", "40P01")


class Connection(Protocol):
    """A user's connection, of whichever library. Statements have `$1` for values; trouble is `StatementFailed`."""

    async def check(self) -> None:
        """Raises `BadConnection` for what can be seen from here: it is closed, or in no transaction."""

    async def execute(self, query: str) -> object:
        """Run a statement without values."""

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """Run a statement; its rows."""


class Here(NamedTuple):
    """What the engine's own connection sees: which server and database it is, and the numbers of lanes."""

    since: str
    database: str
    lanes: dict[tuple[str, str, str], int]


async def connection_of(given: Any) -> Connection:
    """How this connection is used. Raises `BadConnection` for what is none, or cannot carry a job now."""
    try:
        connection = await understood(given)
        await connection.check()
        return connection
    except StatementFailed as error:
        raise _refused(error) from error


async def understood(given: Any) -> Connection:
    """By the library that its class, or one that this is derived from, belongs to. Raises `BadConnection`."""
    for base in type(given).__mro__:
        module = _LIBRARIES.get(base.__module__.partition(".")[0])
        if module is not None:
            understand: Callable[[Any], Awaitable[Connection | None]] = importlib.import_module(
                module
            ).understood
            connection = await understand(given)
            if connection is not None:
                return connection
            break
    kind = f"{type(given).__module__}.{type(given).__qualname__}"
    raise BadConnection(f"submit takes {_KNOWN} for its connection, not {kind}")


async def look_here(store: Store, jobs: Sequence[NewJob]) -> Here:
    """By the engine's own connection, after these jobs' lanes were made."""
    queues, tasks, versions = (list(column) for column in zip(*lanes_of(jobs), strict=True))
    rows = await store.rows(_HERE, queues, tasks, versions)
    lanes = {(row[0], row[1], row[2]): row[3] for row in rows if row[3] is not None}
    return Here(rows[0][4], rows[0][5], lanes)


async def submit_in(
    connection: Connection, terms: Terms, here: Here, channel: str, jobs: Sequence[NewJob]
) -> list[Submitted]:
    """Write the jobs in the transaction that this connection is in. After an error that is not the connection's own,
    that transaction is as it was before."""
    store = Store(connection, terms)
    try:
        await _begin(store, here)
        try:
            answers = await _write(store, here, jobs)
            if any(answer.created for answer in answers):
                await store.rows(_TELL, channel, "submitted in a transaction")
        except BaseException:
            # Also when the caller was cancelled, who may go on and commit: the job must not be in it. Where even this
            # fails, nothing can be committed any more.
            with suppress(StatementFailed):
                await connection.execute("ROLLBACK TO SAVEPOINT lastcall")
            raise
        await connection.execute("RELEASE SAVEPOINT lastcall")
        return answers
    except StatementFailed as error:
        raise _refused(error) from error


async def _begin(store: Store, here: Here) -> None:
    (now, since, database), *_ = await store.rows(_THERE, store.now)
    if (since, database) != (here.since, here.database):
        raise BadConnection(
            "the connection given to submit is to another database than these jobs' store; a transaction cannot"
            " cover both. Give a connection to the store's own database, or make a Jobs on that one"
        )
    store.now = now
    await store.connection.execute("SAVEPOINT lastcall")


async def _write(store: Store, here: Here, jobs: Sequence[NewJob]) -> list[Submitted]:
    for _ in range(_TRIES):
        try:
            return await submit_within(store, jobs, here.lanes)
        except TryAgain:
            continue
    raise EngineUnavailable("too many others submitted the same keys at the same time; nothing was written")


def _refused(error: StatementFailed) -> JobError:
    if error.state is None or error.state.startswith(_LOST):
        return EngineUnavailable(
            f"the connection given to submit was lost ({error}). What its transaction has not committed is not"
            " written, the job included; begin anew on another connection"
        )
    if error.state == "25P02":
        return BadConnection(
            "the connection given to submit is in a transaction that has failed; nothing can be written in it any"
            " more. Roll it back, begin another one, and submit in that"
        )
    if error.state in _TAKEN_BACK:
        return EngineUnavailable(
            f"others were in the way of the transaction that the job was submitted in ({error}); roll it back, and"
            " do it again from its beginning"
        )
    if error.state == "42501":
        return BadConnection(
            f"the user of the connection given to submit lacks a right in the store's schema ({error}); grant it"
            " USAGE on the schema, SELECT and INSERT on its table job, INSERT on label, USAGE on its sequences"
        )
    if error.state == "25006":
        return BadConnection(
            f"the transaction given to submit may not write ({error}); submit in one that may"
        )
    return EngineUnavailable(f"the job could not be written on the connection given to submit: {error}")
