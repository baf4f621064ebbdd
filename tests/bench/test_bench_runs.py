"""The benchmark command: it must run, name every row, and never fail for a library that is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from bench.catalog import ENTRIES, FLOOR, IMPORTS

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 300


def run_bench(
    *arguments: str, blocked: str | None = None, folder: Path
) -> tuple[str, list[dict[str, object]]]:
    """Run the command as a user would; `blocked` is a library which the interpreter shall not find."""
    path = [str(ROOT / "src"), str(ROOT)]
    if blocked is not None:
        # sitecustomize is imported at interpreter start, in the children too.
        (folder / "sitecustomize.py").write_text(
            f"import sys\nsys.modules[{blocked!r}] = None\n", encoding="utf-8"
        )
        path.insert(0, str(folder))
    answer = folder / "rows.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            *arguments,
            "--quick",
            "--json",
            str(answer),
            "--svg",
            str(folder / "rows.svg"),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout, json.loads(answer.read_text(encoding="utf-8"))["rows"]


def test_every_row_is_produced(tmp_path: Path) -> None:
    """A quick run on asyncio's loop has one row for each contender in each section, measured or said to be missing."""
    table, rows = run_bench("--loop", "asyncio", folder=tmp_path)
    contenders = [entry.name for entry in ENTRIES if entry.name != FLOOR]
    holding = [entry.name for entry in ENTRIES if entry.name != FLOOR and entry.holds]
    expected = {("spawn", name, body) for name in contenders for body in ("sleep0", "return1")}
    expected |= {(section, name, "") for name in holding for section in ("memory", "stop")}
    expected |= {("import", entry.name, "") for entry in IMPORTS}
    assert {(row["section"], row["contender"], row["body"]) for row in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        if row["problem"]:
            assert "not installed, not measured" in str(row["problem"])
            assert not row["ours"]
        else:
            low, middle, high = (float(str(row[key])) for key in ("ratio_min", "ratio_median", "ratio_max"))
            assert 0 < low <= middle <= high
        assert str(row["contender"]) in table
    ElementTree.parse(tmp_path / "rows.svg")


def test_a_library_that_is_missing_gives_a_line_and_no_failure(tmp_path: Path) -> None:
    """Where aiojobs is not installed the run goes on, says so, and exits 0."""
    table, rows = run_bench("spawn", "--loop", "asyncio", blocked="aiojobs", folder=tmp_path)
    assert "aiojobs: aiojobs is not installed, not measured" in table
    missing = [row for row in rows if row["problem"]]
    assert {str(row["contender"]) for row in missing} >= {"aiojobs", "aiojobs limit=100"}
    assert all(row["ratio_median"] is None for row in missing)


def test_an_unknown_section_is_refused_by_name() -> None:
    """A typing error in the section's name ends in a usage message, not in a measurement."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "spwan"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown section 'spwan'" in done.stderr
