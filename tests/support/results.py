"""Writes each test's result at once, so that a run which dies half way is still counted honestly.

`scripts/matrix.py` reads the file: a test that began and has no result hung, or took the interpreter down.
"""

import json
from pathlib import Path

import pytest

VARIABLE = "LASTCALL_RESULTS"


class ResultsFile:
    """A pytest plugin that appends one JSON line per event to `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._outcomes[nodeid] = "passed"
        self._write("began", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # One result per test: what fails in setup, call or teardown fails it.
        if report.failed:
            self._outcomes[report.nodeid] = "failed"
        elif report.skipped and self._outcomes.get(report.nodeid) != "failed":
            self._outcomes[report.nodeid] = "skipped"

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write(self._outcomes.pop(nodeid, "passed"), nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed or report.skipped:
            self._write(report.outcome, report.nodeid)

    def _write(self, event: str, nodeid: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "test": nodeid}) + "\n")
