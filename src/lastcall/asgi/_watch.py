"""ShutdownWatch: how a process behind an ASGI server hears that it shall stop, as early as it can be known.

    a signal       chained before the server's handler; reaches us on uvicorn, granian, gunicorn, hypercorn -w 0
    an event       polled; the only news in a hypercorn worker
    the lifespan   `lifespan.shutdown`, guaranteed but late: after the server has waited for all connections

A server may hear the signal and still not come to its lifespan's end: a client that does not read, a connection it
forgot. Then, two seconds after the plan's end, `abandoned` is set, and the lifespan lets the app close its resources
without having been asked. And what will not end at all (that server; a task or a thread the plan gave up on) is
ended by the exit guard. It is armed by the first news only, never where no signal can be heard (a server in a
thread, a test client), whose process is not ours to end.

A worker whose server left the signal at its default (hypercorn's) is protected by our handler: a signal to the
whole process group would kill it in the middle of its requests. The price: if somebody signals such a worker
alone, its server does not know. It is abandoned like the others, and then the default is put back and the
signal raised again.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from .._core._exit import ExitGuard
from .._core._manager import TaskManager
from .._core._signals import SignalWatch
from ._hypercorn import EventPoll, stop_event
from ._servers import Server

logger = logging.getLogger("lastcall.asgi")

_SERVER_SECONDS = 2.0  # from the end of the plan to the server's own shutdown
_REPEAT_WINDOW_SECONDS = 0.25  # one Ctrl-C can arrive twice (through make, a shell); people are not that fast
_EPILOGUE_SECONDS = 5.0  # from the plan's total to the exit guard
_LEFT_BEHIND_SECONDS = 1.0  # from the end of everything to the exit guard, for what refused to end;
_LEAST_SECONDS = (
    0.2  # ... less if the plan is over before, but never less than a server needs to leave by itself
)


class ShutdownWatch:
    """Installed when the app has started, restored when the lifespan is over."""

    def __init__(self, manager: TaskManager, server: Server) -> None:
        self._manager = manager
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._signals = SignalWatch(
            self._loop,
            self._on_request,
            self._on_force,
            repeat_window_seconds=_REPEAT_WINDOW_SECONDS,
            delay_seconds=manager.plan.notice if server.can_delay else 0.0,
            insisting=(signal.SIGINT,),
        )
        self._event = stop_event()
        self._poll = None if self._event is None else EventPoll(self._loop, self._event, self._on_event)
        self._guard: ExitGuard | None = None
        self._patience: asyncio.Task[None] | None = None
        self._default_signal: int | None = None  # received, and its default would have ended this process
        self.abandoned: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        self._signals.install()
        if self._poll is not None:
            self._poll.start()

    def on_server_shutdown(self) -> None:
        """`lifespan.shutdown` has come and the plan is over; the time of the app's own shutdown is its own affair."""
        if self._patience is not None:
            self._patience.cancel()
        if self._guard is not None:
            self._guard.disarm()

    def stop(self) -> None:
        """The lifespan is over: hand everything back. Safe to repeat."""
        if self._poll is not None:
            self._poll.stop()
        self._signals.restore()
        if self.abandoned.done():
            self._end_by_default()
        else:
            self.on_server_shutdown()
            self._guard_against_leftovers()

    # --- the news ---------------------------------------------------------------------------------------

    def _on_request(self, signum: int) -> None:
        if self._signals.previous.get(signum) is signal.SIG_DFL:
            self._default_signal = signum
        self._begin(skip_notice=not self._server.can_delay)

    def _on_force(self, signum: int) -> None:
        self._manager.force()

    def _on_event(self) -> None:
        self._begin(skip_notice=True)

    def _begin(self, *, skip_notice: bool) -> None:
        self._manager.begin_shutdown(skip_notice=skip_notice)
        if self._guard is None:
            self._guard = ExitGuard()
            seconds = self._manager.plan.total_seconds + _EPILOGUE_SECONDS
            why = f"told to stop {seconds:g} s ago, {self._server.called} has still not shut it down"
            self._guard.arm(seconds, 1, why)
            self._patience = self._loop.create_task(
                self._wait_for_server(), name="lastcall: waiting for the server"
            )

    # --- no answer --------------------------------------------------------------------------------------

    async def _wait_for_server(self) -> None:
        await self._manager.shutdown()
        await asyncio.sleep(_SERVER_SECONDS)
        if not self.abandoned.done():
            logger.warning(
                "the shutdown is over, but %s does not end the app (a client that does not read?); it is closed now",
                self._server.called,
            )
            self.abandoned.set_result(None)

    def _end_by_default(self) -> None:
        signum, self._default_signal = self._default_signal, None
        if signum is None or (self._event is not None and self._event.is_set()):
            return  # the server was told too; the guard waits for it
        name = signal.Signals(signum).name
        logger.warning(
            "%s reached this worker alone and its server does not know of it; ending it by %s", name, name
        )
        signal.raise_signal(signum)

    def _guard_against_leftovers(self) -> None:
        report = self._manager.report
        if self._guard is not None and report is not None and report.left_behind:
            why = f"{len(report.left_behind)} tasks or threads would not end; see the shutdown report"
            left = self._manager.plan.total_seconds - report.seconds
            ExitGuard().arm(min(_LEFT_BEHIND_SECONDS, max(_LEAST_SECONDS, left)), 1, why)
        self._guard = None
