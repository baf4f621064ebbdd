"""The jobs of a file on their way to another engine: who is still at work, closing the file, reading all of it.

Who calls it: `lastcall move`. It has a connection of its own, beside the engine, because the engine does not open a
file that is closed. What it reads is in the form of `_carried`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from ...jobs._processes import ProcessIdentity, this_process
from .._carried import Key, Row, Table
from ._errors import translated
from ._moved import Move, close, move_of, reopen, set_moved
from ._schema import VERSION, version_of
from ._workers import Lease, is_dead

_BUSY_SECONDS = 10.0
_WORKERS = """SELECT id, host, pid, process_start, boot_id, pid_namespace, lease_seconds, lease_until
    FROM lastcall_worker ORDER BY id"""
_LAST_UPTO = "SELECT upto FROM lastcall_event WHERE job = lastcall_job.n ORDER BY seq DESC LIMIT 1"

# How a column is read that is not here as it travels. Bit 1 of `held`: a limit; bit 2: a suspect.
_READ_AS: dict[tuple[str, str], str] = {
    ("job", "held"): "held & 1",
    ("job", "suspect"): "(held & 2) / 2",
    (
        "job",
        "tied",
    ): """limit_key IS NOT NULL OR EXISTS (SELECT 1 FROM lastcall_wait WHERE job = lastcall_job.n)
        OR EXISTS (SELECT 1 FROM lastcall_wait_job WHERE job_id = lastcall_job.id)""",
    ("job", "last_seq"): "ifnull((SELECT max(seq) FROM lastcall_event WHERE job = lastcall_job.n), 0)",
    ("job", "log_bytes"): f"ifnull(({_LAST_UPTO}), 0)",
    ("event", "upto"): "ifnull(upto, 0)",
    # Of the monotonic clock here, of the wall clock there.
    ("rate", "at"): "at + (SELECT clock_offset FROM lastcall_moved)",
}
_BOOLEANS = {
    ("job", "held"), ("job", "suspect"), ("job", "tied"), ("step", "main"), ("wait_job", "ended"),
    ("stream", "closed"), ("stream", "gone"),
}  # fmt: skip


class Departure:
    """One file. Raises `EngineUnavailable` for trouble with it."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            uri = f"file:{quote(os.path.abspath(path))}?mode=rw"
            self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise translated(error, path) from error

    def leave(self) -> None:
        self._connection.close()

    def is_current(self) -> bool:
        """Whether its schema is of this version. Raises for a file that is none of ours, and for a newer one."""
        try:
            return version_of(self._connection, self.path) == VERSION
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    def move(self) -> Move | None:
        """The move that has begun, or is done."""
        try:
            return move_of(self._connection)
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    def alive(self) -> list[str]:
        """Who is at work here, for people."""
        found = []
        for id, host, pid, start, boot, namespace, seconds, until in self._connection.execute(_WORKERS):
            lease = Lease(id, ProcessIdentity(pid, start, boot, namespace), seconds, until)
            if not is_dead(lease, time.monotonic(), this_process()):
                found.append(f"{id} (process {pid} on {host})")
        return found

    def close(self, move: Move) -> list[str]:
        """Close the file to all others; or who is at work here: then it stays open. `move`: its clock is set here."""
        move = move._replace(began_at=time.time(), clock_offset=time.time() - time.monotonic())
        with _Transaction(self._connection, self.path):
            alive = self.alive()
            if not alive:
                close(self._connection, move, self.path)
        return alive

    def set_moved(self) -> None:
        with _Transaction(self._connection, self.path):
            set_moved(self._connection, self.path)

    def reopen(self) -> None:
        with _Transaction(self._connection, self.path):
            reopen(self._connection)

    def count(self, table: Table) -> int:
        (count,) = self._connection.execute(f"SELECT count(*) FROM lastcall_{table.name}").fetchone()
        return int(count)

    def rows(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        """So many rows behind this key, in order."""
        columns = ", ".join(_READ_AS.get((table.name, name), name) for name in table.columns)
        key = ", ".join(table.key)
        behind = "" if after is None else f"WHERE ({key}) > ({', '.join('?' * len(after))})"
        found = self._connection.execute(
            f"SELECT {columns} FROM lastcall_{table.name} {behind} ORDER BY {key} LIMIT ?",
            (*(after or ()), limit),
        ).fetchall()
        truths = [place for place, name in enumerate(table.columns) if (table.name, name) in _BOOLEANS]
        return [_with_truths(row, truths) for row in found] if truths else found


def _with_truths(row: Sequence[Any], places: Sequence[int]) -> Row:
    changed = list(row)
    for place in places:
        changed[place] = bool(changed[place])
    return tuple(changed)


class _Transaction:
    """A block that is written as a whole."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def __enter__(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise translated(error, self._path) from error

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> None:
        try:
            self._connection.execute("COMMIT" if error is None else "ROLLBACK")
        except sqlite3.Error as trouble:
            raise translated(trouble, self._path) from trouble
        if isinstance(error, sqlite3.Error):
            raise translated(error, self._path) from error
