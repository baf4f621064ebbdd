"""Leases that ended while nobody could write."""

import pytest

from lastcall.engines._outage import Outage

LEASE = 15.0


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock) -> Outage:
    return Outage(clock)


def transaction(clock: Clock, outage: Outage, seconds: float) -> None:
    outage.begin()
    clock.now += seconds
    outage.end()


def test_a_store_that_was_there_excuses_nobody(clock: Clock, outage: Outage) -> None:
    """Commits that take a little, and long times without any, are no outage."""
    for seconds in (0.01, 1.0, 4.9):
        transaction(clock, outage, seconds)
        clock.now += 100.0
        assert not outage.excuses(LEASE)


def test_whoever_still_waits_for_the_lock_judges_nobody(clock: Clock, outage: Outage) -> None:
    """In the transaction that has waited long itself."""
    outage.begin()
    clock.now += LEASE / 3
    assert outage.excuses(LEASE)


def test_tries_that_fail_count_from_the_first_one(clock: Clock, outage: Outage) -> None:
    """A full disk fails every commit at once, for a long time."""
    for _ in range(10):
        outage.begin()
        clock.now += 1.0
    assert outage.excuses(LEASE)
    outage.end()
    assert outage.excuses(LEASE)


@pytest.mark.parametrize("later", [0.0, 1.0, 2.9])
def test_the_others_get_time_to_renew(later: float, clock: Clock, outage: Outage) -> None:
    """For some seconds after an outage, also when short transactions follow it."""
    transaction(clock, outage, 6.0)
    for _ in range(3):
        transaction(clock, outage, 0.01)
    clock.now += later - 0.03
    assert outage.excuses(LEASE)


def test_who_has_not_renewed_by_then_is_dead(clock: Clock, outage: Outage) -> None:
    """The time is bounded, and a short wait afterwards does not prolong it."""
    transaction(clock, outage, 6.0)
    transaction(clock, outage, 0.5)
    clock.now += 3.0
    assert not outage.excuses(LEASE)


def test_a_shorter_lease_ends_in_a_shorter_outage(clock: Clock, outage: Outage) -> None:
    """What is nothing for a lease of fifteen seconds is one for a lease of one."""
    transaction(clock, outage, 0.7)
    assert outage.excuses(1.0)
    assert not outage.excuses(LEASE)
