"""The stores that streams can be in, open for a test: in memory, and in an SQLite file that does not sync."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lastcall.engines.sqlite import SqliteEngine
from lastcall.streams import MemoryStore, Streams
from lastcall.testing import VirtualClock

KINDS = ("memory", "sqlite")


@asynccontextmanager
async def opened(
    kind: str, folder: Path, clock: VirtualClock | None = None, **limits: Any
) -> AsyncIterator[Streams]:
    """Streams in a store of this kind."""
    clock = clock or VirtualClock()
    if kind == "memory":
        yield Streams(MemoryStore(clock=clock.wall), **limits)
        return
    engine = SqliteEngine(str(folder / "streams.db"), synchronous="off", clock=clock)
    await engine.open()
    try:
        yield Streams(engine.streams, **limits)
    finally:
        await engine.close()
