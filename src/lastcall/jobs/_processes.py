"""Whether a worker's process on this machine is gone. Never a guess: in doubt it lives until its lease is over.

Who calls it: a worker that joins (`this_process`), `rescue` (`is_gone`).
A process is known by its pid, its start time, the machine's boot and the pid namespace; all four must be known
and boot and namespace the same as ours, or nothing is concluded. Without /proc only the lease counts.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class ProcessIdentity(NamedTuple):
    """Which process: what a worker writes into its `WorkerRow`. None where that cannot be told."""

    pid: int
    process_start: str | None
    boot_id: str | None
    pid_namespace: str | None


def this_process() -> ProcessIdentity:
    """The identity of the calling process, for `WorkerRow(pid=..., process_start=..., ...)`."""
    pid = os.getpid()
    stat = _stat(pid) if _proc_is_ours(pid) else None
    if stat is None:
        return ProcessIdentity(pid, None, None, None)
    return ProcessIdentity(pid, stat.start, _boot_id(), _namespaces())


def is_gone(process: ProcessIdentity, here: ProcessIdentity) -> bool:
    """Whether `process` has certainly ended, seen from the process `here` (this one)."""
    if None in (process.process_start, process.boot_id, process.pid_namespace):
        return False
    if (process.boot_id, process.pid_namespace) != (here.boot_id, here.pid_namespace):
        return False
    if not _exists(process.pid):
        return True
    stat = _stat(process.pid)
    if stat is None:
        # It may have ended between the two looks, or be hidden from us (hidepid): the next rescue will see.
        return False
    return stat.start != process.process_start or stat.dead


class _Stat(NamedTuple):
    start: str
    dead: bool


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    # The name stands in parentheses and may contain spaces and parentheses itself.
    fields = text[text.rfind(")") + 1 :].split()
    try:
        state, threads, start = fields[0], int(fields[17]), fields[19]
    except (IndexError, ValueError):
        return None
    # A zombie's other threads may live on when only its main thread has ended.
    return _Stat(start, state in "ZX" and threads <= 1)


def _exists(pid: int) -> bool:
    """By signal 0 and not by /proc, which hides other users' processes on some machines."""
    if pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _proc_is_ours(pid: int) -> bool:
    """Whether /proc shows our own pid namespace: a container may have the host's mounted."""
    try:
        return os.readlink("/proc/self") == str(pid)
    except OSError:
        return False


def _boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _namespaces() -> str | None:
    """The pid namespace, and the time namespace, by which /proc shifts start times."""
    try:
        pids = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    try:
        return f"{pids} {os.readlink('/proc/self/ns/time')}"
    except OSError:
        return pids
