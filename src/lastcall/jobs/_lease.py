"""The lease: a worker's claim that it lives. Joined, renewed at a third, resigned at the end; and the rescue of others.

One lease for all jobs of a worker: renewing a thousand would be a thousand writes. It is kept up through the whole
drain, until the last job has ended: in at least seven queues it ends with the first signal, and jobs in the drain
run twice.

Who lost it (stalled past its end, and somebody has taken the jobs) hears so at the next renewal: its attempts are lost,
and it joins again under a new id. Nothing new begins under a lease that may be over: see `ensure`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable

from .._core._roster import logger
from ..exceptions import EngineUnavailable
from ._engine import Engine
from ._executor import Executor
from ._ids import new_id
from ._processes import ProcessIdentity, this_process
from ._rows import Rescued, WorkerRow
from ._service import Service

_AGAIN_SECONDS = 0.2

_RESCUE_SECONDS = 1.0


class Lease(Service):
    """`on_joined(worker_id)` is told the id, also of a later joining."""

    name = "lease keeper"

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        *,
        lease_seconds: float,
        concurrency: int,
        queues: frozenset[str] | None,
        on_joined: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._engine = engine
        self._executor = executor
        self._seconds = lease_seconds
        self._concurrency = concurrency
        self._queues = queues
        self._on_joined = on_joined
        self._identity: ProcessIdentity = this_process()
        self._valid_until = 0.0
        self._renewed_at = 0.0
        self._renewing: asyncio.Lock | None = None
        self._look_soon = False
        self.worker_id = ""

    async def join(self) -> None:
        """Begin a lease under a new id."""
        self._renewing = self._renewing or asyncio.Lock()
        began = time.monotonic()
        identity = self._identity
        worker = WorkerRow(
            id=new_id(),
            host=socket.gethostname(),
            pid=os.getpid(),
            process_start=identity.process_start,
            boot_id=identity.boot_id,
            pid_namespace=identity.pid_namespace,
            lease_seconds=self._seconds,
            concurrency=self._concurrency,
            queues=self._queues,
        )
        await self._engine.join(worker)
        self.worker_id = worker.id
        self._valid_until = began + self._seconds
        self._renewed_at = began
        self._on_joined(worker.id)

    async def run_once(self) -> float | None:
        if self._look_soon:
            self._look_soon = False
            for request in await self._engine.cancel_requests(self.worker_id):
                # Not running here: its claim has not come back yet, or its end is on the way. Another look tells.
                if not self._executor.cancel(request):
                    self._look_soon = True
        left = self._seconds / 3 - (time.monotonic() - self._renewed_at)
        if left <= 0:
            await self._renew()
            left = self._seconds / 3 - (time.monotonic() - self._renewed_at)
        return max(0.01, min(left, _AGAIN_SECONDS) if self._look_soon else left)

    def look_soon(self) -> None:
        """Somebody may want something cancelled."""
        self._look_soon = True
        self.wake()

    async def ensure(self) -> None:
        """Return when the lease is certainly valid. A process that was stopped for a while (SIGSTOP, a debugger, a
        laptop that slept) comes here with a lease that may be over, before it has heard so."""
        while time.monotonic() >= self._valid_until and not self.stopping:
            try:
                await self._renew()
            except EngineUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def resign(self) -> int:
        """End the lease; what is still held is handed over by it. How many jobs that were."""
        return await self._engine.resign(self.worker_id)

    async def _renew(self) -> None:
        assert self._renewing is not None
        asked = time.monotonic()
        async with self._renewing:
            if self._renewed_at > asked:
                return  # somebody else did, meanwhile
            began = time.monotonic()
            renewal = await self._engine.renew(self.worker_id)
            if renewal.alive:
                self._renewed_at = began
                self._valid_until = began + self._seconds
                for request in renewal.cancels:
                    self._executor.cancel(request)
                return
            logger.error(
                "worker %s was taken for dead, because it had not renewed its lease within %g s; its %d jobs run "
                "elsewhere now, and are cancelled here",
                self.worker_id,
                self._seconds,
                len(self._executor.running),
                extra={"event": "worker.lease_lost"},
            )
            self._executor.lose_all()
            await self.join()


class Rescuer(Service):
    """Looks for workers that are dead, and gives their jobs to the living. The first look comes at the start."""

    name = "rescuer"

    def __init__(self, engine: Engine, lease: Lease, on_rescued: Callable[[], None]) -> None:
        super().__init__()
        self._engine = engine
        self._lease = lease
        self._on_rescued = on_rescued

    async def run_once(self) -> float | None:
        rescued = await self._engine.rescue(self._lease.worker_id)
        if rescued:
            _tell(rescued)
            self._on_rescued()
        return _RESCUE_SECONDS


def _tell(rescued: list[Rescued]) -> None:
    for job in rescued[:20]:
        logger.warning(
            "job %s lost its attempt %d: its worker %s is dead; the job is %s",
            job.id,
            job.attempt,
            job.worker_id,
            job.status,
            extra={"event": "attempt.lost", "job_id": job.id, "attempt": job.attempt},
        )
    if len(rescued) > 20:
        logger.warning("and %d more jobs of dead workers", len(rescued) - 20, extra={"event": "attempt.lost"})
