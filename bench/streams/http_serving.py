"""A server with one log and endless readers: `python -m bench.streams.http_serving NAME PORT`. One contender each.

GET /events is a reader; POST /write?count=N writes N entries as fast as this contender takes them, all in one process.
Each contender does what its own documentation shows: those without a log have a queue for each reader.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

import uvicorn

Write = Callable[[int], Any]
TEXT = "lorem ipsum dolor "
BATCH = 20  # what a writer has written before the readers get their turn, as tokens come that are joined for 25 ms


class Queues:
    """A queue for each reader: what one writes who has no log."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Any]] = set()

    async def read(self) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    async def write(self, count: int, make: Callable[[int], Any]) -> None:
        for number in range(1, count + 1):
            item = make(number)
            for queue in self._queues:
                queue.put_nowait(item)
            if number % BATCH == 0:
                await asyncio.sleep(0)


def entry(number: int) -> str:
    return json.dumps({"seq": number, "type": "text", "at": 1764000000.25, "data": {"text": TEXT}})


def bare() -> tuple[Any, Write]:
    """The floor: a bare ASGI call per reader, a queue of bytes that are written once for everybody."""
    queues = Queues()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        async for chunk in queues.read():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    return app, lambda count: queues.write(
        count, lambda number: f"id: {number}\ndata: {entry(number)}\n\n".encode()
    )


def starlette() -> tuple[Any, Write]:
    responses = import_module("starlette.responses")
    queues = Queues()

    async def frames() -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        async for number in queues.read():
            yield f"id: {number}\ndata: {entry(number)}\n\n".encode()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await responses.StreamingResponse(frames(), media_type="text/event-stream")(scope, receive, send)

    return app, lambda count: queues.write(count, lambda number: number)


def sse_starlette() -> tuple[Any, Write]:
    sse = import_module("sse_starlette")
    queues = Queues()

    async def events() -> AsyncIterator[Any]:
        yield sse.ServerSentEvent(comment="hello")
        async for number in queues.read():
            yield sse.ServerSentEvent(data=entry(number), id=str(number))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sse.EventSourceResponse(events())(scope, receive, send)

    return app, lambda count: queues.write(count, lambda number: number)


def fastapi() -> tuple[Any, Write]:
    sse = import_module("fastapi.sse")
    app = import_module("fastapi").FastAPI()
    queues = Queues()

    async def events() -> Any:
        yield sse.ServerSentEvent(comment="hello")
        async for number in queues.read():
            yield sse.ServerSentEvent(raw_data=entry(number), id=str(number))

    app.get("/events", response_class=sse.EventSourceResponse)(events)
    return app, lambda count: queues.write(count, lambda number: number)


def lastcall() -> tuple[Any, Write]:
    asgi, core, streams = map(import_module, ("lastcall.asgi", "lastcall", "lastcall.streams"))
    made = streams.Streams()
    stream: Any = None

    async def reader(scope: Any, receive: Any, send: Any) -> None:
        nonlocal stream
        if stream is None:
            stream = await made.create("bench", content_type="application/json")
        await asgi.LogResponse(stream, durable=False)(scope, receive, send)

    async def write(count: int) -> None:
        for first in range(0, count, BATCH):
            await stream.append_json(*[{"text": TEXT}] * min(BATCH, count - first))
            await asyncio.sleep(0)

    return asgi.Lastcall(reader, core.TaskManager()), write


def lastcall_job() -> tuple[Any, Write]:
    """The log of a job, in a SQLite file: what is written is on disk before a reader has it."""
    asgi, core, jobs_module = map(import_module, ("lastcall.asgi", "lastcall", "lastcall.jobs"))
    jobs = jobs_module.Jobs("sqlite:///bench.db")
    orders: asyncio.Queue[int] = asyncio.Queue()
    job: Any = None

    async def talk(ctx: Any) -> None:
        async with ctx.stream("answer") as out:
            while True:
                for _ in range(await orders.get()):
                    await out.send({"text": TEXT})

    talk.__annotations__ = {"ctx": jobs_module.Context, "return": None}
    task = jobs.task(talk)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal job
        if scope["type"] == "lifespan":
            await receive()
            async with jobs.worker():
                job = await task.submit()
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await asgi.LogResponse(job)(scope, receive, send)

    async def write(count: int) -> None:
        orders.put_nowait(count)

    return asgi.Lastcall(app, core.TaskManager(), jobs=jobs), write


CONTENDERS: dict[str, tuple[Callable[[], tuple[Any, Write]], str]] = {
    "bare": (bare, ""),
    "starlette": (starlette, "starlette"),
    "sse-starlette": (sse_starlette, "sse_starlette"),
    "fastapi": (fastapi, "fastapi"),
    "lastcall": (lastcall, "lastcall"),
    "lastcall-job": (lastcall_job, "lastcall"),
}
"""How it is made, and the package it needs."""


def with_writer(app: Any, write: Write) -> Any:
    """The same app, with a POST that begins to write and answers at once."""
    running: set[asyncio.Task[None]] = set()

    async def both(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        count = int(parse_qs(scope["query_string"].decode())["count"][0])
        running.add(asyncio.ensure_future(write(count)))
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return both


def main() -> None:
    make, _ = CONTENDERS[sys.argv[1]]
    app = with_writer(*make())
    uvicorn.run(app, port=int(sys.argv[2]), log_level="critical", backlog=8192)


if __name__ == "__main__":
    main()
