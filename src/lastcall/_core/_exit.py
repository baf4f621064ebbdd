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

from ._roster import logger

_FLUSH_SECONDS = 1.0


class ExitGuard:
    """Armed with `arm(seconds, exit_code, why)`; arming again replaces the time; `disarm()` calls it off."""

    def __init__(self) -> None:
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._generation = 0

    def arm(self, seconds: float, exit_code: int, why: str) -> None:
        """End the process with `exit_code` if it still lives after `seconds`."""
        with self._lock:
            self._generation += 1
            generation = self._generation
        threading.Thread(
            target=self._watch, args=(generation, seconds, exit_code, why), name="lastcall-exit-guard", daemon=True
        ).start()

    def disarm(self) -> None:
        """The process may live on."""
        with self._lock:
            self._generation += 1
        self._changed.set()

    def _watch(self, generation: int, seconds: float, exit_code: int, why: str) -> None:
        self._changed.wait(seconds)
        with self._lock:
            if generation != self._generation:
                return
        logger.critical("the process is ended now with exit code %d: %s", exit_code, why)
        flush_then_exit(exit_code)


def flush_then_exit(exit_code: int) -> None:
    """`os._exit` after an attempt to flush: buffers are worth a second, and a stuck pipe not more."""
    flusher = threading.Thread(target=_flush, daemon=True)
    flusher.start()
    flusher.join(_FLUSH_SECONDS)
    os._exit(exit_code)


def _flush() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
