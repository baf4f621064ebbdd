"""Running jobs in a test: in this process, on a store of its own, by a clock of its own, with things that go wrong.

Nothing is simulated but time, and death: the store is a real SQLite file, the worker the real one. A "crash" cuts the
worker off in the middle of what it does: nothing more of it is written, its lease runs out, and another one takes over.
"""

from __future__ import annotations

import asyncio
import contextvars
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from .._core._manager import TaskManager
from ..engines.sqlite import SqliteEngine
from ..jobs import Engine, Jobs, Worker
from ..jobs._attempt import Attempt
from ..jobs._rows import ClaimRequest
from ._clock import VirtualClock
from ._places import Places

When = Literal["before", "after", "recorded"]

# A job that starts another, which starts another, ...: a test should not wait for the end of that.
_ROUNDS_MAX = 10_000


class _Fault:
    """What happens at a step: an error, or the death or the orderly stop of the worker."""

    def __init__(self, when: str, step: str, times: int, what: Exception | Literal["crash", "drain"]) -> None:
        self.when = when
        self.step = step
        self.times = times
        self.what = what

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
        self._upset: asyncio.Task[None] | None = None  # a crash or a restart that is under way
        self._places: Places | None = None
        self._context = contextvars.copy_context()

    # --- time ------------------------------------------------------------------------------------------

    async def until_idle(self) -> None:
        """Run until nothing can run: every job has ended, waits, is scheduled for later, or has no task here."""
        for _ in range(_ROUNDS_MAX):
            if self._upset is not None:
                upset, self._upset = self._upset, None
                await upset
            worker = self._working()
            while tasks := worker._group.tasks:
                await asyncio.wait(tasks)
            if self._upset is not None:
                continue
            await worker._outbox.flush(60)
            started = await worker._fetcher.claim_once()
            # By the store's word: what was claimed beside us may not have begun yet.
            if not started and not await self.jobs.find(status="running", limit=1) and self._upset is None:
                return
        raise RuntimeError(
            f"after {_ROUNDS_MAX} rounds there is still work; do jobs start each other for ever?"
        )

    async def advance(self, seconds: float) -> None:
        """Run until all is idle, let time pass, and run what it has made due."""
        await self.until_idle()
        self.clock.advance(seconds)
        await self.until_idle()

    async def advance_to_next(self) -> bool:
        """Run until all is idle, let time pass until something is due, and run that. False: nothing ever is."""
        await self.until_idle()
        worker = self._working()
        nothing = ClaimRequest(worker.id, 0, worker._fetcher._tasks)
        due_in = (await self.jobs.engine.claim(nothing)).next_due_seconds
        if due_in is None:
            return False
        # Beyond it by a little: a time that is due now may be so only when it has been rounded.
        await self.advance(max(0.0, due_in) + 0.001)
        return True

    # --- what goes wrong -------------------------------------------------------------------------------

    def fail_at(self, step: str, error: Exception, *, when: When = "before", times: int = 1) -> None:
        """Raise this error at the step of this name (its function's, or its `name=`), so many times."""
        self._faults.append(_Fault(when, step, times, error))

    def drain_at(self, step: str, *, when: When = "before", times: int = 1) -> None:
        """Stop the worker in order at the step of this name, as a deploy does, and start another one.

        The step that runs ends and is recorded; at the next thing it asks for the job is handed over.
        """
        self._faults.append(_Fault(when, step, times, "drain"))

    def crash_at(self, step: str, *, when: When = "after", times: int = 1) -> None:
        """Let the worker die at the step of this name, so many times; another one then takes its jobs.

        `before` the step ran; `after` it ran, and before that was written (default); when it is `recorded`.
        """
        self._faults.append(_Fault(when, step, times, "crash"))

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
        if self._places is not None and when == "before":
            self._places.begins(attempt, key)
        fault = next((fault for fault in self._faults if fault.hits(when, key)), None)
        if fault is None:
            return
        fault.times -= 1
        if isinstance(fault.what, Exception):
            raise fault.what
        if fault.what == "drain":
            self._upset_soon(self.restart(), "restart")
            return
        self._crash_soon()
        await attempt.park()

    def _upset_soon(self, what: Coroutine[Any, Any, None], name: str) -> None:
        """In a task of its own, because the one that asks ends with the worker. In our context, because a worker that
        is started in a job's belongs to that job, and stops with it. And never eagerly: that would stop the worker in
        the middle of starting this very job, of which it knows nothing yet."""
        loop = asyncio.get_running_loop()
        self._upset = asyncio.Task(what, loop=loop, name=name, context=self._context.copy())

    def _crash_soon(self) -> None:
        self._upset_soon(self.crash(), "crash")


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
    async with running(jobs, concurrency, VirtualClock() if clock is None else clock) as run:
        yield run


@asynccontextmanager
async def running(
    jobs: Jobs,
    concurrency: int,
    clock: VirtualClock,
    places: Callable[[JobsRun, Engine], Engine] | None = None,
) -> AsyncIterator[JobsRun]:
    """`run_jobs`, on an engine that `places` may put something around."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lastcall-test-"))
        engine = SqliteEngine(str(Path(folder) / "jobs.db"), synchronous="off", clock=clock)
        manager = TaskManager(name="test")
        run = JobsRun(jobs, manager, clock, concurrency)
        before = jobs._client.use(engine if places is None else places(run, engine))
        stack.callback(jobs._client.use, before)
        await stack.enter_async_context(jobs)
        await stack.enter_async_context(manager)
        await run._start()
        stack.push_async_callback(run._stop)
        yield run
