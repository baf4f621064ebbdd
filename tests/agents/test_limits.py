"""Who is next and who may queue, decided purely: fairness, limits, and counts under whatever happens."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from lastcall.agents._limits import Limits, Ticket, check_priority, round_of_next
from lastcall.agents._places import Places
from lastcall.exceptions import QueueFull

USERS = st.sampled_from(["ann", "bob", "cid", None])


@given(st.lists(st.one_of(USERS, st.just("serve")), max_size=200))
def test_two_users_who_both_wait_are_served_alike(plan: list[Any]) -> None:
    """Prompts come in any order and are served one at a time: while two users both have some waiting, neither is ever
    more than one turn ahead of the other, counted from any moment on."""
    places = Places(Limits(1))
    waiting: dict[Any, int] = {"ann": 0, "bob": 0}
    served: dict[Any, int] = {"ann": 0, "bob": 0}
    least = most = 0  # of the difference since both began to wait
    now: Ticket | None = None
    number = 0
    for what in plan:
        if what != "serve":
            number += 1
            places.join(places.register(str(number), what, 0))
            if what in waiting:
                waiting[what] += 1
        else:
            if now is not None:
                places.forget(now)
            now = places.take()
            if now is not None and now.user in waiting:
                waiting[now.user] -= 1
                served[now.user] += 1
        if now is None:
            now = places.take()
            if now is not None and now.user in waiting:
                waiting[now.user] -= 1
                served[now.user] += 1
        difference = served["ann"] - served["bob"]
        if not all(waiting.values()):
            least = most = difference
        least, most = min(least, difference), max(most, difference)
        assert most - least <= 2
        assert not sum(waiting.values()) or now is not None


@given(st.integers(1, 300), st.integers(0, 300))
def test_a_newcomer_is_served_within_one_turn_of_everybody(many: int, begun: int) -> None:
    """However many prompts somebody has, and however many are done: who is new is next but one at the latest."""
    places = Places(Limits(1))
    for number in range(many):
        places.join(places.register(f"many {number}", "many", 0))
    now = places.take()
    for _ in range(min(begun, many - 1)):
        assert now is not None
        places.forget(now)
        now = places.take()
    assert now is not None
    places.join(places.register("new", "new", 0))
    following = []
    for _ in range(2):
        places.forget(now)
        now = places.take()
        if now is None:
            break
        following.append(now.user)
    assert "new" in following


@given(st.lists(st.integers(0, 50)), st.lists(st.integers(0, 50)), st.lists(st.integers(0, 50)))
def test_the_next_round(served: list[int], pending: list[int], of_user: list[int]) -> None:
    """A round is never one that is over, and never one that the user has had."""
    given_round = round_of_next(served, pending, of_user)
    assert given_round >= max(served, default=0)
    assert given_round > max(of_user, default=-1)
    if served:
        assert given_round == max(max(served), max(of_user, default=-1) + 1)


class Everything(RuleBasedStateMachine):
    """Runs come, begin, wait for a word, come back and end in any order; the limits hold and the counts are right."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(3, concurrency_per_user=2, max_pending=6, max_pending_per_user=3)
        self.places = Places(self.limits)
        self.pending: dict[str, Ticket] = {}
        self.holding: dict[str, Ticket] = {}
        self.aside: dict[str, Ticket] = {}
        self.returning: dict[str, Ticket] = {}
        self.number = 0

    @rule(target=runs, user=USERS, priority=st.integers(-2, 2))
    def submit(self, user: str | None, priority: int) -> str:
        self.number += 1
        run_id = str(self.number)
        must_wait = not self._may_hold(user)
        mine = sum(ticket.user == user for ticket in self.pending.values())
        full = must_wait and (len(self.pending) >= 6 or (user is not None and mine >= 3))
        try:
            self.places.check_room(user, must_wait=False)
        except QueueFull:
            assert full
            return "refused"
        assert not full
        ticket = self.places.register(run_id, user, priority)
        self.pending[run_id] = ticket
        self.places.join(ticket)
        self._fill()
        return run_id

    @rule(run_id=consumes(runs))
    def end(self, run_id: str) -> None:
        for known in (self.pending, self.holding, self.aside, self.returning):
            ticket = known.pop(run_id, None)
            if ticket is not None:
                self.places.forget(ticket)
        self._fill()

    @rule(run_id=runs)
    def wait_for_a_word(self, run_id: str) -> None:
        if run_id in self.holding:
            ticket = self.aside[run_id] = self.holding.pop(run_id)
            self.places.give_back(ticket)
            self._fill()

    @precondition(lambda self: self.aside)
    @rule()
    def come_back(self) -> None:
        run_id, ticket = self.aside.popitem()
        self.returning[run_id] = ticket
        self.places.join(ticket)
        self._fill()

    def _may_hold(self, user: str | None) -> bool:
        of_user = sum(ticket.user == user for ticket in self.holding.values())
        return len(self.holding) < 3 and (user is None or of_user < 2)

    def _fill(self) -> None:
        while (ticket := self.places.take()) is not None:
            assert self._may_hold(ticket.user)
            before = self.returning.pop(ticket.run_id, None) or self.pending.pop(ticket.run_id)
            assert before == ticket
            # Nobody of a higher priority, and nobody who had begun, was passed over without a reason.
            for other in (*self.returning.values(), *self.pending.values()):
                if other.neg_priority < ticket.neg_priority:
                    assert not self._may_hold(other.user)
            self.holding[ticket.run_id] = ticket

    @invariant()
    def nobody_waits_who_could_run(self) -> None:
        for ticket in (*self.pending.values(), *self.returning.values()):
            assert not self._may_hold(ticket.user)

    @invariant()
    def the_counts_are_right(self) -> None:
        places = self.places
        assert set(places._holding) == set(self.holding)
        assert set(places._pending) == set(self.pending)
        assert len(places._line) == len(self.pending) + len(self.returning)
        if not (self.pending or self.holding or self.aside or self.returning):
            assert not any(
                (places._known, places._last_round, places._known_of, places._pending_of, places._holding_of)
            )


TestEverything = Everything.TestCase


@pytest.mark.parametrize("priority", [10, -10, 1.5, "high", True, None])
def test_a_priority_that_is_none(priority: Any) -> None:
    """Priorities are few, so that all of them have room for their rounds in a store."""
    with pytest.raises(ValueError, match="priority"):
        check_priority(priority)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", 0),
        ("concurrency", True),
        ("concurrency", None),
        ("concurrency_per_user", 0),
        ("max_pending", -1),
        ("max_pending_per_user", 1.5),
    ],
)
def test_a_limit_that_is_none(name: str, value: Any) -> None:
    """Impossible limits are refused by name."""
    with pytest.raises(ValueError, match=name):
        Limits(**{"concurrency": 4, name: value}).checked()
