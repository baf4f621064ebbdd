"""`streams.find`: which streams there are, by name, page by page; in memory, in SQLite and in PostgreSQL alike."""

import asyncio
import re
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcall.engines.postgres import PostgresEngine
from lastcall.engines.postgres._store import Store
from lastcall.engines.postgres._stream_rows import heads_statement as in_postgres
from lastcall.engines.sqlite._stream_rows import heads_statement as in_sqlite
from lastcall.exceptions import BadArguments, BadDeclaration
from lastcall.jobs import Jobs
from lastcall.streams import Streams
from lastcall.streams._policy import Span, span_of
from lastcall.streams._port import NewStream
from lastcall.testing import VirtualClock
from tests.engines.postgres import support as postgres
from tests.streams.stores import KINDS, opened

pytestmark = pytest.mark.loops("asyncio")
each_store = pytest.mark.parametrize("kind", KINDS)

LAST = "\U0010ffff"
# Neighbours in one order or another: by bytes, by UTF-16, by letters; wildcards; what nothing can come behind.
NAMES = ["a", "a/", "a/1", "a/10", "a/2", "a0", "A", "b", "_", "%", "\\", " ", "é", "z\ud7ff", "z\ue000"]
NAMES += ["z\uffff", "z\U00010000", LAST, LAST + "a", LAST * 2, "a" + LAST, "a" + LAST + "b"]


async def names_of(streams: Streams, **asked: Any) -> list[str]:
    return [info.name for info in await streams.find(**asked)]


async def pages(streams: Streams, limit: int, prefix: str = "") -> list[str]:
    """All names, page by page."""
    found: list[str] = []
    while page := await names_of(streams, prefix=prefix, limit=limit, after=found[-1] if found else ""):
        found += page
    return found


@each_store
async def test_names_come_in_order_behind_any_name_and_below_any_prefix(kind: str, tmp_path: Path) -> None:
    """Whatever is asked for: those that begin so, behind that one, in the order of their characters, and no others."""
    async with opened(kind, tmp_path) as streams:
        for name in NAMES:
            await streams.create(name)
        assert await pages(streams, 4) == sorted(NAMES)
        for prefix in ("", "a", "a/", "a/1", "A", "z", "z\ud7ff", "%", "_", "\\", LAST, "a" + LAST, "none"):
            below = sorted(name for name in NAMES if name.startswith(prefix))
            assert await pages(streams, 3, prefix) == below, prefix
            for after in ("!", "a/", "a/15", "zz", LAST * 3):
                expected = [name for name in below if name > after]
                assert await names_of(streams, prefix=prefix, after=after) == expected, (prefix, after)


texts = st.text(st.sampled_from(["a", "b", "\ud7ff", "\ue000", LAST]), max_size=4)


@given(texts, texts, texts)
@settings(max_examples=300)
def test_a_span_holds_just_what_is_asked_for(prefix: str, after: str, name: str) -> None:
    """A name is in the span if, and only if, it begins with the prefix and comes behind the other one."""
    span = span_of(prefix, after)
    is_in = (name >= span.first if span.is_in else name > span.first) and (
        span.end is None or name < span.end
    )
    assert is_in == (bool(name) and name.startswith(prefix) and name > after)


@each_store
async def test_what_is_told_of_a_stream(kind: str, tmp_path: Path) -> None:
    """A listed stream is told as it tells itself: what it holds, its times, whose fork it is."""
    clock = VirtualClock()
    async with opened(kind, tmp_path, clock, keep_bytes=3) as streams:
        made = clock.wall()
        talk = await streams.create("talk", ttl_seconds=60)
        clock.advance(1)
        await talk.append_json(1, 2)
        await talk.append_json(34)
        clock.advance(1)
        await talk.close()
        text = await streams.create("text", content_type="text/plain", expires_at=made + 100)
        await talk.fork("branch", after=2)
        clock.advance(1)
        found = {info.name: info for info in await streams.find()}
        assert [found[name] for name in ("branch", "talk", "text")] == [
            await stream.info() for stream in (streams.open("branch"), talk, text)
        ]
        told = found["talk"]
        assert (told.created_at, told.updated_at, told.due) == (made, made + 1, made + 62)
        assert (told.closed, told.first, told.last, told.entries, told.bytes) == (True, 2, 3, 2, 4)
        told = found["branch"]
        assert (told.forked_from, told.inherited, told.updated_at) == ("talk", 2, made + 2)
        assert (told.closed, told.first, told.last, told.entries, told.due) == (False, 2, 2, 1, made + 62)
        told = found["text"]
        assert (told.content_type, told.entries, told.updated_at, told.due) == (
            "text/plain",
            0,
            made + 2,
            made + 100,
        )
        await streams.open("branch").append_json(5)
        assert (await streams.open("branch").info()).updated_at == made + 3


@each_store
async def test_what_is_over_is_not_listed(kind: str, tmp_path: Path) -> None:
    """Deleted, expired, gone but for its forks: no list shows it, and a page is full all the same."""
    clock = VirtualClock()
    async with opened(kind, tmp_path, clock) as streams:
        for number in range(6):
            await streams.create(f"expires/{number}", ttl_seconds=10)
        for name in ("deleted", "gone", "here", "last"):
            await streams.create(name)
        await streams.open("gone").fork("her fork")
        await streams.open("expires/0").fork("his fork", ttl_seconds=100)
        clock.advance(9)
        assert len(await streams.find(prefix="expires/")) == 6
        clock.advance(1)  # a look at them has prolonged no life
        for name in ("deleted", "gone"):
            await streams.open(name).delete()
        assert await names_of(streams, limit=3) == ["her fork", "here", "his fork"]
        assert await names_of(streams) == ["her fork", "here", "his fork", "last"]


