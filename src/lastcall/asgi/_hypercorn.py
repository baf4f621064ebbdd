"""How a hypercorn worker hears of the shutdown: it gets no signal, only an event that its master sets."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from typing import Protocol

_POLL_SECONDS = 0.02


class StopEvent(Protocol):
    """The part of `multiprocessing.Event` we need."""

    def is_set(self) -> bool: ...


def stop_event() -> StopEvent | None:
    """The event hypercorn's master handed to this process, None if there is none.

    There is no public way to it. Should hypercorn change, the first news is the lifespan's shutdown, as it
    would be without this file.
    """
    arguments = getattr(multiprocessing.current_process(), "_kwargs", None)
    event: StopEvent | None = arguments.get("shutdown_event") if isinstance(arguments, dict) else None
    return event if callable(getattr(event, "is_set", None)) else None


class EventPoll:
    """Looks at the event every 20 ms on the loop's own timer, and calls once when it is set."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, event: StopEvent, on_set: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._event = event
        self._on_set = on_set
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_POLL_SECONDS, self._poll)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        self._timer = None
        if self._event.is_set():
            self._on_set()
        else:
            self.start()
