"""An event loop whose clock jumps, so that a test of a twenty-second drain takes no seconds.

The clock stands still while the loop has something to do. When all it could do is wait for a timer, it moves
to that timer at once. Only when other threads were started meanwhile does the loop really wait, because a
thread's `call_soon_threadsafe` comes when it comes, and a clock that jumped ahead would invent a time-out.
"""

import asyncio
import selectors
import threading
import time

START_SECONDS = 1_000.0  # not zero: a deadline of 0.0 would pass for "none" in careless code


class Deadlock(RuntimeError):
    """The loop waits, and no timer, no socket and no thread is left that could ever wake it."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that moves its own clock in place of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START_SECONDS
        self._threads_before = set(threading.enumerate())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._others_may_wake_us():
            return self._wait_really(timeout)
        if timeout is None:
            if len(self.get_map()) > 1:  # more than the loop's own self-pipe: a socket may become ready
                return self._wait_really(None)
            raise Deadlock("the loop waits and nothing can ever wake it: no timer, no socket, no thread")
        self.now += timeout
        return ready

    def _others_may_wake_us(self) -> bool:
        return any(thread not in self._threads_before for thread in threading.enumerate())

    def _wait_really(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        # In slices: once the last thread has ended, the rest of the wait can be jumped over.
        ready = super().select(0.01 if timeout is None else min(timeout, 0.01))
        self.now += time.monotonic() - began
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`asyncio.SelectorEventLoop` with a clock that jumps to the next timer when nothing else is ready."""

    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now
