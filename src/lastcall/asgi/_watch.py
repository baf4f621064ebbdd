"""ShutdownWatch: how a process behind an ASGI server hears that it shall stop, as early as it can be known.

    a signal       chained before the server's handler; reaches us on uvicorn, granian, gunicorn, hypercorn -w 0
    an event       polled; the only news in a hypercorn worker
    the lifespan   `lifespan.shutdown`, guaranteed but late: after the server has waited for all connections

A worker whose server left the signal at its default (hypercorn's) is protected by our handler: a signal to the
whole process group would kill it in the middle of its requests. The price: if somebody signals such a
worker alone, nobody else will end it. So once the plan is carried out and its server still does not
shut down, the default is put back and the signal raised again.

A server can also fail to come to its lifespan's end, because of a client that does not read or a connection it
forgot; and what the plan gave up on (a task that swallows its cancel, a stuck thread) can keep the process after it.
The exit guard ends both. It is armed by the first news only, never where no signal can be heard (a server in
a thread, a test client), whose process is not ours to end.
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

_EPILOGUE_SECONDS = 5.0  # after the plan's total, for the server to close what it has
_LEFT_BEHIND_SECONDS = 1.0  # after everything, for what refused to end
_ORPHAN_SECONDS = (
    2.0  # between the end of the plan and the server's own shutdown, before we take it for absent
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
            delay_seconds=manager.plan.notice if server.can_delay else 0.0,
        )
        self._event = stop_event()
        self._poll = None if self._event is None else EventPoll(self._loop, self._event, self._on_event)
        self._orphan: asyncio.Task[None] | None = None
        self._guard: ExitGuard | None = None

    def start(self) -> None:
        self._signals.install()
        if self._poll is not None:
            self._poll.start()

    def on_drained(self) -> None:
        """`lifespan.shutdown` has come and the plan is over; the time of the app's own shutdown is its own affair."""
        if self._orphan is not None:
            self._orphan.cancel()
        if self._guard is not None:
            self._guard.disarm()

    def stop(self) -> None:
        """The lifespan is over: hand everything back. Safe to repeat."""
        if self._poll is not None:
            self._poll.stop()
        self.on_drained()
        self._signals.restore()
        if self._guard is not None:
            self._guard = None
            self._guard_against_leftovers()

    def _guard_against_leftovers(self) -> None:
        report = self._manager.report
        if report is not None and report.left_behind:
            count = len(report.left_behind)
            ExitGuard().arm(
                _LEFT_BEHIND_SECONDS, 1, f"{count} tasks or threads would not end; see the shutdown report"
            )

    def _on_request(self, signum: int) -> None:
        self._begin(skip_notice=not self._server.can_delay)
        if self._signals.previous.get(signum) is signal.SIG_DFL and self._orphan is None:
            self._orphan = self._loop.create_task(
                self._end_orphan(signum), name="lastcall: end without a server"
            )

    def _on_force(self, signum: int) -> None:
        self._manager.force()

    def _on_event(self) -> None:
        self._begin(skip_notice=True)

    def _begin(self, *, skip_notice: bool) -> None:
        self._manager.begin_shutdown(skip_notice=skip_notice)
        if self._guard is None:
            self._guard = ExitGuard()
            seconds = self._manager.plan.total_seconds + _EPILOGUE_SECONDS
            self._guard.arm(
                seconds,
                1,
                f"told to stop {seconds:g} s ago, {self._server.called} has still not shut it down",
            )

    async def _end_orphan(self, signum: int) -> None:
        await self._manager.shutdown()
        await asyncio.sleep(_ORPHAN_SECONDS)
        if self._event is not None and self._event.is_set():
            return  # the server knows; it is waiting for connections
        name = signal.Signals(signum).name
        logger.warning(
            "%s reached this worker alone and its server does not shut it down; ending it by %s", name, name
        )
        self._signals.restore()
        signal.raise_signal(signum)
