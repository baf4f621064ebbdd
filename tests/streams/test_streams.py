"""Free-standing streams: the promises of the port and of `Streams`, in memory and in SQLite alike."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import (
    BadArguments,
    BadCursor,
    BadDeclaration,
    EngineUnavailable,
    EntriesGone,
    PayloadTooLarge,
    StreamClosed,
    StreamConflict,
    UnknownEngine,
    UnknownStream,
)
from lastcall.jobs import Jobs
from lastcall.streams import MemoryStore, Producer, Stream, Streams, follow
from lastcall.streams._port import Fork, NewStream, Outcome, Position
from lastcall.testing import VirtualClock
from tests.asgi.driver import until, within
from tests.engines.model import ModelEngine
from tests.engines.postgres import support as postgres
from tests.streams.stores import KINDS, opened

each_store = pytest.mark.parametrize("kind", KINDS)


async def values(stream: Stream, after: int = 0) -> list[Any]:
    """All that can be read behind an entry."""
    page = await stream.read(after, 1000)
    return [json.loads(entry.data) for entry in page.entries]


async def values_of(stream: Stream) -> list[int]:
    return [entry.seq async for entry in stream.follow()]


# --- writing and reading ---


@each_store
async def test_values_are_read_in_order_with_their_numbers(kind: str, tmp_path: Path) -> None:
    """What was written, one by one and several at once, is there in order, numbered from 1 without gaps."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("chat/42")
        assert await stream.append_json({"text": "é\n𝄞"}) == 1
        assert await stream.append_json(2, [3], None) == 4
        page = await stream.read(0, 100)
    assert [entry.seq for entry in page.entries] == [1, 2, 3, 4]
    assert [json.loads(entry.data) for entry in page.entries] == [{"text": "é\n𝄞"}, 2, [3], None]
    assert {entry.type for entry in page.entries} == {"message"}
    assert (page.first, page.last, page.closed) == (1, 4, False)


@each_store
async def test_bytes_and_texts_are_read_as_they_were_written(kind: str, tmp_path: Path) -> None:
    """Bytes that are no text come as base64; a text type's come as texts, unless a write ends within a character."""
    async with opened(kind, tmp_path) as streams:
        binary = await streams.create("b", content_type="application/octet-stream")
        await binary.append(bytes(range(256)))
        text = await streams.create("t", content_type="text/plain; charset=utf-8")
        await text.append("é")
        await text.append("é".encode()[:1])
        [whole] = (await binary.read(0, 10)).entries
        first, half = (await text.read(0, 10)).entries
        page = await streams.store.read("b", 0, 10, 1 << 20)
    assert (whole.type, len(json.loads(whole.data))) == ("bytes", 344)
    assert (first.type, json.loads(first.data), half.type) == ("text", "é", "bytes")
    assert page.entries[0].data == bytes(range(256))


@each_store
async def test_create_finds_what_is_just_like_it(kind: str, tmp_path: Path) -> None:
    """Created twice, a stream is one; with another configuration it is refused, and nothing has changed."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("s", ttl_seconds=60)
        await stream.append_json(1)
        await streams.create("s", ttl_seconds=60, content_type="Application/JSON")
        for other in ({}, {"ttl_seconds": 61}, {"ttl_seconds": 60, "content_type": "text/plain"}):
            with pytest.raises(StreamConflict, match="'s'"):
                await streams.create("s", **other)
        assert await values(stream) == [1]


@each_store
async def test_a_closed_stream_takes_nothing_more(kind: str, tmp_path: Path) -> None:
    """After its close a write is refused, a second close is harmless, and what is there can be read."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("s")
        await stream.append_json(1)
        await stream.close()
        await stream.close()
        await streams.create("s")
        with pytest.raises(StreamClosed, match="'s' is closed; nothing was written"):
            await stream.append_json(2)
        assert await values(stream) == [1]
        assert (await stream.info()).closed


@each_store
async def test_what_is_no_stream(kind: str, tmp_path: Path) -> None:
    """Each verb on a stream that was never there, or is deleted, says so by name."""
    async with opened(kind, tmp_path) as streams:
        deleted = await streams.create("deleted")
        await deleted.append_json(1)
        await deleted.delete()
        for stream in (deleted, streams.open("never")):
            for verb in (
                stream.info(),
                stream.read(0, 1),
                stream.append_json(1),
                stream.close(),
                stream.delete(),
                stream.fork("f"),
                stream.fork("f", after=1),
                values_of(stream),
            ):
                with pytest.raises(UnknownStream):
                    await verb
        again = await streams.create("deleted", content_type="text/plain")
        assert await values(again) == []


