"""Places: who holds one, who waits for one, in one process. Pure; decides by `_limits`, acts on nothing.

Who calls it: `_memory`, at every submission, beginning and end. What it owns: the line and the counts, so that none of
these looks at all the runs there are.
"""

from __future__ import annotations

from collections import Counter

from ._limits import Limits, Line, Ticket, round_of_next

# The round of one whose work has begun: before all of its priority that have not.
_BEGUN = -1


class Places:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._line = Line()
        self._known: dict[str, Ticket] = {}
        self._holding: dict[str, Ticket] = {}
        self._holding_of: Counter[str | None] = Counter()
        self._pending: dict[str, Ticket] = {}
        self._pending_of: Counter[str | None] = Counter()
        self._known_of: Counter[tuple[str | None, int]] = Counter()
        self._last_round: dict[tuple[str | None, int], int] = {}
        self._number = 0

    def check_room(self, user: str | None, *, must_wait: bool) -> None:
        """Raises `QueueFull` where one more would have to wait, and may not."""
        if must_wait or not self._may_hold(user):  # if this user may, nobody who waits may
            self._limits.check_room(user, len(self._pending), self._pending_of[user])

    def register(self, run_id: str, user: str | None, priority: int) -> Ticket:
        """A new run, which waits from now on, though not in the line yet."""
        lane = (user, -priority)
        served = [ticket.round for ticket in self._holding.values() if ticket.neg_priority == -priority]
        pending = () if served else self._line.first_rounds(-priority)
        of_user = (self._last_round[lane],) if lane in self._last_round else ()
        self._number += 1
        ticket = Ticket(-priority, round_of_next(served, pending, of_user), self._number, user, run_id)
        self._last_round[lane] = ticket.round
        self._known_of[lane] += 1
        self._known[run_id] = self._pending[run_id] = ticket
        self._pending_of[user] += 1
        return ticket

    def join(self, ticket: Ticket) -> None:
        """Wait in the line; one that has begun goes to its head."""
        self._line.add(ticket if ticket.run_id in self._pending else ticket._replace(round=_BEGUN))

    def take(self) -> Ticket | None:
        """The next one gets its place. None: nobody waits, or nobody may."""
        ticket = self._line.take(self._may_hold)
        if ticket is None:
            return None
        ticket = self._known[ticket.run_id]
        self._no_longer_pending(ticket)
        self._holding[ticket.run_id] = ticket
        self._holding_of[ticket.user] += 1
        return ticket

    def give_back(self, ticket: Ticket) -> None:
        """It holds its place no more, and does not wait for one."""
        if self._holding.pop(ticket.run_id, None) is not None:
            self._holding_of[ticket.user] -= 1
            if not self._holding_of[ticket.user]:
                del self._holding_of[ticket.user]
        self._line.leave(ticket)
        self._line.leave(ticket._replace(round=_BEGUN))

    def forget(self, ticket: Ticket) -> None:
        """It has ended."""
        self.give_back(ticket)
        self._no_longer_pending(ticket)
        self._known.pop(ticket.run_id, None)
        lane = (ticket.user, ticket.neg_priority)
        self._known_of[lane] -= 1
        if not self._known_of[lane]:
            del self._known_of[lane], self._last_round[lane]

    def holds(self, ticket: Ticket) -> bool:
        """Whether it has a place."""
        return ticket.run_id in self._holding

    def clear_line(self) -> None:
        """Nobody who has not begun is let in any more."""
        begun = Line()
        while (ticket := self._line.take(lambda user: True)) is not None:
            if ticket.run_id not in self._pending:
                begun.add(ticket)
        self._line = begun

    def _may_hold(self, user: str | None) -> bool:
        limits = self._limits
        if len(self._holding) >= limits.concurrency:
            return False
        most = limits.concurrency_per_user
        return user is None or most is None or self._holding_of[user] < most

    def _no_longer_pending(self, ticket: Ticket) -> None:
        if self._pending.pop(ticket.run_id, None) is not None:
            self._pending_of[ticket.user] -= 1
            if not self._pending_of[ticket.user]:
                del self._pending_of[ticket.user]
