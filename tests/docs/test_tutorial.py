"""What docs/tutorial-errors.md says is shown by programs, and the programs are run."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.frame.floorplan import ROOT

PROGRAMS = sorted((ROOT / "examples" / "tutorial").glob("*.py"))
PAGE = ROOT / "docs" / "tutorial-errors.md"


def run(program: Path) -> str:
    """What went wrong with it, or nothing."""
    command = [sys.executable, "-W", "error", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    return "" if done.returncode == 0 else f"{program.name}: {done.stderr}"


@pytest.mark.slow
def test_every_proof_holds() -> None:
    """A claim on the page is no longer so, on this Python or with these libraries."""
    assert len(PROGRAMS) > 10
    with ThreadPoolExecutor(4) as several:
        assert "".join(several.map(run, PROGRAMS)) == ""


def test_every_proof_is_told_of() -> None:
    """A proof that no page links to is read by nobody, and one that is linked must be there."""
    text = PAGE.read_text(encoding="utf-8")
    assert [program.name for program in PROGRAMS if f"../examples/tutorial/{program.name}" not in text] == []
