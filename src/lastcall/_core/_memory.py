"""The records of what has ended: so many, for so long, with or without what they came to.

Bounded by count and by age, because a service that runs for months ends more tasks than it has memory.
The age is kept by one timer, and only while there is something to forget.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from contextvars import Context
from typing import Any

from ._clock import Clock
from ._record import Record
from ._state import TaskStatus

_COMPLETED, _FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED


class Memory:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        context: Context,
        *,
        keep_ended: int,
        keep_ended_seconds: float,
        keep_results: bool,
        keep_errors: bool,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._context = context
        self._keep_seconds = keep_ended_seconds
        self._keep_results = keep_results
        self._keep_errors = keep_errors
        self._expiry: asyncio.TimerHandle | None = None
        self._needs_care = not (keep_results and keep_errors and keep_ended)
        self.ended: deque[Record] = deque(maxlen=keep_ended)
        # The ids that users chose, of live and of ended work; one is free again when its record is forgotten.
        self.ids: dict[str, Record] = {}

    def remember(self, record: Record, task: asyncio.Task[Any]) -> None:
        """Keep an ended record, for as long as the bounds allow."""
        if self._expiry is None or self._needs_care or self.ids:
            self._remember_with_care(record, task)
        else:
            self.ended.append(record)

    def _remember_with_care(self, record: Record, task: asyncio.Task[Any]) -> None:
        ended = self.ended
        if ended.maxlen == 0:
            record.task = None
            self.forget_id(record)
            return
        self._lighten(record, task)
        if len(ended) == ended.maxlen:
            self.forget_id(ended[0])
        ended.append(record)
        if self._expiry is None:
            self._expiry = self._loop.call_later(self._keep_seconds, self._expire, context=self._context)

    def _lighten(self, record: Record, task: asyncio.Task[Any]) -> None:
        """Where results or errors are not kept: keep the task findable, but neither its end nor its context."""
        if self._keep_results and self._keep_errors:
            return
        if record.status is _FAILED and self._keep_errors:
            record.ensure_extra().error = task.exception()
        if not (record.status is _COMPLETED and self._keep_results):
            record.task = weakref.ref(task)

    def forget_id(self, record: Record) -> None:
        """Let the id of this record be taken again."""
        if record.extra is not None and record.extra.id is not None:
            self.ids.pop(record.extra.id, None)

    def _expire(self) -> None:
        self._expiry = None
        ended, oldest = self.ended, self._clock() - self._keep_seconds
        while ended and (ended[0].ended_at or 0.0) <= oldest:
            self.forget_id(ended.popleft())
        if ended:
            wait = (ended[0].ended_at or 0.0) + self._keep_seconds - self._clock()
            self._expiry = self._loop.call_later(max(wait, 0.001), self._expire, context=self._context)

    def close(self) -> None:
        """Stop the timer; the records stay readable."""
        if self._expiry is not None:
            self._expiry.cancel()

    def find(self, task: asyncio.Task[Any] | None) -> Record | None:
        """The record of an ended task. A record whose task is gone too has None for it, which is nobody's."""
        return (
            None
            if task is None
            else next((record for record in self.ended if record.live_task is task), None)
        )

    def end_of(self, record: Record) -> tuple[Any, BaseException | None]:
        """The result and the error of a record, as far as they are kept."""
        kept = None if record.extra is None else record.extra.error
        task = record.live_task
        if record.ended_at is None or task is None or not task.done():
            return None, kept
        if record.status is _COMPLETED and self._keep_results:
            return task.result(), None
        if record.status is _FAILED and self._keep_errors:
            return None, task.exception()
        return None, kept
