"""Running jobs in a test: in this process, on a store of its own, by a clock of its own, with things that go wrong.

Nothing is simulated but time, and death: the store is a real SQLite file, the worker the real one. A "crash" cuts the
worker off in the middle of what it does: nothing more of it is written, its lease runs out, and another one takes over.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

from .._core._manager import TaskManager
from ..engines.sqlite import SqliteEngine
from ..jobs import Jobs, Worker
from ..jobs._attempt import Attempt
from ._clock import VirtualClock

When = Literal["before", "after", "recorded"]

# A job that starts another, which starts another, ...: a test should not wait for the end of that.
_ROUNDS_MAX = 10_000


class _Fault:
    def __init__(self, when: str, step: str, times: int, error: Exception | None) -> None:
        self.when = when
        self.step = step
        self.times = times
        self.error = error

    def hits(self, when: str, key: str) -> bool:
        """Whether it happens here and now: at the step of this name, whatever its arguments."""
        named = key == self.step or key.startswith((self.step + "(", self.step + " #"))
        return self.times > 0 and when == self.when and named


class JobsRun:
    """What `run_jobs` gives: the worker at work, the clock, and the faults to come."""

    def __init__(self, jobs: Jobs, manager: TaskManager, clock: VirtualClock, concurrency: int) -> None:
        self.jobs = jobs
        self.clock = clock
        self.crashes = 0
        self._manager = manager
        self._concurrency = concurrency
        self._faults: list[_Fault] = []
        self._worker: Worker | None = None
        self._dying: asyncio.Task[None] | None = None

    # --- time ------------------------------------------------------------------------------------------

    async def until_idle(self) -> None:
        """Run until nothing can run: every job has ended, waits, is scheduled for later, or has no task here."""
        for _ in range(_ROUNDS_MAX):
            worker = self._working()
            if self._dying is not None:
                dying, self._dying = self._dying, None
                await dying
            while tasks := worker._group.tasks:
                await asyncio.wait(tasks)
            await worker._outbox.flush(60)
            started = await worker._fetcher.claim_once()
            # By the store's word: what was claimed beside us may not have begun yet.
            if not started and not await self.jobs.find(status="running", limit=1) and self._dying is None:
                return
        raise RuntimeError(
            f"after {_ROUNDS_MAX} rounds there is still work; do jobs start each other for ever?"
        )

    async def advance(self, seconds: float) -> None:
        """Run until all is idle, let time pass, and run what it has made due."""
        await self.until_idle()
        self.clock.advance(seconds)
        await self.until_idle()

    # --- what goes wrong -------------------------------------------------------------------------------

    def fail_at(self, step: str, error: Exception, *, when: When = "before", times: int = 1) -> None:
        """Raise this error at the step of this name (its function's, or its `name=`), so many times."""
        self._faults.append(_Fault(when, step, times, error))

    def crash_at(self, step: str, *, when: When = "after", times: int = 1) -> None:
        """Let the worker die at the step of this name, so many times; another one then takes its jobs.

        `before` the step ran; `after` it ran, and before that was written (default); when it is `recorded`.
        """
        self._faults.append(_Fault(when, step, times, None))

    async def crash(self) -> None:
        """Let the worker die now."""
        worker = self._working()
        self.crashes += 1
        worker._executor.lose_all()
        # Time passes for the lease, and for nobody else.
        self.clock.advance(worker._lease_seconds * 2)
        self.clock.jump_wall(-worker._lease_seconds * 2)
        await worker._lease.join()
        await self.jobs.engine.rescue(worker.id)
        worker._fetcher.wake()

    async def restart(self) -> None:
        """Stop the worker in order, as a deploy does, and start another one: jobs are handed over."""
        await self._stop()
        await self._start()

    # --- the worker ------------------------------------------------------------------------------------

    def _working(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("run_jobs() has been left")
        return self._worker

    async def _start(self) -> None:
        worker = self.jobs.worker(concurrency=self._concurrency, manager=self._manager)
        await worker.__aenter__()
        worker._crew.probe = self._probe
        self._worker = worker

    async def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.__aexit__(None, None, None)

    async def _probe(self, when: str, attempt: Attempt, key: str) -> None:
        fault = next((fault for fault in self._faults if fault.hits(when, key)), None)
        if fault is None:
            return
        fault.times -= 1
        if fault.error is not None:
            raise fault.error
        # In a task of its own, for this one dies with the worker.
        self._dying = asyncio.create_task(self.crash(), name="crash")
        await attempt.park()


@asynccontextmanager
async def run_jobs(
    jobs: Jobs, *, concurrency: int = 10, clock: VirtualClock | None = None
) -> AsyncIterator[JobsRun]:
    """Run the jobs of a program in a test. Inside the block `jobs` uses a new, empty store, which is gone afterwards.

    async with run_jobs(app.jobs) as run:
        job = await app.order.submit(5)
        run.crash_at("charge")
        await run.until_idle()
        assert await job.status() == "completed"
        await run.advance(3600)
    """
    clock = VirtualClock() if clock is None else clock
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lastcall-test-"))
        engine = SqliteEngine(str(Path(folder) / "jobs.db"), synchronous="off", clock=clock)
        before = jobs._client.use(engine)
        stack.callback(jobs._client.use, before)
        await stack.enter_async_context(jobs)
        manager = await stack.enter_async_context(TaskManager(name="test"))
        run = JobsRun(jobs, manager, clock, concurrency)
        await run._start()
        stack.push_async_callback(run._stop)
        yield run
