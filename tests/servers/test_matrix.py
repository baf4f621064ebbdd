"""Server x workers x kind of work x signal: what the promises of a stop are worth on real servers.

Everything is in flight at once in one run of each set-up and signal; each kind of work is judged by itself.
"""

from __future__ import annotations

import json

import pytest

from .conftest import Runs, Tally
from .expectations import CHECKS, WORK_CHECKS, ends_in_grace, latency, named_exception
from .scenario import CTRL_C, SOCKET_KINDS, STOPS, TERM, Case, Run
from .setups import SETUPS, TEN

pytestmark = pytest.mark.server

EVERYTHING = [Case(setup, stop) for setup in SETUPS for stop in STOPS]
STREAMS = [Case(setup, stop, kinds=("sse-foreign",)) for setup in TEN for stop in STOPS]
# The client has closed its connection: to its server this process has nothing left to do.
BACKGROUND = [
    Case(setup, stop, kinds=("background-async",), keep_connections=False) for setup in TEN for stop in STOPS
]
# With a long drain it shows whether a push loop is ended after its own grace.
_LONG_DRAIN = json.dumps({"plan": {"drain": 8}})
SOCKETS = [Case(setup, TERM, kinds=(kind,), settings=_LONG_DRAIN) for setup in TEN for kind in SOCKET_KINDS]
IDLE = [Case(setup, stop, kinds=()) for setup in TEN for stop in (TERM, CTRL_C)]


def judge(run: Run, check: str, tally: Tally) -> list[str]:
    """The faults of one check; those which an exception names are only counted."""
    faults = CHECKS[check](run)
    exception = named_exception(run, check)
    if faults and exception is not None:
        tally.excepted.append(f"{run.case} {check}: {exception.reason}")
        return []
    return faults


def judge_all(run: Run, checks: tuple[str, ...], tally: Tally, table: str) -> list[str]:
    """The same for several checks of a run that counts as one."""
    before = len(tally.excepted)
    faults = [fault for check in checks for fault in judge(run, check, tally)]
    tally.count(table, wanted=not faults and len(tally.excepted) == before)
    return faults


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", EVERYTHING, ids=str)
def test_everything_in_flight(case: Case, check: str, runs: Runs, tally: Tally) -> None:
    """Streams, WebSockets, BackgroundTasks, tasks, threads and a request are in flight at the signal."""
    run = runs[case]
    table = "kinds of work" if check in WORK_CHECKS else "process"
    faults = judge_all(run, (check,), tally, f"everything in flight, {table}")
    if check == "told" and not faults:
        tally.latencies.extend((case.setup.family, latency(run, pid)) for pid in run.pids)
    assert not faults, "\n".join([*faults, run.describe()])


@pytest.mark.parametrize("case", [*STREAMS, *BACKGROUND], ids=str)
def test_one_kind_alone(case: Case, runs: Runs, tally: Tally) -> None:
    """Only an endless stream, or only a BackgroundTask, stands between the server and its exit."""
    run = runs[case]
    checks = ("told", *case.kinds, "lifespan", "exit", "log")
    faults = judge_all(run, checks, tally, "one stream or one BackgroundTask alone")
    assert not faults, "\n".join([*faults, run.describe()])


@pytest.mark.parametrize("case", SOCKETS, ids=str)
def test_one_websocket_alone(case: Case, runs: Runs, tally: Tally) -> None:
    """Only a WebSocket that is pushed to without an end is open, and the plan would give it 8 s more."""
    run = runs[case]
    checks = ("told", *case.kinds, "lifespan", "exit", "log")
    faults = [*judge_all(run, checks, tally, "one WebSocket alone"), *ends_in_grace(run)]
    assert not faults, "\n".join([*faults, run.describe()])


@pytest.mark.parametrize("case", IDLE, ids=str)
def test_nothing_to_do(case: Case, runs: Runs, tally: Tally) -> None:
    """A server with nothing in flight stops as fast as it does without the library."""
    run = runs[case]
    faults = judge_all(run, ("told", "lifespan", "exit", "log"), tally, "idle")
    assert not faults, "\n".join([*faults, run.describe()])
