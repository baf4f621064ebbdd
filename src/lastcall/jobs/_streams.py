"""Free-standing streams in the store of the jobs: `jobs.streams`.

Who makes it: `Jobs`. What it owns: nothing; it opens the engine when first needed, as everything of the jobs does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager

from ..exceptions import UnknownEngine
from ..streams._port import Head, NewStream, Page, Position, StreamStore, Write, Written
from ._client import Client
from ._engine import Engine


def store_of(engine: Engine) -> StreamStore:
    """Where this engine keeps streams. Raises `UnknownEngine` if it keeps none."""
    store: StreamStore | None = getattr(engine, "streams", None)
    if store is None:
        raise UnknownEngine(
            f"{engine!r} keeps no streams; use an engine that does (SQLite, PostgreSQL), or Streams() in memory"
        )
    return store


class EngineStreams:
    """A `StreamStore`: the engine's, opened at the first use."""

    def __init__(self, client: Client) -> None:
        self._client = client
        store_of(client.engine)

    async def _store(self) -> StreamStore:
        return store_of(await self._client.ready())

    async def create(self, new: NewStream) -> Written:
        return await (await self._store()).create(new)

    async def append(self, write: Write) -> Written:
        return await (await self._store()).append(write)

    async def delete(self, name: str) -> Written:
        return await (await self._store()).delete(name)

    async def read(self, name: str, after: Position | int, limit: int, max_bytes: int) -> Page:
        return await (await self._store()).read(name, after, limit, max_bytes)

    async def find(self, name: str) -> Page:
        return await (await self._store()).find(name)

    async def heads(self, prefix: str, after: str, limit: int) -> Sequence[Head]:
        return await (await self._store()).heads(prefix, after, limit)

    def watch(self, name: str) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        return store_of(self._client.engine).watch(name)
