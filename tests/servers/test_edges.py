"""The nasty single cases: stubborn work, a second Ctrl-C, PID 1, settings that do not fit, a worker alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from . import ledger
from .clients import CLEAN, HttpClient, fetch
from .conftest import Runs
from .expectations import CHECKS, own_exit_code
from .processes import ServerProcess, free_port
from .scenario import CTRL_C, PLAN_SECONDS, START_SECONDS, TERM, Case, Run
from .service import TARGET, environment, start, wait_for_event, wait_until_watching
from .setups import Setup

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

_UVICORN = Setup("uvicorn", 1, "uvloop")
_LONG_PLAN = json.dumps({"plan": {"drain": 30, "cancel": 1, "close": 1}})
_SETUPS_THAT_WAIT = [
    _UVICORN,
    Setup("uvicorn", 1, "asyncio"),
    Setup("hypercorn", 1, "asyncio"),
    Setup("granian", 1, "uvloop"),
]


def assert_faultless(run: Run, *checks: str) -> None:
    faults = [fault for check in checks for fault in CHECKS[check](run)]
    assert not faults, "\n".join([*faults, run.describe()])


@pytest.mark.parametrize(
    "case",
    [
        Case(setup, stop, kinds=("stubborn", "stuck", "task"))
        for setup in _SETUPS_THAT_WAIT
        for stop in (TERM, CTRL_C)
    ],
    ids=str,
)
def test_stubborn_work_does_not_hold_the_process(case: Case, runs: Runs) -> None:
    """A task swallows its cancel, a thread never returns: reported with stacks, and the exit is on time."""
    run = runs[case]
    assert run.exited_at is not None, run.describe()
    assert_faultless(run, "task")
    # Where the interpreter itself would wait for the thread, the exit guard ends the process, and says 1.
    assert run.exit_code in (own_exit_code(run), 1), run.describe()
    assert run.exited_at - run.signalled_at <= PLAN_SECONDS + 1.0, run.describe()
    [report] = run.reports
    left = {task["name"]: task for task in report["tasks"] if task["stack"]}
    assert {name: task["outcome"] for name, task in left.items()} == {
        "stubborn": "refused",
        "stuck": "thread_left",
    }
    for name, task in left.items():
        assert any(f"in _{name}" in line for line in task["stack"]), f"{name} stands at {task['stack']}"
    # Once by us; asyncio.run may add its own, after the lifespan.
    [closed] = run.of("resource.closed")
    assert [swallowed.at < closed.at for swallowed in run.of("swallowed")].count(True) == 1, run.describe()


def test_a_second_ctrl_c_forces(tmp_path: Path) -> None:
    """The plan gives 30 s, but the person at the terminal presses Ctrl-C again."""
    port = free_port()
    with start(_UVICORN, port, tmp_path, settings=_LONG_PLAN) as server:
        wait_until_watching(server, tmp_path, port)
        fetch(port, "/overstay", method="POST")
        wait_for_event(tmp_path, "started", "overstay")
        server.signal_group(signal.SIGINT)
        wait_for_event(tmp_path, "told", "")
        server.signal_group(signal.SIGINT)
        forced_at = time.monotonic()
        code = server.wait(10)
        assert code is not None, server.log
        assert server.exited_at is not None and server.exited_at - forced_at < 2.0 + 1.0, server.log
    entries = ledger.read(tmp_path / "ledger")
    assert [entry["reason"] for entry in entries if entry.event == "cancelled"] == ["shutdown"]
    assert entries[-1].event == "resource.closed"


def _unshare() -> list[str] | None:
    """The command that gives a process a PID namespace of its own, if this machine lets us."""
    for options in (["-fp", "--mount-proc"], ["-Ufrp", "--mount-proc"]):
        command = ["unshare", *options, "--kill-child"]
        try:
            if subprocess.run([*command, "true"], capture_output=True, timeout=20).returncode == 0:
                return command
        except OSError:
            return None
    return None


def test_as_pid_1_of_a_container(tmp_path: Path) -> None:
    """As PID 1 uvicorn survives its own second signal and asyncio cleans up too: nothing happens twice."""
    prefix = _unshare()
    if prefix is None:
        pytest.skip("platform: no PID namespaces for this user")
    port = free_port()
    command = [*prefix, *_UVICORN.command(TARGET, port)]
    with ServerProcess(command, tmp_path, environment(tmp_path)) as server:
        wait_until_watching(server, tmp_path, port)
        stream = HttpClient(port, "/sse")
        stream.start()
        for kind in ("task", "overstay"):
            fetch(port, f"/{kind}", method="POST")
            wait_for_event(tmp_path, "started", kind)
        assert stream.opened.wait(10)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        (tmp_path / "marker").touch()
        signalled_at = time.monotonic()
        os.kill(int(children[0]), signal.SIGTERM)
        assert server.wait(12) == 0, server.log
        assert server.exited_at is not None and server.exited_at - signalled_at < PLAN_SECONDS + 1.0, (
            server.log
        )
        stream.join(5)
        log = server.log
    assert stream.ending == CLEAN and stream.events[-1] == {"type": "end", "reason": "shutdown"}
    events = [(entry.event, entry.kind) for entry in ledger.read(tmp_path / "ledger")]
    assert {entry.pid for entry in ledger.read(tmp_path / "ledger")} == {1}
    assert events.count(("finished", "task")) == 1 and events.count(("cancelled", "overstay")) == 1
    assert events[-1] == ("resource.closed", "")
    assert not any(word in log for word in ("Traceback", "never awaited", "was destroyed")), log


def test_without_a_lifespan_the_error_is_clear(tmp_path: Path) -> None:
    """With `--lifespan off` nothing opens the manager: the first request says so in plain words."""
    port = free_port()
    with start(_UVICORN, port, tmp_path, "--lifespan", "off") as server:
        deadline = time.monotonic() + START_SECONDS
        while (answer := fetch(port, "/task", method="POST")).status is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert answer.status in (500, 503), (answer.status, answer.body)
        server.signal_main(signal.SIGTERM)
        assert server.wait(10) is not None
        log = server.log
    assert "lifespan" in log, log
    assert "never awaited" not in log, log


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hypercorn_worker_told_alone(workers: int, tmp_path: Path) -> None:
    """SIGTERM to one worker of hypercorn, whose default would kill it there: its work finishes first."""
    port = free_port()
    setup = Setup("hypercorn", workers, "asyncio")
    with start(setup, port, tmp_path) as server:
        wait_until_watching(server, tmp_path, port, setup.processes)
        fetch(port, "/background-async", method="POST")
        [worker] = [
            entry.pid
            for entry in wait_for_event(tmp_path, "started", "background-async")
            if entry.event == "started"
        ]
        (tmp_path / "marker").touch()
        os.kill(worker, signal.SIGTERM)
        entries = wait_for_event(tmp_path, "finished", "background-async")
        assert [entry.pid for entry in entries if entry.event == "told"].count(worker) == 1
        deadline = time.monotonic() + PLAN_SECONDS + 1.0
        while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        stat = Path(f"/proc/{worker}/stat")
        assert not stat.exists() or ") Z " in stat.read_text(), "the worker is still there"
        server.signal_main(signal.SIGTERM)
        assert server.wait(10) is not None, server.log
