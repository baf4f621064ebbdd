"""Who is dead by the server's clock, and what happens when that clock jumps."""

import pytest

from lastcall.engines.postgres._leases import Lease, Leases
from lastcall.jobs._processes import ProcessIdentity

HERE = ProcessIdentity(1, None, None, None)
WALL = 1_800_000_000.0


def lease(renewed_at: float, seconds: float = 15.0) -> Lease:
    return Lease("w", HERE, seconds, renewed_at + seconds, renewed_at)


class Seen:
    """One engine that looks at one worker's row; the server's clock and its own."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.wall, self.monotonic = WALL, 100.0
        self.look_at_clock()

    def look_at_clock(self, answer_seconds: float = 0.0) -> None:
        self.leases.observe(self.wall, self.monotonic, self.monotonic + answer_seconds)

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def dead(self, row: Lease) -> bool:
        self.look_at_clock()
        return [found.worker_id for found, _ in self.leases.dead([row], self.wall, self.monotonic, HERE)] == [
            "w"
        ]


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_a_lease_ends_when_its_time_has_come(seen: Seen) -> None:
    """While both clocks agree, at the first look already."""
    row = lease(WALL)
    seen.advance(14.9)
    assert not seen.dead(row)
    seen.advance(0.2)
    assert seen.dead(row)


@pytest.mark.parametrize("jump", [3600.0, 86_400.0, -3600.0, -86_400.0])
def test_a_jump_ends_no_lease(seen: Seen, jump: float) -> None:
    """The server's clock is set: a worker that renews lives on, one that does not is dead after its lease."""
    row = lease(WALL)
    seen.advance(1.0)
    seen.wall += jump
    assert not seen.dead(row)
    for _ in range(3):
        seen.advance(5.0)
        row = lease(seen.wall)
        assert not seen.dead(row)
    seen.advance(14.0)
    assert not seen.dead(row)
    seen.advance(2.0)
    assert seen.dead(row)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_who_died_with_the_jump_is_dead_after_its_lease(seen: Seen, jump: float) -> None:
    """The worker died in the moment in which the clock was set: its row is watched for the length of its lease."""
    row = lease(WALL)
    assert not seen.dead(row)
    seen.wall += jump
    assert not seen.dead(row)
    seen.advance(14.0)
    assert not seen.dead(row)
    seen.advance(1.5)
    assert seen.dead(row)


def test_an_answer_that_took_long_is_no_jump(seen: Seen) -> None:
    """The loop was blocked for ten seconds before it read the server's answer."""
    seen.advance(1.0)
    seen.look_at_clock(answer_seconds=10.0)
    seen.monotonic += 10.0
    seen.wall += 10.0
    row = lease(WALL)
    seen.advance(4.1)
    assert seen.dead(row)


def test_a_failover_to_a_clock_that_is_a_little_off_is_no_jump(seen: Seen) -> None:
    """The new server's clock differs by half a second."""
    row = lease(WALL)
    seen.wall += 0.5
    seen.advance(14.6)
    assert seen.dead(row)
