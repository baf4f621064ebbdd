"""`lastcall demo --ask`: answers with and without a model, by real processes that are stopped and killed."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.program import WAIT_SECONDS, Program
from tests.support.openai_server import Fault, OpenAIServer, Reply, Tool

pytestmark = [pytest.mark.server, pytest.mark.slow]

QUESTION = "Who keeps the ledger of every vessel?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.md").write_text(
            f"# Port {number}\n\nShips come and go, and nobody counts them.\n" * 5
        )
    (folder / "harbour.md").write_text(
        "# The harbour\n\nShips come and go.\n\nThe harbour master keeps a ledger of every vessel.\n"
        + "More.\n" * 30
    )
    return folder


def asking(
    folder: Path, question: str = QUESTION, *, model: str = "", url: str = "", key: str = ""
) -> Program:
    db = str(folder.parent / "demo.db")
    env = {"OPENAI_MODEL": model, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": key}
    return Program(["-m", "lastcall", "demo", str(folder), "--db", db, "--ask", question], env=env)


def until(condition: Callable[[], bool]) -> None:
    """Wait, boundedly, until it holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def insisted(program: Program) -> bool:
    """Press Ctrl-C once more, unless it has said good-bye. A repeat that comes at once is taken for an echo."""
    gone = "Ask the same again" in program.err or program.code is not None
    if not gone:
        program.signal(signal.SIGINT)
    return gone


def test_without_a_model_it_quotes_and_says_so(folder: Path) -> None:
    """The answer names the file and lines that say it, and does not claim to be more than a quotation."""
    with asking(folder) as program:
        assert program.wait() == 0
    assert program.out.startswith("No language model was asked.")
    assert re.search(r"^harbour.md, lines 3 to \d+:$", program.out, re.MULTILINE)
    assert "The harbour master keeps a ledger of every vessel." in program.out
    assert "OPENAI_MODEL names no language model" in program.err
    assert "Traceback" not in program.err
    with asking(folder, "Is there a zeppelin?") as program:
        assert program.wait() == 0
    assert "No file says anything of that." in program.out
    assert "analysed" not in program.err.replace("analysed 6 of 6", "")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle_it_goes_on(folder: Path, stop: signal.Signals) -> None:
    """Killed while it speaks and asked the same again, the same run goes on; told to stop, it finishes its words."""
    with asking(folder) as first:
        first.wait_for("No language model", on="out")
        first.signal(stop)
        code = first.wait()
    assert "Traceback" not in first.err
    if stop is not signal.SIGKILL:
        assert code == 0
        assert "The harbour master keeps a ledger of every vessel." in first.out
        return
    with asking(folder) as second:
        assert second.wait() == 0
    assert "Found this question unanswered; continuing." in second.err
    assert "The harbour master keeps a ledger of every vessel." in second.out
    assert "Traceback" not in second.err


SCRIPT = [
    Reply(tools=[Tool("search", {"words": "ledger vessel"}, id="call_s")]),
    Reply(tools=[Tool("read", {"file": "harbour.md", "line": 1}, id="call_r")]),
    Reply("The harbour master does: harbour.md, line 5."),
]


def test_stopped_before_the_model_has_answered_it_goes_on(folder: Path) -> None:
    """Ctrl-C, and again, while the model thinks: the run is handed over, and asked again it goes on from there."""
    with OpenAIServer(SCRIPT, faults={2: Fault(hold_after=0)}) as server:
        with asking(folder, model="scripted", url=server.url) as first:
            until(lambda: len(server.paid) == 2)
            first.signal(signal.SIGINT)
            first.wait_for("Stopping.")
            until(lambda: insisted(first))
            assert first.wait() == 130
        with asking(folder, model="scripted", url=server.url) as second:
            assert second.wait() == 0
        assert second.out == "The harbour master does: harbour.md, line 5.\n"
        assert "continuing" in second.err
        assert len(server.paid) == 4


def test_with_a_model_it_searches_reads_and_answers(folder: Path) -> None:
    """The model calls both tools, is given what they found, and its answer is written as it comes."""
    with OpenAIServer(SCRIPT) as server:
        with asking(folder, model="scripted", url=server.url) as program:
            assert program.wait() == 0
        assert program.out == "The harbour master does: harbour.md, line 5.\n"
        assert len(server.paid) == 3
        found = str(server.paid[1].body["messages"])
        assert "harbour.md" in found and "keeps a ledger" in found
        assert "keeps a ledger" in str(server.paid[2].body["messages"][-1])
        assert server.mistakes == []
    assert f"Asking scripted at {server.url}." in program.err


def test_killed_in_the_middle_nothing_is_bought_twice(folder: Path) -> None:
    """Killed while the model speaks: asked again, the first two requests and the tools are remembered."""
    with OpenAIServer(SCRIPT, faults={3: Fault(hold_after=3)}) as server:
        with asking(folder, model="scripted", url=server.url) as first:
            first.wait_for("The harbour master", on="out")
            first.signal(signal.SIGKILL)
            first.wait()
        with asking(folder, model="scripted", url=server.url) as second:
            assert second.wait() == 0
        assert len(server.paid) == 4
        assert "The harbour master does: harbour.md, line 5." in second.out
        assert "continuing" in second.err


def test_a_second_question_knows_the_first(folder: Path) -> None:
    """Questions about one folder are one conversation: the model is told what was said before."""

    def script(body: dict) -> Reply:
        asked = [message["content"] for message in body["messages"] if message["role"] == "user"]
        return Reply(f"You have asked {len(asked)} questions.")

    with OpenAIServer(script) as server:
        for question, count in (("One?", 1), ("Two?", 2)):
            with asking(folder, question, model="scripted", url=server.url) as program:
                assert program.wait() == 0
            assert program.out == f"You have asked {count} questions.\n"


def test_a_model_that_refuses_is_an_error_and_can_be_asked_again(folder: Path) -> None:
    """The model's server is down for good: one line says so, exit code 1; asked again, it is asked again."""
    with OpenAIServer([Reply("Here I am.")], faults={1: Fault(status=400)}) as server:
        with asking(folder, model="scripted", url=server.url) as program:
            assert program.wait() == 1
        assert "lastcall: no answer: " in program.err
        assert program.out.strip() == ""
        with asking(folder, model="scripted", url=server.url) as program:
            assert program.wait() == 0
        assert program.out == "Here I am.\n"


def test_what_cannot_be_asked(folder: Path) -> None:
    """No question, a model without an address, a folder that is not there: one line, exit code 2, nothing begun."""
    for program in (
        asking(folder, "  "),
        asking(folder, model="scripted"),
        asking(folder / "nothing"),
    ):
        with program:
            assert program.wait() == 2
        assert program.err.startswith("lastcall: ") and program.err.count("\n") == 1
    assert not os.path.exists(folder.parent / "demo.db")
