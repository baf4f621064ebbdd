"""A server that crashes forgets the numbers of transactions whose log was not on the disk, and gives them to others."""

import asyncio
from typing import Any

import asyncpg
import pytest

from lastcall.engines.postgres import _database
from lastcall.jobs._rows import ClaimRequest, NewEvent, NewJob, ReadFrom, WorkerRow
from tests.support.pg_wire import Cutter, Streams
from tests.support.postgres import Server, private_server

from .support import PATIENCE_SECONDS, opened, until

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow]

TOLD = [NewEvent("token", '"first"'), NewEvent("token", '"second"')]
_NUMBER = "SELECT pg_current_xact_id()::text::bigint"
# Nothing of a transaction reaches the disk before its commit.
LAZY = {"wal_writer_delay": "10s", "wal_writer_flush_after": "0"}


class CrashingCutter(Cutter):
    """Where a connection is to be cut, the server crashes, comes back, and others write until the numbers that it has
    forgotten are taken."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.url)
        self._server = server

    async def _cut(self, server: Streams, data: bytes, answering: asyncio.Task[None]) -> None:
        self.disarm()
        answering.cancel()  # its client hears nothing before all is done
        await asyncio.wait([answering])
        number = await _number_under_way(self._server.url)
        await asyncio.to_thread(self._server.stop, "immediate")
        await asyncio.to_thread(self._server.start)
        self.was_taken = await _write(self._server.url, number) <= number
        await super()._cut(server, data, answering)


async def _number_under_way(url: str) -> int:
    """Of the one transaction that writes now. (To ask for a number would bring the log to the disk, and save it.)"""
    connection: Any = await asyncpg.connect(url)
    try:
        (row,) = await connection.fetch(
            "SELECT backend_xid::text::bigint FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
        )
        return int(row[0])
    finally:
        await connection.close()


async def _write(url: str, until: int) -> int:
    """Commit transactions up to this number; the number of the first."""
    connection: Any = await asyncpg.connect(url)
    try:
        first = number = int(await connection.fetchval(_NUMBER))
        while number < until:
            number = int(await connection.fetchval(_NUMBER))
        return first
    finally:
        await connection.close()


async def test_a_number_in_doubt_is_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are on their way, their commit was asked for, and the server crashes before it; then somebody else commits
    under the number that it had. The events are written all the same, once."""
    # The crash and all that follows come within one call.
    monkeypatch.setattr(_database, "_PATIENCE_SECONDS", PATIENCE_SECONDS)
    with private_server(**LAZY) as server:
        async with CrashingCutter(server).running() as cutter, opened(cutter.url, schema="numbers") as engine:
            await engine.submit([NewJob("a", "work", "[]")])
            await engine.join(WorkerRow("w", "host", 1, None, None, None, 60.0, 10, None))
            await engine.claim(ClaimRequest("w", 1, {("work", ""): None}))
            # Its commit would bring to the disk what is written meanwhile.
            await until(lambda: engine._hints._telling is None, "the news of this to be told")
            # So would the server, which brings the news there later: now, then.
            await _write(server.url, 0)
            cutter.arm(1, late=False, holding=b"COMMIT\0")
            assert await engine.append_events("a", 1, TOLD) == 2
            assert cutter.cuts == 1 and cutter.was_taken
            (page,) = await engine.read_events([ReadFrom("a")], 10)
            assert page is not None and [event.data for event in page.events] == [told.data for told in TOLD]
