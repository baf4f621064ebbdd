"""What an engine is told right before it closes: it is there, or nothing of it is, and closing waits for none of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import EngineUnavailable
from lastcall.streams._policy import JSON
from lastcall.streams._port import Outcome, Write
from tests.engines.postgres.support import clear, empty_schema, opened
from tests.support.pg_wire import Silencer
from tests.support.postgres import shared_url

pytestmark = pytest.mark.loops("asyncio")

STREAM = "\x1fwords"
PATIENCE_SECONDS = 30.0

Open = Callable[[], Any]


def words(*entries: Any) -> Write:
    return Write(
        STREAM, [json.dumps(entry).encode() for entry in entries], JSON, False, None, None, None, None
    )


@asynccontextmanager
async def opened_file(path: Path) -> AsyncIterator[SqliteEngine]:
    engine = SqliteEngine(str(path), synchronous="off")
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def a_store(kind: str, folder: Path) -> AsyncIterator[Open]:
    """Opens engines on one store, each as a process of its own would have it."""
    if kind == "sqlite":
        yield lambda: opened_file(folder / "jobs.db")
        return
    with empty_schema() as schema:
        await clear(schema)
        yield lambda: opened(schema=schema)
        await clear(schema)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_many_processes_say_them_at_once(kind: str, tmp_path: Path) -> None:
    """A deploy ends six processes in the same moment, on a store that has no such stream yet: all have their word."""
    async with a_store(kind, tmp_path) as store, AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(store()) for _ in range(6)]
        answers = await asyncio.gather(
            *(engine.last_words(words(n, "bye"), PATIENCE_SECONDS) for n, engine in enumerate(engines))
        )
        outcomes = sorted(answer.outcome for answer in answers)
        assert outcomes == sorted([Outcome.CREATED, *[Outcome.APPLIED] * 5])
        page = await engines[0].streams.read(STREAM, 0, 100, 1 << 20)
        said = [json.loads(entry.data) for entry in page.entries]
        assert sorted(said[::2]) == list(range(6)) and said[1::2] == ["bye"] * 6


async def test_a_file_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """Somebody has deleted the file: an error, and no empty one in its place, which would hide that from the next."""
    path = tmp_path / "jobs.db"
    async with opened_file(path) as engine:
        path.unlink()
        with pytest.raises(EngineUnavailable):
            await engine.last_words(words(1), PATIENCE_SECONDS)
        assert not path.exists()


async def test_others_hold_the_lock_for_too_long() -> None:
    """A transaction of somebody else's holds all streams: the time is over, nothing is on its way or comes later."""
    async with a_store("postgres", Path()) as store, store() as engine:
        other = await asyncpg.connect(shared_url())
        try:
            await other.execute("BEGIN; SELECT pg_advisory_xact_lock(7811890)")
            with pytest.raises(TimeoutError):
                await engine.last_words(words(1), 0.2)
            assert not engine._under_way()
            await other.execute("ROLLBACK")
        finally:
            await other.close()
        assert (await engine.last_words(words(2), PATIENCE_SECONDS)).outcome is Outcome.CREATED
        page = await engine.streams.read(STREAM, 0, 10, 1 << 20)
        assert [json.loads(entry.data) for entry in page.entries] == [2]


async def test_a_server_that_has_gone_silent() -> None:
    """Behind a firewall that drops everything: the time is over, and closing has no call of it to wait for."""
    async with Silencer(shared_url()).running() as proxy, opened(proxy.url) as engine:
        try:
            proxy.silence()
            with pytest.raises((TimeoutError, EngineUnavailable)):
                await engine.last_words(words(1), 0.2)
            assert not engine._under_way()
        finally:
            proxy.hang_up()
