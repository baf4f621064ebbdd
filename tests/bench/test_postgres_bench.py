"""The measurements on PostgreSQL: they run, answer for everybody, and their model is what their page describes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.jobs.install_peers import REQUIREMENTS
from bench.postgres.catalog import DEPLOY, SPEED
from bench.postgres.figures import Capacity, Cost, Crew, Depth, Held, Round, fitted, table
from bench.postgres.plot import draw, rounded_up, shown
from bench.postgres.server import problem
from bench.postgres.tokens import PLAYS

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 240


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "bench", "postgres", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_lastcall_is_measured_beside_its_floor_and_the_peers_are_named(tmp_path: Path) -> None:
    """A quick run without peers: figures for the floors and for lastcall, a line for everybody else."""
    out = tmp_path / "rows.json"
    done = run_bench("throughput", "tokens", "--quick", "--json", str(out))
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    for row in rows:
        assert row["ours"] == (not row["problem"]), row
        assert row["problem"] or (row["floor"] > 0 and row["value"] > 0 and row["goal"] or not row["goal"])
        assert not row["problem"] or "not installed, not measured" in row["problem"]
    missing = {row["contender"] for row in rows if row["problem"]}
    assert missing == {setting.name for setting in SPEED if not setting.ours}
    assert sum("Token written" in row["block"] for row in rows) == len(PLAYS)


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_the_capacity_is_measured_and_drawn(tmp_path: Path) -> None:
    """A quick run has a figure for each batch, depth, crew and round, and a drawing of them."""
    out, picture = tmp_path / "rows.json", tmp_path / "capacity.svg"
    done = run_bench("capacity", "--quick", "--json", str(out), "--svg", str(picture))
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    (figures,) = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [each["queued"] for each in figures["depths"]] == [500, 2000]
    assert all(each["rate"] > 0 and each["claim_buffers"] > 0 for each in figures["depths"])
    assert [each["workers"] for each in figures["crews"]] == [1, 2]
    assert len(figures["rounds"]) == 2 and figures["costs"][0]["claim_us"] > 0
    ElementTree.parse(picture)


@pytest.mark.parametrize(
    ("arguments", "named_problem"),
    [(("capacty",), "unknown section 'capacty'"), (("--only", "sidekiq"), "unknown contender 'sidekiq'")],
)
def test_a_typing_error_is_refused_by_name(arguments: tuple[str, ...], named_problem: str) -> None:
    """What does not exist ends in a usage message, before a server is started."""
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert named_problem in done.stderr


def test_every_setting_can_be_installed_and_has_a_file() -> None:
    """A setting whose library nobody installs, or whose module is not there, would never be measured."""
    assert not problem()
    for setting in (*SPEED, *DEPLOY):
        assert setting.ours or setting.peer in REQUIREMENTS
        assert (ROOT / Path(*setting.module.split("."))).with_suffix(".py").exists()
        assert setting.store == "postgres"
    assert all(setting.recorded for setting in SPEED)


# --- the model ---


def costs_of(each_us: float, statements_us: float) -> list[Cost]:
    return [Cost(batch, each_us + statements_us / batch, 0.0, 0.0) for batch in (1, 10, 100)]


def test_the_model_finds_what_the_costs_were_made_of() -> None:
    """Costs that follow the model exactly give its two numbers back."""
    model = fitted(costs_of(40.0, 300.0))
    assert model.each_us == pytest.approx(40.0)
    assert model.statements_us == pytest.approx(300.0)
    assert model.cost_us(10) == pytest.approx(70.0)
    assert model.per_second(10, cores=7) == pytest.approx(100_000)


def test_the_model_never_promises_that_work_is_free() -> None:
    """Measurements that noise has turned round do not make a part of the cost negative."""
    model = fitted([Cost(1, 50.0, 0.0, 0.0), Cost(10, 70.0, 0.0, 0.0), Cost(100, 90.0, 0.0, 0.0)])
    assert model.statements_us == 0.0
    assert model.each_us > 0.0


def test_the_tables_and_the_drawing_have_every_figure() -> None:
    """Whatever is measured can be read in the table, and the drawing is a whole document."""
    costs = costs_of(40.0, 300.0)
    capacity = Capacity(
        "18.6",
        2,
        fitted(costs),
        costs,
        [Depth(1000, 1.5, 2.5, 1400, 9000.0, 300_000, 360_000), Depth(10_000, 1.6, 2.6, 1500, 9100.0, 1, 1)],
        [Crew(1, 9000.0, 50.0, 40.0), Crew(16, 18_000.0, 60.0, 50.0)],
        [Round(20_000, 12_000_000, 17), Round(40_000, 13_000_000, 0)],
        [Held(0, 1.5, 1400), Held(20_000, 4.2, 2297)],
    )
    text = table(capacity)
    for figure in ("340.0", "9,100", "18,000", "12.0", "2,297"):
        assert figure in text
    drawing = draw(capacity)
    ElementTree.fromstring(drawing)
    assert "NaN" not in drawing and "A claim of 100" in drawing
    assert asdict(capacity)["rounds"][1]["jobs"] == 40_000


@pytest.mark.parametrize(
    ("value", "next_step"), [(0.9, 1.0), (1.1, 2.0), (2.2, 2.5), (26, 50), (700, 1000), (1, 1)]
)
def test_an_axis_ends_at_a_round_number(value: float, next_step: float) -> None:
    """The highest value lies within its axis, whose end can be read."""
    assert rounded_up(value) == pytest.approx(next_step)


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (25, "25"), (1000, "1k"), (12_500, "12.5k"), (1e6, "1M")]
)
def test_an_axis_shows_numbers_short(value: float, text: str) -> None:
    """Thousands and millions have their letters."""
    assert shown(value) == text
