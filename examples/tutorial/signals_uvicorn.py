"""Under uvicorn the lifespan's end comes too late for streams, and a handler of one's own breaks the server."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from lastcall import TaskManager, current_shutdown
from lastcall.fastapi import install

told: list[str] = []


def streaming(app: FastAPI, shutdown_event: asyncio.Event) -> None:
    @app.get("/")
    async def stream() -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            while not shutdown_event.is_set():
                yield "tick\n"
                await asyncio.sleep(0.02)
            told.append("the stream has ended itself")

        return StreamingResponse(ticks())


async def serving(app: FastAPI) -> tuple["asyncio.Task[None]", uvicorn.Server, asyncio.StreamWriter]:
    """A server, and a client in the middle of the endless stream."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    stopped = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"tick")
    return stopped, server, writer


async def leave(writer: asyncio.StreamWriter, stopped: "asyncio.Task[None]") -> None:
    writer.close()
    await asyncio.wait({stopped}, timeout=10)
    assert stopped.done()


async def the_event_comes_too_late() -> None:
    told.clear()
    shutdown_event = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        told.append("the lifespan has set the event")
        shutdown_event.set()

    app = FastAPI(lifespan=lifespan)
    streaming(app, shutdown_event)
    stopped, _, writer = await serving(app)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait({stopped}, timeout=0.7)
    assert not stopped.done() and told == [], "the server waits for the stream, the stream for the lifespan"
    await leave(writer, stopped)
    assert told == ["the lifespan has set the event"], "which came when the client had left"


async def a_handler_of_ones_own() -> None:
    told.clear()
    shutdown_event = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, shutdown_event.set)
        yield

    app = FastAPI(lifespan=lifespan)
    streaming(app, shutdown_event)
    stopped, server, writer = await serving(app)
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        while told != ["the stream has ended itself"]:  # so the app has heard of it
            await asyncio.sleep(0.01)
    await asyncio.wait({stopped}, timeout=0.5)
    assert not server.should_exit and not stopped.done(), "and the server has not: its handler was replaced"
    server.should_exit = True
    await leave(writer, stopped)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


# With lastcall: the signal itself is heard, by a handler that calls the server's own.
async def with_lastcall() -> None:
    told.clear()
    app = FastAPI()
    install(app, TaskManager())

    @app.get("/")
    async def stream() -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            while not current_shutdown().requested:
                yield "tick\n"
                await current_shutdown().sleep(0.02)
            told.append("the stream has ended itself")

        return StreamingResponse(ticks())

    stopped, server, writer = await serving(app)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait({stopped}, timeout=10)
    assert stopped.done() and server.should_exit
    assert told == ["the stream has ended itself"]
    writer.close()


async def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # at its end uvicorn sends itself what it was sent
    logging.getLogger("lastcall").disabled = True
    await the_event_comes_too_late()
    await a_handler_of_ones_own()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
