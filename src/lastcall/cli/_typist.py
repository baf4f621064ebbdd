"""Typist: a log as a reader would see it, in a terminal or in a pipe. Decides nothing about where entries come from.

Who calls it: `streams tail`. What a job streams is typed as it comes; what it takes back (a step that runs again after
a crash) is taken back: on a terminal the text is drawn anew, as far as it still stands on the screen. A pipe cannot be
unwritten; there, one line on the other output says how much of what was written is void.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any

from rich.cells import cell_len

from lastcall.cli._say import one_line, printable
from lastcall.streams import Entry, TextView

_TAB = 4


class Typist:
    """`out`: takes the text. `tell`: takes one line about what is no text. `size`: columns and rows of the terminal
    that shows the text; None where it is none."""

    def __init__(
        self,
        out: Callable[[str], object],
        tell: Callable[[str], object],
        *,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._out = out
        self._tell = tell
        self._size = size
        self._view = TextView()
        self._typed: dict[str, list[str]] = {}  # by stream, as it was typed
        self._stream: str | None = None  # whose text stands at the bottom
        self._several = False
        self._block: list[str] = []  # what stands at the bottom, since the last line of something else

    def type(self, entries: Sequence[Entry]) -> None:
        """Show the next entries, in order."""
        for entry in entries:
            self._view.apply([entry])
            match entry.type:
                case "stream.text":
                    told = json.loads(entry.data)
                    self._add(told["stream"], told["text"])
                case "step.reset" | "stream.reset":
                    self._take_back()
                case "message" | "text" | "bytes" if entry.attempt == 0:
                    self._free(entry)
                case "stream.end":
                    pass
                case _:
                    self._tell_aside(describe(entry))

    def finish(self) -> None:
        """The rest of a line is ended."""
        self._end_block()

    # --- text -------------------------------------------------------------------------------------------

    def _add(self, stream: str, text: str) -> None:
        if stream != self._stream:
            self._begin(stream)
        self._typed.setdefault(stream, []).append(text)
        self._put(text)

    def _begin(self, stream: str) -> None:
        self._end_block()
        # The first stream needs no name, as most jobs have one.
        self._several = self._several or bool(self._typed and stream not in self._typed)
        if self._several:
            self._tell(f"[{one_line(stream)}]")
        self._stream = stream

    def _put(self, text: str) -> None:
        safe = self._safe(text)
        self._block.append(safe)
        self._out(safe)

    def _safe(self, text: str) -> str:
        """For a terminal without the characters that it obeys; for a pipe as it is."""
        if self._size is None:
            return text
        return "\n".join(printable(line.expandtabs(_TAB)) for line in text.split("\n"))

    def _tell_aside(self, line: str) -> None:
        """What goes to the other output does not end the line of a pipe; a terminal shows both."""
        if self._size is not None:
            self._end_block()
        self._tell(line)

    def _end_block(self) -> None:
        if self._block and not self._block[-1].endswith("\n"):
            self._out("\n")
        self._block, self._stream = [], None

    def _free(self, entry: Entry) -> None:
        """An entry of a free-standing stream: a value as a line, a text as it comes."""
        value = json.loads(entry.data)
        if entry.type == "text":
            self._put(value)
            return
        self._end_block()
        self._out(f"{value if entry.type == 'bytes' else json.dumps(value, ensure_ascii=False)}\n")

    # --- taking back ------------------------------------------------------------------------------------

    def _take_back(self) -> None:
        for stream, pieces in self._typed.items():
            was, now = "".join(pieces), self._view.text(stream)
            if was == now:
                continue
            self._typed[stream] = [now] if now else []
            kept = len(commonprefix([was, now]))
            if not self._redraw(stream, was, now, kept):
                self._retype(stream, was, now, kept)

    def _redraw(self, stream: str, was: str, now: str, kept: int) -> bool:
        """Draw the block anew, if all that changes stands in it and the block stands on the screen."""
        before = len(was) - sum(map(len, self._block))
        if self._size is None or stream != self._stream or kept < before or self._safe(was) != was:
            return False
        rows = rows_of("".join(self._block), self._size[0])
        if rows > self._size[1]:
            return False
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        self._out(f"\r{up}\x1b[J")
        self._block = []
        self._put(now[before:])
        return True

    def _retype(self, stream: str, was: str, now: str, kept: int) -> None:
        self._end_block()
        gone = len(was) - kept
        self._tell(
            f"{one_line(stream)}: the last {gone} characters are taken back; what follows replaces them"
        )
        if len(now) > kept:
            self._stream = stream
            self._put(now[kept:])


def rows_of(text: str, columns: int) -> int:
    """How many rows of a terminal a text takes that begins at the left edge."""
    rows, column = 1, 0
    for char in text:
        width = cell_len(char)
        if char == "\n":
            rows, column = rows + 1, 0
        elif column + width > columns:  # a wide one that does not fit leaves the last cell empty
            rows, column = rows + 1, width
        else:
            column += width
    return rows


def describe(entry: Entry) -> str:
    """Something else than text, in one line."""
    value = json.loads(entry.data)
    if entry.type == "progress" and isinstance(value, dict) and "done" in value:
        of = f" of {value['of']}" if "of" in value else ""
        return one_line(f"progress: {value['done']}{of} {value.get('message', '')}")
    if entry.type == "log" and isinstance(value, dict):
        return one_line(f"{value.get('level', 'log')}: {value.get('message', '')}")
    return one_line(f"{entry.type}: {_short(value)}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 500 else text[:497] + "..."
