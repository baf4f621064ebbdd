"""The reader thread: looks at the file through a connection of its own, so that a listing never delays a commit.

Who calls it: the engine, from its loop. Each reading sees one snapshot, which begins when the reading does; so it sees
every write whose caller has been answered.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from ._database import Database
from ._errors import translated
from ._writer import settle

_T = TypeVar("_T")


class Reader:
    """Opens the file at once: later another one, or only its log, might stand at the path."""

    def __init__(self, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        self._database = database
        self._loop = loop
        self._asked: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any]] | None]
        self._asked = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lastcall-sqlite-reader", daemon=True)
        self._ended: asyncio.Future[None] = loop.create_future()

    # --- on the loop -----------------------------------------------------------------------------------

    def start(self) -> asyncio.Future[None]:
        """Start the thread; the future is done when the file is open, or says why it cannot be."""
        self._thread.start()
        return self.read(lambda connection: None)

    def read(self, function: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        """`function(connection, *arguments)` in the thread."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._asked.put((function, arguments, future))
        return future

    def stop(self) -> asyncio.Future[None]:
        """Answer what was asked, close, end; the future is done then."""
        self._asked.put(None)
        return self._ended

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    # --- in the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            function, arguments, future = asked
            if future.cancelled():
                continue
            try:
                self._tell(future, self._read(function, arguments), False)
            except Exception as error:
                self._tell(future, error, True)
        self._database.close()
        self._tell(self._ended, None, False)

    def _read(self, function: Callable[..., _T], arguments: tuple[Any, ...]) -> _T:
        try:
            connection = self._database.connection()
            connection.execute("BEGIN")
            try:
                return function(connection, *arguments)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._database.close()
            raise translated(error, self._database.path) from error

    def _tell(self, future: asyncio.Future[Any], value: object, failed: bool) -> None:
        try:
            self._loop.call_soon_threadsafe(settle, [(future, value, failed)])
        except RuntimeError:
            return  # the loop is closed: there is nobody left to be told
