"""One server for the tests of this folder: real, on a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streams.durable.runner import server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where its streams are."""
    folder: Path = tmp_path_factory.mktemp("streams")
    with server(folder / "streams.db") as url:
        yield url
