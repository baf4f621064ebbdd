"""The stores that streams can be in, open for a test: in memory, in SQLite without syncing, in PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lastcall.engines.sqlite import SqliteEngine
from lastcall.streams import MemoryStore, Streams
from lastcall.testing import VirtualClock
from tests.engines.postgres import support as postgres

KINDS = ("memory", "sqlite", "postgres")


@asynccontextmanager
async def opened(
    kind: str, folder: Path, clock: VirtualClock | None = None, **limits: Any
) -> AsyncIterator[Streams]:
    """Streams in a store of this kind."""
    clock = clock or VirtualClock()
    if kind == "memory":
        yield Streams(MemoryStore(clock=clock.wall), **limits)
        return
    if kind == "postgres":
        async with postgres.opened(clock=clock, pool_size=2) as in_postgres:
            yield Streams(in_postgres.streams, **limits)
        return
    engine = SqliteEngine(str(folder / "streams.db"), synchronous="off", clock=clock)
    await engine.open()
    try:
        yield Streams(engine.streams, **limits)
    finally:
        await engine.close()
