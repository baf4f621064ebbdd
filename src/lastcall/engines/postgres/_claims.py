"""A claim as a worker asks for it: what is due first, then the best; and claims whose answers were lost.

Who calls it: the engine. A claim that was committed and whose answer never came has given its worker jobs that it does
not know of, and that would run for ever. So each claim has a number, which stands in the jobs, and a claim that ended
in doubt is remembered here: the worker's next one begins by asking what it had brought.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from ...exceptions import EngineUnavailable
from ...jobs._rows import ClaimRequest, ClaimResult
from ._claim import (
    Call,
    Step,
    claim_carefully,
    claim_plain,
    draw,
    limited_tasks,
    make_due,
    queued_of,
    taken_by,
    what_is_due,
)
from ._database import Database


class Claims:
    """Belongs to one loop. `on_written`: something was taken or put in line."""

    def __init__(self, on_written: Callable[[], None]) -> None:
        self._on_written = on_written
        self._in_doubt: dict[str, Call] = {}
        # A worker's lock goes with the last claim that uses it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def claim(self, database: Database, request: ClaimRequest) -> ClaimResult:
        """One at a time for each worker, because what it may have depends on what it holds."""
        lock = self._locks.get(request.worker_id)
        if lock is None:
            lock = self._locks[request.worker_id] = asyncio.Lock()
        async with lock:
            return await self._claim(database, request)

    async def _claim(self, database: Database, request: ClaimRequest) -> ClaimResult:
        doubtful = self._in_doubt.get(request.worker_id)
        if doubtful is not None:
            found = await database.read(lambda store: taken_by(store, doubtful))
            del self._in_doubt[request.worker_id]
            if found:
                return ClaimResult(found, 0.0)
        call = self.begin(request)
        try:
            step = await self._take(database, call)
        except EngineUnavailable:
            raise
        except BaseException:
            self._in_doubt.pop(request.worker_id, None)
            raise
        del self._in_doubt[request.worker_id]
        if step.jobs:
            self._on_written()
        return ClaimResult(step.jobs, step.next_due_seconds, step.suspect_waits)

    def begin(self, request: ClaimRequest) -> Call:
        """A call that is in doubt until its answer is there."""
        call = self._in_doubt[request.worker_id] = Call(request, draw())
        return call

    async def _take(self, database: Database, call: Call) -> Step:
        step = await self._try(database, call, anyhow=False)
        if not step.due:
            return step
        due = await database.read(what_is_due)
        if due.jobs or due.waits:
            await database.transact(lambda store: make_due(store, due))
            self._on_written()
        return await self._try(database, call, anyhow=True)

    async def _try(self, database: Database, call: Call, *, anyhow: bool) -> Step:
        limited = limited_tasks(call.request)
        queued = await database.read(lambda store: queued_of(store, list(limited))) if limited else []
        tasks = {task: limited[task] for task in queued}
        others = limited.keys() - tasks.keys()
        if not queued:
            step = await database.write(lambda store: claim_plain(store, call, others, anyhow=anyhow))
            if not step.suspects:
                return step
        return await database.transact(
            lambda store: claim_carefully(store, call, tasks, others, anyhow=anyhow)
        )
