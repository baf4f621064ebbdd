"""One browser and one service for a module of tests; what the page says on its console fails the test."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.cli.program import WAIT_SECONDS, Program
from tests.examples.browser import browser, find_browser
from tests.servers.processes import free_port
from tests.support.visitor import Visitor


class Bar:
    """The service of `tests.dashboard.bar`, as a process with a port."""

    def __init__(self, port: int, program: Program) -> None:
        self.port = port
        self.program = program
        self.url = f"http://127.0.0.1:{port}/lastcall/"

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """What it answers, as JSON; None if that is nothing."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse().read()
            return json.loads(answer) if answer else None
        finally:
            connection.close()

    def order(self, task: str, *, key: str | None = None, many: int = 1, **args: Any) -> str:
        """Submit a job (or many); the id of the last."""
        query = {"args": json.dumps(args), "many": many, **({} if key is None else {"key": key})}
        return str(self.ask("POST", f"/order/{task}?{urlencode(query)}")["id"])

    def say(self, word: str) -> None:
        self.ask("POST", f"/say?{urlencode({'name': word})}")

    def job(self, id: str) -> Any:
        return self.ask("GET", f"/lastcall/jobs/{id}")


@contextmanager
def opened(folder: Path, port: int | None = None, app: str = "bar", **env: str) -> Iterator[Bar]:
    """The service runs in this folder, where its database is."""
    port = port or free_port()
    command = ["-m", "uvicorn", f"tests.dashboard.{app}:app", "--port", str(port)]
    with Program(command, cwd=folder, env=env) as program:
        program.wait_for("Uvicorn running on")
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS):
            yield Bar(port, program)


@pytest.fixture(scope="module")
def someone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    path = find_browser()
    if path is None:
        pytest.skip("NOT RUN: no Chromium is installed (Debian: apt-get install chromium)")
    with browser(path, tmp_path_factory.mktemp("browser")) as page:
        yield Visitor(page)


@pytest.fixture(scope="module")
def bar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bar]:
    with opened(tmp_path_factory.mktemp("bar")) as bar:
        yield bar


@pytest.fixture
def visitor(someone: Visitor) -> Iterator[Visitor]:
    """The person at the browser: at a desk, by day, and with a page that did nothing it should not."""
    someone.screen(1280, 900)
    someone.prefer(color_scheme="light", reduced_motion="no-preference")
    yield someone
    assert someone.complaints() == []
    strangers = [
        url for url in someone.asked_for() if not url.startswith(("http://127.0.0.1:", "about:", "data:"))
    ]
    assert strangers == []
    someone.page.open("about:blank")
