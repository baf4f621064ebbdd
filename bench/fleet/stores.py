"""Where the jobs of a play are kept: a PostgreSQL server of its own, or an SQLite file; and the user's own table."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from lastcall.jobs import JobStatus
from tests.jobs.crash import checker
from tests.jobs.crash.work import RowWriter, write_to_sqlite
from tests.support.pg_wire import Cutter
from tests.support.postgres import Server, private_server

from .plan import POSTGRES

_ROLES = """CREATE ROLE fleet LOGIN; GRANT CREATE ON DATABASE postgres TO fleet; CREATE ROLE neighbour LOGIN;
    CREATE TABLE public.effects (job text NOT NULL, step text NOT NULL, attempt int NOT NULL);
    CREATE TABLE public.orders (name text NOT NULL);
    GRANT ALL ON public.effects, public.orders TO fleet"""
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE usename = 'fleet' ORDER BY pid"
# Whoever is at work now, one of them; as an administrator does who has begun to change a job by hand.
_TAKE_ROWS = "SELECT n FROM lastcall.job WHERE status = $1 ORDER BY n DESC LIMIT 3 FOR UPDATE SKIP LOCKED"
_ANSWER_SECONDS = 10.0
_NEIGHBOURS = 120


class Store(Protocol):
    """What a play needs of it. `doors`: the URLs by which it is reached."""

    doors: dict[str, str]

    async def rows(self) -> dict[str, dict[str, int]]:
        """How many rows each job's steps have written into the user's own table."""

    async def connect(self, door: int) -> Any:
        """A connection of the user's own, in whose transactions jobs can be submitted; None: there are none here."""

    async def orders(self) -> list[str]:
        """What the user's transactions have ordered."""


class SqliteStore:
    """One file."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "jobs.db")
        self.doors = {"direct": f"sqlite:///{self._path}"}

    async def rows(self) -> dict[str, dict[str, int]]:
        return checker.user_rows(self._path)

    async def connect(self, door: int) -> Any:
        return None

    async def orders(self) -> list[str]:
        return []


class PostgresStore:
    """A server of one's own, which is hurt; and a proxy before it, which cuts connections."""

    def __init__(self, server: Server, cutter: Cutter) -> None:
        self._server = server
        self._administrator = server.url
        self.cutter = cutter
        self.doors = {"direct": _as(server.url, "fleet"), "proxy": _as(cutter.url, "fleet")}

    async def prepare(self) -> None:
        """The roles, and the user's own table."""
        connection = await asyncpg.connect(self._administrator)
        await connection.execute(_ROLES)
        await connection.close()

    async def rows(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for job, step, count in await self._ask(
            "SELECT job, step, count(*) FROM public.effects GROUP BY job, step"
        ):
            found.setdefault(job, {})[step] = count
        return found

    async def connect(self, door: int) -> Any:
        return await asyncpg.connect(list(self.doors.values())[door], timeout=_ANSWER_SECONDS)

    async def orders(self) -> list[str]:
        return [name for (name,) in await self._ask("SELECT name FROM public.orders")]

    async def _ask(self, query: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self._administrator, timeout=_ANSWER_SECONDS)
        try:
            rows: list[Any] = await connection.fetch(query, *values, timeout=_ANSWER_SECONDS)
            return rows
        finally:
            await connection.close(timeout=_ANSWER_SECONDS)

    # --- what is done to it ----------------------------------------------------------------------------

    async def restart(self, mode: str, away_seconds: float = 0.0) -> None:
        """`fast`, or `immediate`, as by kill -9; and it may stay away for a while."""
        await asyncio.to_thread(self._server.stop, mode)
        await asyncio.sleep(away_seconds)
        await asyncio.to_thread(self._server.start)

    async def terminate(self, who: float) -> int:
        """End some of the fleet's connections, of all processes. How many those were."""
        generator = random.Random(who)
        pids = [pid for (pid,) in await self._ask(_BACKENDS)]
        chosen = [pid for pid in pids if generator.random() < who]
        await self._ask("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", chosen)
        return len(chosen)

    async def hold_rows(self, who: float, seconds: float) -> int:
        """Lock some jobs that are queued or run, and be idle in that transaction for a while."""
        status = JobStatus.RUNNING if who < 0.7 else JobStatus.QUEUED
        connection = await asyncpg.connect(self._administrator, timeout=_ANSWER_SECONDS)
        try:
            async with connection.transaction():
                rows = await connection.fetch(_TAKE_ROWS, str(status), timeout=_ANSWER_SECONDS)
                await asyncio.sleep(seconds)
            return len(rows)
        finally:
            await connection.close(timeout=_ANSWER_SECONDS)

    async def take_all_connections(self, seconds: float) -> int:
        """As a neighbour whose pool has no end; and those that the fleet had are gone. How many were taken."""
        taken: list[Any] = []
        try:
            await self._ask(f"SELECT pg_terminate_backend(pid) FROM ({_BACKENDS}) AS backend")
            url = _as(self._administrator, "neighbour")
            with suppress(asyncpg.TooManyConnectionsError, OSError, TimeoutError):
                while len(taken) < _NEIGHBOURS:
                    taken.append(await asyncpg.connect(url, timeout=_ANSWER_SECONDS))
            await asyncio.sleep(seconds)
            return len(taken)
        finally:
            for connection in taken:
                connection.terminate()


def _as(url: str, role: str) -> str:
    return url.replace("postgres@", f"{role}@")


def write_to_postgres(connection: Any, job_id: str, step: str, attempt: int) -> None:
    """One row into the user's own table, in the step's transaction."""
    connection.execute("INSERT INTO public.effects VALUES ($1, $2, $3)", job_id, step, attempt)


def writer_of(url: str) -> RowWriter:
    """How a step writes into the user's table there."""
    return write_to_postgres if url.startswith("postgresql:") else write_to_sqlite


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Store]:
    """The store of a play, empty at first."""
    if kind != POSTGRES:
        yield SqliteStore(folder)
        return
    with private_server(max_connections="100", log_min_messages="error") as server:
        async with Cutter(server.url).running() as cutter:
            store = PostgresStore(server, cutter)
            await store.prepare()
            yield store
