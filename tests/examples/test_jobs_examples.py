"""quickstart_jobs.py and testing_jobs.py do what they say, run as a person runs them, in a folder of their own."""

import re
import signal
from pathlib import Path

import pytest

from tests.cli.program import ROOT, Program

pytestmark = pytest.mark.server

EXAMPLES = ROOT / "examples"
FILES = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.py").write_text("x = 1\n" * (number + 1))
    return folder


def counted(*programs: Program) -> list[str]:
    return [name for program in programs for name in re.findall(r"counted \S*/(\d)\.py", program.out)]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_started_again_it_goes_on_where_it_was(folder: Path, tmp_path: Path, stop: signal.Signals) -> None:
    """
    1. The program counts the lines of six files, a step each; it is stopped or killed after the second.
    2. It is started again, and stopped when it is done.
    Result: an orderly stop repeats no file, a kill at most the one it was at, and the total is right.
    """
    command = [str(EXAMPLES / "quickstart_jobs.py"), str(folder)]
    with Program(command, cwd=tmp_path) as first:
        first.wait_for(r"counted \S*/1\.py", on="out")
        first.signal(stop)
        assert first.wait() == (-signal.SIGKILL if stop is signal.SIGKILL else 0)
    with Program(command, cwd=tmp_path) as second:
        second.wait_for(r"21 lines in", on="out")
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
    files = counted(first, second)
    assert sorted(set(files)) == [str(number) for number in range(FILES)]
    assert len(files) - FILES <= (1 if stop is signal.SIGKILL else 0)
    assert "Traceback" not in first.err + second.err


def test_the_example_of_testing_tests(tmp_path: Path) -> None:
    """testing_jobs.py crashes its worker after the charge, and charges once."""
    with Program([str(EXAMPLES / "testing_jobs.py")], cwd=tmp_path) as program:
        assert program.wait() == 0
    assert "charged once, whatever died" in program.out
    assert list(tmp_path.iterdir()) == []
