"""The servers' own limits: what `docs/servers.md` recommends, and what is said of those that do not fit."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from .conftest import Runs
from .expectations import CHECKS
from .processes import free_port
from .scenario import TERM, Case
from .service import start, wait_until_watching
from .setups import Setup

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

_UVICORN = Setup("uvicorn", 1, "uvloop")
_HYPERCORN = Setup("hypercorn", 1, "asyncio")
_GRANIAN = Setup("granian", 1, "uvloop")
_GUNICORN = Setup("gunicorn", 1, "uvloop")
_GUNICORN_ASGI = Setup("gunicorn-asgi", 1, "asyncio")

# The plan of the tests takes 3 s at most; each server gets what docs/servers.md derives from that.
RECOMMENDED = [
    Case(_UVICORN, TERM, extra=("--timeout-graceful-shutdown", "4")),
    Case(_HYPERCORN, TERM, extra=("--graceful-timeout", "4")),
    Case(_GRANIAN, TERM, extra=("--workers-kill-timeout", "8")),
    Case(_GUNICORN, TERM, extra=("--graceful-timeout", "8")),
    Case(_GUNICORN_ASGI, TERM, extra=("--graceful-timeout", "8")),
]

# A grace for streams that the server's own limit for calls does not grant.
_LONG_GRACE = json.dumps({"install": {"stream_grace_seconds": 5}, "plan": {"drain": 5}})
TIGHT = [
    Case(_UVICORN, TERM, ("sse-foreign", "task"), ("--timeout-graceful-shutdown", "1"), settings=_LONG_GRACE),
    Case(_HYPERCORN, TERM, ("sse-foreign", "task"), ("--graceful-timeout", "1"), settings=_LONG_GRACE),
]


@pytest.mark.parametrize("case", RECOMMENDED, ids=str)
def test_the_recommended_settings(case: Case, runs: Runs) -> None:
    """With everything in flight the limits that are recommended as a backstop do not get in the way."""
    run = runs[case]
    faults = [fault for check in CHECKS.values() for fault in check(run)]
    assert not faults, "\n".join([*faults, run.describe()])


@pytest.mark.parametrize("case", TIGHT, ids=str)
def test_a_stream_ends_before_the_server_cuts_it(case: Case, runs: Runs) -> None:
    """Where the server gives calls less time than the plan, streams end before, and tasks still finish."""
    run = runs[case]
    faults = [
        fault
        for check in ("told", "sse-foreign", "task", "lifespan", "exit", "log")
        for fault in CHECKS[check](run)
    ]
    assert not faults, "\n".join([*faults, run.describe()])


@pytest.mark.parametrize(
    ("setup", "extra", "named"),
    [
        (
            Setup("gunicorn-asgi", 1, "asyncio"),
            ("--graceful-timeout", "2"),
            "graceful_timeout|graceful-timeout",
        ),
        (Setup("gunicorn", 1, "uvloop"), ("--graceful-timeout", "2"), "graceful_timeout|graceful-timeout"),
        (Setup("granian", 1, "uvloop"), ("--workers-kill-timeout", "2"), "kill_timeout|kill-timeout"),
        (Setup("hypercorn", 1, "asyncio"), ("--graceful-timeout", "1"), "graceful_timeout|graceful-timeout"),
        (_UVICORN, ("--timeout-graceful-shutdown", "1"), "graceful_shutdown|graceful-shutdown"),
    ],
    ids=str,
)
def test_a_limit_below_the_plan_is_named_at_start(
    setup: Setup, extra: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    """The server will end the process before the plan is over: a warning at start says so."""
    port = free_port()
    with start(setup, port, tmp_path, *extra) as server:
        wait_until_watching(server, tmp_path, port)
        log = server.log
        server.signal_main(signal.SIGTERM)
        assert server.wait(10) is not None
    lines = [line for line in log.splitlines() if any(name in line for name in named.split("|"))]
    assert lines and extra[1] in lines[0], log


def test_a_limit_above_the_plan_is_not_mentioned(tmp_path: Path) -> None:
    """The default limits fit a short plan: a warning nobody needs is not read when it matters."""
    port = free_port()
    with start(Setup("gunicorn-asgi", 1, "asyncio"), port, tmp_path) as server:
        wait_until_watching(server, tmp_path, port)
        log = server.log
        server.signal_main(signal.SIGTERM)
        assert server.wait(10) is not None
    assert "graceful" not in log.lower(), log


@pytest.mark.parametrize("setup", [_GRANIAN, _HYPERCORN, _GUNICORN_ASGI], ids=str)
def test_a_notice_that_cannot_be_is_skipped_with_a_warning(setup: Setup, tmp_path: Path) -> None:
    """These servers close their listener at the signal: waiting for balancers would only waste the plan."""
    port = free_port()
    with start(setup, port, tmp_path, settings=json.dumps({"plan": {"notice": 5}})) as server:
        wait_until_watching(server, tmp_path, port)
        log = server.log
        server.signal_main(signal.SIGTERM)
        assert server.wait(4.5) is not None, server.log
    assert "notice" in log and "preStop" in log, log
