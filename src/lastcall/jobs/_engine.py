"""The port between jobs and where they are kept: the verbs that an engine implements.

Who calls it: the services of a worker, and the handles that users hold. Who implements it: `lastcall.engines`.
There is no SQL above this line and no policy below it, but for what must be decided inside a transaction
(`_policy.after_loss`, who is held back by a limit), which is a pure function that engines call.

Rules for every engine:

- A verb returns after its commit. A verb that raises has written nothing.
- A verb that carries a fence, `(job_id, attempt)`, does what it says only while that attempt is the running one;
  otherwise it changes nothing and answers *lost* (False or None).
- Time is the engine's clock. A wall clock that jumps moves due times with it, but ends no lease.
- Trouble with the store (full, locked, away, read-only, corrupt, vanished) is `EngineUnavailable`, whose message says
  what to do. The engine tries again at the next call, so callers may.
- What happens to a job, and its steps, are told in its log, in the same transaction: `_events` says what, when and how,
  and how much of a log is kept.
- Verbs may be called from many tasks at once; what is called together may be committed together.
- A cancelled caller does not take back what is on its way to the store.

The interface may change until 1.0; `lastcall.testing.conformance` is the suite that an engine must pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .._core._state import StopReason
from ..streams._port import Write, Written
from ._rows import (
    AttemptEnd,
    AttemptRow,
    CancelRequest,
    ClaimRequest,
    ClaimResult,
    EventPage,
    JobQuery,
    JobRow,
    NewEvent,
    NewJob,
    Overview,
    ReadFrom,
    Renewal,
    Rescued,
    StepRecord,
    StepRow,
    Submitted,
    WorkerRow,
)
from ._state import CancelOutcome, JobStatus


class Engine(Protocol):
    """Where jobs, steps and events live.

    `shares_commits`: whether verbs that are called together are written in one commit, submits first, so that a claim
    called beside a submit brings its jobs.
    """

    @property
    def shares_commits(self) -> bool: ...

    # --- its own life ---

    async def open(self) -> None:
        """Connect, and create or migrate the schema. Opening again is harmless.

        Raises `SchemaTooNew` for a store of a newer version (nothing is changed), `EngineUnavailable`.
        """

    async def close(self) -> None:
        """Write what is on its way and let go. Closing again, or before opening, is harmless."""

    def listen(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call `on_change()` on the loop, soon after another process or connection has changed something.

        A hint: may come without cause or, rarely, not at all; whoever listens asks again now and then by itself.
        What this engine object itself was told to write is no news. Returns what ends the listening.
        """

    # --- jobs, from outside ---

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Write all of the jobs, or, if a key conflicts, none. A key is compared within its task name and holds as
        long as its job is kept; arguments are compared as text."""

    async def get(self, job_ids: Sequence[str]) -> list[JobRow]:
        """The jobs that exist among these, in the order asked for."""

    async def find(self, query: JobQuery) -> list[JobRow]:
        """The jobs that fit, newest first."""

    async def attempts(self, job_id: str) -> list[AttemptRow]:
        """All attempts of a job, the first one first; empty if it is unknown."""

    async def steps(self, job_id: str) -> list[StepRow]:
        """All recorded steps of a job in the order in which they were first recorded."""

    async def cancel(self, job_id: str, reason: StopReason) -> CancelOutcome:
        """Cancel for good: at once what does not run, and by request what does (`Renewal.cancels` tells its worker)."""

    async def retry(self, job_id: str) -> JobStatus | None:
        """Queue a failed or cancelled job again, with its completed steps, its counts of failures and losses at 0.

        Answers the status it has now (a job that has not failed or been cancelled is left as it is); None: unknown.
        """

    async def send(self, job_id: str, name: str, data: str) -> JobStatus | None:
        """Deliver a message: to the wait for that name if there is one, or kept until there is; first sent, first
        received. Answers the job's status afterwards; a final one means that it was not kept. None: unknown."""

    async def purge(self, job_id: str) -> JobStatus | None:
        """Delete an ended job with all that belongs to it. Answers its status; only a final one was deleted."""

    async def append_events(self, job_id: str, attempt: int | None, events: Sequence[NewEvent]) -> int | None:
        """Append to the job's log; the `seq` of the last one. `attempt` None: from outside, without a fence.
        Appending trims the log (`NewJob.log_max_bytes`); its numbers go on.

        None: lost, or the job is unknown.
        """

    async def read_events(self, reads: Sequence[ReadFrom], limit: int) -> list[EventPage | None]:
        """Of each log the first `limit` kept events whose `seq` is greater than `after`, in order, and where the log
        stands at the same moment (one snapshot for each job). Also with a `limit` of 0. None: the job is unknown.

        Called for all logs that a process follows, at each news of them: where there is nothing new it must be cheap.
        """

    async def overview(self) -> Overview:
        """Counts, workers and schedules."""

    # --- jobs, from a worker ---

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        """Make scheduled jobs and waits that are due ready; then take up to `limit` queued jobs that fit.

        Higher priority first, then the older. Limits hold over all workers. The attempt number of each is one more
        than before. A worker that has not joined, or was taken for dead, gets nothing.

        A *suspect* (`_policy.after_loss` says when a lost job becomes one) runs alone, so that whatever it does to its
        worker harms nobody else:

        - It is given to a worker that holds nothing, and alone, however many were asked for. A worker that holds
          nothing gets the first suspect that fits and that no limit forbids, before any other job.
        - A worker that holds a suspect gets nothing.
        - It is no suspect any more once a step of it is newly completed (by `record_step`, `transact` or the end of a
          wait); also while it runs: its worker gets other jobs again. A retry by hand makes it none, either. Nothing
          else does: not a failure, a hand-over or a wait.
        - To hold is to be written down as the worker of a running job; what a worker remembers does not count.

        A suspect's missing token of a rate counts for `next_due_seconds` only where the worker holds nothing.
        """

    async def finish(self, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
        """End attempts, each under its fence, one after the other. Answers the job's new status, or None: lost.

        A cancel that was requested wins over `HandedOver`, `Suspended` and a retry; a result or a final failure
        stands. An end frees its place under a limit, and wakes the job that waited for it.
        """

    async def record_step(self, job_id: str, attempt: int, step: StepRecord) -> bool:
        """Write a step, or write it anew; a completed one is never changed. False: lost."""

    # --- workers ---

    async def join(self, worker: WorkerRow) -> None:
        """Begin a lease of `worker.lease_seconds`."""

    async def renew(self, worker_id: str) -> Renewal:
        """Prolong the lease, if nobody has ended it, and hear of cancels."""

    async def cancel_requests(self, worker_id: str) -> list[CancelRequest]:
        """What `renew` tells of cancels, without writing anything: asked when somebody else has changed something."""

    async def resign(self, worker_id: str) -> int:
        """End the lease. What the worker still holds is handed over: how many jobs that were."""

    async def rescue(self, worker_id: str) -> list[Rescued]:
        """Take the jobs of workers that are dead: their lease is over, or their process on this machine is gone.

        Never this worker itself, and not at once a worker whose lease may have ended only because the store could not
        be written to: it is given time to renew.
        Each attempt is `lost`; `_policy.after_loss` says what the job becomes.
        """

    # --- time ---

    async def fire(self, schedule: str, tick: float, job: NewJob | None) -> bool:
        """If `tick` is later than the schedule's last one: move it on, and submit `job` (None: passed over).

        False: another worker was first.
        """

    async def prune(self, limit: int) -> int:
        """Delete up to `limit` ended jobs whose retention is over and whose parent, if any, has ended. How many."""


async def read_log(engine: Engine, job_id: str, after: int, limit: int) -> EventPage | None:
    """`read_events` of one job."""
    (page,) = await engine.read_events((ReadFrom(job_id, after),), limit)
    return page


class SupportsTransactions(Protocol):
    """An engine in which a step's record can be committed together with the user's own rows."""

    async def transact(
        self, job_id: str, attempt: int, step: StepRecord, work: Callable[[Any], str]
    ) -> str | None:
        """Call `work(connection)` in a transaction and commit what it wrote with the step, completed with the JSON it
        returned. None: lost, and nothing was written. What `work` raises is raised here, and nothing was written."""


class SupportsConnections(Protocol):
    """An engine that can write jobs in a transaction of the user's own."""

    async def submit_within(self, connection: Any, jobs: Sequence[NewJob]) -> list[Submitted]:
        """As `submit`, in the transaction that the user's `connection` is in: the jobs are there, and workers hear of
        them, when it commits, and not otherwise. It is neither committed nor rolled back here, and is as it was before
        after an error. Workers wait for nothing that is locked in it.

        Raises `BadConnection` for one that cannot carry a job.
        """


class SupportsLastWords(Protocol):
    """An engine to which one thing more can be told right before it closes."""

    async def last_words(self, write: Write, seconds: float) -> Written:
        """Add to a free-standing stream, which is created if there is none, within so many seconds. Closing does not
        wait for it: it goes past all other calls, and leaves nothing on its way when it raises, or is cancelled.

        Raises `EngineUnavailable`, TimeoutError.
        """
