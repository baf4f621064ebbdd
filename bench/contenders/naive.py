"""A TaskManager as one writes it first: a dict of records and a wrapper coroutine around each task.

It does what such managers usually do, and has their usual faults: it never forgets a task, and one that is
cancelled before its first step keeps the status `pending` for ever.
"""

import asyncio
import itertools
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from .base import Body, Contender


@dataclass
class NaiveRecord:
    name: str
    status: str = "pending"
    created_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    result: Any = None
    error: BaseException | None = None
    task: asyncio.Task[Any] | None = None


class NaiveTaskManager:
    def __init__(self) -> None:
        self.records: dict[str, NaiveRecord] = {}
        self.accepting = True
        self._numbers = itertools.count(1)

    def create_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        if not self.accepting:
            raise RuntimeError("the manager is shutting down")
        name = f"task-{next(self._numbers)}"
        record = self.records[name] = NaiveRecord(name)
        record.task = asyncio.create_task(self._run(record, work), name=name)
        return record.task

    async def _run(self, record: NaiveRecord, work: Coroutine[Any, Any, Any]) -> Any:
        record.status = "running"
        try:
            record.result = await work
            record.status = "completed"
            return record.result
        except asyncio.CancelledError:
            record.status = "cancelled"
            raise
        except Exception as error:
            record.status, record.error = "failed", error
            raise
        finally:
            record.ended_at = time.time()

    async def shutdown(self) -> None:
        self.accepting = False
        tasks = [record.task for record in self.records.values() if record.task and not record.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Naive(Contender):
    def __init__(self) -> None:
        self._manager = NaiveTaskManager()

    async def batch(self, body: Body, size: int) -> None:
        tasks = [self._manager.create_task(body()) for _ in range(size)]
        for task in tasks:
            await task

    async def hold(self, body: Body, count: int) -> None:
        for _ in range(count):
            self._manager.create_task(body())

    async def stop(self) -> None:
        await self._manager.shutdown()
