"""quickstart.py does what the README and docs/quickstart.md say of it."""

import http.client
import json
import re
import signal
from pathlib import Path

import pytest

from scripts.newcomer import WentWrong, blocks, section
from tests.cli.program import ROOT, WAIT_SECONDS, Program

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")


def test_what_is_pasted_is_the_whole_program() -> None:
    """A newcomer pastes the block of the README, and an import is missing."""
    (pasted,) = blocks(section(README, "Quickstart"), "python")
    assert EXAMPLE == f'"""{EXAMPLE.split(chr(34) * 3)[1]}"""\n\n{pasted}'
    assert pasted in (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")


def test_the_newcomer_finds_what_to_type() -> None:
    """A section of the README was changed, and `make newcomer` types something else."""
    (both,) = blocks(section(README, "Two minutes"), "sh")
    assert [line.split("  ")[0] for line in both.splitlines()] == ["make demo", "make test"]
    install, serve, order = blocks(section(README, "Quickstart"), "sh")
    assert (
        install.startswith("pip install") and serve.startswith("lastcall serve") and order.startswith("curl")
    )
    with pytest.raises(WentWrong, match="no section 'Nowhere'"):
        section(README, "Nowhere")


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


@pytest.mark.server
@pytest.mark.slow
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
