"""A ledger outside every process under test.

The application appends one JSON line per fact, in one `write` on a file opened with O_APPEND, so that lines
of several processes never mix and a process that dies in the next instant has still told all it did.
Times are CLOCK_MONOTONIC, which all processes of one machine share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    event: str
    at: float
    pid: int
    fields: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    @property
    def kind(self) -> str:
        return str(self.fields.get("kind", ""))


class Ledger:
    """The writing side; one per process."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "at": time.monotonic(), "pid": os.getpid(), **fields}, default=str)
        os.write(self._fd, line.encode() + b"\n")


def read(path: Path) -> list[Entry]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    entries = []
    for line in lines[:-1]:  # what follows the last newline is empty, or a line still being written
        data = json.loads(line)
        entries.append(Entry(data.pop("event"), data.pop("at"), data.pop("pid"), data))
    return entries


def wait_for(path: Path, wanted: Callable[[list[Entry]], bool], *, seconds: float, what: str) -> list[Entry]:
    """Read the ledger until `wanted` is true of it; say `what` was missing if that does not come in time."""
    deadline = time.monotonic() + seconds
    while True:
        entries = read(path)
        if wanted(entries):
            return entries
        if time.monotonic() > deadline:
            seen = ", ".join(f"{entry.event}:{entry.kind}" for entry in entries)
            raise TimeoutError(f"not in the ledger after {seconds} s: {what}; it holds: {seen}")
        time.sleep(0.01)


def run_delay(pid: int | str = "self") -> float:
    """Seconds a process was ready to run and had no processor: the machine's share of a latency.

    All its threads count: one that was preempted while it held the interpreter makes the others wait with it.
    """
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return 0.0
    return sum(_waited(thread / "schedstat") for thread in threads)


def _waited(schedstat: Path) -> float:
    try:
        return int(schedstat.read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
