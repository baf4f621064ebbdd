"""What verbs work with, inside the transaction that the writer thread has begun for them.

Who makes it: the writer, one for each time the file was opened. It knows the connection, the time of this transaction,
and the lanes: (queue, task, version) by number, few enough to be known by heart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from ...jobs._processes import ProcessIdentity
from ...jobs._rows import NewEvent
from .._outage import Outage
from ._clock import Clock

Call = TypeVar("Call")
Answer = TypeVar("Answer")

_LANES_AFTER = "SELECT id, queue, task, version FROM lastcall_lane WHERE id > ? ORDER BY id"
_NEW_LANE = "INSERT INTO lastcall_lane (queue, task, version) VALUES (?, ?, ?)"


# So many rows and more are worth a statement for all of them.
FEW = 4


class Lane(NamedTuple):
    """Where jobs stand in line: one queue, one task, one version."""

    queue: str
    task: str
    version: str


class Entry(NamedTuple):
    """An entry to be appended to the log of the job with this number; `attempt` 0: it comes from outside of one."""

    n: int
    attempt: int
    event: NewEvent


class CallersError(Exception):
    """What the caller's own code raised inside the transaction; to be passed on as it is."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Verb(Generic[Call, Answer]):
    """A verb that writes: answers all calls of it that are committed together.

    `rank`: the order within one commit. `alone`: never committed with others. `urgent`: before all that waits.
    """

    __slots__ = ("alone", "answer", "rank", "urgent")

    def __init__(
        self,
        rank: int,
        answer: Callable[[Store, Sequence[Call]], list[Answer]],
        *,
        alone: bool = False,
        urgent: bool = False,
    ) -> None:
        self.rank = rank
        self.answer = answer
        self.alone = alone
        self.urgent = urgent


def each(function: Callable[[Store, Call], Answer]) -> Callable[[Store, Sequence[Call]], list[Answer]]:
    """A verb that gains nothing from being called together."""

    def answer(store: Store, calls: Sequence[Call]) -> list[Answer]:
        return [function(store, call) for call in calls]

    return answer


class Store:
    """The open file. Used by the writer thread only."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        clock: Clock,
        retention_seconds: float,
        here: ProcessIdentity,
        outage: Outage,
    ) -> None:
        self.connection = connection
        self.execute: Callable[..., sqlite3.Cursor] = connection.execute
        self.executemany: Callable[[str, Iterable[Any]], sqlite3.Cursor] = connection.executemany
        self.clock = clock
        self.now = clock.wall()
        self.retention_seconds = retention_seconds
        self.here = here
        self.outage = outage
        self.told: list[Entry] = []
        self.lanes: dict[int, Lane] = {}
        self._lane_ids: dict[tuple[str, str, str], int] = {}
        self._last_lane = 0

    def begin(self) -> None:
        """Take the write lock. All verbs of one transaction happen at the same time."""
        self.told.clear()
        self.execute("BEGIN IMMEDIATE")
        self.now = self.clock.wall()

    def tell(self, n: int, attempt: int, event: NewEvent) -> None:
        """Append this to the job's log before the commit (`_log.write_told`)."""
        self.told.append(Entry(n, attempt, event))

    def commit(self) -> None:
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Take everything back. SQLite may have done so by itself, for instance when the disk is full."""
        self.lanes.clear()
        self._lane_ids.clear()
        self._last_lane = 0
        if self.connection.in_transaction:
            self.execute("ROLLBACK")

    # --- lanes -----------------------------------------------------------------------------------------

    def learn_lanes(self) -> dict[int, Lane]:
        """All lanes, also those that other processes have added."""
        for number, queue, task, version in self.execute(_LANES_AFTER, (self._last_lane,)):
            self.lanes[number] = Lane(queue, task, version)
            self._lane_ids[queue, task, version] = number
            self._last_lane = number
        return self.lanes

    def lane(self, queue: str, task: str, version: str) -> int:
        """The number of a lane; it is added if there is none."""
        number = self._lane_ids.get((queue, task, version))
        if number is None:
            self.learn_lanes()
            number = self._lane_ids.get((queue, task, version))
        if number is None:
            self.execute(_NEW_LANE, (queue, task, version))
            self.learn_lanes()
            number = self._lane_ids[queue, task, version]
        return number
