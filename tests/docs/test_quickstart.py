"""quickstart.py does what the README and docs/quickstart.md say of it."""

import http.client
import json
import re
import signal
from pathlib import Path

import pytest

from tests.cli.program import ROOT, WAIT_SECONDS, Program

pytestmark = [pytest.mark.server, pytest.mark.slow]


def serving(folder: Path) -> Program:
    command = ["-m", "lastcall", "serve", "quickstart:app", "--port", "0", "--json"]
    return Program(command, cwd=folder, env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'examples'}"})


def post(program: Program, path: str) -> dict[str, str]:
    url = json.loads(program.wait_for(r"\{.*\}", on="out")[0])["url"]
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=WAIT_SECONDS)
    try:
        connection.request("POST", path)
        response = connection.getresponse()
        assert response.status == 202
        return json.load(response)
    finally:
        connection.close()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_run_stopped_run_again(tmp_path: Path, stop: signal.Signals) -> None:
    """A book is ordered, the server stopped or killed in the middle, started again: it goes on, no chapter twice."""
    with serving(tmp_path) as first:
        job = post(first, "/books/moby-dick")
        first.wait_for("chapter 2 is written", on="out")
        first.signal(stop)
        assert first.wait() == (0 if stop is signal.SIGINT else -stop)
    with serving(tmp_path) as second:
        assert post(second, "/books/moby-dick") == job
        second.wait_for("chapter 4 is written", on="out")
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
    before, after = (
        [int(n) for n in re.findall(r"chapter (\d+) is", program.out)] for program in (first, second)
    )
    if stop is signal.SIGKILL and before[-1] == after[0]:  # it was written and not yet recorded
        before.pop()
    assert before + after == list(range(1, after[-1] + 1))