@each_store
async def test_bad_input_changes_nothing(kind: str, tmp_path: Path) -> None:
    """What is no name, no value, no bytes, too much, or for another kind of stream is refused with its reason."""
    async with opened(kind, tmp_path, max_append_bytes=100) as streams:
        of_json = await streams.create("j")
        of_bytes = await streams.create("b", content_type="text/plain")
        for name in ("", "a\nb", "x" * 1025, "\ud800", 5):
            with pytest.raises(BadArguments, match="name"):
                streams.open(name)  # type: ignore[arg-type]
        for options in (
            {"content_type": "json"},
            {"content_type": "text/\nplain"},
            {"ttl_seconds": -1},
            {"ttl_seconds": 1.5},
            {"ttl_seconds": 1, "expires_at": 1.0},
        ):
            with pytest.raises(BadArguments):
                await streams.create("bad", **options)
        for value in (float("nan"), {1, 2}, "\ud800"):
            with pytest.raises(BadArguments, match="no JSON"):
                await of_json.append_json(value)
        with pytest.raises(BadArguments):
            await of_json.append_json()
        with pytest.raises(BadArguments):
            await of_bytes.append(b"")
        with pytest.raises(
            StreamConflict, match=r"'j' is of the content type 'application/json'; .* append_json"
        ):
            await of_json.append(b"1")
        with pytest.raises(StreamConflict, match="'b' is of the content type 'text/plain'"):
            await of_bytes.append_json(1)
        with pytest.raises(PayloadTooLarge, match="100 is the most"):
            await of_bytes.append("x" * 101)
        assert (await of_json.info()).last == (await of_bytes.info()).last == 0
        with pytest.raises(UnknownStream):
            await streams.open("bad").info()


@each_store
async def test_cursors_that_are_none(kind: str, tmp_path: Path) -> None:
    """A cursor that is negative, ahead of the end, or a position of another stream is refused; the end is none."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("s")
        other = await streams.create("other")
        await stream.append_json("one", "two")
        await other.append_json(1, 2)
        for after in (-1, 3, 10**15):
            with pytest.raises(BadCursor):
                await stream.read(after, 1)
        assert (await stream.read(2, 1)).entries == []
        foreign = (await streams.store.find("other")).next
        assert (await streams.store.read("s", foreign, 1, 100)).outcome is Outcome.BAD_CURSOR


@each_store
async def test_a_page_ends_at_its_limits_and_the_next_one_goes_on(kind: str, tmp_path: Path) -> None:
    """Neither many entries nor large ones come at once, but one always does."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("s")
        await stream.append_json(*("x" * 8 for _ in range(7)))
        store = streams.store
        assert [len((await store.read("s", 0, limit, 1000)).entries) for limit in (1, 3, 9)] == [1, 3, 7]
        assert [len((await store.read("s", 0, 9, most)).entries) for most in (1, 25, 30)] == [1, 2, 3]
        seen, after = [], Position(0, 0)
        while (page := await store.read("s", after, 3, 25)).entries:
            seen += [entry.seq for entry in page.entries]
            after = page.next
    assert seen == [1, 2, 3, 4, 5, 6, 7]


# --- following ---


@each_store
async def test_a_follower_sees_each_value_once_until_the_close(kind: str, tmp_path: Path) -> None:
    """Readers that come early, late and in the middle see all behind their cursor, and end with the stream."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("s")

        async def read_all(after: int) -> list[int]:
            return [entry.seq async for entry in stream.follow(after)]

        readers = [asyncio.create_task(read_all(after)) for after in (0, 0, 0)]
        for number in range(50):
            await stream.append_json(number)
            if number == 20:
                readers.append(asyncio.create_task(read_all(10)))
        await stream.close()
        read = await within(asyncio.gather(*readers, read_all(49), read_all(50)))
    assert read == [list(range(1, 51))] * 3 + [list(range(11, 51)), [50], []]


@each_store
async def test_a_delete_reaches_a_waiting_follower(kind: str, tmp_path: Path) -> None:
    """Whoever waits for the next entry of a stream that is deleted hears so at once."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("s")
        await stream.append_json(1)
        waiting = asyncio.Event()

        async def read() -> None:
            async for _ in stream.follow():
                waiting.set()

        reader = asyncio.create_task(read())
        await within(waiting.wait())
        await stream.delete()
        with pytest.raises(UnknownStream):
            await within(reader)


