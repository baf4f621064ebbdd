"""A file whose jobs are moved elsewhere: how it is closed to everybody, and what it says from then on.

Who calls it: `lastcall move` (through `_departure`), to close it; the schema, at every opening; the errors, when
somebody writes who had it open before. Triggers refuse all writes, also those of processes that have the file open, and
of older versions of lastcall, which know nothing of this.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

MOVING, MOVED = "moving", "moved"

_PREFIX = "lastcall_moved: "
_IS_CLOSED = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'lastcall_moved'"
_READ = "SELECT id, state, target, began_at, clock_offset FROM lastcall_moved"
_CREATE = """CREATE TABLE lastcall_moved (
    id TEXT NOT NULL, state TEXT NOT NULL, target TEXT NOT NULL, began_at REAL NOT NULL, clock_offset REAL NOT NULL)"""
_WRITTEN = """SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'lastcall_*'
    AND name <> 'lastcall_moved' ORDER BY name"""
_VERBS = ("INSERT", "UPDATE", "DELETE")


class Move(NamedTuple):
    """`target`: without the password. `clock_offset`: what the wall clock was ahead of the monotonic one."""

    id: str
    state: str
    target: str
    began_at: float
    clock_offset: float

    def told(self, path: str) -> str:
        """What whoever comes here is told."""
        if self.state == MOVED:
            return f"the jobs of {path!r} were moved to {self.target}; use that URL. The file is only kept"
        return (
            f"the jobs of {path!r} are being moved to {self.target}. When `lastcall move` is done, use that URL; if it"
            " was broken off, run it again, or with --undo to stay here"
        )


def move_of(connection: sqlite3.Connection) -> Move | None:
    """None: the file is open to everybody."""
    if connection.execute(_IS_CLOSED).fetchone() is None:
        return None
    return Move(*connection.execute(_READ).fetchone())


def close(connection: sqlite3.Connection, move: Move, path: str) -> None:
    """Refuse all writes from now on. In a transaction of the caller's."""
    connection.execute(_CREATE)
    connection.execute("INSERT INTO lastcall_moved VALUES (?, ?, ?, ?, ?)", move)
    _refuse(connection, move.told(path))


def set_moved(connection: sqlite3.Connection, path: str) -> None:
    """It is done; from now on the new place is named as such. In a transaction of the caller's."""
    connection.execute("UPDATE lastcall_moved SET state = ?", (MOVED,))
    move = move_of(connection)
    assert move is not None
    _allow(connection)
    _refuse(connection, move.told(path))


def reopen(connection: sqlite3.Connection) -> None:
    """As if nothing had been. In a transaction of the caller's."""
    _allow(connection)
    connection.execute("DROP TABLE lastcall_moved")


def told_by_trigger(error: sqlite3.Error) -> str | None:
    """What a refused write was told; None: another error."""
    words = str(error)
    return words.removeprefix(_PREFIX) if words.startswith(_PREFIX) else None


def _refuse(connection: sqlite3.Connection, words: str) -> None:
    quoted = "'" + (_PREFIX + words).replace("'", "''") + "'"
    for (table,) in connection.execute(_WRITTEN).fetchall():
        for verb in _VERBS:
            connection.execute(
                f"CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, {quoted}); END"
            )


def _allow(connection: sqlite3.Connection) -> None:
    for (table,) in connection.execute(_WRITTEN).fetchall():
        for verb in _VERBS:
            connection.execute(f"DROP TRIGGER {table}_{verb}")
