"""The exit guard: a process that was told to stop ends, whatever clings to it.

What clings: a task that swallows cancellation keeps `asyncio.run` waiting for ever; a thread that never
returns keeps the interpreter joining for ever. Neither can be ended from inside. So when the plan is over
and the process is not, a daemon thread says so and leaves by `os._exit`, which joins nobody.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable

from ._roster import logger

_FLUSH_SECONDS = 1.0


class ExitGuard:
    """Armed with `arm(seconds, exit_code, why)`; arming again replaces the time; `disarm()` calls it off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._called_off: threading.Event | None = None

    def arm(self, seconds: float, exit_code: int, why: str) -> None:
        """End the process with `exit_code` if it still lives after `seconds`."""
        called_off = threading.Event()
        self._replace(called_off)
        # Two threads, and both now: no thread can be started while the interpreter shuts down (3.12), and a
        # stuck pipe, which holds up the one that logs and flushes, must not hold up the end.
        self._start(self._flush_then_exit, called_off, seconds, exit_code, why)
        self._start(self._exit, called_off, seconds + _FLUSH_SECONDS, exit_code)

    def disarm(self) -> None:
        """The process may live on."""
        self._replace(None)

    def _replace(self, called_off: threading.Event | None) -> None:
        with self._lock:
            before, self._called_off = self._called_off, called_off
        if before is not None:
            before.set()

    def _start(self, watch: Callable[..., None], *args: object) -> None:
        threading.Thread(target=watch, args=args, name="lastcall-exit-guard", daemon=True).start()

    def _flush_then_exit(self, called_off: threading.Event, seconds: float, exit_code: int, why: str) -> None:
        if called_off.wait(seconds):
            return
        logger.critical(
            "the process is ended now with exit code %d: %s",
            exit_code,
            why,
            extra={"event": "process.forced_exit"},
        )
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(exit_code)

    def _exit(self, called_off: threading.Event, seconds: float, exit_code: int) -> None:
        if not called_off.wait(seconds):
            os._exit(exit_code)
