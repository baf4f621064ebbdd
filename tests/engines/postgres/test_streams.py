"""Free-standing streams in PostgreSQL, beside the tests that all stores share: several engines, lost answers."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from lastcall.streams import Streams
from tests.streams.test_properties import _compare, operations
from tests.support.pg_wire import Cutter
from tests.support.postgres import shared_url

from .support import clear, empty_schema, opened


@given(operations)
@settings(max_examples=25)
def test_every_history_is_that_of_the_model(history: list[Any]) -> None:
    """Creations, writes, forks, deletions and time, at random."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare("postgres", Path(folder), history))


@pytest.mark.loops("asyncio")
async def test_two_engines_write_and_read_one_stream() -> None:
    """Both append at the same time; a reader on each sees all entries once, in one order, soon."""
    with empty_schema() as schema:
        await clear(schema)
        async with opened(schema=schema) as first, opened(schema=schema) as second:
            here = await Streams(first.streams).create("s")
            there = Streams(second.streams).open("s")

            async def read(stream: Any) -> list[Any]:
                seen: list[Any] = []
                async for entry in stream.follow():
                    seen.append((entry.seq, json.loads(entry.data)))
                    if len(seen) == 40:
                        break
                return seen

            async def write(stream: Any, who: int) -> None:
                for n in range(20):
                    await stream.append_json([who, n])

            async with asyncio.timeout(30):
                seen_here, seen_there, *_ = await asyncio.gather(
                    read(here), read(there), write(here, 1), write(there, 2)
                )
            assert seen_here == seen_there
            assert [seq for seq, _ in seen_here] == list(range(1, 41))
            for who in (1, 2):
                assert [n for _, (writer, n) in seen_here if writer == who] == list(range(20))


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("late", [False, True], ids=["lost on the way", "answer lost"])
async def test_an_append_whose_connection_is_cut(late: bool) -> None:
    """At one of its requests after the other: the entry is there once."""
    with empty_schema() as schema:
        await clear(schema)
        async with Cutter(shared_url()).running() as cutter:
            async with opened(cutter.url, schema=schema, pool_size=1) as engine:
                stream = await Streams(engine.streams).create("s")
                for request in range(1, 40, 2):
                    cuts = cutter.cuts
                    cutter.arm(request, late=late)
                    await stream.append_json(request)
                    cutter.disarm()
                    if cutter.cuts == cuts:
                        break
                page = await stream.read(0, 100)
                assert [json.loads(entry.data) for entry in page.entries] == list(range(1, request + 1, 2))
