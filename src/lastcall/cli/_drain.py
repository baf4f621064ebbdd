"""``lastcall drain``: asks a running process to drain, by HTTP or by signal, and follows it to its report.

0: it drained, and nothing was cut off. 1: something was, or its end was not seen. 2: it could not be asked.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lastcall.cli._remote import Away, Refused, Remote, RemoteAnswer
from lastcall.cli._say import Unusable, complain, one_line, printable, write, write_json

CLEAN, UNCLEAN, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

_LOOK_SECONDS = 0.05
_EVENTS = "text/event-stream"


class _TimeUp(Exception):
    """It takes longer than we were to wait."""


def run_drain(
    url: str | None, pid: int | None, *, timeout: float | None, as_json: bool, headers: Sequence[str]
) -> int:
    """Ask, follow, and answer the exit code."""
    until = None if timeout is None else time.monotonic() + timeout
    try:
        if url is not None:
            return _drain_by_http(Remote(url, headers), pid, until, as_json)
        if pid is None:
            raise Unusable("say which process: its URL, such as http://127.0.0.1:8000, or --pid")
        return _drain_by_signal(pid, until, as_json)
    except (Unusable, Refused, Away) as error:
        complain(str(error))
        return UNUSABLE
    except _TimeUp:
        complain(f"not over after {timeout:g} s; it goes on draining")
        return UNCLEAN
    except KeyboardInterrupt:
        complain("it goes on draining; to follow it again, ask again")
        return INTERRUPTED


# --- by HTTP --------------------------------------------------------------------------------------------


def _drain_by_http(remote: Remote, pid: int | None, until: float | None, as_json: bool) -> int:
    process = None if pid is None else _Process(pid)
    method = "POST" if process is None else "GET"
    with remote.open(method, "/drain", accept=_EVENTS) as answer:
        if process is not None:
            process.terminate()
        last = _follow(answer, _teller(as_json), until)
    if last is None or last.get("report") is None:
        complain("the connection ended before the report came; the process has it in its log")
        code = UNCLEAN
    else:
        code = CLEAN if last["report"]["clean"] else UNCLEAN
    if as_json:
        write_json(last)
    elif last is not None and last.get("text"):
        write("".join(f"{printable(line)}\n" for line in str(last["text"]).splitlines()))
    if process is not None:
        process.wait(until)
    return code


def _follow(
    answer: RemoteAnswer, tell: Callable[[dict[str, Any]], object], until: float | None
) -> dict[str, Any] | None:
    """The last thing that was said; None: nothing."""
    last = None
    try:
        for last in drain_events(answer):
            tell(last)
            if until is not None and last["report"] is None and time.monotonic() >= until:
                raise _TimeUp
    except Away:
        pass  # a server that cuts its connections off; what was heard is all there is
    return last


def drain_events(answer: RemoteAnswer) -> Iterator[dict[str, Any]]:
    """What PREFIX/drain tells, as it comes. Raises `Away`, `Refused` for what is none of lastcall's."""
    if not (answer.header("content-type") or "").startswith(_EVENTS):
        raise Refused(answer.status, "that is no lastcall, or one too old to be followed")
    for event in answer.events():
        try:
            told = json.loads(event.data)
        except ValueError:
            told = None
        if not isinstance(told, dict) or not {"state", "busy", "report"} <= told.keys():
            raise Refused(answer.status, "that is no lastcall: its events are not understood")
        yield told


def _teller(as_json: bool) -> Callable[[dict[str, Any]], object]:
    """Tells how it goes on standard error: in one line that changes, or where that cannot be, a line at each change."""
    if as_json:
        return lambda told: None
    is_terminal = sys.stderr.isatty()
    before = ""

    def tell(told: dict[str, Any]) -> None:
        nonlocal before
        line = progress_line(told, with_clock=is_terminal)
        if line == before:
            return
        before = line
        if is_terminal:
            end = "\n" if told["report"] is not None else ""
            sys.stderr.write(f"\r\x1b[2K{line[: os.get_terminal_size(2).columns - 1]}{end}")
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    return tell


def progress_line(told: dict[str, Any], *, with_clock: bool) -> str:
    """Where the drain stands, in one line: `draining, 3 at work: GET /slow, mail, ...`."""
    names = [one_line(str(work.get("name", "?"))) for work in told.get("work", ())]
    shown = ", ".join(names[:5]) + (", ..." if told["busy"] > 5 else "")
    work = f", {told['busy']} at work: {shown}" if told["busy"] and names else ""
    left = told.get("remaining_seconds")
    clock = f", at most {left:.0f} s left" if with_clock and isinstance(left, int | float) else ""
    return f"{told['state']}{clock}{work}"


# --- by signal ------------------------------------------------------------------------------------------


def _drain_by_signal(pid: int, until: float | None, as_json: bool) -> int:
    process = _Process(pid)
    process.terminate()
    process.wait(until)
    if as_json:
        write_json({"pid": pid, "ended": True})
    else:
        write(f"process {pid} has ended\n")
    return CLEAN


class _Process:
    """Another process, by a handle of its own where the system has such: its number may be taken by another later."""

    def __init__(self, pid: int) -> None:
        if pid <= 0:
            raise Unusable(f"{pid} is no process")
        self._pid = pid
        self._fd: int | None = None
        try:
            if hasattr(os, "pidfd_open"):
                self._fd = os.pidfd_open(pid)
            else:
                os.kill(pid, 0)
        except OSError as error:
            raise self._unusable(error) from None

    def terminate(self) -> None:
        try:
            if self._fd is not None:
                signal.pidfd_send_signal(self._fd, signal.SIGTERM)
            else:
                os.kill(self._pid, signal.SIGTERM)
        except OSError as error:
            raise self._unusable(error) from None

    def wait(self, until: float | None) -> None:
        """Until it has ended. Raises `_TimeUp`."""
        try:
            while not self._ended():
                if until is not None and time.monotonic() >= until:
                    raise _TimeUp
        finally:
            if self._fd is not None:
                os.close(self._fd)

    def _ended(self) -> bool:
        if self._fd is not None:
            return bool(select.select([self._fd], [], [], _LOOK_SECONDS)[0])
        time.sleep(_LOOK_SECONDS)
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        return False

    def _unusable(self, error: OSError) -> Unusable:
        if isinstance(error, ProcessLookupError):
            return Unusable(f"there is no process {self._pid}")
        return Unusable(f"process {self._pid} cannot be told to stop: {error.strerror or error}")
