"""A rolling restart under load: nobody outside may notice it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from . import ledger
from .balancer import Balancer, Load
from .clients import fetch
from .processes import free_port
from .service import start, wait_until_watching
from .setups import Setup

pytestmark = pytest.mark.server

_NOTICE_SECONDS = 2.0
_SETTINGS = json.dumps({"plan": {"notice": _NOTICE_SECONDS, "drain": 5}})


@pytest.mark.loops("asyncio")
@pytest.mark.timeout(120)
async def test_a_rolling_restart_fails_no_request(tmp_path: Path) -> None:
    """Two uvicorn processes behind a balancer are stopped and started again in turn, under constant load."""
    setup = Setup("uvicorn", 1, "uvloop")
    ports = [free_port(), free_port()]
    with ExitStack() as servers:
        running = {
            port: servers.enter_context(start(setup, port, tmp_path / f"{port}-1", settings=_SETTINGS))
            for port in ports
        }
        async with Balancer(ports, "/lastcall/readyz") as balancer:
            for port in ports:
                await balancer.wait_healthy(port)
            load = Load(balancer.port)
            loading = asyncio.create_task(load.run())
            for port in ports:
                running[port].signal_main(signal.SIGTERM)
                code = await asyncio.to_thread(running[port].wait, 20)
                assert code == -signal.SIGTERM, running[port].log
                running[port] = servers.enter_context(
                    start(setup, port, tmp_path / f"{port}-2", settings=_SETTINGS)
                )
                await balancer.wait_healthy(port)
            load.stop()
            await loading
    assert load.failures == [], f"{len(load.failures)} of {load.asked.total()} requests failed"
    assert len(load.asked) == 4 and min(load.asked.values()) > 100, load.asked


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "setup",
    [
        Setup("uvicorn", 1, "asyncio"),
        Setup("uvicorn", 1, "uvloop"),
        Setup("uvicorn", 2, "uvloop"),
        Setup("gunicorn", 1, "uvloop"),
    ],
    ids=str,
)
def test_the_notice_keeps_serving_while_readiness_says_no(setup: Setup, tmp_path: Path) -> None:
    """In the notice the server still takes new connections; only `/readyz` has turned, and none is kept."""
    port = free_port()
    with start(setup, port, tmp_path, settings=_SETTINGS) as server:
        wait_until_watching(server, tmp_path, port, setup.processes)
        server.signal_main(signal.SIGTERM)
        before = time.monotonic()
        deadline = before + 1.5
        while (ready := fetch(port, "/lastcall/readyz")).status == 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ready.status == 503, server.log
        answer = fetch(port, "/echo", method="POST")
        assert (answer.status, answer.headers.get("connection")) == (200, "close")
        assert fetch(port, "/lastcall/livez").status == 200
        assert server.wait(_NOTICE_SECONDS + 4) is not None, server.log
        assert time.monotonic() - before >= _NOTICE_SECONDS - 0.1, (
            "it did not wait for the balancers to look away"
        )
    assert ledger.read(tmp_path / "ledger")[-1].event == "resource.closed"
