"""Who listens to other processes' commits, and what makes the writer thread look: inotify, and polling beneath.

Who calls it: the engine, on its loop. Without inotify (another system, no watches left, a loop without readers) only
the polling remains, more often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ._inotify import Inotify
from ._writer import Writer

POLL_SECONDS = 1.0
POLL_WITHOUT_INOTIFY_SECONDS = 0.025


class Hints:
    """The listeners of one engine. They may come before it is open, and stay when it is closed."""

    def __init__(self, *, inotify: bool = True) -> None:
        self._path = ""
        self._wants_inotify = inotify
        self._listeners: dict[object, Callable[[], None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: Writer | None = None
        self._inotify: Inotify | None = None

    def listen(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Returns what ends the listening."""
        token = object()
        self._listeners[token] = on_change
        if len(self._listeners) == 1:
            self._watch()

        def end() -> None:
            if self._listeners.pop(token, None) is not None and not self._listeners:
                self._unwatch()

        return end

    def start(self, loop: asyncio.AbstractEventLoop, path: str, writer: Writer) -> None:
        self._loop, self._path, self._writer = loop, path, writer
        if self._listeners:
            self._watch()

    def stop(self) -> None:
        self._unwatch()
        self._loop = self._writer = None

    def changed(self) -> None:
        """Somebody else has committed. Each listener in a turn of its own: one that raises silences no other."""
        if self._loop is not None:
            for token in self._listeners:
                self._loop.call_soon(self._call, token)

    def _call(self, token: object) -> None:
        on_change = self._listeners.get(token)
        if on_change is not None:
            on_change()

    def reopened(self) -> None:
        """The file was away and is back, or another one is there: watch that one, and look at everything again."""
        if self._writer is not None and self._listeners:
            self._unwatch()
            self._watch()
        self.changed()

    def _watch(self) -> None:
        if self._writer is None:
            return
        self._inotify = self._start_inotify()
        self._writer.watch(POLL_WITHOUT_INOTIFY_SECONDS if self._inotify is None else POLL_SECONDS)

    def _start_inotify(self) -> Inotify | None:
        if not self._wants_inotify or self._loop is None:
            return None
        inotify = None
        try:
            inotify = Inotify()
            inotify.watch(self._path + "-wal")
            self._loop.add_reader(inotify.fd, self._written)
        except (OSError, NotImplementedError):
            if inotify is not None:
                inotify.close()
            return None
        return inotify

    def _unwatch(self) -> None:
        inotify, self._inotify = self._inotify, None
        if inotify is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(inotify.fd)
        if inotify is not None:
            inotify.close()
        if self._writer is not None:
            self._writer.watch(None)

    def _written(self) -> None:
        if self._inotify is not None and self._writer is not None:
            self._inotify.drain()
            self._writer.nudge()
