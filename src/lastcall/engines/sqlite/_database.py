"""One file, as one thread has it open: opening, noticing that it vanished or was replaced, coming back.

Who calls it: the writer and the reader, each with an object of its own, each only from its own thread.

SQLite goes on writing into a file that was deleted or moved away, and says nothing; so `verify` compares what stands at
the path with what was opened. The file is created at the first opening only: created anew later, it would
be an empty database in place of all jobs, without a word.

The file is never opened but by SQLite: closing any other descriptor of it would drop the locks that SQLite holds for
this process (POSIX locks belong to the process and the file, not to the descriptor).
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import NamedTuple
from urllib.parse import quote

from ...exceptions import EngineUnavailable
from ._errors import gone, translated
from ._schema import VERSION, check_owner, migrate

BUSY_SECONDS = 5.0
_RETRY_SECONDS = 0.01
_CACHED_STATEMENTS = 256

_MIN_SIZE = 100


class _Place(NamedTuple):
    """Which files stand at the path: the database and its log, each by device and inode; None: there is none."""

    file: tuple[int, int] | None
    log: tuple[int, int] | None


class Database:
    """`writer`: it migrates the schema and may create the file, at first; otherwise it may not write at all."""

    def __init__(self, path: str, synchronous: str, *, writer: bool) -> None:
        self.path = path
        self._synchronous = synchronous
        self._writer = writer
        self._may_create = writer
        self._connection: sqlite3.Connection | None = None
        self._opened_place = _Place(None, None)
        self.opened = 0

    def connection(self) -> sqlite3.Connection:
        """The connection to the file that stands at the path now. Opens it when needed; raises `EngineUnavailable`."""
        if self._connection is not None and self._was_replaced():
            self.close()
        if self._connection is None:
            self._open()
        assert self._connection is not None
        return self._connection

    def verify(self) -> None:
        """After a commit: raise `EngineUnavailable` if it went into files that no longer stand at the path."""
        if self._look() != self._opened_place:
            raise gone(
                self.path, "was deleted, moved away or replaced, and what was written last went with it"
            )

    def close(self) -> None:
        """Let go. SQLite itself leaves a moved file's log alone, so that it can be put back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _was_replaced(self) -> bool:
        """Whether there is another file now, to be opened instead. Raises where that would do harm.

        While the file is away the connection stays open: that alone makes sure that a file with the same inode is
        the same file, and if the log was deleted, closing is what saves its contents.
        """
        here, then = self._look(), self._opened_place
        if here == then:
            return False
        if here.file is None:
            raise gone(self.path, "is gone")
        log = self.path + "-wal"
        if here.file == then.file:
            raise EngineUnavailable(
                f"the log {log!r} was deleted or replaced. Stop all processes that use the database: the last one"
                " saves the log's contents into it"
            )
        if here.log == then.log:
            raise EngineUnavailable(
                f"the database {self.path!r} was replaced, but {log!r} is still the old one's log, which would damage"
                f" the new one. Delete {log!r} and {self.path + '-shm'!r}, and the engine goes on by itself"
            )
        return True

    # --- opening ---------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            connection = self._connect()
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        self._connection = connection
        self._opened_place = self._look()
        self._may_create = False
        self.opened += 1

    def _connect(self) -> sqlite3.Connection:
        self._check_path()
        self._check_unopened()
        mode = "rwc" if self._may_create else "rw"
        connection = sqlite3.connect(
            f"file:{quote(os.path.abspath(self.path))}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            cached_statements=_CACHED_STATEMENTS,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_path(self) -> None:
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            raise EngineUnavailable(
                f"the database {self.path!r} cannot be opened: there is no folder {folder!r}; create it first"
            )
        if os.path.isdir(self.path):
            raise EngineUnavailable(f"the database {self.path!r} is a folder; name a file in it")
        size = _size(self.path)
        if size is not None and 0 < size < _MIN_SIZE:
            # SQLite would take it for empty, and overwrite it.
            raise EngineUnavailable(
                f"{self.path!r} is not an SQLite database; check the path, or move the file away"
            )
        if not self._may_create and size is None:
            raise gone(self.path, "is gone")
        if not self._may_create and size == 0:
            raise gone(self.path, "was replaced by an empty file")

    def _check_unopened(self) -> None:
        """Whose file it is, before any lock, log or shared memory is made beside it.

        `immutable` reads the bare file, without its log: after a checkpoint that was broken off by a full disk it
        may look damaged and be whole. So only a clear no counts here.
        """
        if not _size(self.path):
            return
        uri = f"file:{quote(os.path.abspath(self.path))}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
        try:
            check_owner(connection, self.path)
        except sqlite3.Error:
            return
        finally:
            connection.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        execute = connection.execute
        if check_owner(connection, self.path) != VERSION and not self._writer:
            raise EngineUnavailable(f"the database {self.path!r} has no schema of this version")
        if self._writer:
            _use_wal(connection, self.path)
            # The pragma takes no parameters; the value was checked where it came in.
            execute(f"PRAGMA synchronous = {self._synchronous}")
            execute("PRAGMA temp_store = MEMORY")
            # After one huge commit the log would stay huge.
            execute("PRAGMA journal_size_limit = 67108864")
            migrate(connection, self.path)
        else:
            execute("PRAGMA query_only = ON")

    def _look(self) -> _Place:
        return _Place(_identity(self.path), _identity(self.path + "-wal"))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    """Switch to the write-ahead log. SQLite does not wait for a lock here, so two that open a new file collide."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_RETRY_SECONDS)
            continue
        if mode == "wal":
            return
        raise EngineUnavailable(
            f"the file system of {path!r} has no shared memory for SQLite's log (it answers {mode!r}); use a local disk"
        )


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
