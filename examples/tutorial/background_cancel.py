"""Nobody cancels BackgroundTasks: not a client that leaves, and not uvicorn, which waits for them without a limit."""

import asyncio
import logging
import signal

import uvicorn
from fastapi import BackgroundTasks, FastAPI

from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.fastapi import install

told: list[str] = []
go = asyncio.Event()


async def slow() -> None:
    told.append("begun")
    try:
        await go.wait()
        told.append("ended")
    except asyncio.CancelledError:
        told.append("cancelled")
        raise


async def order(background_tasks: BackgroundTasks) -> dict[str, bool]:
    background_tasks.add_task(slow)
    return {"ok": True}


async def until(what: str) -> None:
    async with asyncio.timeout(10):
        while what not in told:
            await asyncio.sleep(0.01)


async def post(port: int) -> None:
    """A client that reads its answer and is gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"\r\n")
    writer.close()
    await writer.wait_closed()


async def serving(app: FastAPI) -> tuple["asyncio.Task[None]", int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
    return task, server.servers[0].sockets[0].getsockname()[1]


async def proof() -> None:
    told.clear()
    go.clear()
    app = FastAPI()
    app.post("/")(order)
    stopped, port = await serving(app)
    await post(port)
    await until("begun")
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait({stopped}, timeout=1)
    assert not stopped.done(), "the client has left, the server is told to stop: it waits for the task"
    assert told == ["begun"], "and nobody has cancelled it"
    go.set()
    await asyncio.wait({stopped}, timeout=10)
    assert stopped.done() and told == ["begun", "ended"]


# With lastcall it is told of the stop, may finish within the drain, and is cancelled once, at the deadline.
async def with_lastcall() -> None:
    told.clear()
    go.clear()
    app = FastAPI()
    install(app, TaskManager(plan=ShutdownPlan(drain=0.3, cancel=1, close=1)))

    async def asks() -> None:
        await current_shutdown().wait()
        told.append("heard of the stop")
        await slow()

    @app.post("/")
    async def order_it(background_tasks: BackgroundTasks) -> dict[str, bool]:
        background_tasks.add_task(asks)
        return {"ok": True}

    stopped, port = await serving(app)
    await post(port)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait({stopped}, timeout=10)
    assert stopped.done()
    assert told == ["heard of the stop", "begun", "cancelled"]
    assert app.state.lastcall.report is not None and not app.state.lastcall.report.clean


async def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # at its end uvicorn sends itself what it was sent
    logging.getLogger("lastcall").disabled = True
    await proof()
    await with_lastcall()


if __name__ == "__main__":
    asyncio.run(main())
