"""A generator that yields in `except CancelledError` mostly never gets there, and a flag wakes nobody."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import lastcall
from lastcall.asgi import Lastcall, StreamResponse

told: list[str] = []


async def model(pause: float) -> AsyncIterator[str]:
    for word in "last orders please":
        yield word
        await asyncio.sleep(pause)


async def stream(stop: asyncio.Event, pause: float) -> AsyncIterator[str]:
    """The tutorial's, shortened."""
    try:
        async for chunk in model(pause):
            if stop.is_set():
                yield "end: shutdown"
                break
            yield chunk
    except asyncio.CancelledError:
        told.append("the generator was cancelled")
        yield "end: cancelled"
        raise
    finally:
        told.append("closed")


async def cancelled_while_sending() -> None:
    told.clear()
    sent: list[str] = []
    source = stream(asyncio.Event(), pause=0)

    async def serve() -> None:
        async for chunk in source:
            sent.append(chunk)
            await asyncio.sleep(60)  # a client that reads slowly: most of a stream's time

    task = asyncio.create_task(serve())
    async with asyncio.timeout(10):
        while not sent:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert sent == ["l"], "no `end: cancelled` was sent"
    assert told == [], "the generator knows nothing of it, and was not even closed"
    await source.aclose()


async def a_flag_wakes_nobody() -> None:
    stop = asyncio.Event()
    source = stream(stop, pause=60)  # a model that thinks
    assert await anext(source) == "l"
    waiting = asyncio.ensure_future(anext(source))
    stop.set()
    await asyncio.wait({waiting}, timeout=0.2)
    assert not waiting.done(), "the stop is seen when the model says its next word, and not before"
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=5)
    await source.aclose()


# What to write instead: who reads the generator closes it, and waits for whichever comes first.
async def serve(source: AsyncIterator[str], stop: asyncio.Event, sent: list[str]) -> None:
    stopped = asyncio.ensure_future(stop.wait())
    try:
        async with aclosing(source):  # closed here, not by the garbage collector
            while True:
                following = asyncio.ensure_future(anext(source, None))
                await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    await asyncio.wait({following})
                    sent.append("end: shutdown")
                    return
                if (chunk := following.result()) is None:
                    return
                sent.append(chunk)
    finally:
        stopped.cancel()


async def plain() -> None:
    told.clear()
    stop, sent = asyncio.Event(), list[str]()

    async def source() -> AsyncIterator[str]:
        try:
            async for chunk in model(60):
                yield chunk
        finally:
            told.append("closed")

    task = asyncio.create_task(serve(source(), stop, sent))
    async with asyncio.timeout(10):
        while not sent:
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait({task}, timeout=5)
    assert sent == ["l", "end: shutdown"] and told == ["closed"]


# With lastcall: StreamResponse ends every stream with its reason, and closes its source.
async def with_lastcall() -> None:
    told.clear()
    sent: list[bytes] = []

    async def source() -> AsyncIterator[str]:
        try:
            async for chunk in model(60):
                yield chunk
        finally:
            told.append("closed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamResponse(source())(scope, receive, send)

    async def receive() -> dict[str, str]:
        return await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))

    async with lastcall.TaskManager() as manager:
        whole = Lastcall(app, manager, stream_grace_seconds=0.1)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": None, "server": None}
        call = asyncio.create_task(whole(scope, receive, send))
        async with asyncio.timeout(10):
            while b"data: l" not in b"".join(sent):
                await asyncio.sleep(0.01)
        await manager.shutdown()
        await asyncio.wait({call}, timeout=5)
    assert b'{"type":"end","reason":"shutdown"}' in b"".join(sent)
    assert told == ["closed"]


async def main() -> None:
    logging.getLogger("lastcall").disabled = True
    await cancelled_while_sending()
    await a_flag_wakes_nobody()
    await plain()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
