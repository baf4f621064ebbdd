"""PREFIX/drain and PREFIX/shutdown: where a shutdown stands, to be followed live, and the verb that begins one.

Who calls it: `_face`; the live feed tells the same. What it owns: how a drain is told (`stand`), and that a process
asked to drain also ends: it sends SIGTERM to itself, or to its server's main process if it is a worker of one (which
would start another in its place). Server and plan take that as any other signal, so that there is one way to stop and
not two. Where no signal can be heard (a server in a thread, a test client) only the plan is carried out, and the
answer says so.

A follower is no held call: it stays until the report is there, which is after all calls. What can go wrong: a client
that does not read; it is left alone, and ends with the server's connection.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import time
from collections import deque
from itertools import islice
from typing import Any

from .._core._manager import TaskManager
from .._core._plan import Deadlines, Phase
from .._core._record import TaskInfo
from .._core._report import ShutdownReport
from .._core._signals import is_heard
from .._core._state import ManagerState
from ..exceptions import NotOpen
from . import _examples as examples
from . import _models as models
from ._answers import event
from ._log_request import LogFormat, chosen_format
from ._pages import Answer, Param, Request, Route, Says
from ._places import TooManyReaders
from ._redact import Redactor
from ._servers import Server
from ._types import ASGIApp, Headers, Receive, Send, get_header

_WITH_WORKERS = ("uvicorn", "hypercorn", "granian")
_LISTED = 50
_MAX_NAME = 1000
_FOLLOWERS = 16
_LOOK_SECONDS = 0.2
_KEEP_ALIVE_SECONDS = 10.0
_SIGNAL_LOOKS = 1000

_REPORTS = 10

_FORMAT = Param("format", "in place of Accept", (LogFormat.SSE, LogFormat.JSON))

_PHASES = {
    ManagerState.NOTICE: Phase.NOTICE,
    ManagerState.DRAINING: Phase.DRAIN,
    ManagerState.CANCELLING: Phase.CANCEL,
    ManagerState.CLOSING: Phase.CLOSE,
}

EVENT_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class DrainFace:
    """The pages."""

    def __init__(self, manager: TaskManager, redactor: Redactor) -> None:
        self._manager = manager
        self._redactor = redactor
        self._followers = 0
        self._server = Server("")
        self._earlier: deque[ShutdownReport] = deque(maxlen=_REPORTS)

    def on_open(self, server: Server) -> None:
        """The server that runs us is known. A manager that is opened again has shut down before."""
        self._server = server
        report = self._manager.report
        if report is not None and report not in self._earlier:
            self._earlier.appendleft(report)

    def routes(self) -> list[Route]:
        stand = Says(
            "as JSON; as events: `drain`, again and again, until `report`, which is the last",
            models.Stand,
            examples.STAND,
            ("application/json", "text/event-stream"),
        )
        return [
            Route(
                "GET",
                "drain",
                self._look,
                "Where the shutdown stands, or, as events, how it goes on.",
                {200: stand},
                query=(_FORMAT,),
                refuses=(429, 503),
            ),
            Route(
                "POST",
                "drain",
                self._begin,
                "Begin to shut down, as a signal would. Asking again changes nothing.",
                {202: stand},
                query=(_FORMAT,),
                refuses=(429, 503),
            ),
            Route(
                "GET",
                "shutdown",
                self._shutdown,
                "Where the shutdown stands, and the reports of the last ones of this process.",
                {200: Says("where it stands", models.Shutdown, examples.SHUTDOWN)},
                refuses=(503,),
            ),
        ]

    def stand(self) -> dict[str, Any]:
        """Where the shutdown stands, as it may be shown."""
        return stand(self._manager, self._redactor)

    async def _shutdown(self, request: Request) -> Answer:
        self._check_open()
        told = self.stand()
        earlier = [json.loads(self._redactor.report(report).to_json()) for report in self._earlier]
        reports = earlier if told["report"] is None else [told["report"], *earlier]
        phase = _PHASES.get(self._manager.state)
        return Answer(200, {**told, "phase": phase, "reports": reports})

    async def _look(self, request: Request) -> Answer | ASGIApp:
        self._check_open()
        return self._answer(request, 200)

    async def _begin(self, request: Request) -> Answer | ASGIApp:
        self._check_open()
        if self._manager.state is ManagerState.OPEN:
            await self._stop()
        return self._answer(request, 202)

    def _answer(self, request: Request, status: int) -> Answer | ASGIApp:
        scope = request.scope
        accept = get_header(list(scope.get("headers", ())), b"accept")
        if scope["method"] == "HEAD" or chosen_format(request.query, accept) is not LogFormat.SSE:
            return Answer(status, self.stand())
        if self._followers >= _FOLLOWERS:
            raise TooManyReaders(f"{_FOLLOWERS} clients follow the drain already")
        return lambda scope, receive, send: self._follow(status, receive, send)

    def _check_open(self) -> None:
        if self._manager.state is ManagerState.NEW:
            raise NotOpen("the app has not started")

    async def _stop(self) -> None:
        if not ends_process():
            self._manager.begin_shutdown()
            return
        parent = main_process(self._server.name)
        if parent is None:
            signal.raise_signal(signal.SIGTERM)
        else:
            os.kill(parent, signal.SIGTERM)
        # The handler tells the loop, which comes to it in its next turns.
        for _ in range(_SIGNAL_LOOKS):
            if self._manager.state is not ManagerState.OPEN:
                return
            await asyncio.sleep(0.001)

    # --- following --------------------------------------------------------------------------------------

    async def _follow(self, status: int, receive: Receive, send: Send) -> None:
        leaving = asyncio.get_running_loop().create_task(until_gone(receive), name="lastcall: a follower")
        self._followers += 1
        try:
            await send({"type": "http.response.start", "status": status, "headers": EVENT_HEADERS})
            await self._tell(send, leaving)
        except OSError:
            pass  # how servers of ASGI 2.4 say that the client left
        finally:
            self._followers -= 1
            leaving.cancel()

    async def _tell(self, send: Send, leaving: asyncio.Task[None]) -> None:
        told_state, told_at = None, 0.0
        loop = asyncio.get_running_loop()
        while not leaving.done():
            state = self._manager.state
            if state is ManagerState.CLOSED:
                body = event("report", self.stand())
                await send({"type": "http.response.body", "body": body, "more_body": False})
                return
            quiet = state is ManagerState.OPEN and loop.time() - told_at < _KEEP_ALIVE_SECONDS
            if state is not told_state or not quiet:
                body = event("drain", self.stand())
                await send({"type": "http.response.body", "body": body, "more_body": True})
                told_state, told_at = state, loop.time()
            await asyncio.wait({leaving}, timeout=_LOOK_SECONDS)


def stand(manager: TaskManager, redactor: Redactor) -> dict[str, Any]:
    """Where the shutdown of this manager stands, as JSON. `work`: who is waited for, the first of them."""
    roster, runner = manager._roster, manager._runner
    # Not that of an earlier opening.
    ended = manager.report if manager.state is ManagerState.CLOSED else None
    report = None if ended is None else redactor.report(ended)
    deadlines = None if runner is None else runner.deadlines
    now = roster.clock()
    live = list(islice((record for record in roster.live.values() if not record.daemon), _LISTED))
    held = list(islice(roster.holds.values(), _LISTED - len(live)))
    return {
        "name": manager.name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "ends_process": ends_process(),
        "state": manager.state.value,
        "plan": {**manager.plan._asdict(), "total": manager.plan.total_seconds},
        "elapsed_seconds": None if deadlines is None else now - deadlines.start,
        "remaining_seconds": None if deadlines is None else max(0.0, deadlines.end - now),
        "phase_remaining_seconds": _phase_left(manager.state, deadlines, now),
        "busy": 0 if manager.state is ManagerState.CLOSED else roster.busy,
        "work": [_show(roster.info(record)) for record in (*live, *held)],
        "report": None if report is None else json.loads(report.to_json()),
        "text": None if report is None else str(report),
    }


def _phase_left(state: ManagerState, deadlines: Deadlines | None, now: float) -> float | None:
    if deadlines is None:
        return None
    ends = {
        ManagerState.NOTICE: deadlines.drain_start,
        ManagerState.DRAINING: deadlines.drain_end,
        ManagerState.CANCELLING: deadlines.cancel_end,
        ManagerState.CLOSING: deadlines.end,
    }
    return max(0.0, ends[state] - now) if state in ends else None


def _show(info: TaskInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "name": info.name[:_MAX_NAME],
        "kind": info.kind.value,
        "group": info.group,
        "status": info.status.value,
        "seconds": None if info.started_at is None else max(0.0, time.time() - info.started_at),
    }


def ends_process() -> bool:
    """Whether SIGTERM is heard by a shutdown plan: only then may this process send it to itself."""
    return is_heard(signal.SIGTERM)


def main_process(server: str) -> int | None:
    """The process that started this one as a worker of its server; None: this is the main process, as far as one sees.

    Only where a known server has started it: the parent of another one is somebody else's program.
    """
    if server.startswith("gunicorn"):
        return os.getppid()
    parent = multiprocessing.parent_process()
    target = getattr(multiprocessing.current_process(), "_target", None)  # private, so it may be gone one day
    package = str(getattr(target, "__module__", "")).partition(".")[0]
    return parent.pid if parent is not None and package in _WITH_WORKERS else None


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
