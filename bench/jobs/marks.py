"""What job bodies leave behind, outside of the system that runs them.

Written by a job's body in whatever process runs it (so: standard library only, and nothing but an append), read by the
process that measures. Times are `time.monotonic()`, which is one clock for all processes of a machine.
"""

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "BENCH_FOLDER"
RECORD = struct.Struct("=qdd")

_descriptors: dict[str, int] = {}


def folder() -> Path:
    """Where this measurement keeps its files."""
    return Path(os.environ[FOLDER_VARIABLE])


def _append(name: str, content: bytes) -> None:
    """One write with O_APPEND: whole and in order, from any number of threads and processes."""
    if name not in _descriptors:
        _descriptors[name] = os.open(folder() / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_descriptors[name], content)


# --- time stamps of jobs that do nothing ---


class Mark(tuple[int, float, float]):
    """Job `number`, submitted at `sent`, whose body ran at `seen`."""

    __slots__ = ()

    @property
    def seen(self) -> float:
        return self[2]

    @property
    def waited(self) -> float:
        return self[2] - self[1]


def mark(number: int, sent: float) -> int:
    """The body of every job that does nothing: about two microseconds."""
    _append("marks", RECORD.pack(number, sent, time.monotonic()))
    return number


def count_marks(place: Path) -> int:
    """How many bodies have run so far."""
    try:
        return (place / "marks").stat().st_size // RECORD.size
    except FileNotFoundError:
        return 0


def read_marks(place: Path) -> list[Mark]:
    """All of them, in the order of running."""
    content = (place / "marks").read_bytes()
    return [Mark(record) for record in RECORD.iter_unpack(content)]


# --- the ledger of the deploy test ---


@dataclass(frozen=True)
class Line:
    """`what`: step, told, done. `worker` is the session of the process, which a worker's children share."""

    at: float
    pid: int
    worker: int
    what: str
    value: str


def note(what: str, value: object) -> None:
    """Write one line: the side effect that the deploy test counts."""
    _append("ledger", f"{time.monotonic():.6f} {os.getpid()} {os.getsid(0)} {what} {value}\n".encode())


def read_ledger(place: Path) -> list[Line]:
    """All whole lines so far; none before the first."""
    try:
        content = (place / "ledger").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = (line.split(" ", 4) for line in content.split("\n")[:-1])
    return [Line(float(at), int(pid), int(worker), what, value) for at, pid, worker, what, value in lines]
