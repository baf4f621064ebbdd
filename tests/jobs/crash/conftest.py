"""One server that forks, for all tests here."""

from collections.abc import Iterator

import pytest

from tests.jobs.crash.forks import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made
