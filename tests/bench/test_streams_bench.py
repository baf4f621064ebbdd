"""The measurements of streams run, and answer for everybody."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.bench, pytest.mark.slow, pytest.mark.timeout(180)]


def test_streams_are_measured(tmp_path: Path) -> None:
    """`python -m bench streams --quick`: a figure beside its floor in every row of ours, and a word on the peer."""
    out = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "streams", "--quick", "--json", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    ours = [row for row in rows if row["ours"]]
    assert len(ours) >= 5 and all(row["floor"] > 0 and row["value"] > 0 for row in ours), rows
    assert any("not installed" in row["problem"] for row in rows), rows