@each_store
async def test_names_of_our_own_are_nobodys_business(kind: str, tmp_path: Path) -> None:
    """What lastcall keeps for itself has a name that no user can have, and no list shows it."""
    async with opened(kind, tmp_path) as streams:
        await streams.store.create(NewStream("\x1fours", None, None, None, None, None, ()))
        await streams.create("theirs")
        assert await names_of(streams) == ["theirs"]
        with pytest.raises(BadArguments, match="control characters"):
            await streams.find(prefix="\x1f")


async def test_what_cannot_be_asked_for() -> None:
    """Prefixes and names that nobody can have, limits that are none."""
    streams = Streams()
    for text in ("\x00", "a\n", "x" * 1025, "\ud800", 7):
        for word in ("prefix", "after"):
            with pytest.raises(BadArguments):
                await names_of(streams, **{word: text})
    for limit in (0, -1, True, 1.0, "10", 1 << 70):
        with pytest.raises(BadDeclaration, match=r"find\(limit\)"):
            await names_of(streams, limit=limit)


@each_store
async def test_pages_while_streams_come_and_go(kind: str, tmp_path: Path) -> None:
    """Streams that are there all the time are seen once each, whichever others are created and deleted meanwhile."""
    async with opened(kind, tmp_path) as streams:
        stays = [f"stays/{number:02}" for number in range(12)]
        for name in stays:
            await streams.create(name)
        seen: list[str] = []
        while page := await names_of(streams, after=seen[-1] if seen else "", limit=3):
            seen += page
            await streams.create(f"{seen[-1]}+")  # right behind the page
            await streams.create(f"comes/{seen[-1]}")  # before all pages
            if seen[-1] not in stays:
                await streams.open(seen[-1]).delete()  # the very one that the next page begins behind
            if len(page) < 3:
                break
        assert [name for name in seen if name in stays] == stays and "stays/02+" in seen


async def test_streams_of_the_jobs_are_listed_by_any_process(tmp_path: Path) -> None:
    """`jobs.streams.find` opens the store like any other verb, and sees what another engine has written."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with Jobs(url) as writing:
        await (await writing.streams.create("chat/1")).append_json("Hello")
        reading = Jobs(url)
        [info] = await reading.streams.find(prefix="chat/")
        await reading.close()
    assert (info.name, info.entries, info.closed) == ("chat/1", 1, False)


# --- what a page costs ---

SPANS = [span_of("", ""), span_of("", "n/5"), span_of("n/", ""), span_of("n/", "n/5")]


def test_a_page_costs_by_the_page_in_sqlite() -> None:
    """A page among thousands of streams takes the same steps of SQLite's machine as one among few, wherever it is."""
    few, many = (_steps_of_pages(count) for count in (60, 6000))
    assert max(many) < 1.5 * max(few), (few, many)


def _steps_of_pages(count: int) -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_fill(Path(folder), count))
        with closing(sqlite3.connect(f"{folder}/streams.db")) as connection:
            return [_steps(connection, span) for span in SPANS]


async def _fill(folder: Path, count: int) -> None:
    async with opened("sqlite", folder) as streams:
        await asyncio.gather(*(_write(streams, f"n/{number}") for number in range(count)))


async def _write(streams: Streams, name: str) -> None:
    await (await streams.create(name)).append_json(name)


def _steps(connection: sqlite3.Connection, span: Span) -> int:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(count, 1)
    bounds = [span.first, *([] if span.end is None else [span.end])]
    rows = connection.execute(in_sqlite(span), (*bounds, 0.0, 5)).fetchall()
    connection.set_progress_handler(None, 1)
    assert len(rows) == 5
    return steps


@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_a_page_costs_by_the_page_in_postgres(is_analyzed: bool) -> None:
    """Among twenty thousand streams a page is found along the index of their names, sorted already, and read no further
    than it goes; also where the server has no idea how many there are."""
    with postgres.empty_schema() as schema:
        await postgres.clear(schema)
        async with postgres.opened(schema=schema, pool_size=1) as engine:
            await postgres.query(
                f"""INSERT INTO {schema}.stream
                    (id, name, content_type, created_at, closed, first, last, tail, inherited, forks, gone)
                    SELECT n, 'n/' || n, 'text/plain', 0, false, 1, 0, 0, 0, 0, false
                    FROM generate_series(1, 20000) AS n"""
            )
            if is_analyzed:
                await postgres.query(f"ANALYZE {schema}.stream")
            for span in SPANS:
                plan = await _plan(engine, span)
                assert "Index Scan using stream_name_key" in plan and "Sort" not in plan, plan
                read = [line for line in plan.splitlines() if "stream_name_key" in line]
                assert re.search(r"rows=5(\.00)? ", read[0]), plan
                assert "Rows Removed" not in plan, plan


async def _plan(engine: PostgresEngine, span: Span) -> str:
    async def explain(store: Store) -> str:
        text = f"EXPLAIN (ANALYZE, COSTS off, TIMING off) {in_postgres(span)}"
        end = [] if span.end is None else [span.end]
        return "\n".join(line for (line,) in await store.rows(text, span.first, 0.0, 5, *end))

    return await engine._ready().read(explain)
