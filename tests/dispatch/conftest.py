"""The broker, once for all modules; a database of it for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.jobs.redis_server import RedisServer
from tests.dispatch.fleet import Fleet, redis_binary
from tests.dispatch.work import Place


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer(redis_binary()) as server:
        yield server


@pytest.fixture
def fleet(redis: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(Place(str(tmp_path), redis.new_url())) as fleet:
        yield fleet
        fleet.print()
