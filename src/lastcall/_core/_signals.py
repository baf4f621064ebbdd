"""Hearing SIGINT and SIGTERM without taking them from whoever listens already.

Chained, never replaced: servers own these signals, and each breaks in its own way when robbed
(`loop.add_signal_handler` makes uvicorn deaf until SIGKILL). The handler keeps the `__self__` of the one
it wraps, because sse-starlette finds its uvicorn server by looking there. SIG_DFL is never re-raised from
here: that would kill a worker in the middle of its drain.

Repeats are normal: a process group's signal reaches a worker twice, its own and the one its master forwards,
up to half a second apart. Only a repeat after `repeat_window_seconds` is somebody insisting.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from ._roster import logger

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SignalWatch:
    """Calls `on_request(signum)` at the first signal and `on_force(signum)` at a later one, on the loop.

    `delay_seconds`: pass the first signal on to the previous handler only then (or at the force), so that a
    server goes on serving through the notice phase; only for servers whose handler may be called from the loop.
    `insisting`: the signals whose repeat means force. Behind a server that is SIGINT alone: parents forward SIGTERM,
    and hypercorn's sends one to every worker as soon as the first has ended.
    `spare_default`: do not pass on to Python's own SIGINT handler, whose KeyboardInterrupt would cut the drain;
    unless the loop is blocked and has not even heard the first one.

    Off the main thread nothing can be heard: `install` does nothing and returns False.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_request: Callable[[int], None],
        on_force: Callable[[int], None],
        *,
        repeat_window_seconds: float = 1.0,
        delay_seconds: float = 0.0,
        spare_default: bool = False,
        insisting: Collection[int] = _SIGNALS,
    ) -> None:
        self._loop = loop
        self._on_request = on_request
        self._on_force = on_force
        self._repeat_window_seconds = repeat_window_seconds
        self._spare_default = spare_default
        self._insisting = frozenset(insisting)
        self._installed: dict[int, Any] = {}
        self._first_at: float | None = None
        self._delayed: asyncio.TimerHandle | None = None
        self._over = False
        self._heard = False
        self.delay_seconds = delay_seconds
        self.received: list[int] = []
        self.previous: dict[int, Any] = {}

    def install(self) -> bool:
        """Wrap the handlers of now. False, and nothing done, off the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return False
        self._over = False
        for signum in _SIGNALS:
            previous = signal.getsignal(signum)
            handler = _Handler(self, getattr(previous, "__self__", None))
            self.previous[signum] = previous
            self._installed[signum] = handler
            signal.signal(signum, handler)
        return True

    def restore(self) -> None:
        """Give each signal back, unless somebody has wrapped ours in turn. Safe to repeat."""
        if self._delayed is not None:
            self._delayed.cancel()
        if threading.current_thread() is not threading.main_thread():
            return
        self._over = True
        for signum, handler in self._installed.items():
            if signal.getsignal(signum) is handler and self.previous[signum] is not None:
                signal.signal(signum, _living(self.previous[signum], signum))
        self._installed.clear()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._over:
            previous = self.previous.get(signum)
            if callable(previous):
                previous(signum, frame)
            return
        now = time.monotonic()
        first = self._first_at is None
        late = now - (self._first_at or 0.0) >= self._repeat_window_seconds
        insisting = not first and late and signum in self._insisting
        self._first_at = now if first else self._first_at
        self.received.append(signum)
        if first:
            self._post(self._hear, signum)
        elif insisting:
            if self._spare_default and not self._heard and signum == signal.SIGINT:
                signal.default_int_handler(
                    signum, frame
                )  # raises: the loop is blocked, only this gets through
            self._post(self._on_force, signum)
        self._pass_on(signum, frame, first, insisting)

    def _hear(self, signum: int) -> None:
        self._heard = True
        self._on_request(signum)

    def _pass_on(self, signum: int, frame: FrameType | None, first: bool, insisting: bool) -> None:
        previous = self.previous.get(signum)
        if not callable(previous) or (self._spare_default and previous is signal.default_int_handler):
            return
        if self.delay_seconds <= 0:
            previous(signum, frame)
        elif first:
            self._post(self._delay, previous, signum)
        elif insisting:
            self._post(self._end_delay)
            previous(signum, frame)

    def _delay(self, previous: Callable[[int, FrameType | None], object], signum: int) -> None:
        self._delayed = self._loop.call_later(self.delay_seconds, previous, signum, None)

    def _end_delay(self) -> None:
        if self._delayed is not None:
            self._delayed.cancel()

    def _post(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            logger.debug("a signal came after the event loop had closed; there is nothing left to tell")


class _Handler:
    """The handler of one watch. It shows the owner of the handler that it wraps, as a bound method would."""

    def __init__(self, watch: SignalWatch, owner: object | None) -> None:
        self.watch = watch
        if owner is not None:
            self.__self__ = owner

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.watch._on_signal(signum, frame)


def is_heard(signum: int) -> bool:
    """Whether a watch hears this signal now, so that it begins a shutdown and does not end the process at once."""
    handler = signal.getsignal(signum)
    return isinstance(handler, _Handler) and not handler.watch._over


def _living(handler: Any, signum: int) -> Any:
    """Watches may be taken off in any order; the signal must not go back to one that is over."""
    while isinstance(handler, _Handler) and handler.watch._over:
        handler = handler.watch.previous[signum]
    return handler
