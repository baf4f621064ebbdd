"""What cannot be undone: lines in a file outside of the store, written by steps while they run, read by the checker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lastcall.jobs import current_context, current_step


class Line(NamedTuple):
    """`what`: `start` and `end` of a step's effect, and whatever else a program tells; `key`: of the step, or data."""

    at: float
    pid: int
    job: str
    attempt: int
    key: str
    what: str


class Ledger:
    """Appends. One line is one `write` to a file opened for appending, so lines of several processes never mix.

    `pid`: who writes, where the system's own numbers would come round again within a run.
    """

    def __init__(
        self, path: str | Path, on_write: Callable[[str], None] | None = None, pid: int | None = None
    ) -> None:
        self._pid = pid
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._on_write = on_write

    def write(
        self, what: str, key: str = "", job: str = "", attempt: int = 0, pid: int | None = None
    ) -> None:
        # Asked each time: a ledger that was made before a fork is written by the child.
        who = pid or self._pid or os.getpid()
        line = Line(time.time(), who, job, attempt, key, what)
        if self._on_write is not None:
            self._on_write("write")
        os.write(self._file, json.dumps(line).encode() + b"\n")
        if self._on_write is not None:
            self._on_write("written")

    @contextmanager
    def effect(self) -> Iterator[None]:
        """The effect of the step that runs now. One that is cut off has no end."""
        step, job = current_step(), current_context().job_id
        self.write("start", step.key, job, step.attempt)
        yield
        self.write("end", step.key, job, step.attempt)

    def close(self) -> None:
        os.close(self._file)


def read(path: str | Path) -> list[Line]:
    """All lines so far, in the order in which they were written."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]  # one may be on its way
    return [Line(*json.loads(line)) for line in whole.splitlines()]


def having(lines: list[Line], what: str, **fields: Any) -> list[Line]:
    """The lines that say `what`, with these fields."""
    return [
        line
        for line in lines
        if line.what == what and all(getattr(line, name) == value for name, value in fields.items())
    ]
