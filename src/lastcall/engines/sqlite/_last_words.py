"""The last words of a process, past the writer thread.

Who calls it: the engine. What it owns: a connection, for one commit, in a thread that nobody waits for. Through the
writer they would wait for a lock five seconds, which cannot be broken off, and closing would wait for the writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from urllib.parse import quote

from ...exceptions import EngineUnavailable
from ...streams._port import Write, Written
from .._last_words import add_or_create
from ._errors import translated
from ._schema import VERSION, check_owner
from ._stream_rows import SqlRows

# The lock is waited for a little less than the whole time: then the error says what was in the way.
_LOCK_SHARE = 0.8


async def last_words(path: str, synchronous: str, now: float, write: Write, seconds: float) -> Written:
    """See `SupportsLastWords`."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Written] = loop.create_future()

    def run() -> None:
        how: Callable[[], None]
        try:
            written = _write(path, synchronous, now, write, seconds * _LOCK_SHARE)
            how = lambda: None if done.done() else done.set_result(written)  # noqa: E731
        except Exception as error:
            told = translated(error, path) if isinstance(error, sqlite3.Error) else error
            how = lambda: None if done.done() else done.set_exception(told)  # noqa: E731
        try:
            loop.call_soon_threadsafe(how)
        except RuntimeError:
            return  # the loop is closed: there is nobody left to be told

    threading.Thread(target=run, name="lastcall-sqlite-last-words", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await done


def _write(path: str, synchronous: str, now: float, write: Write, busy_seconds: float) -> Written:
    # `rw`: a file that is gone is not made anew.
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw", uri=True, timeout=busy_seconds, isolation_level=None
    )
    try:
        if check_owner(connection, path) != VERSION:
            raise EngineUnavailable(f"the database {path!r} has no schema of this version any more")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("BEGIN IMMEDIATE")
        written = add_or_create(SqlRows(connection), now, write)
        connection.execute("COMMIT")
        return written
    finally:
        connection.close()
