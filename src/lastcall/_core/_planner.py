"""Deciding, apart from acting: who is cancelled now, who is given up, when to look again.

Pure: no loop, no clock, no side effect; so it can be fuzzed with made-up work and times.
The one rule of a deadline: work is cancelled when its own grace or the drain is over, whichever comes first,
and given up when the cancel phase is over. Nothing is decided twice; nothing is left undecided at the end.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from ._plan import Deadlines


class Work(Protocol):
    """What the planner needs to know of a record."""

    @property
    def daemon(self) -> bool: ...
    @property
    def cancelled_at(self) -> float | None: ...
    @property
    def grace_seconds(self) -> float | None: ...


W = TypeVar("W", bound=Work)


class Decision(NamedTuple, Generic[W]):
    """What to do now, and the next moment at which deciding again could change anything."""

    cancel: list[W]
    give_up: list[W]
    look_again_at: float


def cancel_due(work: Work, deadlines: Deadlines) -> float:
    """When this work's time is over."""
    grace = work.grace_seconds
    return deadlines.drain_end if grace is None else min(deadlines.drain_start + grace, deadlines.drain_end)


def decide(works: Iterable[W], now: float, deadlines: Deadlines) -> Decision[W]:
    """Look at all live work once. Daemons are cancelled with the rest when the drain ends, never waited for."""
    cancel: list[W] = []
    give_up: list[W] = []
    look_again_at = math.inf
    drain_end, cancel_end = deadlines.drain_end, deadlines.cancel_end
    for work in works:
        if work.cancelled_at is None:
            due = drain_end if work.grace_seconds is None else cancel_due(work, deadlines)
            if now < due:
                look_again_at = min(look_again_at, due)
                continue
            cancel.append(work)
        if now >= cancel_end:
            give_up.append(work)
        else:
            look_again_at = min(look_again_at, cancel_end)
    return Decision(cancel, give_up, look_again_at)


def groups_to_tell(
    waits_for: Mapping[str, Collection[str]], busy: Collection[str], drain_over: bool
) -> list[str]:
    """Which of the groups that stop late are told now: those whose predecessors are empty.

    `waits_for` names, for each group not told yet, the groups that stop before it; `busy` those with work.
    Once the drain is over everybody is told: order is a luxury of those who have time.
    """
    if drain_over:
        return list(waits_for)
    return [name for name, before in waits_for.items() if not any(other in busy for other in before)]
