"""The Durable Streams protocol's own suite and its JavaScript client, against our server. Needs node and npm."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.streams.durable.runner import Result, packages, run, server, why_not

# The suite has these behind a switch of its own: an extension for webhooks and queues, which no server has to have.
EXTENSION = "Reserved subscription APIs"
CASES = 338


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(560)
def test_the_protocols_own_suite_passes(tmp_path: Path) -> None:
    """Every case of the protocol's own suite, and its JavaScript client at work, on streams in memory and in SQLite."""
    if (missing := why_not()) is not None:
        pytest.skip(missing)
    folder = packages()

    def test(store: str) -> tuple[Result, Result]:
        with server(tmp_path / "streams.db" if store == "sqlite" else None) as url:
            return run(url, folder, ["conformance.test.mjs"]), run(url, folder, ["client.test.mjs"])

    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(("memory", "sqlite"), pool.map(test, ("memory", "sqlite")), strict=True))
    for store, (conformance, client) in results.items():
        print(f"{store}: conformance {conformance}; client {client}")
        assert conformance.failures == [] and client.failures == [], store
        assert [name for name in conformance.skips if EXTENSION not in name] == [] and client.skips == [], (
            store
        )
        assert conformance.passed + conformance.skipped == CASES and conformance.skipped == 6, store
        assert client.passed >= 6, store
