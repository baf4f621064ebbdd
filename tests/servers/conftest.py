"""Run the cases of the selected tests in a small pool, once each; count what came out as wanted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from . import scenario
from .scenario import Case, Run

# The runs mostly wait; more than four at once only makes each of them later.
_AT_ONCE = 4


class Runs:
    """Runs each case at most once; all that the session will ask for are started at the first question."""

    def __init__(self, wanted: list[Case]) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="server run")
        self._futures: dict[Case, Future[Run]] = {}
        for case in wanted:
            self._submit(case)

    def _submit(self, case: Case) -> Future[Run]:
        if case not in self._futures:
            self._futures[case] = self._pool.submit(scenario.run, case)
        return self._futures[case]

    def __getitem__(self, case: Case) -> Run:
        return self._submit(case).result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@dataclass
class Tally:
    """How many combinations came out as wanted, and which were let pass with a name."""

    wanted: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    excepted: list[str] = field(default_factory=list)
    latencies: list[tuple[str, float]] = field(default_factory=list)

    def count(self, table: str, *, wanted: bool) -> None:
        self.total[table] = self.total.get(table, 0) + 1
        self.wanted[table] = self.wanted.get(table, 0) + wanted


_tally_key = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_tally_key] = Tally()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    return request.config.stash[_tally_key]


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    params = [getattr(getattr(item, "callspec", None), "params", {}) for item in request.session.items]
    cases = [given["case"] for given in params if isinstance(given.get("case"), Case)]
    pool = Runs(cases)
    yield pool
    pool.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tally = terminalreporter.config.stash[_tally_key]
    if not tally.total:
        return
    terminalreporter.section("servers")
    for table, total in tally.total.items():
        terminalreporter.line(f"{table}: {tally.wanted[table]} of {total} as wanted")
    for line in sorted(tally.excepted):
        terminalreporter.line(f"  named exception: {line}")
    slowest: dict[str, float] = {}
    for family, seconds in tally.latencies:
        slowest[family] = max(seconds, slowest.get(family, 0.0))
    figures = ", ".join(f"{family} {seconds * 1000:.1f} ms" for family, seconds in slowest.items())
    terminalreporter.line(f"signal to news, slowest of all runs: {figures}")
