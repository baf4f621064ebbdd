"""streaming_jobs.py and its page in a real browser: restarted and killed under it, the page shows what was written."""

import asyncio
import http.client
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from lastcall.jobs import Jobs
from lastcall.streams import Entry, follow
from tests.cli.program import ROOT, WAIT_SECONDS, Program
from tests.examples.browser import Page, browser, find_browser
from tests.servers.processes import free_port

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(150)]

QUESTION = "Größe\r\n\u2028'\"\\ </pre><script>1</script> &amp; 日本"
SHOWN = ("status", "stream.text", "stream.end", "step.reset", "stream.reset")
LENGTH = "document.getElementById('answer').textContent.length"
STATUS = "document.getElementById('status').textContent"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    path = find_browser()
    if path is None:
        pytest.skip("NOT RUN: no Chromium is installed (Debian: apt-get install chromium)")
    with browser(path, tmp_path) as page:
        yield page


@contextmanager
def serving(folder: Path, port: int) -> Iterator[Program]:
    target = ["streaming_jobs:app", "--app-dir", str(ROOT / "examples"), "--port", str(port)]
    with Program(["-m", "uvicorn", *target], cwd=folder) as program:
        program.wait_for("Application startup complete")
        # The line comes before the socket listens.
        program.wait_for("Uvicorn running on")
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS):
            yield program


def ask(port: int, words: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request("POST", f"/answers?question={quote(QUESTION)}&words={words}")
        return str(json.load(connection.getresponse())["id"])
    finally:
        connection.close()


def written(folder: Path, id: str) -> tuple[list[Entry], str]:
    """What the store has: the entries and the result."""

    async def read() -> tuple[list[Entry], str]:
        async with Jobs(f"sqlite:///{folder}/streaming_jobs.db") as jobs:
            job = jobs.job(id)
            entries = [entry async for several in follow(job.log()) for entry in several]
            return entries, (await job.info()).result

    return asyncio.run(read())


def test_a_browser_sees_every_token_once(tmp_path: Path, page: Page) -> None:
    """
    1. An answer is asked for, and a page opened that shows it as it is written.
    2. The server is stopped in the middle, and started again; then killed, and started again.
    3. The answer comes to its end; a second page is opened, and an EventSource that does not know the end.
    Result: both pages show what was written, to the letter; no entry came twice; the EventSource has stopped.
    """
    port = free_port()
    with serving(tmp_path, port) as server:
        id = ask(port, 40)
        page.open(f"http://127.0.0.1:{port}/#{id}")
        page.until(f"document.getElementById('answer') && {LENGTH} > 100")
        server.signal(signal.SIGTERM)
        server.wait()
        assert page.value("source.readyState") != 2, "the drain must not look like the end"
    shown = page.value(LENGTH)
    with serving(tmp_path, port) as server:
        page.until(f"{LENGTH} > {shown + 200}")
        server.signal(signal.SIGKILL)
        server.wait()
    shown = page.value(LENGTH)
    with serving(tmp_path, port) as server:
        page.until(f"{LENGTH} > {shown + 100}")
        page.until(f"{STATUS} === 'completed, read to its end'", 60)
        first = page.value("[document.getElementById('answer').textContent, entries, connections]")
        page.open("about:blank")
        page.open(f"http://127.0.0.1:{port}/#{id}")
        page.until(f"document.getElementById('status') && {STATUS} === 'completed, read to its end'")
        second = page.value("[document.getElementById('answer').textContent, entries, connections]")
        page.value(f"naive = new EventSource('/answers/{id}/events'), 0")
        page.until("naive.readyState === EventSource.CLOSED")
        server.signal(signal.SIGTERM)
        server.wait()
    entries, text = written(tmp_path, id)
    assert text == "".join(f"{n}. {QUESTION} <b>“well…”</b> 🍷\n" for n in range(40))
    count = sum(entry.type in SHOWN for entry in entries)
    assert first == [text, count, 3]
    assert second == [text, count, 1]
