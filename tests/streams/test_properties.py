"""Random histories of streams, against a model of a few lines; and random readers, against what was written."""

import asyncio
import contextlib
import random
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lastcall.exceptions import EntriesGone
from lastcall.streams._port import Fork, NewStream, Outcome, Position, Producer, Write
from lastcall.testing import VirtualClock
from tests.streams.model import END_TYPES, Listed, Model, ModelStream
from tests.streams.stores import KINDS, opened

NAMES = ("a", "ab", "b")

names = st.sampled_from(NAMES)
types = st.sampled_from(END_TYPES)
batches = st.lists(st.sampled_from([b"1", b"22", b"333"]), max_size=3)
producers = st.none() | st.builds(Producer, st.just("p"), st.integers(0, 1), st.integers(0, 2))
positions = st.none() | st.integers(0, 5)


class Create(NamedTuple):
    name: str
    content_type: str | None
    ttl_seconds: int | None
    closed: bool
    source: str | None
    at: int | None
    further: int
    entries: list[bytes]


class Look(NamedTuple):
    name: str
    after: int


class Find(NamedTuple):
    prefix: str
    after: str
    limit: int


class Delete(NamedTuple):
    name: str


class Pass(NamedTuple):
    seconds: int


creates = st.builds(
    Create,
    names,
    types | st.none(),
    st.sampled_from([None, None, 5, 20]),
    st.sampled_from([False] * 9 + [True]),
    st.none() | names,
    positions,
    st.integers(0, 3),
    batches,
)
appends = st.builds(
    Write,
    names,
    batches,
    types | st.none(),
    st.sampled_from([False] * 7 + [True]),
    st.none() | st.sampled_from(["1", "10", "2"]),
    producers,
    st.none(),
    st.none(),
)
# Of each the more, the more of them it takes until something comes of it; most histories begin with two streams.
kinds = {
    "append": appends,
    "create": creates,
    "look": st.builds(Look, names, st.integers(0, 8)),
    "find": st.builds(Find, st.sampled_from(["", "a", "ab", "c"]), st.just("") | names, st.integers(1, 3)),
    "delete": st.builds(Delete, names),
    # Never so short a time that to move the end of a stream would not be worth a write.
    "pass": st.builds(Pass, st.integers(2, 15)),
}
shares = ["append"] * 8 + ["create"] * 6 + ["look"] * 3 + ["find", "find", "delete", "pass"]
begin = st.builds(
    lambda first, second: [first._replace(name="a", source=None), second._replace(name="b")], creates, creates
)
operations = st.builds(
    lambda begun, rest: [*begun, *rest],
    begin,
    st.lists(st.sampled_from(shares).flatmap(kinds.__getitem__), min_size=8, max_size=40),
)


@given(operations)
@settings(max_examples=500)
def test_every_history_in_memory_is_that_of_the_model(history: list[Any]) -> None:
    """Whatever is created, forked, written, closed, deleted, left to expire: answers and contents are the model's."""
    asyncio.run(_compare("memory", Path(), history))


