"""Short plays of the fleet: workers killed, stopped, stalled, cut off and replaced, their database restarted."""

import asyncio
from pathlib import Path

import pytest

from bench.fleet import plan
from bench.fleet.plan import POSTGRES, SQLITE, Options
from bench.fleet.play import Play
from bench.fleet.verdict import Verdict
from tests.jobs.crash.plays import LONG

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(400 if LONG else 200)]

_FACTOR = 10.0 if LONG else 1.0
# Long enough that a machine that does other things does not end one, and short enough to be overslept.
_ON_POSTGRES = Options(
    POSTGRES,
    20261124,
    15.0 * _FACTOR,
    workers=4,
    jobs_per_second=12.0,
    attacks_per_second=1.8,
    lease_seconds=4.0,
)
_ON_SQLITE = Options(
    SQLITE,
    20261124,
    6.0 * _FACTOR,
    workers=3,
    jobs_per_second=12.0,
    attacks_per_second=4.0,
    lease_seconds=2.0,
)


def played(options: Options, folder: Path) -> Verdict:
    said: list[str] = []
    verdict = asyncio.run(Play(options, plan.actions(options), folder, said.append).run())
    print(verdict.text())  # with the seed: `python -m bench fleet --seed N` plays it again
    return verdict


def test_all_promises_hold_on_postgres(tmp_path: Path) -> None:
    """Whoever dies, stops, sleeps past its lease or loses its connection in a commit, and while the server restarts and
    crashes: every job ends as it must, and nothing that is done is done again."""
    verdict = played(_ON_POSTGRES, tmp_path)
    assert verdict.holds
    # An attack that hits nobody proves nothing.
    attacks = verdict.played.attacks
    assert (
        min(attacks[what] for what in ("kill", "stop", "stall", "deploy", "restart", "crash", "terminate"))
        >= 1
    )
    assert attacks["cut a commit"] + attacks["cut a commit's answer"] >= 1
    assert verdict.figures["attempts"]["lost"] >= 1


def test_all_promises_hold_on_sqlite(tmp_path: Path) -> None:
    """The same on one file, where a stalled worker may hold the lock that all of them need."""
    verdict = played(_ON_SQLITE, tmp_path)
    assert verdict.holds
    assert min(verdict.played.attacks[what] for what in ("kill", "stop", "stall")) >= 1
    assert verdict.figures["attempts"]["lost"] >= 1
