"""Free-standing streams over LogResponse: the same readers, with handles made for each request."""

import asyncio
import json
from typing import Any

from lastcall import TaskManager
from lastcall.asgi import Lastcall, LogResponse
from lastcall.streams import Streams
from tests.asgi.driver import get, running, until
from tests.asgi.test_log_response import entries, names, seqs, sse


def stream_app(streams: Streams, name: str) -> Lastcall:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await LogResponse(streams.open(name), durable=False)(scope, receive, send)

    return Lastcall(app, TaskManager())


async def test_a_stream_in_memory_is_read_to_its_end() -> None:
    """What was there, what comes, and the end; the type of an entry is `message`."""
    streams = Streams()
    stream = await streams.create("chat")
    await stream.append_json({"n": 1}, {"n": 2})
    async with running(app := stream_app(streams, "chat")):
        reader = await sse(app).until(lambda request: seqs(request) == [1, 2])
        await stream.append_json("ü")
        await stream.close()
        await reader.done()
        assert [entry["data"] for entry in entries(reader)] == [{"n": 1}, {"n": 2}, "ü"]
        assert names(reader) == ["snapshot", "message", "message", "message", "end"]
        assert (await sse(app, "after=3").done()).status == 204


async def test_readers_with_handles_of_their_own_share_a_tail() -> None:
    """Thirty readers: thirty calls, thirty that watch the clients, and two tasks for all of them."""
    streams = Streams()
    stream = await streams.create("chat")
    async with running(app := stream_app(streams, "chat")):
        before = len(asyncio.all_tasks())
        readers = [sse(app) for _ in range(30)]
        for reader in readers:
            await reader.until(lambda request: request.chunks)
        assert len(asyncio.all_tasks()) - before == 62
        await stream.append_json(*range(100))
        for reader in readers:
            await reader.until(lambda request: seqs(request) == list(range(1, 101)))
            reader.leave()
            await reader.done()
        await until(lambda: len(asyncio.all_tasks()) == before)


async def test_retention_and_deletion_are_told() -> None:
    """410 with what is kept, 404 once it is deleted; a new one of that name is another one. A reader that stalls is
    still given what was dropped meanwhile, as long as its tail has it."""
    streams = Streams(keep_bytes=20_000)
    stream = await streams.create("chat")
    async with running(app := stream_app(streams, "chat")):
        stalled = sse(app, reading=False)
        await until(lambda: stalled.status == 200)
        follows = await sse(app).until(lambda request: request.chunks)
        for number in range(40):
            await stream.append_json(*[f"{number:03}" + "x" * 1000] * 5)
            await follows.until(lambda request, last=number * 5 + 5: seqs(request)[-1:] == [last])
        first = (await stream.info()).first
        assert first > 150
        gone = await sse(app, "after=3").done()
        assert gone.status == 410 and gone.json()["first"] == first
        assert (await get(app, "/log", query="after=3&wait=5")).status == 410
        stalled.read_on()
        await stalled.until(lambda request: seqs(request) == list(range(1, 201)))
        await stream.delete()
        for reader in (stalled, follows):
            await reader.done()
            assert "end" not in names(reader)
        assert seqs(follows) == list(range(1, 201))
        assert (await sse(app).done()).status == 404
        again = await streams.create("chat")
        await again.append_json(1)
        assert (await sse(app, "after=200").done()).status == 400
        assert json.loads((await get(app, "/log")).body)["last"] == 1
