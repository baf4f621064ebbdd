"""Single keys from a terminal, without waiting for the end of a line. POSIX."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from lastcall.cli.top._view import Key

_SEQUENCES = {
    "\x1b[A": Key.UP,
    "\x1b[B": Key.DOWN,
    "\x1bOA": Key.UP,
    "\x1bOB": Key.DOWN,
    "\r": Key.ENTER,
    "\n": Key.ENTER,
    "\t": Key.TAB,
    "\x7f": Key.BACKSPACE,
    "\b": Key.BACKSPACE,
    "\x1b": Key.ESCAPE,
}


class Keys:
    """A block in which keys can be waited for. Where standard input is no terminal there are none."""

    def __init__(self) -> None:
        self._fd: int | None = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None

    def __enter__(self) -> Keys:
        if self._fd is not None:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._fd is not None and self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> list[str]:
        """The keys that come within so long; none, if none do."""
        if self._fd is None:
            time.sleep(seconds)
            return []
        if not select.select([self._fd], [], [], seconds)[0]:
            return []
        data = os.read(self._fd, 1024)
        if not data:  # the terminal has gone
            self._fd = None
        return list(split_keys(data.decode("utf-8", "replace")))


def split_keys(text: str) -> Iterator[str]:
    """Keys from what a terminal sends for them. Sequences that are not known are passed over. Pure."""
    while text:
        known = next((sequence for sequence in _SEQUENCES if text.startswith(sequence)), None)
        if known == "\x1b" and len(text) > 1 and text[1] in "[O":  # another key, such as F5
            end = next((n for n, char in enumerate(text[2:], 2) if char.isalpha() or char == "~"), len(text))
            text = text[end + 1 :]
        elif known is not None:
            yield _SEQUENCES[known]
            text = text[len(known) :]
        else:
            yield text[0]
            text = text[1:]
