"""Both places where runs live, for the promises that are the same in both."""

from pathlib import Path

import pytest

from tests.agents.places import Place


@pytest.fixture(params=["memory", "durable"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the queues of this test live: in memory, or as jobs on one empty store."""
    return Place(None if request.param == "memory" else tmp_path / "jobs.db")


@pytest.fixture
def durable(tmp_path: Path) -> Place:
    """Queues on one empty store."""
    return Place(tmp_path / "jobs.db")
