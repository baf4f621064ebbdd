"""The application with lastcall: every kind of work at once, none of it written for the tests' sake.

`BackgroundTasks`, the plain `StreamingResponse` and the foreign WebSocket are what people have today; the
other kinds use the library's own face.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType, MethodType
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket, WebSocketDisconnect
from starlette.responses import StreamingResponse

from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.fastapi import install
from lastcall.starlette import StreamResponse

from ..ledger import run_delay
from .work import endless_events, endless_tokens, finite, finite_sync, ledger

_settings: dict[str, Any] = json.loads(os.environ.get("SERVERS_SETTINGS", "{}"))
manager = TaskManager(
    plan=ShutdownPlan(**{"notice": 0, "drain": 2.0, "cancel": 0.5, "close": 0.5, **_settings.get("plan", {})})
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The user's own resource; and, once the manager is open, a task that notes when the news arrives."""
    ledger.write("resource.opened")
    if _settings.get("note_signals"):
        _note_signals()
    watching = asyncio.create_task(_watch())
    try:
        yield
    finally:
        watching.cancel()
        report = manager.report
        ledger.write("resource.closed", report=json.loads(report.to_json()) if report is not None else None)


async def _watch() -> None:
    while manager.state != "open":
        await asyncio.sleep(0.005)
    manager.create_task(_tell(), name="watch", daemon=True)


async def _tell() -> None:
    shutdown = current_shutdown()
    ledger.write("watching")
    await shutdown.wait()
    own, parent = run_delay(), run_delay(os.getppid())
    ledger.write("told", reason=str(shutdown.reason), run_delay=own, run_delay_parent=parent)


def _note_signals() -> None:
    """Write down when a signal reaches this process, chained as any library would do it."""

    def chain(number: signal.Signals) -> None:
        before: Any = signal.getsignal(number)

        def note(*arguments: Any) -> None:
            ledger.write("signal", number=int(number))
            if callable(before):
                before(*arguments[-2:])

        owner = getattr(before, "__self__", None)

        def plain(received: int, frame: FrameType | None) -> None:
            note(received, frame)

        signal.signal(number, MethodType(note, owner) if owner is not None else plain)

    chain(signal.SIGTERM)
    chain(signal.SIGINT)


app = FastAPI(lifespan=lifespan)
install(app, manager, **{"stream_grace_seconds": 0.6, **_settings.get("install", {})})


@app.get("/sse")
async def sse() -> StreamResponse:
    return StreamResponse(endless_tokens("sse"), format="sse")


@app.get("/sse-foreign")
async def sse_foreign() -> StreamingResponse:
    return StreamingResponse(endless_events("sse-foreign"), media_type="text/event-stream")


@app.websocket("/websocket")
async def websocket(socket: WebSocket) -> None:
    """A push loop that asks whether it should stop."""
    await socket.accept()
    ledger.write("started", kind="websocket")
    shutdown = current_shutdown()
    try:
        while not shutdown.requested:
            await socket.send_json({"ok": True})
            await shutdown.sleep(0.05)
        ledger.write("told", kind="websocket", reason=str(shutdown.reason))
        await socket.close(1012, "shutdown")
    except WebSocketDisconnect:
        ledger.write("disconnected", kind="websocket", reason=str(shutdown.reason))
    finally:
        ledger.write("closed", kind="websocket")


@app.websocket("/websocket-foreign")
async def websocket_foreign(socket: WebSocket) -> None:
    """A push loop that knows of no shutdown."""
    await socket.accept()
    ledger.write("started", kind="websocket-foreign")
    try:
        while True:
            await socket.send_json({"ok": True})
            await asyncio.sleep(0.05)
    except WebSocketDisconnect:
        ledger.write("disconnected", kind="websocket-foreign")
    finally:
        ledger.write("closed", kind="websocket-foreign")


@app.post("/background-async")
async def background_async(background: BackgroundTasks) -> dict[str, bool]:
    background.add_task(finite, "background-async")
    return {"ok": True}


@app.post("/background-sync")
async def background_sync(background: BackgroundTasks) -> dict[str, bool]:
    background.add_task(finite_sync, "background-sync")
    return {"ok": True}


@app.post("/task")
async def task() -> dict[str, bool]:
    manager.create_task(finite("task"), name="task")
    return {"ok": True}


@app.post("/thread")
async def thread() -> dict[str, bool]:
    manager.run_in_thread(finite_sync, "thread", name="thread")
    return {"ok": True}


@app.get("/slow")
async def slow() -> dict[str, bool]:
    await finite("slow")
    return {"ok": True}


@app.post("/overstay")
async def overstay() -> dict[str, bool]:
    manager.create_task(_overstay(), name="overstay")
    return {"ok": True}


async def _overstay() -> None:
    """Work far longer than the plan, which ends itself in order when it is cancelled."""
    ledger.write("started", kind="overstay")
    shutdown = current_shutdown()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        ledger.write("cancelled", kind="overstay", reason=str(shutdown.reason))
        raise


@app.api_route("/echo", methods=["GET", "POST"])
async def echo(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@app.post("/stubborn")
async def stubborn() -> dict[str, bool]:
    manager.create_task(_stubborn(), name="stubborn")
    return {"ok": True}


async def _stubborn() -> None:
    """A task that takes no cancel for an answer."""
    ledger.write("started", kind="stubborn")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ledger.write("swallowed", kind="stubborn")


@app.post("/stuck")
async def stuck() -> dict[str, bool]:
    manager.run_in_thread(_stuck, name="stuck")
    return {"ok": True}


def _stuck() -> None:
    """A thread in a call that does not return."""
    ledger.write("started", kind="stuck")
    time.sleep(3600)
