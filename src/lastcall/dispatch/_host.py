"""A worker of ours inside a process that belongs to somebody else: an event loop in a thread, and slots to wait in.

Who calls it: the carrier's own file. Its pool threads or processes call `run` and wait there for one job; whoever hears
of the carrier's stop calls `tell_to_stop`. What it owns: the thread, its loop, a `TaskManager`, the worker's lease.

The thread is not the carrier's: a loop made anew for each message would open the store and join each time, and between
two messages nobody would rescue, sweep, or renew a lease.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from .._core._manager import TaskManager
from .._core._plan import ShutdownPlan
from .._core._roster import logger
from .._core._state import StopReason
from ..exceptions import EngineUnavailable, InstallError
from ..jobs import Jobs
from ._sender import Sender, Submissions
from ._slots import Slot, SlotWorker

_OPEN_WITHIN_SECONDS: Final = 15.0
_AGAIN_SECONDS: Final = 1.0
_SEND_WITHIN_SECONDS: Final = 2.0


class StopPipes(NamedTuple):
    """How a stop is told to processes that were forked: the ends of two pipes to read from.

    Told by closing the other end, which reaches all who read, and also tells that whoever held it has died.
    """

    stop: int
    force: int


class Host:
    """`start`, then `run` from other threads, then `stop`. `sender` belongs to the host from now on."""

    def __init__(
        self, jobs: Jobs, sender: Sender, *, concurrency: int, plan: ShutdownPlan, resend_seconds: float
    ) -> None:
        self._jobs = jobs
        self._sender = sender
        self._concurrency = concurrency
        self._plan = plan
        self._resend_seconds = resend_seconds
        self._thread: threading.Thread | None = None
        self._has_loop = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._told: asyncio.Event
        self._up: asyncio.Event
        self._is_forced = False
        self._was_forced = False
        self._error: Exception | None = None
        self._manager: TaskManager | None = None
        self._worker: SlotWorker | None = None

    # --- from other threads ----------------------------------------------------------------------------

    def start(self, pipes: StopPipes | None = None) -> None:
        """Begin, and return at once. `pipes`: on which a stop is told, if by nobody in this process."""
        self._thread = threading.Thread(
            target=self._run_loop, args=(pipes,), name="lastcall worker", daemon=True
        )
        self._thread.start()
        self._has_loop.wait()

    def run(
        self,
        job_id: str,
        *,
        on_interrupt: Callable[[BaseException], StopReason],
        every: tuple[float, Callable[[], None]] | None = None,
    ) -> str:
        """Run one job, the best one of the named job's queue, and tell what became of it.

        `on_interrupt`: what it means for the job if the carrier interrupts this thread meanwhile. `every`: what to call
        each so many seconds until then. Raises `UnknownJob`, `EngineUnavailable`, `InstallError`.
        """
        slot = Slot(job_id)
        future = asyncio.run_coroutine_threadsafe(self._take(slot), self._loop)
        try:
            while True:
                done, _ = concurrent.futures.wait([future], None if every is None else every[0])
                if done:
                    return future.result()
                assert every is not None
                every[1]()
        except BaseException as error:
            if not future.done():
                self._interrupted(slot, future, on_interrupt(error))
            raise

    def tell_to_stop(self, *, force_in: float | None = None) -> None:
        """Take no more, let the jobs leave by plan, and cancel what is left after `force_in` seconds (0: at once).

        From anywhere, also from a signal handler. Safe to repeat, also after the end.
        """
        try:
            self._loop.call_soon_threadsafe(self._tell, force_in)
        except RuntimeError:
            pass  # its loop is closed: it has ended

    def stop(self) -> None:
        """Tell it, and wait until it has ended, at most as long as its plan allows."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.tell_to_stop()
        thread.join(self._plan.total_seconds + _AGAIN_SECONDS)
        if thread.is_alive():
            logger.error(
                "the worker in %r has not ended within its plan; its lease runs out by itself", thread
            )
        self._sender.close(_SEND_WITHIN_SECONDS)

    def _interrupted(self, slot: Slot, future: concurrent.futures.Future[str], reason: StopReason) -> None:
        """Let the job leave, and wait for that: when this thread goes on, its process may end."""
        if reason is StopReason.SHUTDOWN:
            self.tell_to_stop(force_in=0)
        else:
            self._loop.call_soon_threadsafe(self._cut, slot, reason)
        try:
            future.result(self._plan.cancel + self._plan.close)
        except Exception:
            logger.warning("the job of the interrupted message for %s has not left in time", slot.wanted)

    # --- on the loop -----------------------------------------------------------------------------------

    def _run_loop(self, pipes: StopPipes | None) -> None:
        asyncio.run(self._main(pipes))

    async def _main(self, pipes: StopPipes | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._told, self._up = asyncio.Event(), asyncio.Event()
        if pipes is not None:
            self._loop.add_reader(pipes.stop, self._hear, pipes.stop, None)
            self._loop.add_reader(pipes.force, self._hear, pipes.force, 0.0)
        self._has_loop.set()
        stop_observing = self._jobs.observe(Submissions(self._sender))
        try:
            while not self._told.is_set():
                try:
                    await self._serve()
                except EngineUnavailable as error:
                    logger.warning("the carried worker waits for its store: %s", error)
                    await self._pause()
                except Exception as error:
                    logger.exception("the carried worker cannot start; the jobs stay in their queues")
                    self._error = error
                    self._up.set()
                    await self._told.wait()
        finally:
            stop_observing()
            for pipe in pipes or ():
                self._loop.remove_reader(pipe)

    async def _serve(self) -> None:
        async with TaskManager(plan=self._plan, name="carrier") as manager:
            worker = SlotWorker(
                self._jobs,
                manager=manager,
                concurrency=self._concurrency,
                send=self._sender.send,
                resend_seconds=self._resend_seconds,
            )
            async with worker:
                self._manager, self._worker = manager, worker
                self._up.set()
                await self._told.wait()
                self._begin_shutdown()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_AGAIN_SECONDS):
                await self._told.wait()
        except TimeoutError:
            pass

    async def _take(self, slot: Slot) -> str:
        try:
            async with asyncio.timeout(_OPEN_WITHIN_SECONDS):
                await self._up.wait()
        except TimeoutError:
            raise EngineUnavailable(
                f"the store of the jobs has not opened within {_OPEN_WITHIN_SECONDS:g} s; job {slot.wanted} stays in "
                "its queue, and is sent again when the store is back"
            ) from None
        if self._error is not None:
            raise InstallError(f"the carried worker could not start: {self._error}") from self._error
        if self._worker is None:
            return f"job {slot.wanted}: left in its queue, because the worker stops"
        return await self._worker.take(slot)

    def _cut(self, slot: Slot, reason: StopReason) -> None:
        if self._worker is not None:
            self._worker.cut(slot, reason)

    def _hear(self, pipe: int, force_in: float | None) -> None:
        self._loop.remove_reader(pipe)  # an end is readable for ever
        self._tell(force_in)

    def _tell(self, force_in: float | None) -> None:
        if force_in:
            self._loop.call_later(force_in, self._tell, 0.0)
        elif force_in is not None:
            self._is_forced = True
        self._told.set()
        self._up.set()
        if self._manager is not None:
            self._begin_shutdown()

    def _begin_shutdown(self) -> None:
        assert self._manager is not None
        self._manager.begin_shutdown(skip_notice=True)
        if self._is_forced and not self._was_forced:
            self._was_forced = True  # forced again, it would not even let the jobs clean up
            self._manager.force()
