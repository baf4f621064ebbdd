"""Streams in one file, written by one process and read by another: news, and a writer that is killed."""

import asyncio
import json
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lastcall.engines.sqlite._schema import APPLICATION_ID, MIGRATIONS
from lastcall.streams import Streams
from tests.asgi.driver import within
from tests.engines.sqlite.support import Program, is_sound, opened

PROGRAM = Path(__file__).with_name("program.py")
NUMBERS = 300


@pytest.mark.slow
@pytest.mark.loops("asyncio")
async def test_a_killed_writer_has_written_each_value_once(tmp_path: Path) -> None:
    """Killed again and again in the middle of its writes, a producer that repeats what was not answered writes every
    batch whole and once, and a reader in another process sees all of it, once, in order, to the end."""
    path = tmp_path / "streams.db"
    async with opened(path) as engine:
        streams = Streams(engine.streams)
        stream = await streams.create("s")

        async def read() -> list[object]:
            return [json.loads(entry.data) async for entry in stream.follow()]

        reader = asyncio.create_task(read())
        begin = 0
        for _ in range(4):
            begin = await asyncio.to_thread(_write_until_killed, path, begin)
        with Program(path, begin, NUMBERS, program=PROGRAM) as program:
            await asyncio.to_thread(program.end)
        seen = await within(reader)
    assert seen == [value for number in range(NUMBERS) for value in (number, [number])]
    assert is_sound(path)


def _write_until_killed(path: Path, begin: int) -> int:
    """The first number of which no answer was seen."""
    with Program(path, begin, NUMBERS, program=PROGRAM) as program:
        told = [program.line() for _ in range(random.randrange(1, 40))]
        told += program.kill().splitlines()
    return int(told[-1]) + 1


@pytest.mark.loops("asyncio", "uvloop")
async def test_a_reader_hears_of_another_engines_write_at_once(tmp_path: Path) -> None:
    """Long before it would look by itself, a reader wakes for what another process has written, closed or deleted; a
    write to a stream that nobody waits for wakes nobody."""
    path = tmp_path / "streams.db"
    async with opened(path) as ours, opened(path) as theirs:
        stream = await Streams(ours.streams).create("s")
        other = Streams(theirs.streams).open("s")
        elsewhere = await Streams(theirs.streams).create("elsewhere")
        await stream.append_json(0)
        began = time.monotonic()
        entries = stream.follow()
        assert (await within(anext(entries))).seq == 1
        for seq in range(2, 12):
            waiting = asyncio.ensure_future(anext(entries))
            await elsewhere.append_json(seq)
            await other.append_json(seq)
            assert (await within(waiting)).seq == seq
        waiting = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(0)
        await other.close()
        with pytest.raises(StopAsyncIteration):
            await within(waiting)
        assert time.monotonic() - began < 4.0, "it was no hint that woke the reader"


async def test_readers_that_wake_together_share_a_reading(tmp_path: Path) -> None:
    """A hundred readers at the same place cost a few looks at the file, not a hundred; each gets every entry."""
    async with opened(tmp_path / "streams.db") as engine:
        stream = await Streams(engine.streams).create("s")
        store = engine.streams
        looks = 0
        read = store._read

        def counted(*arguments: object) -> object:
            nonlocal looks
            looks += 1
            return read(*arguments)

        store._read = counted  # type: ignore[assignment]

        async def follow() -> list[int]:
            return [entry.seq async for entry in stream.follow()]

        readers = [asyncio.create_task(follow()) for _ in range(100)]
        for number in range(5):
            await stream.append_json(number)
        await stream.close()
        assert await within(asyncio.gather(*readers)) == [[1, 2, 3, 4, 5]] * 100
    assert looks < 100


async def test_a_write_is_read_by_whoever_was_told_of_it(tmp_path: Path) -> None:
    """Whoever knows that something is written reads it, whatever readings of others are under way."""
    async with opened(tmp_path / "streams.db") as engine:
        stream = await Streams(engine.streams).create("s")

        async def pester() -> None:
            while True:
                await stream.read(0, 1000)

        others = [asyncio.create_task(pester()) for _ in range(3)]
        for number in range(1, 60):
            await stream.append_json(number)
            assert (await stream.read(0, 1000)).last == number
        for task in others:
            task.cancel()
        await asyncio.wait(others)


@pytest.mark.loops("asyncio")
async def test_a_file_of_an_older_version_gets_streams(tmp_path: Path) -> None:
    """A database written before there were streams is brought forward when it is opened, with what is in it."""
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in (*MIGRATIONS[0], *MIGRATIONS[1]):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    async with opened(path) as engine:
        stream = await Streams(engine.streams).create("s")
        assert await stream.append_json(1) == 1