@given(operations)
@settings(max_examples=60)
def test_every_history_in_sqlite_is_that_of_the_model(history: list[Any]) -> None:
    """The same in a file: what each transaction reads there is what the one before has written."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare("sqlite", Path(folder), history))


async def _compare(kind: str, folder: Path, history: list[Any]) -> None:
    clock, model = VirtualClock(), Model()
    async with opened(kind, folder, clock) as streams:
        store = streams.store
        for operation in history:
            model.now = clock.wall()
            match operation:
                case Create():
                    new = _new_stream(model, operation)
                    assert (await store.create(new)).outcome is model.create(new), operation
                case Write():
                    if not operation.entries and not operation.close:
                        continue  # nothing to be written: refused above the store
                    assert (await store.append(operation)).outcome is model.append(operation), operation
                case Delete(name):
                    assert (await store.delete(name)).outcome is model.delete(name), operation
                case Look(name, after):
                    await _check_read(store, model, name, after)
                case Find(prefix, after, limit):
                    assert await _listed(store, prefix, after, limit) == model.heads(prefix, after, limit)
                case Pass(seconds):
                    clock.advance(seconds)
        model.now = clock.wall()
        assert await _listed(store, "", "", 3) == model.heads("", "", 3)
        for name in NAMES:
            await _check_read(store, model, name, 0)


def _new_stream(model: Model, asked: Create) -> NewStream:
    content_type = asked.content_type
    fork = None
    if asked.source is not None and asked.source != asked.name:
        source = model.streams.get(asked.source)
        at = None
        if asked.at is not None:
            at = (
                source.position(asked.at) if isinstance(source, ModelStream) else Position(asked.at, asked.at)
            )
        fork = Fork(asked.source, at, asked.further if at is not None else 0)
    else:
        content_type = content_type or "text/plain"
    return NewStream(asked.name, content_type, asked.ttl_seconds, None, asked.closed, fork, asked.entries)


async def _listed(store: Any, prefix: str, after: str, limit: int) -> list[Listed]:
    found = []
    for row, updated_at in await store.heads(prefix, after, limit):
        head = (row.name, row.content_type, row.closed, row.position, row.due, row.created_at, updated_at)
        found.append(Listed(*head, row.fork, row.inherited))
        looked_at = await store.find(row.name)
        assert (looked_at.row, looked_at.updated_at) == (row, updated_at)
    return found


async def _check_read(store: Any, model: Model, name: str, after: int) -> None:
    page = await store.read(name, after, 1000, 1 << 20)
    stream = model.look(name)
    if isinstance(stream, Outcome):
        assert page.outcome is stream
        return
    if after > len(stream.entries):
        assert page.outcome is Outcome.BAD_CURSOR
        return
    model.touch(stream)
    assert [entry.data for entry in page.entries] == [data for _, data in stream.entries[after:]]
    assert [entry.seq for entry in page.entries] == list(range(after + 1, len(stream.entries) + 1))
    assert (page.row.closed, page.row.last) == (stream.closed, len(stream.entries))
    assert page.next == stream.position(len(stream.entries))
    for seq in range(len(stream.entries) + 1):
        again = await store.read(name, stream.position(seq), 1000, 1 << 20)
        assert again.outcome is Outcome.FOUND and len(again.entries) == len(stream.entries) - seq


# --- readers ---


class Schedule(NamedTuple):
    """What a reader and the writer do, step by step."""

    seed: int
    writes: list[int]
    keep_bytes: int | None


schedules = st.builds(
    Schedule,
    st.integers(0, 2**32),
    st.lists(st.integers(1, 5), min_size=1, max_size=25),
    st.none() | st.integers(20, 200),
)


@pytest.mark.parametrize("kind", KINDS)
@given(schedules)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_readers_see_each_entry_once_and_in_order(kind: str, schedule: Schedule) -> None:
    """Readers that leave and come back at any time, while it is written and trimmed: no entry twice, none out of order,
    and none missing but those that they were told are gone."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_read_and_write(kind, Path(folder), schedule))


async def _read_and_write(kind: str, folder: Path, schedule: Schedule) -> None:
    chance = random.Random(schedule.seed)
    async with opened(kind, folder, keep_bytes=schedule.keep_bytes) as streams:
        stream = await streams.create("s")
        total = sum(schedule.writes)

        async def write() -> None:
            number = 0
            for count in schedule.writes:
                await stream.append_json(*range(number + 1, number + count + 1))
                number += count
                await _turns(chance)
            await stream.close()

        async def read() -> None:
            seen: list[int] = []
            after, told = 0, 0
            while after < total:
                try:
                    async with contextlib.aclosing(stream.follow(after)) as entries:
                        async for entry in entries:
                            assert entry.data == str(entry.seq)
                            seen.append(entry.seq)
                            after = entry.seq
                            if chance.random() < 0.2:
                                break
                            await _turns(chance)
                except EntriesGone as gone:
                    assert schedule.keep_bytes is not None and gone.first > after + 1
                    told += gone.first - after - 1
                    after = gone.first - 1
                await _turns(chance)
            assert seen == sorted(set(seen)) and len(seen) + told == total

        async with asyncio.timeout(20):
            await asyncio.gather(write(), *(read() for _ in range(3)))


async def _turns(chance: random.Random) -> None:
    for _ in range(chance.randrange(4)):
        await asyncio.sleep(0)
