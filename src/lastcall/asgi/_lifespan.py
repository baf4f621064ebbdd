"""The lifespan of the app, with the manager's inside: open before the app starts, drain before it ends.

Theory of operation. The app's own lifespan runs in the server's lifespan task, unchanged; only its `receive`
and `send` pass through here:

    server              here                                     app
    startup      ->     open the manager, then the jobs   ->     startup (may already create tasks)
    complete     <-     install signals                   <-     startup.complete
    ...signal...        the plan runs (refuse, tell, wait, cancel, close)
    shutdown     ->     wait for the plan's end           ->     shutdown: close pools, clients, ...
    complete     <-     give signals back                 <-     shutdown.complete

So what the app opened outlives all the work that uses it. Everything must be over when `complete` is passed
on: uvicorn raises SIGTERM again right after it, and the process is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from enum import Enum, auto
from typing import Any

from .._core._manager import TaskManager
from .._core._scope import current_scope
from .._core._state import ManagerState
from ._servers import Server, check_limits, detect_server
from ._types import ASGIApp, Message, Receive, Scope, Send
from ._watch import ShutdownWatch

logger = logging.getLogger("lastcall.asgi")


class _Stage(Enum):
    """How far the app's side of the protocol is."""

    UNTOUCHED = auto()  # it has not even asked for the startup message
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()  # it has got its shutdown message
    ENDED = auto()  # its last message was passed on


class Lifespan:
    """One run of the protocol."""

    def __init__(
        self,
        manager: TaskManager,
        receive: Receive,
        send: Send,
        *,
        around: Callable[[], AbstractContextManager[object]],
        on_open: Callable[[Server], object],
        store: Callable[[], AbstractAsyncContextManager[object]] | None = None,
        on_serving: Callable[[], object] | None = None,
    ) -> None:
        self._manager = manager
        self._server_receive = receive
        self._server_send = send
        self._around = around
        self._on_open = on_open
        self._store = store
        self._on_serving = on_serving
        self._stage = _Stage.UNTOUCHED
        self._startup: Message = {}
        self._stack = ExitStack()
        self._watch: ShutdownWatch | None = None
        self._scope_before = current_scope.get()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        self._startup = await self._server_receive()
        try:
            await self._open()
        except Exception as error:
            logger.error("lastcall could not start: %s", error)
            await self._server_send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        try:
            await self._run_app(app, scope)
        except asyncio.CancelledError:
            await self._abort()
            raise
        finally:
            if self._watch is not None:
                self._watch.stop()
            self._stack.close()

    async def _run_app(self, app: ASGIApp, scope: Scope) -> None:
        error: Exception | None = None
        # The app's lifespan belongs to the manager: a worker or a task that is started there drains with the rest.
        current_scope.set(self._manager._roster.scope)
        try:
            await app(scope, self._receive, self._send)
        except Exception as caught:
            error = caught
        finally:
            current_scope.set(self._scope_before)
        match self._stage:
            case _Stage.UNTOUCHED:
                logger.info("the app has no lifespan of its own%s", "" if error is None else f" ({error!r})")
                await self._go_on_alone(None)
            case _Stage.STARTING:
                await self._close()
                message = f"the app's lifespan ended before its startup was complete: {error!r}"
                await self._server_send({"type": "lifespan.startup.failed", "message": message})
                if error is not None:
                    raise error
            case _Stage.RUNNING:
                logger.error(
                    "the app's lifespan ended before the shutdown; its resources may be gone", exc_info=error
                )
                await self._go_on_alone(error)
            case _Stage.STOPPING | _Stage.ENDED:
                await self._close()
                if error is not None:
                    raise error

    async def _go_on_alone(self, error: Exception | None) -> None:
        """The app takes no further part: complete the protocol for it, for tasks and calls must drain all the same."""
        if self._stage is _Stage.UNTOUCHED:
            await self._send({"type": "lifespan.startup.complete"})
        await self._receive_shutdown()
        if error is None:
            await self._send({"type": "lifespan.shutdown.complete"})
        else:
            await self._send({"type": "lifespan.shutdown.failed", "message": repr(error)})

    # --- what the app sees ------------------------------------------------------------------------------

    async def _receive(self) -> Message:
        if self._stage is _Stage.UNTOUCHED:
            self._stage = _Stage.STARTING
            return self._startup
        message = await self._receive_shutdown()
        self._stage = _Stage.STOPPING
        # What the app does to close its things is its own: the manager is closed, and would refuse it.
        current_scope.set(self._scope_before)
        return message

    async def _receive_shutdown(self) -> Message:
        try:
            message = await self._wait_for_shutdown()
            await self._drain()
            if self._watch is not None and not self._watch.abandoned.done():
                self._watch.on_server_shutdown()
            return message
        except asyncio.CancelledError:
            # Uvicorn's forced exit and gunicorn's SIGINT cancel the lifespan instead of ending it. Work must be
            # over before the app's own `finally` closes what the work uses.
            await self._abort()
            raise

    async def _wait_for_shutdown(self) -> Message:
        """The server's message, or our own, if the plan is over and the server does not come to its end."""
        incoming = asyncio.ensure_future(self._server_receive())
        waiting: set[asyncio.Future[Any]] = {incoming}
        if self._watch is not None:
            waiting.add(self._watch.abandoned)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return incoming.result() if incoming.done() else {"type": "lifespan.shutdown"}
        finally:
            if not incoming.done():
                incoming.cancel()
                await asyncio.wait({incoming}, timeout=1.0)

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._stage = _Stage.RUNNING
                if self._on_serving is not None:
                    self._on_serving()
                self._watch = ShutdownWatch(self._manager, self._server)
                self._watch.start()
            case "lifespan.startup.failed":
                self._stage = _Stage.ENDED
                await self._close()
            case "lifespan.shutdown.complete" | "lifespan.shutdown.failed":
                self._stage = _Stage.ENDED
                if self._watch is not None:
                    self._watch.stop()
        await self._server_send(message)

    # --- the manager ------------------------------------------------------------------------------------

    async def _open(self) -> None:
        handlers = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
        self._server = detect_server(self._server_receive, handlers)
        logger.debug("the server: %s", self._server)
        for warning in check_limits(self._server, self._manager.plan, os.environ):
            logger.warning("%s", warning)
        self._stack.enter_context(self._around())
        try:
            if self._manager.state in (ManagerState.NEW, ManagerState.CLOSED):
                await self._manager.open()
            self._on_open(self._server)
            if self._store is not None:
                await self._open_store(self._store())
        except BaseException:
            self._stack.close()
            raise

    async def _open_store(self, store: AbstractAsyncContextManager[object]) -> None:
        try:
            await self._manager.enter(store, name="jobs")
        except BaseException:
            await self._close()
            raise

    async def _drain(self) -> None:
        """By now the server accepts nothing new, so that a notice would wait for nobody."""
        if self._manager.state is not ManagerState.CLOSED:
            self._manager.begin_shutdown(skip_notice=True)
        await self._manager.shutdown()

    async def _close(self) -> None:
        if self._manager.state not in (ManagerState.NEW, ManagerState.CLOSED):
            await self._drain()

    async def _abort(self) -> None:
        if self._manager.state not in (ManagerState.NEW, ManagerState.CLOSED):
            self._manager.begin_shutdown(skip_notice=True)
            self._manager.force()
            await self._manager.shutdown()
