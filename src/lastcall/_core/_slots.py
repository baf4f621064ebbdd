"""Slots: a group's limit, the tasks that wait behind it, and the producers that wait for room among those.

A task behind the limit exists from the start (it can be listed, awaited, cancelled), so its coroutine is wrapped
in one that first waits for a gate. First come, first served; each gate is opened by the end of another task.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any, TypeVar

from ._record import Record
from ._roster import Roster
from ._state import TaskStatus

T = TypeVar("T")


class Slots:
    def __init__(self, limit: int | None, max_pending: int | None) -> None:
        self.limit = limit
        self.max_pending = max_pending
        self.running = 0
        # OrderedDicts, because all three ends are needed: in at the back, out at the front, and out in between
        # when ten thousand that wait are cancelled at once.
        self.gates: OrderedDict[asyncio.Task[Any], asyncio.Future[None]] = OrderedDict()
        self.gated: dict[asyncio.Task[Any], Coroutine[Any, Any, Any]] = {}
        self.rooms: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def are_full(self) -> bool:
        """Whether nothing more may wait."""
        if self.limit is None or self.max_pending is None:
            return False
        return self.running >= self.limit and len(self.gates) >= self.max_pending

    @property
    def is_one_free(self) -> bool:
        """Whether a task may start at once: there is a slot, and nobody waits for it."""
        return self.limit is None or (self.running < self.limit and not self.gates)

    def wait(
        self, task: asyncio.Task[Any], gate: asyncio.Future[None], coro: Coroutine[Any, Any, Any]
    ) -> None:
        """Queue a task that was made from `behind(gate, coro)`."""
        self.gates[task] = gate
        self.gated[task] = coro

    def release(self, record: Record, task: asyncio.Task[Any], roster: Roster) -> None:
        """A task has ended, which ran or waited; let others in."""
        coro = self.gated.pop(task, None)
        if coro is not None:
            coro.close()  # cancelled before its first step, it never ran, and would warn of that
        if record.started_at is not None:
            self.running -= 1
        else:
            self.gates.pop(task, None)
            self.signal_room()
        self._open_gates(roster)
        if self.is_one_free:
            self.signal_room()

    def _open_gates(self, roster: Roster) -> None:
        assert self.limit is not None
        while self.gates and self.running < self.limit:
            task, gate = self.gates.popitem(last=False)
            record = roster.live.get(task)
            if record is None or gate.done():
                continue  # cancelled while it waited; its end is on the way
            self.running += 1
            record.status = TaskStatus.RUNNING
            record.started_at = roster.clock()
            gate.set_result(None)
            self.signal_room()

    async def wait_for_room(self) -> None:
        """Wait until one more may wait. Whoever then does not take the room must pass it on: `signal_room()`."""
        while self.are_full:
            room = asyncio.get_running_loop().create_future()
            self.rooms[room] = None
            try:
                await room
            except BaseException:
                if room.done() and not room.cancelled():
                    self.signal_room()
                raise
            finally:
                self.rooms.pop(room, None)

    def signal_room(self) -> None:
        """Wake the producer that has waited longest."""
        while self.rooms:
            room, _ = self.rooms.popitem(last=False)
            if not room.done():
                room.set_result(None)
                return


def behind(gate: asyncio.Future[None], coro: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """`coro`, to run once the gate is open; called by its name in every list and stack."""
    waiting = _behind(gate, coro)
    if isinstance(waiting, CoroutineType):
        waiting.__qualname__ = str(getattr(coro, "__qualname__", "pending"))
    return waiting


async def _behind(gate: asyncio.Future[None], coro: Coroutine[Any, Any, T]) -> T:
    try:
        await gate
    except BaseException:
        coro.close()
        raise
    return await coro
