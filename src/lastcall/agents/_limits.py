"""Who is next, and who may queue: fairness between users, and limits on each. Pure; both kinds of queue decide by it.

Theory of operation. A user with a hundred prompts must not keep the others waiting, nor may somebody who sends one
prompt after the other keep the hundred waiting. So each run is given a *round* when it is submitted: the one that is
being served now, or the one after the user's last, whichever is later. Of the same priority the lower round is first,
and in a round who came first. A hundred prompts get the rounds 0 to 99; somebody new, while round 7 is served, joins
round 7; whoever comes again joins the round that is served then, and so never overtakes for ever (start-time fair
queueing).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .._core._clock import check_count
from ..exceptions import QueueFull

HIGHEST_PRIORITY = 9


class Limits(NamedTuple):
    """`concurrency`: so many runs at once; `concurrency_per_user`: of them of one user. `max_pending` and
    `max_pending_per_user`: so many may wait. None: no limit. Runs of no user have those of all users only."""

    concurrency: int
    concurrency_per_user: int | None = None
    max_pending: int | None = None
    max_pending_per_user: int | None = None

    def checked(self) -> Limits:
        """These limits themselves. Raises ValueError naming what is wrong with them."""
        check_count("AgentQueue(concurrency)", self.concurrency, 1)
        for name, at_least in (("concurrency_per_user", 1), ("max_pending", 0), ("max_pending_per_user", 0)):
            value = getattr(self, name)
            if value is not None:
                check_count(f"AgentQueue({name})", value, at_least)
        return self

    def check_room(self, user: str | None, pending: int, pending_of_user: int) -> None:
        """Raises `QueueFull` if nobody more may wait, or no more of this user."""
        if self.max_pending is not None and pending >= self.max_pending:
            raise QueueFull(f"{pending} prompts wait, and at most {self.max_pending} may; try again later")
        most = self.max_pending_per_user
        if user is not None and most is not None and pending_of_user >= most:
            raise QueueFull(
                f"{pending_of_user} prompts of the user {user!r} wait, and at most {most} may; "
                "try again when one has begun"
            )


def check_priority(priority: int) -> int:
    """`priority` itself, or ValueError."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > HIGHEST_PRIORITY:
        raise ValueError(
            f"a priority is a whole number from {-HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}, higher is first, "
            f"not {priority!r}"
        )
    return priority


def round_of_next(served: Iterable[int], pending: Iterable[int], of_user: Iterable[int]) -> int:
    """The round of a new run. `served`: the rounds of the runs that run; `pending`: of those that wait; `of_user`: of
    this user's among both. All of the new run's priority."""
    now = max(served, default=None)
    if now is None:
        now = min(pending, default=0)
    return max(now, max(of_user, default=-1) + 1)


class Ticket(NamedTuple):
    """A place in the line; the least is next."""

    neg_priority: int
    round: int
    number: int
    user: str | None
    run_id: str


class Line:
    """Those who wait for their turn: by priority, then by user, each user's in order."""

    def __init__(self) -> None:
        self._lanes: dict[int, dict[str | None, list[Ticket]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, ticket: Ticket) -> None:
        """Join the line."""
        heapq.heappush(self._lanes.setdefault(ticket.neg_priority, {}).setdefault(ticket.user, []), ticket)
        self._size += 1

    def leave(self, ticket: Ticket) -> None:
        """One that waits gives up; harmless for one that does not wait."""
        tickets = self._lanes.get(ticket.neg_priority, {}).get(ticket.user, [])
        if ticket in tickets:
            tickets.remove(ticket)
            heapq.heapify(tickets)
            self._took_from(ticket, tickets)

    def take(self, may_run: Callable[[str | None], bool]) -> Ticket | None:
        """Take out who is next among the users who may have one more running."""
        for neg_priority in sorted(self._lanes):
            heads = (tickets[0] for user, tickets in self._lanes[neg_priority].items() if may_run(user))
            first = min(heads, default=None)
            if first is not None:
                tickets = self._lanes[neg_priority][first.user]
                heapq.heappop(tickets)
                self._took_from(first, tickets)
                return first
        return None

    def first_rounds(self, neg_priority: int) -> list[int]:
        """The round of each user's first one of this priority."""
        return [tickets[0].round for tickets in self._lanes.get(neg_priority, {}).values()]

    def _took_from(self, ticket: Ticket, tickets: list[Ticket]) -> None:
        self._size -= 1
        if not tickets:
            lane = self._lanes[ticket.neg_priority]
            del lane[ticket.user]
            if not lane:
                del self._lanes[ticket.neg_priority]
