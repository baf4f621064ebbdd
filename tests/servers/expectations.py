"""What is wanted of every run, kind by kind, and the named exceptions.

A check returns its faults, as sentences; no faults: as wanted.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass

from .clients import CLEAN, HttpClient, WebSocketClient
from .scenario import (
    CTRL_C,
    PLAN_SECONDS,
    SOCKET_KINDS,
    STOPS,
    STREAM_GRACE_SECONDS,
    TERM_GROUP,
    Run,
    Stop,
)

# What a server itself adds between the end of the work and the end of its main process, when nothing is left:
# its ticks (uvicorn 0.1 s, gunicorn 1 s, uvicorn's parent 0.5 s), the interpreter's exit, a loaded machine.
SERVER_SECONDS = {"uvicorn": 2.0, "hypercorn": 2.0, "granian": 1.5, "gunicorn": 2.5, "gunicorn-asgi": 3.0}

# Lines no log may hold. "Traceback" stands for every exception a server or the loop reports by itself.
_BAD_LOG = re.compile(
    r"Traceback|was destroyed but it is pending|was never awaited|never retrieved|swallowed the cancel"
    r"|\bERROR\b|\[ERROR\]"
)


def told(run: Run) -> list[str]:
    """Every process that runs the application heard of the shutdown in time, and rightly named the reason."""
    faults = []
    entries = run.of("told", "")
    for pid in run.pids:
        mine = [entry for entry in entries if entry.pid == pid]
        if len(mine) != 1:
            faults.append(f"process {pid} was told {len(mine)} times")
            continue
        late = latency(run, pid)
        if late > run.case.setup.told_within_seconds:
            faults.append(f"process {pid} was told after {late * 1000:.0f} ms of its own time")
        if mine[0]["reason"] != "shutdown":
            faults.append(f"process {pid} was given the reason {mine[0]['reason']}")
    return faults


def latency(run: Run, pid: int) -> float:
    """Seconds from the signal reaching `pid` to its tasks being told.

    Where the server's parent forwards the signal, the clock starts when it arrives. Time for which the
    machine had no processor for these processes is taken off; the kernel measures it in the same run (see
    `run_delay`), so a loop kept busy by the library itself is not excused.
    """
    [entry] = [entry for entry in run.of("told", "") if entry.pid == pid]
    heard = [signalled.at for signalled in run.of("signal") if signalled.pid == pid]
    start = min(heard) if heard else run.signalled_at + run.sending_took
    waited = entry["run_delay"] - run.run_delays[pid]
    if entry.pid != run.main_pid:
        waited += max(0.0, entry["run_delay_parent"] - run.main_run_delay)
    return max(0.0, entry.at - start - max(0.0, waited))


def sse(run: Run) -> list[str]:
    """The library's own stream ends at once, with its terminal event, and its source is closed."""
    client = run.clients["sse"]
    assert isinstance(client, HttpClient)
    faults = _clean(run, "sse")
    if not client.events or client.events[-1] != {"type": "end", "reason": "shutdown"}:
        faults.append(f"sse: the last event is {client.events[-1:]}")
    if len(run.of("closed", "sse")) != 1:
        faults.append("sse: the source was not closed exactly once")
    return faults


def sse_foreign(run: Run) -> list[str]:
    """A stream that knows nothing of a shutdown ends within its grace, with a proper final chunk."""
    return _clean(run, "sse-foreign")


def _clean(run: Run, kind: str) -> list[str]:
    client = run.clients[kind]
    assert isinstance(client, HttpClient)
    if client.status != 200 or client.ending != CLEAN:
        return [f"{kind}: status {client.status}, ending {client.ending} {client.detail}"]
    return []


def websocket(run: Run) -> list[str]:
    """The handler is told, with the reason; the client receives a close frame that says "restarting"."""
    faults = _close_frame(run, "websocket")
    ends = [*run.of("told", "websocket"), *run.of("disconnected", "websocket")]
    # Both, where the server closes the connection between the handler's last look and its own close.
    if {entry["reason"] for entry in ends} != {"shutdown"}:
        faults.append(f"websocket: the handler's end was {ends}")
    return faults


def websocket_foreign(run: Run) -> list[str]:
    """A handler that asks nothing is ended within the plan, and its client gets a close frame."""
    faults = _close_frame(run, "websocket-foreign")
    if len(run.of("closed", "websocket-foreign")) != 1:
        faults.append("websocket-foreign: the handler's `finally` did not run exactly once")
    return faults


def _close_frame(run: Run, kind: str) -> list[str]:
    client = run.clients[kind]
    assert isinstance(client, WebSocketClient)
    if client.code in (1001, 1012):
        return []
    return [
        f"{kind}: the client saw {client.ending}, close code {client.code} {client.reason!r} {client.detail}"
    ]


def _finished_once(kind: str) -> Callable[[Run], list[str]]:
    def check(run: Run) -> list[str]:
        started, finished, cancelled = (
            len(run.of(event, kind)) for event in ("started", "finished", "cancelled")
        )
        if (started, finished) == (1, 1):
            return []
        return [f"{kind}: started {started} times, finished {finished}, cancelled {cancelled}"]

    return check


def slow(run: Run) -> list[str]:
    """A plain request in flight is answered."""
    return _finished_once("slow")(run) + _clean(run, "slow")


