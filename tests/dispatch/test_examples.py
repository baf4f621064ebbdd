"""The examples about carriers run as their docstrings say."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dispatch.fleet import Fleet
from tests.support.processes import PATIENCE_SECONDS, ROOT

EXAMPLES = ROOT / "examples"
PAGES = "['order 7, page 1', 'order 7, page 2', 'order 7, page 3']"


def run(fleet: Fleet, name: str) -> list[str]:
    """What the example prints, in the fleet's folder."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        env={"PYTHONPATH": f"{ROOT / 'src'}:{EXAMPLES}", "BROKER_URL": fleet.place.broker},
        cwd=fleet.place.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.server
def test_celery(fleet: Fleet) -> None:
    """A job and a Celery task, both carried by one Celery worker."""
    fleet.start(
        *("celery", "-A", "carriers_celery", "worker", "--concurrency", "2"),
        PYTHONPATH=f"{ROOT / 'src'}:{EXAMPLES}",
        BROKER_URL=fleet.place.broker,
    )
    assert run(fleet, "carriers_celery") == [PAGES, "320"]


@pytest.mark.server
def test_rq(fleet: Fleet) -> None:
    """A job carried by an RQ worker."""
    fleet.start(
        *(
            "rq.cli",
            "worker",
            "--url",
            fleet.place.broker,
            "--worker-class",
            "carriers_rq.Worker",
            "invoices",
        ),
        PYTHONPATH=f"{ROOT / 'src'}:{EXAMPLES}",
        BROKER_URL=fleet.place.broker,
    )
    assert run(fleet, "carriers_rq") == [PAGES]


@pytest.mark.server
def test_moving(fleet: Fleet) -> None:
    """What stands behind "after" runs in one process, without any broker."""
    assert run(fleet, "moving") == [
        "mail to ada",
        str(sum(len(f"orders row {n}") for n in range(3))),
        "report of 2026-11",
        "scheduled cancelled",
    ]


def test_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind "before" does the same work."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("moving_example", EXAMPLES / "moving.py")
    assert spec is not None and spec.loader is not None
    moving = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(moving)
    assert moving.import_orders_before.run("orders") == sum(len(f"orders row {n}") for n in range(3))
    assert moving.report_before("2026-11") == moving.report("2026-11")
    moving.queue.connection.close()
