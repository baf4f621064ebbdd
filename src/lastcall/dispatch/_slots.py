"""A worker that takes a job only when a message has come: each message is a slot, which runs at most one job.

Who calls it: the host. What it owns: the slots that are open. It is a worker like any other, with a lease, a rescuer,
schedules; only its fetcher asks for no more than there are slots, and it has a sweeper.

There is no claim by id, and it needs none: a slot asks for the best job of its queue. That is the message's own, or one
that comes before it and whose message will do for this one. A claim by id would run jobs in the order of the broker,
and let a job of high priority wait behind a thousand messages.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from .._core._manager import TaskManager
from .._core._state import StopReason
from ..jobs import Jobs
from ..jobs._client import Client
from ..jobs._executor import Executor
from ..jobs._fetcher import Fetcher
from ..jobs._outbox import Outbox
from ..jobs._rows import AttemptEnd, Claimed, ClaimRequest, TaskLimits
from ..jobs._service import Service
from ..jobs._state import JobStatus
from ..jobs._worker import Worker
from ._sweep import Sweeper

# A store that is away must not keep the carrier's places, which other tasks need; the sweep sends again.
_CLAIM_WITHIN_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 1.0
_MOST_IN_VAIN: Final = 1000


class Slot:
    """One message at work. `wanted`: the job it names; `job_id`: the one that runs in it."""

    __slots__ = ("deadline", "done", "job_id", "queue", "wanted")

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.queue = ""
        self.job_id: str | None = None
        self.deadline = 0.0
        self.done: asyncio.Future[str] | None = None

    def release(self, told: str) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(told)


class SlotFetcher(Fetcher):
    """Asks for as many jobs as slots wait for one, of their queues. `on_filled(slot, job)`: before the job begins."""

    def __init__(
        self,
        client: Client,
        executor: Executor,
        outbox: Outbox,
        concurrency: int,
        tasks: dict[tuple[str, str], TaskLimits | None],
        on_filled: Callable[[Slot, Claimed], None],
    ) -> None:
        super().__init__(client, executor, outbox, concurrency, tasks, None)
        self.waiting: list[Slot] = []
        self._on_filled = on_filled

    def open(self, slot: Slot) -> None:
        """Look for a job for it."""
        slot.deadline = time.monotonic() + _CLAIM_WITHIN_SECONDS
        self.waiting.append(slot)
        self.wake()

    def let_go(self) -> None:
        """The worker stops: those that still wait get nothing."""
        for slot in self.waiting:
            slot.release("left in its queue, because the worker stops")
        self.waiting = []

    async def run_once(self) -> float | None:
        self._end_late()
        if not self.waiting:
            return None
        executor, worker_id, queue = self._executor, self.worker_id, self.waiting[0].queue
        slots = [slot for slot in self.waiting if slot.queue == queue]
        wanted = 0 if self._must_run_empty() else len(slots)
        request = ClaimRequest(worker_id, wanted, self._tasks, frozenset({queue}))
        result = await self._client.engine.claim(request)
        if worker_id != self.worker_id:
            return 0  # the lease was lost meanwhile, and these jobs with it
        self._pausing = self._pausing.heard(time.monotonic(), result.suspect_waits, random.random())
        self._fill(slots, result.jobs)
        if self.stopping:
            executor.hand_back(result.jobs)
        else:
            executor.start(result.jobs)
        if result.jobs:
            self._client.changed([job.id for job in result.jobs])
        if wanted == 0:
            return _LOOK_SECONDS  # for a job that is to run alone; the slots wait until that is settled
        for slot in slots[len(result.jobs) :]:
            slot.release("nothing to do: the job has begun elsewhere, is over, or may not run now")
        self.waiting = [slot for slot in self.waiting if slot not in slots]
        return 0 if self.waiting else None

    def _fill(self, slots: list[Slot], jobs: Sequence[Claimed]) -> None:
        """Each job to a slot; its own, if that is among them, so that what is told of a message is about its job."""
        own = {slot.wanted: slot for slot in slots}
        pairs = [(own.pop(job.id), job) for job in jobs if job.id in own]
        others = [job for job in jobs if all(job is not taken for _, taken in pairs)]
        left = [slot for slot in slots if all(slot is not taken for taken, _ in pairs)]
        pairs += zip(left, others, strict=False)
        for slot, job in pairs:
            slot.job_id = job.id
            self._on_filled(slot, job)
        slots.sort(key=lambda slot: slot.job_id is None)

    def _end_late(self) -> None:
        now = time.monotonic()
        late = [slot for slot in self.waiting if now >= slot.deadline]
        self.waiting = [slot for slot in self.waiting if now < slot.deadline]
        for slot in late:
            slot.release("left in its queue: the store did not answer, or a job is to run alone")


class SlotWorker(Worker):
    """A worker of `jobs` with a slot for each message. `send(job_id, queue)`: sends a message.

    Jobs that it gives back while others could run them are sent for at once.
    """

    def __init__(
        self,
        jobs: Jobs,
        *,
        manager: TaskManager,
        concurrency: int,
        send: Callable[[str, str], None],
        resend_seconds: float,
    ) -> None:
        super().__init__(jobs._declared(), manager=manager, concurrency=concurrency, queues=None)
        self._send = send
        self._resend_seconds = resend_seconds
        self._slots: dict[str, Slot] = {}
        self._queues_of: dict[str, str] = {}
        self._ending: set[str] = set()
        # Queued jobs whose message came in vain: they are held back by a limit, whose place may come free here.
        self._in_vain: OrderedDict[str, str] = OrderedDict()

    # --- slots -----------------------------------------------------------------------------------------

    async def take(self, slot: Slot) -> str:
        """Run one job in it, and tell in a few words what became of that. Raises `UnknownJob`, `EngineUnavailable`."""
        row = await self._client.get(slot.wanted)
        slot.queue = row.queue
        slot.done = asyncio.get_running_loop().create_future()
        if self._fetcher.stopping:
            self._send(row.id, row.queue)
            return f"job {row.id}: left in its queue, because the worker stops"
        fetcher = self._slot_fetcher
        fetcher.open(slot)
        told = await slot.done
        if slot.job_id is None and row.status is JobStatus.QUEUED and (row.task, row.version) in self._tasks:
            self._in_vain[row.id] = row.queue
            if len(self._in_vain) > _MOST_IN_VAIN:
                self._in_vain.popitem(last=False)
        return f"job {slot.job_id or row.id}: {told}"

    def cut(self, slot: Slot, reason: StopReason) -> None:
        """The carrier wants the slot back. `timeout` is a failure of the attempt, `shutdown` hands the job over."""
        attempt = self._executor.running.get(slot.job_id or "")
        if attempt is not None:
            attempt.cancel(reason)
        elif slot.job_id is None:
            slot.release("left in its queue, because the carrier wants its place back")

    @property
    def _slot_fetcher(self) -> SlotFetcher:
        assert isinstance(self._fetcher, SlotFetcher)
        return self._fetcher

    # --- the worker's own order, with slots in it ------------------------------------------------------

    def _make_fetcher(self, limits: dict[tuple[str, str], TaskLimits | None]) -> SlotFetcher:
        return SlotFetcher(
            self._client, self._executor, self._outbox, self._concurrency, limits, self._on_filled
        )

    def _make_services(self) -> list[Service]:
        self._sweeper = Sweeper(self._client.engine, self._fetcher, self._send, self._resend_seconds)
        return [*super()._make_services(), self._sweeper]

    async def _start(self) -> None:
        await super()._start()
        self._unlisten.append(self._client.on_work(self._sweeper.wake))

    def _on_filled(self, slot: Slot, job: Claimed) -> None:
        self._slots[job.id] = slot
        self._queues_of[job.id] = job.queue

    def _on_end(self, end: AttemptEnd | None) -> None:
        super()._on_end(end)
        if end is not None:
            self._ending.add(end.id)
            return
        for job_id in [
            id for id in self._slots if id not in self._ending and id not in self._executor.running
        ]:
            self._free(job_id, "lost, because the lease was over; it runs elsewhere")

    def _on_written(self, ends: list[AttemptEnd], statuses: list[JobStatus | None]) -> None:
        super()._on_written(ends, statuses)
        for end, status in zip(ends, statuses, strict=True):
            self._ending.discard(end.id)
            if status is JobStatus.QUEUED and end.id in self._queues_of:
                self._send(end.id, self._queues_of[end.id])
            self._free(end.id, "the end was refused" if status is None else _told(status))
            if self._in_vain:
                self._send(*self._in_vain.popitem(last=False))

    def _free(self, job_id: str, told: str) -> None:
        self._queues_of.pop(job_id, None)
        slot = self._slots.pop(job_id, None)
        if slot is not None:
            slot.release(told)

    async def _watch_for_stop(self) -> None:
        await super()._watch_for_stop()
        self._slot_fetcher.let_go()

    async def _close_once(self) -> str:
        try:
            return await super()._close_once()
        finally:
            self._slot_fetcher.let_go()
            for job_id in list(self._slots):
                queue = self._queues_of.get(job_id)
                if queue is not None:
                    self._send(job_id, queue)
                self._free(job_id, "would not end; handed over with the worker's lease")


def _told(status: JobStatus) -> str:
    return "given back, and queued again" if status is JobStatus.QUEUED else str(status)
