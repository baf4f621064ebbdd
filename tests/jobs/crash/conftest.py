"""One server that forks, for all tests here; and they run alone, because they say how soon a job goes on elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.crash.forks import Nursery

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made