@each_store
async def test_writers_at_once_lose_nothing(kind: str, tmp_path: Path) -> None:
    """Many tasks write at the same time: every value is there once, and each writer's own are in its order."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("s")

        async def write(writer: int) -> None:
            for number in range(20):
                await stream.append_json([writer, number])

        await asyncio.gather(*map(write, range(10)))
        seen = await values(stream)
    assert sorted(seen) == [[writer, number] for writer in range(10) for number in range(20)]
    for writer in range(10):
        assert [number for who, number in seen if who == writer] == list(range(20))


# --- producers ---


@each_store
async def test_what_a_producer_sends_again_is_written_once(kind: str, tmp_path: Path) -> None:
    """Its repeats are taken as done, what skips a number is refused, and a newer epoch shuts the older out."""
    async with opened(kind, tmp_path) as streams:
        stream = await streams.create("s")

        async def send(epoch: int, seq: int, id: str = "p") -> int:
            return await stream.append_json(f"{id}{epoch}{seq}", producer=Producer(id, epoch, seq))

        assert [await send(0, 0), await send(0, 0), await send(0, 1), await send(0, 0)] == [1, 1, 2, 2]
        with pytest.raises(StreamConflict, match="sent number 3, and the stream 's' expects 2"):
            await send(0, 3)
        with pytest.raises(StreamConflict, match="must begin its new epoch 2 with number 0, not 1"):
            await send(2, 1)
        with pytest.raises(StreamConflict, match="expects 0"):
            await send(0, 1, "new")
        await send(2, 0)
        with pytest.raises(
            StreamConflict, match=r"writes with epoch 0, and the stream 's' has the newer one 2"
        ):
            await send(0, 2)
        await send(0, 0, "q")
        assert await values(stream) == ["p00", "p01", "p20", "q00"]


# --- ends ---


@each_store
async def test_a_stream_lives_as_long_as_it_is_used(kind: str, tmp_path: Path) -> None:
    """A write and a read each move the end of a stream with a time to live; to look at it does not; nor a fixed end."""
    clock = VirtualClock()
    async with opened(kind, tmp_path, clock) as streams:
        sliding = await streams.create("sliding", ttl_seconds=10)
        fixed = await streams.create("fixed", expires_at=clock.wall() + 25)
        clock.advance(8)
        await sliding.append_json(1)
        clock.advance(8)
        assert await values(sliding) == [1]
        clock.advance(8)
        assert (await sliding.info()).last == 1
        await fixed.append_json(1)
        clock.advance(3)
        for stream in (sliding, fixed):
            with pytest.raises(UnknownStream):
                await stream.read(0, 1)
        again = await streams.create("sliding")
        assert await values(again) == []


@each_store
async def test_expired_streams_are_deleted_beside_new_ones(kind: str, tmp_path: Path) -> None:
    """What has expired does not stay in the store for ever, and what was prolonged stays."""
    clock = VirtualClock()
    async with opened(kind, tmp_path, clock) as streams:
        for number in range(8):
            await streams.create(f"s{number}", ttl_seconds=10)
        clock.advance(6)
        await streams.open("s0").append_json("still here")
        clock.advance(6)
        await streams.create("new")
        assert await values(streams.open("s0")) == ["still here"]
        rows = [await streams.store.find(f"s{number}") for number in range(8)]
        assert [page.outcome for page in rows] == [Outcome.FOUND] + [Outcome.UNKNOWN] * 7
        if isinstance(streams.store, MemoryStore):
            assert len(streams.store._rows._rows) == 2


# --- retention ---


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_expired_streams_are_deleted_while_workers_prune(kind: str, tmp_path: Path) -> None:
    """Where no stream is created any more, those that have expired go all the same, with what is in them."""
    clock = VirtualClock()
    async with contextlib.AsyncExitStack() as stack:
        engine: Any
        if kind == "postgres":
            engine = await stack.enter_async_context(postgres.opened(clock=clock, pool_size=2))
        else:
            engine = SqliteEngine(str(tmp_path / "streams.db"), synchronous="off", clock=clock)
            await engine.open()
            stack.push_async_callback(engine.close)
        streams = Streams(engine.streams)
        for number in range(3):
            await (await streams.create(f"s{number}", ttl_seconds=10)).append_json(number)
        await streams.create("stays")
        clock.advance(20)
        await engine.prune(2)
        await engine.prune(2)
        assert await engine.streams.sweep(10) == 0
        assert [info.name for info in await streams.find()] == ["stays"]


@each_store
async def test_old_entries_go_and_who_wants_them_is_told(kind: str, tmp_path: Path) -> None:
    """With a limit of bytes the oldest entries go; a reader behind is told where to go on, one within reads on."""
    async with opened(kind, tmp_path, keep_bytes=30) as streams:
        stream = await streams.create("s")
        for number in range(10):
            await stream.append_json(f"entry {number}")  # 9 bytes each
        page = await stream.read(6, 100)
        assert (page.first, page.last, len(page.entries)) == (7, 10, 4)
        with pytest.raises(EntriesGone) as gone:
            await stream.read(5, 1)
        assert gone.value.first == 7
        assert [entry.seq async for entries in _first(follow(stream, 6)) for entry in entries] == [
            7,
            8,
            9,
            10,
        ]
        await stream.append_json("x" * 500)
        assert (await stream.info()).first == 11


async def _first(pages: Any) -> AsyncIterator[Any]:
    async with contextlib.aclosing(pages):
        async for page in pages:
            yield page
            return


@each_store
async def test_entries_older_than_the_limit_go(kind: str, tmp_path: Path) -> None:
    """With a limit of age the newest entry stays, however old, and those before it go with the next write."""
    clock = VirtualClock()
    async with opened(kind, tmp_path, clock, keep_seconds=60) as streams:
        stream = await streams.create("s")
        await stream.append_json(1)
        clock.advance(50)
        await stream.append_json(2)
        clock.advance(50)
        assert await values(stream) == [1, 2]
        await stream.append_json(3)
        assert await values(stream, 1) == [2, 3]
        with pytest.raises(EntriesGone):
            await stream.read(0, 1)


# --- forks ---


@each_store
async def test_a_fork_shows_its_source_up_to_where_it_left(kind: str, tmp_path: Path) -> None:
    """A conversation branched in the middle, and branched again: each goes its own way, nothing is copied or mixed."""
    async with opened(kind, tmp_path) as streams:
        source = await streams.create("source")
        await source.append_json("a", "b", "c")
        fork = await source.fork("fork", after=2)
        await source.append_json("source")
        await fork.append_json("fork")
        second = await fork.fork("second", after=3)
        await second.append_json("second")
        early = await second.fork("early", after=1)
        await early.append_json("early")
        assert await values(source) == ["a", "b", "c", "source"]
        assert await values(fork) == ["a", "b", "fork"]
        assert await values(second) == ["a", "b", "fork", "second"]
        assert await values(second, 2) == ["fork", "second"]
        assert await values(early) == ["a", "early"]
        with pytest.raises(BadCursor):
            await source.fork("late", after=5)


@each_store
async def test_a_deleted_stream_stays_for_its_forks(kind: str, tmp_path: Path) -> None:
    """Deleted, it is gone for everybody and its name is taken; its forks read on; with the last of them it goes."""
    async with opened(kind, tmp_path) as streams:
        source = await streams.create("source")
        await source.append_json("a")
        middle = await source.fork("middle")
        await middle.append_json("b")
        last = await middle.fork("last")
        await source.delete()
        await middle.delete()
        for stream in (source, middle):
            with pytest.raises(UnknownStream, match="only its forks are left"):
                await stream.read(0, 1)
            with pytest.raises(UnknownStream):
                await stream.fork("another")
            with pytest.raises(StreamConflict, match="deleted and with forks"):
                await streams.create(stream.name)
        assert await values(last) == ["a", "b"]
        await last.delete()
        for name in ("source", "middle", "last"):
            assert await values(await streams.create(name)) == []


@each_store
async def test_an_expired_stream_stays_for_its_forks(kind: str, tmp_path: Path) -> None:
    """A fork with a longer life reads what it inherited after its source has expired."""
    clock = VirtualClock()
    async with opened(kind, tmp_path, clock) as streams:
        source = await streams.create("source", ttl_seconds=10)
        await source.append_json("a")
        fork = await source.fork("fork", ttl_seconds=100)
        clock.advance(20)
        await streams.create("sweeps")
        assert await values(fork) == ["a"]
        with pytest.raises(UnknownStream, match="forks"):
            await source.info()
        clock.advance(200)
        await streams.create("sweeps again")
        assert await values(await streams.create("source")) == []


@each_store
async def test_retention_takes_nothing_from_a_fork(kind: str, tmp_path: Path) -> None:
    """A source whose old entries go keeps them for the fork that shows them, which has a retention of its own."""
    async with opened(kind, tmp_path, keep_bytes=30) as streams:
        source = await streams.create("source")
        await source.append_json("1234567", "1234567", "1234567")
        fork = await source.fork("fork")
        for _ in range(5):
            await source.append_json("7654321")
        assert (await source.info()).first == 5
        assert await values(fork) == ["1234567"] * 3
        await fork.append_json("1234567", "1234567")
        page = await fork.read(1, 10)
        assert (page.first, page.last) == (2, 5)
        with pytest.raises(EntriesGone):
            await fork.read(0, 10)


@each_store
async def test_a_fork_within_a_write(kind: str, tmp_path: Path) -> None:
    """The protocol forks within a batch of values and within a piece of bytes; beyond them there is nothing."""
    async with opened(kind, tmp_path) as streams:
        of_json = await streams.create("j")
        await of_json.append_json(1, 2, 3)
        await of_json.append_json(4)
        of_bytes = await streams.create("b", content_type="text/plain")
        await of_bytes.append("hello")

        async def fork(source: str, further: int) -> tuple[Outcome, list[bytes]]:
            new = NewStream(
                f"{source}{further}", None, None, None, False, Fork(source, Position(0, 0), further), ()
            )
            written = await streams.store.create(new)
            page = await streams.store.read(new.name, 0, 10, 1000)
            return written.outcome, [entry.data for entry in page.entries]

        assert await fork("j", 2) == (Outcome.CREATED, [b"1", b"2"])
        assert await fork("j", 3) == (Outcome.CREATED, [b"1", b"2", b"3"])
        assert await fork("j", 4) == (Outcome.BAD_FORK, [])
        assert await fork("b", 3) == (Outcome.CREATED, [b"hel"])
        assert await fork("b", 5) == (Outcome.CREATED, [b"hello"])
        assert await fork("b", 6) == (Outcome.BAD_FORK, [])


# --- bounds and doors ---


@pytest.mark.loops("asyncio")
async def test_memory_has_an_end() -> None:
    """What does not fit into memory is refused; what is there stays and can be read, and room comes back."""
    streams = Streams(MemoryStore(max_streams=3, max_bytes=10_000))
    stream = await streams.create("s")
    await stream.append_json("x" * 8_000)
    with pytest.raises(EngineUnavailable, match="no room"):
        await stream.append_json("x" * 2_000)
    assert (await stream.info()).last == 1
    other = await streams.create("other")
    await streams.create("third")
    with pytest.raises(EngineUnavailable, match="no room"):
        await streams.create("fourth")
    await stream.delete()
    await other.append_json("x" * 8_000)
    await streams.create("fourth")


@pytest.mark.loops("asyncio")
async def test_a_store_forgets_who_waited(tmp_path: Path) -> None:
    """Readers that came and went leave nothing behind: no waiter, no listener, no reading."""
    for kind in KINDS:
        async with opened(kind, tmp_path) as streams:
            stream = await streams.create("s")

            async def read(stream: Stream = stream) -> None:
                async with contextlib.aclosing(stream.follow()) as entries:
                    await anext(entries)

            readers = [asyncio.create_task(read()) for _ in range(20)]
            store: Any = streams.store
            wakeups = store._wakeups if kind == "memory" else store._news._wakeups
            await until(lambda: len(wakeups) == 1)  # noqa: B023
            for reader in readers[:10]:
                reader.cancel()
            await asyncio.wait(readers[:10])
            await stream.append_json(1)
            await within(asyncio.gather(*readers[10:]))
            assert len(wakeups) == 0
            if kind == "sqlite":
                assert store._news._unlisten is None and store._asked == {}


async def test_streams_in_the_store_of_the_jobs(tmp_path: Path) -> None:
    """`jobs.streams` opens the store when first used, and the streams are there after it was closed."""
    jobs = Jobs(f"sqlite:///{tmp_path}/jobs.db")
    stream = await jobs.streams.create("s")
    await stream.append_json(1)
    await jobs.close()
    async with jobs:
        assert await values(jobs.streams.open("s")) == [1]


@pytest.mark.loops("asyncio")
async def test_an_engine_without_streams_says_so() -> None:
    """Asked for streams, jobs on an engine that keeps none say what to use."""
    with pytest.raises(UnknownEngine, match=r"keeps no streams; use an engine that does.*"):
        Jobs(ModelEngine(VirtualClock())).streams  # noqa: B018
    with pytest.raises(BadDeclaration, match="keep_bytes"):
        Streams(keep_bytes=0)
