"""sqlite3's errors in words that help: what happened, to which file, what to do. The only place that translates."""

from __future__ import annotations

import sqlite3

from ...exceptions import EngineUnavailable
from ._moved import told_by_trigger

# By primary result code. Everything that is not here is told in SQLite's own words.
_TROUBLE = {
    sqlite3.SQLITE_FULL: "the disk (or its quota) is full; free some space, and the engine goes on by itself",
    sqlite3.SQLITE_BUSY: "another process holds the write lock for too long; look for one that keeps a"
    " transaction open (a shell, a backup, a debugger)",
    sqlite3.SQLITE_LOCKED: "the database is locked; look for a process that keeps a transaction open",
    sqlite3.SQLITE_READONLY: "it cannot be written to; check the permissions of the file, of its folder and of"
    " the file system",
    sqlite3.SQLITE_PERM: "access is denied; check the permissions of the file and of its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists and that this user may read"
    " and write there",
    sqlite3.SQLITE_IOERR: "the operating system reported an I/O error; check the disk and the system's log",
    sqlite3.SQLITE_CORRUPT: "it is damaged; stop the workers, restore a backup, or save what is left with"
    " `sqlite3 FILE .recover`",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; check the path, or move the file away",
    sqlite3.SQLITE_NOMEM: "SQLite ran out of memory",
}

# Words of the caller that SQLite could not take: the call is at fault and not the file.
_CALLERS = (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError, sqlite3.IntegrityError)


def translated(error: sqlite3.Error, path: str) -> Exception:
    """`EngineUnavailable` for trouble with the file; the error itself when the call was at fault."""
    moved = told_by_trigger(error)
    if moved is not None:
        return chained(EngineUnavailable(moved), error)
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if isinstance(error, _CALLERS) and primary not in _TROUBLE:
        return error
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    advice = _TROUBLE.get(primary) if primary is not None else None
    told = f"{advice} ({name}: {error})" if advice else f"{error} ({name})"
    return chained(EngineUnavailable(f"the database {path!r} cannot be used: {told}"), error)


def chained(error: EngineUnavailable, cause: BaseException) -> EngineUnavailable:
    """`error` with its cause, as `raise ... from` would leave it."""
    error.__cause__ = cause
    return error


def gone(path: str, what: str) -> EngineUnavailable:
    """The file is not there, or not the one that was opened."""
    return EngineUnavailable(
        f"the database {path!r} {what}. Put the file back, and the engine goes on by itself; or restart the process"
        " to begin with a new one"
    )
