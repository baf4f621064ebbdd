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
from urllib.parse import quote

from ...exceptions import EngineUnavailable
from ._errors import gone, translated
from ._schema import VERSION, check_owner, migrate

BUSY_SECONDS = 5.0
_RETRY_SECONDS = 0.01
_CACHED_STATEMENTS = 256

_Identity = tuple[int, int]


class Database:
    """`role` "writer" migrates the schema and may create the file; "reader" may not write at all."""

    def __init__(self, path: str, synchronous: str, *, writer: bool) -> None:
        self.path = path
        self._synchronous = synchronous
        self._writer = writer
        self._may_create = writer
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[_Identity, _Identity | None] | None = None
        self.opened = 0

    def connection(self) -> sqlite3.Connection:
        """The connection to the file that stands at the path now. Opens it when needed; raises `EngineUnavailable`."""
        if self._connection is None:
            self._open()
        elif not self.unmoved():
            self.close()
            self._open()
        assert self._connection is not None
        return self._connection

    def verify(self) -> None:
        """After a commit: raise `EngineUnavailable` if it went into a file that no longer stands at the path."""
        if not self.unmoved():
            self.close()
            raise gone(
                self.path, "was deleted, moved away or replaced, and what was written last went with it"
            )

    def unmoved(self) -> bool:
        return self._identity == self._look()

    def close(self) -> None:
        """Let go. SQLite itself leaves a moved file's log alone, so that it can be put back."""
        connection, self._connection, self._identity = self._connection, None, None
        if connection is not None:
            connection.close()

    # --- opening ---------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            connection = self._connect()
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        self._connection = connection
        self._identity = self._look()
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
        if self._may_create:
            return
        size = _size(self.path)
        if size is None:
            raise gone(self.path, "is gone")
        if size == 0:
            raise gone(self.path, "was replaced by an empty file")

    def _check_unopened(self) -> None:
        """Whose file it is, before any lock, log or shared memory is made beside it.

        `immutable` reads the bare file. It may be behind the log, so only a clear no counts here.
        """
        if not _size(self.path):
            return
        uri = f"file:{quote(os.path.abspath(self.path))}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
        try:
            check_owner(connection, self.path)
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

    def _look(self) -> tuple[_Identity, _Identity | None] | None:
        """Which files stand at the path: the database and its log. A log that is gone loses commits just so."""
        try:
            found = os.stat(self.path)
            log = os.stat(self.path + "-wal")
        except OSError:
            return None
        return (found.st_dev, found.st_ino), (log.st_dev, log.st_ino)


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
