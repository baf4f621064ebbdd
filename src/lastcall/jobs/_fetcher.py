"""The fetcher: asks for as many jobs as there are free slots, whenever a slot or a job may have come free.

Never by a timer where an event will do: a timer of 20 to 50 ms caps a queue at some hundred jobs per second. The timer
beneath is for hints that were lost.

While a suspect waits for a worker that runs empty, it pauses now and then (`_suspects`): it asks for nothing, only
whether the suspect still waits, until every job has ended and every end is written.
"""

from __future__ import annotations

import random
import time

from .._core._roster import logger
from ._client import Client
from ._executor import Executor
from ._outbox import Outbox
from ._rows import ClaimRequest, TaskLimits
from ._service import Service
from ._suspects import Pausing

_ASK_SECONDS = 5.0


class Fetcher(Service):
    """`request_of`: who claims what; the worker's id changes when its lease was lost."""

    name = "fetcher"

    def __init__(
        self,
        client: Client,
        executor: Executor,
        outbox: Outbox,
        concurrency: int,
        tasks: dict[tuple[str, str], TaskLimits | None],
        queues: frozenset[str] | None,
    ) -> None:
        super().__init__()
        self._client = client
        self._executor = executor
        self._outbox = outbox
        self._concurrency = concurrency
        self._tasks = tasks
        self._queues = queues
        self._pausing = Pausing()
        self._was_full = True
        self.worker_id = ""

    def slot_freed(self) -> None:
        """A job has ended. A claim that shares its end's commit sees what the end sets in motion. Elsewhere it is news
        only where the last claim was short of slots, or waits until nothing runs; the rest is told when it is written.
        """
        if self._client.engine.shares_commits or self._was_full or self._pausing.is_paused:
            self.wake()

    async def claim_once(self) -> int:
        """Claim now, whatever the loop does; how many jobs began."""
        before = len(self._executor.running)
        await self.run_once()
        return len(self._executor.running) - before

    async def run_once(self) -> float | None:
        executor, worker_id = self._executor, self.worker_id
        free = self._concurrency - len(executor.running)
        self._was_full = True  # until it brings less than was asked for
        if free <= 0:
            return None
        wanted = 0 if self._must_run_empty() else free
        result = await self._client.engine.claim(ClaimRequest(worker_id, wanted, self._tasks, self._queues))
        if worker_id != self.worker_id:
            return 0  # the lease was lost meanwhile, and these jobs with it
        if self.stopping:
            executor.hand_back(result.jobs)
            return None
        self._pausing = self._pausing.heard(time.monotonic(), result.suspect_waits, random.random())
        executor.start(result.jobs)
        if result.jobs:
            self._client.changed([job.id for job in result.jobs])
        if len(result.jobs) == free:
            return None if free == self._concurrency - len(executor.running) else 0
        self._was_full = False
        if wanted == 0 and not self._pausing.is_paused:
            return 0  # the suspect is gone: now for the others
        due = [result.next_due_seconds, self._pausing.look_again_in(time.monotonic()), _ASK_SECONDS]
        return max(0.001, min(seconds for seconds in due if seconds is not None))

    def _must_run_empty(self) -> bool:
        """Whether it pauses and still holds something: an end that is not written counts as held in the engine."""
        paused, self._pausing = self._pausing.is_paused, self._pausing.at(time.monotonic())
        if self._pausing.is_paused and not paused:
            logger.info(
                "a job that may be what kills its workers is to run alone; nothing new is begun for a while",
                extra={"event": "worker.runs_empty"},
            )
        return self._pausing.is_paused and bool(self._executor.running or not self._outbox.is_empty)
