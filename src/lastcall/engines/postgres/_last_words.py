"""The last words of a process, in a transaction of their own. Who calls it: the engine, through its database."""

from __future__ import annotations

import asyncio

from ...streams._port import Write, Written
from .._last_words import add_or_create
from ._store import Store
from ._stream_rows import SqlRows
from ._threads import in_thread
from ._transact import TransactionConnection


async def last_words(write: Write, store: Store) -> Written:
    """See `SupportsLastWords`."""
    await store.lock_streams()  # before one is looked for that may have to be created
    connection = TransactionConnection(store.connection, asyncio.get_running_loop(), "")
    rows, now = SqlRows(connection, store.terms.texts), store.now
    return await in_thread(lambda: add_or_create(rows, now, write))
