"""quickstart_streams.py does what it says, run as a person runs it, in a folder of its own."""

import signal
from pathlib import Path

import pytest

from tests.cli.program import ROOT, Program

pytestmark = pytest.mark.server

COMMAND = [str(ROOT / "examples" / "quickstart_streams.py")]
TEXT = "When the bell rings the bar stops taking orders and everyone who was served may finish the glass "


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_the_answer_goes_on_where_it_was(tmp_path: Path, stop: signal.Signals) -> None:
    """Stopped or killed in the middle of an answer, started again: it shows the whole text, each word once."""
    with Program(COMMAND, cwd=tmp_path) as first:
        first.wait_for(r"bell rings the bar", on="out")
        first.signal(stop)
        assert first.wait() == (-signal.SIGKILL if stop is signal.SIGKILL else 0)
    with Program(COMMAND, cwd=tmp_path) as second:
        second.wait_for("completed", on="out")
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
    assert second.out == f"{TEXT}\ncompleted: {len(TEXT.split())} words\n"
    assert TEXT.startswith(first.out) and 5 < len(first.out.split()) < len(TEXT.split())
    assert "Traceback" not in first.err + second.err
