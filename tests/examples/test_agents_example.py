"""quickstart_agents.py does what it says: stopped or killed and started again, it goes on where it was."""

import re
import signal
from pathlib import Path

import pytest

from tests.cli.program import ROOT, Program

pytestmark = [pytest.mark.server, pytest.mark.slow]

COMMAND = [str(ROOT / "examples" / "quickstart_agents.py"), "tea"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_agent_goes_on_where_it_was(tmp_path: Path, stop: signal.Signals) -> None:
    """
    1. The agent is stopped, or killed, after its second search.
    2. It is started again.
    Result: it is the same run; no search that had ended is made again; the page shows each chapter once.
    """
    with Program(COMMAND, cwd=tmp_path) as first:
        first.wait_for(r"\[searched: what is disputed\]", on="out")
        first.signal(stop)
        assert first.wait() == (-signal.SIGKILL if stop is signal.SIGKILL else 0)
    if stop is not signal.SIGKILL:
        assert "[handed over; run me again]" in first.out
    with Program(COMMAND, cwd=tmp_path) as second:
        assert second.wait() == 0
    searched = re.findall(r"\[searched: (.*?)\]", first.out + second.out)
    assert sorted(set(searched)) == ["what is disputed", "what is known", "what to read"]
    assert len(searched) <= 3 + (stop is signal.SIGKILL)
    said = second.out.rpartition("[again")[2] if "[again" in second.out else second.out
    assert said.count("On tea, what to read: so say the notes on what to read of tea.") == 1
    assert re.search(r"\[completed: \d+ characters\]", second.out)
    assert "Traceback" not in first.err + second.err
