"""observability.py does what it says, and docs/observability.md says what it does."""

import http.client
import json
import re
import signal
import socket
from pathlib import Path

import pytest

from scripts.names import PAGE, with_tables
from tests.cli.program import ROOT, WAIT_SECONDS, Program


def ask(port: int, method: str, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()


@pytest.mark.server
def test_an_order_can_be_watched(tmp_path: Path) -> None:
    """An order is placed and the shop is closed: the page counts it, the lines have its ids, the trace has its link."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        target = ["observability:app", "--app-dir", str(ROOT / "examples"), "--fd", str(listener.fileno())]
        command = ["-m", "uvicorn", *target, "--log-config", _no_log_config(tmp_path)]
        with Program(command, cwd=tmp_path, keep=[listener.fileno()]) as program:
            program.wait_for("Application startup complete")
            port = listener.getsockname()[1]
            placed = json.loads(ask(port, "POST", "/orders/tea"))
            page = ask(port, "GET", "/lastcall/metrics")
            program.signal(signal.SIGTERM)
            program.wait()
    assert placed["receipt"] == "receipt for tea"
    assert 'lastcall_jobs_submitted_total{queue="default",task="fulfil"} 1.0' in page
    lines = [json.loads(line) for line in program.err.splitlines() if line.startswith("{")]
    told = {line["message"]: line for line in lines}
    assert told["fulfilling tea"]["job_id"] == told["charging"]["job_id"] == placed["job"]
    assert (told["fulfilling tea"]["step"], told["charging"]["step"]) == (None, 'charge("tea")')
    spans = {name: _span(program.out, name) for name in ("POST /orders", "submit fulfil", "run fulfil")}
    assert spans["submit fulfil"]["parent_id"] == spans["POST /orders"]["context"]["span_id"]
    (link,) = spans["run fulfil"]["links"]
    assert link["context"]["span_id"] == spans["submit fulfil"]["context"]["span_id"]


def _no_log_config(folder: Path) -> str:
    """Uvicorn's own logging left to the program."""
    path = folder / "log.json"
    path.write_text('{"version": 1, "disable_existing_loggers": false}')
    return str(path)


def _span(out: str, name: str) -> dict:
    (found,) = [
        span for span in re.findall(r"^\{\n.*?^\}", out, re.M | re.S) if json.loads(span)["name"] == name
    ]
    return json.loads(found)


def test_the_page_has_the_tables_of_the_code() -> None:
    """`python scripts/names.py` would change nothing: every name of the code is on the page, as it is."""
    text = PAGE.read_text(encoding="utf-8")
    assert with_tables(text) == text
