"""agents_web.py does what it says: a plan is approved after the server was killed, and carried out once."""

import http.client
import json
import signal
import socket
import time
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
        target = ["agents_web:app", "--app-dir", str(ROOT / "examples"), "--fd", str(listener.fileno())]
        with Program(["-m", "uvicorn", *target], cwd=folder, keep=[listener.fileno()]) as program:
            program.wait_for("Application startup complete")
            yield program, listener.getsockname()[1]


def ask(port: int, method: str, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        assert response.status < 300, (path, response.status)
        return json.load(response)
    finally:
        connection.close()


def until(port: int, path: str, holds: Any) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds(found := ask(port, "GET", path)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_a_plan_is_approved_after_a_crash(tmp_path: Path) -> None:
    """A run waits for a person, its server is killed, another one starts, and the person says yes there."""
    with serving(tmp_path) as (program, port):
        id = ask(port, "POST", "/runs?prompt=sweep")["id"]
        page = until(port, f"/runs/{id}/events?wait=1", lambda found: "approval.requested" in str(found))
        assert page["events"][-1]["seq"] >= 1
        program.signal(signal.SIGKILL)
        program.wait()
    with serving(tmp_path) as (program, port):
        ask(port, "POST", f"/runs/{id}/approve")
        found = until(port, f"/runs/{id}", lambda found: found["status"] == "completed")
        assert found["answer"] == "done: first look, then sweep"
        assert program.out.count("carried out") == 1

        first = ask(port, "POST", "/chats/a-chat?prompt=mop")["id"]
        ask(port, "POST", f"/runs/{first}/approve")
        until(port, "/chats/a-chat", lambda turns: turns[0]["status"] == "completed")
        other = ask(port, "POST", "/chats/a-chat/branch?after=1")["id"]
        assert ask(port, "GET", f"/chats/{other}") == ask(port, "GET", "/chats/a-chat")
        program.signal(signal.SIGTERM)
        program.wait()
