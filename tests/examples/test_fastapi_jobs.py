"""fastapi_jobs.py does what it says: stopped in the middle of a report and started again, it goes on."""

import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import ROOT, WAIT_SECONDS, Program

pytestmark = [pytest.mark.server, pytest.mark.slow]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Program, int]]:
    """The example under uvicorn; its database is in `folder`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        target = ["fastapi_jobs:app", "--app-dir", str(ROOT / "examples"), "--fd", str(listener.fileno())]
        with Program(["-m", "uvicorn", *target], cwd=folder, keep=[listener.fileno()]) as program:
            program.wait_for("Application startup complete")
            yield program, listener.getsockname()[1]


def ask(port: int, method: str, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_report_goes_on_where_it_was(tmp_path: Path, stop: signal.Signals) -> None:
    """
    1. A report of five chapters is ordered, and the server is stopped, or killed, after the first of them.
    2. It is started again, and the same report is ordered again.
    Result: it is the same job; each chapter is written once (the one in flight at a kill perhaps twice).
    """
    with serving(tmp_path) as (program, port):
        status, ordered = ask(port, "POST", "/reports/ada")
        assert status == 202
        program.wait_for("chapter 1 for ada", on="out")
        program.signal(stop)
        program.wait()
    before = re.findall(r"chapter (\d) for ada", program.out)
    assert len(before) < 5
    with serving(tmp_path) as (program, port):
        assert ask(port, "POST", "/reports/ada") == (202, ordered)
        program.wait_for("report for ada is done", on="out")
        assert ask(port, "GET", f"/reports/{'0' * 8}")[0] == 404
        program.signal(signal.SIGTERM)
        program.wait()
    after = re.findall(r"chapter (\d) for ada", program.out)
    chapters = [str(n) for n in range(1, 6)]
    if stop is signal.SIGKILL and before[-1] == after[0]:
        before.pop()
    assert before + after == chapters
