"""A million jobs must not slow anything down: no statement goes through a table that grows with them."""

import importlib
import pkgutil
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lastcall.engines import sqlite as package
from lastcall.engines.sqlite._reads import _COUNT, _COUNTED, _FIND_LABELLED, _HELD, _SUSPECT, _find_in
from lastcall.jobs._state import JobStatus

from .support import opened

pytestmark = pytest.mark.loops("asyncio")

# What grows: with all jobs there ever were, or with all that is written about them.
GROWING = ("lastcall_job", "job", "lastcall_attempt", "lastcall_step", "lastcall_event", "lastcall_message")
# As many entries as there are jobs that run, or limits, or suspects, at a time.
SMALL = ("lastcall_job_running", "lastcall_job_limit", "lastcall_job_suspect")


def statements() -> Iterator[tuple[str, str]]:
    """Every complete statement that a module of the engine keeps as a constant."""
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        for name, value in vars(module).items():
            texts = value if isinstance(value, tuple) else (value,)
            for text in texts:
                if (
                    isinstance(text, str)
                    and re.match(r"(SELECT|UPDATE|DELETE|INSERT)\s", text)
                    and "{" not in text
                ):
                    yield f"{found.name}.{name}", text


def plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", (None,) * statement.count("?")).fetchall()
    return [row[3] for row in rows]


def goes_through_all(steps: list[str]) -> list[str]:
    scans = [step for step in steps if re.match(rf"SCAN ({'|'.join(GROWING)})\b", step)]
    return [step for step in scans if not step.endswith(SMALL)]


async def test_no_statement_goes_through_all_jobs(tmp_path: Path) -> None:
    """SQLite's own plan of each statement, in an empty file as in a full one (nobody runs ANALYZE)."""
    parts = {"_ends._RUNNING", "_reads._JOB"}  # beginnings of statements
    # A migration may, and a move of all jobs to another engine, once.
    once = ("_schema.", "_departure.", "_moved.")
    async with opened(tmp_path / "jobs.db"):
        pass
    checked = 0
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        for name, statement in statements():
            if name not in parts and not name.startswith(once):
                assert goes_through_all(plan(connection, statement)) == [], (
                    name,
                    plan(connection, statement),
                )
                checked += 1
    assert checked > 50


async def test_counts_and_lists_use_the_small_indexes(tmp_path: Path) -> None:
    """Counting and listing by a rare status goes through the entries of that status only."""
    async with opened(tmp_path / "jobs.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        for which in (*_COUNTED.values(), _HELD, _SUSPECT):
            (first, *_) = plan(connection, _COUNT.format(which=which))
            assert "USING" in first and "INDEX lastcall_job_" in first
        # No step is a sort, which would read all that have the label to give the newest.
        labelled = plan(connection, _FIND_LABELLED.format(conditions="label.name = ? AND label.value = ?"))
        assert [step.split(" USING ")[0] for step in labelled] == [
            "SEARCH label",
            "SEARCH job",
            "SEARCH lane",
        ]
        for status in set(JobStatus) - {JobStatus.COMPLETED, JobStatus.QUEUED}:
            (first, *_) = plan(connection, _find_in(status, [], by_status=True))
            assert "USING INDEX lastcall_job_" in first
