"""LiveRun: one run in this process, all that is known of it; and EndedRuns, the bounded memory of those that are over.

Who calls it: `_memory`, which alone changes them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from time import time
from typing import Any

from .._core._record import Record
from .._core._state import StopReason
from ._limits import Ticket
from ._log import MemoryLog
from ._run import Order, RunInfo, RunStatus, shown_info


class LiveRun:
    """One run, all that is known of it."""

    def __init__(self, order: Order, ticket: Ticket, most_bytes: int) -> None:
        self.id = ticket.run_id
        self.order = order
        self.ticket = ticket
        self.status = RunStatus.PENDING
        self.log = MemoryLog(self.id, lambda: shown_info(self.info()), most_bytes)
        self.gate: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.record: Record | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.told_error: dict[str, str] | None = None
        self.reason: StopReason | None = None
        self.created_at = time()
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.ended = asyncio.Event()
        self._mail: dict[str, list[Any]] = {}
        self._mail_came = asyncio.Event()

    def info(self) -> RunInfo:
        order = self.order
        return RunInfo(
            id=self.id,
            status=self.status,
            prompt=order.prompt,
            user=order.user,
            priority=order.priority,
            conversation=order.conversation,
            turn=order.turn,
            attempt=int(self.started_at is not None),
            result=self.result,
            error=self.told_error,
            reason=self.reason,
            created_at=self.created_at,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )

    def deliver(self, name: str, data: Any) -> None:
        """A message for `take`."""
        self._mail.setdefault(name, []).append(data)
        self._mail_came.set()

    def has_mail(self, name: str) -> bool:
        return bool(self._mail.get(name))

    async def take(self, name: str) -> Any:
        """The oldest message of this name, when there is one."""
        while not self._mail.get(name):
            self._mail_came.clear()
            await self._mail_came.wait()
        return self._mail[name].pop(0)


class EndedRuns:
    """The last `keep` runs that have ended, none for longer than `keep_seconds`, all together within `keep_bytes`."""

    def __init__(self, keep: int, keep_seconds: float, keep_bytes: int) -> None:
        self._keep = keep
        self._keep_seconds = keep_seconds
        self._keep_bytes = keep_bytes
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._bytes = 0

    def get(self, run_id: str) -> LiveRun | None:
        return self._runs.get(run_id)

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(self._runs.values())

    def remember(self, live: LiveRun) -> list[LiveRun]:
        """Keep this one, and forget those for which there is no room any more: these."""
        live.task = live.record = live.gate = None
        self._runs[live.id] = live
        self._bytes += live.log.bytes
        forgotten = []
        while self._runs and self._is_too_much():
            _, gone = self._runs.popitem(last=False)
            self._bytes -= gone.log.bytes
            forgotten.append(gone)
        return forgotten

    def _is_too_much(self) -> bool:
        oldest = next(iter(self._runs.values()))
        return (
            len(self._runs) > self._keep
            or (self._bytes > self._keep_bytes and len(self._runs) > 1)
            or (oldest.ended_at or 0.0) < time() - self._keep_seconds
        )
