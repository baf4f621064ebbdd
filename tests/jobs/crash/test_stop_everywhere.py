"""SIGTERM at every commit, at every await, in every effect: the job is handed over and costs nothing."""

import random
from pathlib import Path

import pytest

from lastcall.jobs import AttemptOutcome
from tests.jobs.crash import ledger
from tests.jobs.crash.forks import Nursery
from tests.jobs.crash.plays import LONG, Trapped, chosen, counts_of, play, seed, side_by_side, until_free
from tests.jobs.crash.programs import Settings
from tests.jobs.crash.traps import PLACES

SAMPLES = {"commit": 12, "committed": 12, "turn": 30, "write": 8, "written": 8}
GONE_SECONDS = 1.0  # the steps in flight take milliseconds
AGAIN_SECONDS = 1.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 180)]


@pytest.mark.parametrize("place", PLACES)
def test_a_job_is_handed_over_at_every_place(place: str, nursery: Nursery, tmp_path: Path) -> None:
    """The process gets SIGTERM at its n-th commit, turn of the loop or effect: it exits with 0 after the step in
    flight, and the next process goes on with the next step."""
    generator = random.Random(chosen_by := seed())
    print(f"LASTCALL_SEED={chosen_by}")
    count = counts_of(play(nursery, tmp_path / "free", None, 0, "SIGTERM"))[place]

    def stopped(nth: int) -> Trapped:
        return play(nursery, tmp_path / f"{place} {nth}", place, nth, "SIGTERM")

    played = side_by_side(stopped, chosen(count, SAMPLES[place], generator))
    if LONG:
        played += until_free(stopped, count)
    assert [told for one in played for told in one.broken()] == []
    caught = [one for one in played if one.sprung]
    assert {(one.first_code, one.second_code) for one in caught} == {(0, 0)}
    assert {one.first_code for one in played if not one.sprung} <= {0}
    handed_over = [one.count(AttemptOutcome.HANDED_OVER, "shutdown") for one in caught]
    # The second time: a claim that was on its way when the stop came, given back before anything ran.
    assert 1 <= max(handed_over) <= 2
    assert {one.name: one.twice() for one in played if one.twice()} == {}
    late = {one.name: one.gone_seconds for one in caught if one.gone_seconds > GONE_SECONDS}
    late |= {one.name: one.again_seconds for one in caught if (one.again_seconds or 0.0) > AGAIN_SECONDS}
    assert late == {}


def test_a_worker_can_be_stopped_while_it_starts(nursery: Nursery, tmp_path: Path) -> None:
    """A deploy that is taken back stops workers that have not opened their store yet: no error, and a clean exit."""
    free = Settings("serve", str(tmp_path / "jobs.db"), str(tmp_path / "ledger"), str(tmp_path / "log"))
    before_up = 0
    for nth in range(1, 100):
        child = nursery.spawn(free._replace(place="turn", nth=nth, signal="SIGTERM"))
        # 143: nothing had been opened that could be drained.
        assert child.wait() in ((0, 143) if nth <= 3 else (0,))
        assert "Traceback" not in (tmp_path / "log").read_text(encoding="utf-8")
        told = [line.what for line in ledger.read(free.ledger) if line.pid == child.pid]
        if told.index("sprung") > 1:
            break
        before_up += 1
    assert before_up > 3
