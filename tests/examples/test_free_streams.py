"""free_streams.py does what it says, run as a person runs it, twice."""

from pathlib import Path

import pytest

from tests.cli.program import ROOT, Program

pytestmark = pytest.mark.server


def test_the_conversation_is_there_again(tmp_path: Path) -> None:
    """Each of the readers shows the whole conversation in order, the branch its own; the second time from the file."""
    for _ in range(2):
        with Program([str(ROOT / "examples" / "free_streams.py")], cwd=tmp_path) as program:
            assert program.wait() == 0
        shown: dict[str, list[str]] = {}
        for line in program.out.splitlines():
            shown.setdefault(line.split()[0], []).append(line.partition(": ")[2])
        first, second, branch = shown["first"], shown["second"], shown["branch"]
        assert first == second == ['{"user":"Hello"}', '{"agent":"Hi"}', '{"user":"And now?"}']
        assert branch == [*first[:2], '{"user":"Something else"}']
