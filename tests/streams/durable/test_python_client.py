"""The protocol's Python client, somebody else's, at work against our server."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from durable_streams import (
    AsyncDurableStream,
    DurableStream,
    SeqConflictError,
    StreamExistsError,
    StreamNotFoundError,
    astream,
    stream,
)

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio")]

_count = itertools.count()


@asynccontextmanager
async def created(url: str, content_type: str) -> AsyncIterator[AsyncDurableStream]:
    handle = await AsyncDurableStream.create(f"{url}/python/{next(_count)}", content_type=content_type)
    async with handle:
        yield handle


@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_it_reads_what_is_written_meanwhile(url: str, live: str) -> None:
    """A live reader gets each value once and in order while another task writes."""
    async with created(url, "application/json") as handle:

        async def read() -> list[int]:
            seen = []
            async with astream(handle.url, offset="-1", live=live) as response:
                async for item in response.iter_json():
                    seen.append(item["n"])
                    if item["n"] == 29:
                        break
            return seen

        reader = asyncio.create_task(read())
        for n in range(30):
            await handle.append({"n": n, "text": "é\n"})
        async with asyncio.timeout(20):
            assert await reader == list(range(30))


async def test_it_goes_on_where_it_left_off(url: str) -> None:
    """What is read behind the offset of the first response is what came after it."""
    async with created(url, "text/plain") as handle:
        await handle.append("one ")
        async with astream(handle.url, live=False) as first:
            assert await first.read_text() == "one "
            offset = first.offset
        await handle.append("two")
        async with astream(handle.url, offset=offset, live=False) as second:
            assert await second.read_text() == "two"


def test_its_blocking_half(url: str) -> None:
    """The client without asyncio: bytes come back as they were written, over several pages too."""
    handle = DurableStream.create(f"{url}/python/blocking", content_type="application/octet-stream")
    pieces = [bytes([n]) * 400_000 for n in range(5)]
    for piece in pieces:
        handle.append(piece)
    with stream(handle.url) as response:
        assert response.read_bytes() == b"".join(pieces)
    head = handle.head()
    assert head.exists and head.content_type == "application/octet-stream"
    handle.delete()
    with pytest.raises(StreamNotFoundError):
        handle.head()
    handle.close()


async def test_it_is_told_why_not(url: str) -> None:
    """Its own errors come of our answers: a stream that is there, one that is not, a sequence that goes back."""
    async with created(url, "text/plain") as handle:
        with pytest.raises(StreamExistsError):
            await AsyncDurableStream.create(handle.url, content_type="application/json")
        await handle.append("x", seq="b")
        with pytest.raises(SeqConflictError):
            await handle.append("x", seq="a")
        with pytest.raises(StreamNotFoundError):
            async with astream(f"{url}/python/none", live=False) as response:
                await response.read_text()
