"""The fetcher: asks for as many jobs as there are free slots, whenever a slot or a job may have come free.

Never by a timer where an event will do: a timer of 20 to 50 ms caps a queue at some hundred jobs per second. The timer
beneath is for hints that were lost.
"""

from __future__ import annotations

from ._client import Client
from ._executor import Executor
from ._rows import ClaimRequest, TaskLimits
from ._service import Service

_ASK_SECONDS = 5.0


class Fetcher(Service):
    """`request_of`: who claims what; the worker's id changes when its lease was lost."""

    name = "fetcher"

    def __init__(
        self,
        client: Client,
        executor: Executor,
        concurrency: int,
        tasks: dict[tuple[str, str], TaskLimits | None],
        queues: frozenset[str] | None,
    ) -> None:
        super().__init__()
        self._client = client
        self._executor = executor
        self._concurrency = concurrency
        self._tasks = tasks
        self._queues = queues
        self.worker_id = ""

    async def claim_once(self) -> int:
        """Claim now, whatever the loop does; how many jobs began."""
        before = len(self._executor.running)
        await self.run_once()
        return len(self._executor.running) - before

    async def run_once(self) -> float | None:
        executor, worker_id = self._executor, self.worker_id
        free = self._concurrency - len(executor.running)
        if free <= 0:
            return None
        result = await self._client.engine.claim(ClaimRequest(worker_id, free, self._tasks, self._queues))
        if worker_id != self.worker_id:
            return 0  # the lease was lost meanwhile, and these jobs with it
        if self.stopping:
            executor.hand_back(result.jobs)
            return None
        executor.start(result.jobs)
        if len(result.jobs) == free:
            return None if free == self._concurrency - len(executor.running) else 0
        due = result.next_due_seconds
        return _ASK_SECONDS if due is None else min(max(due, 0.001), _ASK_SECONDS)
