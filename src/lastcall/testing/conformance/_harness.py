"""What a case is given: two engine objects on one store, and a clock that the case moves.

Who implements it: whoever has an engine to test. One harness serves one case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from ...jobs._engine import Engine
from ...jobs._rows import WorkerRow
from .._clock import VirtualClock
from ._watch import Watch


class UserTransaction(NamedTuple):
    """A transaction of a user's own in the store's database, begun; `connection` is what `submit_within` takes."""

    connection: Any
    commit: Callable[[], Awaitable[object]]
    rollback: Callable[[], Awaitable[object]]


class Harness(ABC):
    """One empty store and two engine objects on it, `engine` and `other`, as two processes would have them.

    `make` is all that must be written. Give the engines `self.clock`, or override `advance` and `jump_wall`.
    `bare` and `bare_other` are the same engines without the watch on their statuses, for verbs at the same time.

    >>> class MyHarness(Harness):
    ...     def make(self):
    ...         return MyEngine(self.path, clock=self.clock)
    """

    bare: Engine
    bare_other: Engine
    engine: Engine
    other: Engine

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.watch = Watch()

    @abstractmethod
    def make(self) -> Engine:
        """A new engine object on the store, not open yet."""

    def identify(self, worker: WorkerRow) -> WorkerRow:
        """The worker as one in a process that `kill` can end: its pid and whatever else says which process it is."""
        return worker

    def kill(self, worker_id: str) -> bool:
        """Let the process of this worker be gone. False: the engine cannot see such a thing, only leases count."""
        return False

    def transaction(self) -> AbstractAsyncContextManager[UserTransaction]:
        """A transaction of a user's own, in which a case submits; at the end of the block it is over, one way or the
        other. Only for engines with `submit_within`."""
        raise NotImplementedError("an engine with `submit_within` needs a harness with a `transaction`")

    def advance(self, seconds: float) -> None:
        """Let so much time pass for the engines."""
        self.clock.advance(seconds)

    def jump_wall(self, seconds: float) -> None:
        """Set the engines' wall clock forward or back, while no time passes."""
        self.clock.jump_wall(seconds)

    async def open(self) -> None:
        """Make and open both engines."""
        self.bare, self.bare_other = self.make(), self.make()
        self.engine, self.other = self.watch.over(self.bare), self.watch.over(self.bare_other)
        await self.bare.open()
        await self.bare_other.open()

    async def close(self) -> None:
        """Close both engines."""
        await self.bare.close()
        await self.bare_other.close()

    async def reopen(self) -> None:
        """Close both and open new ones on the same store, as after a restart."""
        await self.close()
        await self.open()
