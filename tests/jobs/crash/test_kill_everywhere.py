"""kill -9 at every commit, at every await, before and after every effect: the job goes on, and no step is repeated."""

import random
from pathlib import Path

import pytest

from lastcall.jobs import AttemptOutcome
from tests.jobs.crash.forks import Nursery
from tests.jobs.crash.plays import LONG, Trapped, chosen, counts_of, play, seed, side_by_side, until_free
from tests.jobs.crash.traps import PLACES

SAMPLES = {"commit": 16, "committed": 16, "turn": 40, "write": 10, "written": 10}
RESTART_SECONDS = 2.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 180)]


@pytest.mark.parametrize("place", PLACES)
def test_a_job_survives_a_kill_at_every_place(place: str, nursery: Nursery, tmp_path: Path) -> None:
    """The process is killed at its n-th commit, turn of the loop or effect; started again, it finishes the job."""
    generator = random.Random(chosen_by := seed())
    print(f"LASTCALL_SEED={chosen_by}")
    count = counts_of(play(nursery, tmp_path / "free", None, 0))[place]

    def killed(nth: int) -> Trapped:
        return play(nursery, tmp_path / f"{place} {nth}", place, nth)

    played = side_by_side(killed, chosen(count, SAMPLES[place], generator))
    if LONG:
        played += until_free(killed, count)
    assert [told for one in played for told in one.broken()] == []
    caught = [one for one in played if one.sprung]
    assert {(one.first_code, one.second_code) for one in caught} == {(-9, 0)}
    assert {one.first_code for one in played if not one.sprung} <= {0}
    # Not one of these kills missed everything, and none cost the job more than the attempt that ran.
    lost = [one.count(AttemptOutcome.LOST) for one in caught]
    assert max(lost) == 1
    assert all(one.begins()["once"] == one.begins()["asked"] == 1 for one in played)
    again = {one.name: one.again_seconds for one in caught if one.again_seconds is not None}
    assert {name: seconds for name, seconds in again.items() if seconds > RESTART_SECONDS} == {}


def test_a_job_survives_being_killed_again_and_again(nursery: Nursery, tmp_path: Path) -> None:
    """Every process that takes the job is killed somewhere; what each has completed stays."""
    generator = random.Random(chosen_by := seed())
    print(f"LASTCALL_SEED={chosen_by}")
    played = [play(nursery, tmp_path, "turn", generator.randrange(60, 400), again=n) for n in range(8)]
    assert [one.first_code for one in played[:3]] == [-9, -9, -9]
    last = play(nursery, tmp_path, None, 0, again=len(played))
    assert last.first_code == 0
    assert last.broken() == []
    assert last.count(AttemptOutcome.LOST) >= 2