def overstay(run: Run) -> list[str]:
    """A task that needs more than the plan gives is cancelled once, knows why, and is named in the report."""
    cancels = run.of("cancelled", "overstay")
    faults = []
    if [entry["reason"] for entry in cancels] != ["shutdown"]:
        faults.append(f"overstay: it was cancelled with the reasons {[entry['reason'] for entry in cancels]}")
    named = [task for report in run.reports for task in report["tasks"] if task["name"] == "overstay"]
    if [(task["outcome"], task["reason"]) for task in named] != [("cancelled", "shutdown")]:
        faults.append(f"overstay: the reports say {named}")
    return faults


def lifespan(run: Run) -> list[str]:
    """The lifespan ends in every process, after all its work; the user's resource is closed last."""
    faults = []
    for pid in run.pids:
        mine = [entry for entry in run.entries if entry.pid == pid and entry.event != "signal"]
        closed = [number for number, entry in enumerate(mine) if entry.event == "resource.closed"]
        if len(closed) != 1:
            faults.append(f"process {pid}: its lifespan ended {len(closed)} times")
        elif mine[closed[0] + 1 :]:
            after = ", ".join(f"{entry.event} {entry.kind}" for entry in mine[closed[0] + 1 :])
            faults.append(f"process {pid}: after its resource was closed came {after}")
        elif mine[closed[0]].fields.get("report") is None:
            faults.append(f"process {pid}: no report when its resource was closed")
    return faults


def exit(run: Run) -> list[str]:
    """The process ends when its work has, never later than the plan, with the server's own exit code."""
    if run.exited_at is None:
        return [f"it was still running {run.case.give_up_seconds} s after the signal"]
    faults = []
    if run.left_behind:
        faults.append("a process of its group outlived the main one")
    work_ended = max(
        [run.signalled_at, *(entry.at for entry in run.entries if entry.event != "resource.closed")]
    )
    waiting = min(work_ended - run.signalled_at, PLAN_SECONDS)
    took, allowed = run.exited_at - run.signalled_at, waiting + SERVER_SECONDS[run.case.setup.family]
    if took > allowed:
        faults.append(f"it took {took:.2f} s to exit, {allowed:.2f} s would do")
    wanted = own_exit_code(run)
    if run.exit_code != wanted:
        faults.append(f"exit code {run.exit_code}, the server's own is {wanted}")
    return faults


def own_exit_code(run: Run) -> int:
    """uvicorn in one process ends itself once more with the SIGTERM it caught; all others say 0."""
    setup = run.case.setup
    alone = setup.family == "uvicorn" and setup.workers == 1
    return -signal.SIGTERM if alone and run.case.stop.number is signal.SIGTERM else 0


def log(run: Run) -> list[str]:
    """No exception, lost task or forgotten coroutine stands in the log."""
    bad = [line for line in run.log.splitlines() if _BAD_LOG.search(line)]
    return [f"the log says: {line}" for line in bad[:5]]


def ends_in_grace(run: Run) -> list[str]:
    """What pushes without an end has ended soon after its grace, not only when the whole drain was over."""
    faults = []
    for entry in run.of("closed"):
        took = entry.at - run.signalled_at
        if took > STREAM_GRACE_SECONDS + SERVER_SECONDS[run.case.setup.family]:
            faults.append(
                f"{entry.kind}: it ended {took:.2f} s after the signal, its grace is {STREAM_GRACE_SECONDS} s"
            )
    return faults


CHECKS: dict[str, Callable[[Run], list[str]]] = {
    "told": told,
    "sse": sse,
    "sse-foreign": sse_foreign,
    "websocket": websocket,
    "websocket-foreign": websocket_foreign,
    "background-async": _finished_once("background-async"),
    "background-sync": _finished_once("background-sync"),
    "task": _finished_once("task"),
    "thread": _finished_once("thread"),
    "slow": slow,
    "overstay": overstay,
    "lifespan": lifespan,
    "exit": exit,
    "log": log,
}
WORK_CHECKS = tuple(kind for kind in CHECKS if kind not in ("told", "lifespan", "exit", "log"))


@dataclass(frozen=True)
class NamedException:
    """What no application can change from inside its server; it may still come out as wanted, by luck."""

    family: str
    stops: tuple[Stop, ...]
    checks: tuple[str, ...]
    reason: str
    log_says: str = ""  # only where this stands in the log

    def covers(self, run: Run, check: str) -> bool:
        case = run.case
        here = case.setup.family == self.family and case.stop in self.stops and check in self.checks
        return here and self.log_says in run.log


EXCEPTIONS: tuple[NamedException, ...] = (
    NamedException(
        "gunicorn-asgi",
        (CTRL_C,),
        ("background-async", "background-sync", "task", "thread", "slow", "overstay", "lifespan"),
        "SIGINT is gunicorn's quick shutdown: within a second it cancels every task of the loop; use SIGTERM",
    ),
    NamedException(
        "granian",
        STOPS,
        SOCKET_KINDS,
        "granian drops its WebSockets without a close frame once no plain request is in flight",
    ),
    NamedException(
        "granian",
        (CTRL_C, TERM_GROUP),
        ("exit", "log"),
        "signalled as a group, a worker that ends before its master has marked it as stopping counts as crashed",
        log_says="[ERROR] Unexpected exit from worker",
    ),
    NamedException(
        "granian",
        STOPS,
        (*SOCKET_KINDS, "lifespan", "exit", "log"),
        "granian's own thread panics while it drops a WebSocket, and takes the worker down (its issue 884)",
        log_says="Cannot drop pointer into Python heap",
    ),
)


def named_exception(run: Run, check: str) -> NamedException | None:
    return next((exception for exception in EXCEPTIONS if exception.covers(run, check)), None)
