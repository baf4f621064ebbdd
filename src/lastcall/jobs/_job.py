"""Job: a handle to one durable job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from .._core._state import StopReason
from ..exceptions import BadDeclaration, JobCancelled, JobFailed, UnknownJob
from ..streams import Entry, TextView, follow
from ._client import Client
from ._codec import ValueCodec, dump_plain, load_plain
from ._info import JobInfo, info_of
from ._log import JobLog
from ._rows import AttemptRow, JobRow, StepRow
from ._settings import shown
from ._settings import text as check_text
from ._state import CancelOutcome, JobStatus, StepStatus

R_co = TypeVar("R_co", covariant=True)

_ENTRIES_AT_ONCE = 500

# Why somebody ends a job. A shutdown or a timeout ends an attempt, whose job goes on or has failed.
_CANCEL_REASONS = (StopReason.USER, StopReason.DISCONNECT)


class Event(NamedTuple):
    """An entry of a job's log. `seq` counts from 1; `attempt` 0: written from outside."""

    seq: int
    type: str
    data: Any
    attempt: int
    step: str | None
    at: float


class StepInfo(NamedTuple):
    """A recorded step, its value as plain JSON."""

    key: str
    status: StepStatus
    value: Any
    error: Mapping[str, str] | None
    attempt: int
    started_at: float
    ended_at: float | None


class RunningStep(NamedTuple):
    """A step that runs now, in this process, since `started_at` by the clock of the machine."""

    key: str
    started_at: float


class Decision(NamedTuple):
    """What became of a step declared `once` that was in flight when its process died.

    `happened` True: it is taken as completed, with `value`. False: it did not happen, and is called again.
    """

    happened: bool
    value: Any = None


def decision_name(step: str) -> str:
    """The name of the message that decides about a step."""
    return f"decision:{step}"


class Job(Generic[R_co]):
    """A durable job, by its id. Cheap: it holds nothing but the id, and every verb asks the store.

    Every verb raises `UnknownJob` if there is no such job (any more), and `EngineUnavailable`.

        job = await analyse.submit("docs/")
        print(job.id, await job.status())
        report = await job.result(timeout=60)
    """

    __slots__ = ("_client", "_codec", "id")

    def __init__(self, client: Client, job_id: str, codec: ValueCodec | None = None) -> None:
        self.id = job_id
        self._client = client
        self._codec = codec

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    async def info(self) -> JobInfo:
        """Everything that is known of it."""
        return info_of(await self._client.get(self.id))

    async def status(self) -> JobStatus:
        """Where it is."""
        return (await self._client.get(self.id)).status

    async def wait(self, timeout: float | None = None) -> JobInfo:
        """Return when the job has ended, however. Raises TimeoutError; the job goes on then."""
        return info_of(await self._final(timeout))

    async def result(self, timeout: float | None = None) -> R_co:
        """The result, as the type the task declares, when the job has completed.

        `timeout` in seconds (default: none). Raises `JobFailed`, `JobCancelled`, and TimeoutError; the job goes on
        then. Inside another job use `ctx.result(job)`, which holds no slot meanwhile.
        """
        value: R_co = result_of(await self._final(timeout), self._codec)
        return value

    async def _final(self, timeout: float | None) -> JobRow:
        row = await self._client.get(self.id)  # one look is free: with a timeout of 0 as well
        if row.status.final:
            return row
        async with asyncio.timeout(timeout):
            return await self._client.wait_final(self.id)

    async def cancel(self, reason: StopReason = StopReason.USER) -> CancelOutcome:
        """Cancel it for good. That is written down first, so it reaches the job wherever it is.

        `cancelled`: it did not run and is cancelled now. `requested`: it runs, and its worker has been told; `wait()`
        tells when it has ended. `already_ended`: nothing was done.

        `reason`: `user` or `disconnect`; the others end attempts, not jobs. Raises `BadDeclaration` for these.
        """
        if reason not in _CANCEL_REASONS:
            raise BadDeclaration(
                f"a job is cancelled by a {' or a '.join(_CANCEL_REASONS)}, not for the reason {shown(reason)}"
            )
        await self._client.get(self.id)
        outcome = await self._client.engine.cancel(self.id, StopReason(reason))
        if outcome is CancelOutcome.UNKNOWN:
            raise UnknownJob(f"there is no job {self.id}")
        self._client.cancel_requested()
        self._client.changed((self.id,))
        self._client.work_arrived()
        return outcome

    async def retry(self) -> JobStatus:
        """Queue a failed or cancelled job again; its completed steps are not repeated. Answers its status."""
        await self._client.get(self.id)
        status = self._known(await self._client.engine.retry(self.id))
        self._client.work_arrived()
        self._client.changed((self.id,))
        return status

    async def send(self, name: str, data: Any = None) -> JobStatus:
        """Send it a message, for `ctx.wait_for(name)`; it may be sent before the job waits. Answers its status.

        A final status means that the message was not kept. Raises `BadDeclaration` for a name that is none,
        `BadResult` for data that JSON cannot hold, `PayloadTooLarge`.
        """
        return await self._send(check_text("the name of a message", name), data)

    async def _send(self, name: str, data: Any) -> JobStatus:
        text = self._client.check_size(dump_plain(data, f"the message {name!r}"), f"the message {name!r}")
        await self._client.get(self.id)
        status = self._known(await self._client.engine.send(self.id, name, text))
        self._client.work_arrived()
        self._client.changed((self.id,))
        return status

    async def resolve(
        self, step: str, *, happened: bool = True, value: Any = None, error: str | None = None
    ) -> JobStatus:
        """Decide about a step declared `once` whose outcome nobody knows; the job that waits for it goes on.

        `happened=True`: it completed, with `value`. `happened=False`: it did not happen, and is called again. `error`:
        it failed, and the job gets `StepUnknownOutcome` with this text. `steps()` lists it as `started`.
        """
        decision = {"happened": happened, "value": value, "error": error}
        return await self._send(decision_name(check_text("a step", step, longest=1000)), decision)

    async def purge(self) -> JobStatus:
        """Delete it with all that belongs to it, if it has ended. Answers its status; only a final one was deleted."""
        await self._client.get(self.id)
        return self._known(await self._client.engine.purge(self.id))

    async def attempts(self) -> list[AttemptRow]:
        """Every try, with its worker, times, outcome and error."""
        await self._client.get(self.id)
        return await self._client.engine.attempts(self.id)

    async def steps(self) -> list[StepInfo]:
        """What is recorded of its steps, in order."""
        await self._client.get(self.id)
        return [_step_info(row) for row in await self._client.engine.steps(self.id)]

    def running_steps(self) -> list[RunningStep] | None:
        """The steps in flight, where a worker of this process runs the job; None where none does.

        Only that process knows: nothing is written of a step before its end, unless its policy is `once` or `continue`.

            for step in job.running_steps() or ():
                print(step.key, time.time() - step.started_at)
        """
        for running in self._client.at_work:
            if (attempt := running.get(self.id)) is not None:
                steps = attempt.steps
                return [] if steps is None else list(map(RunningStep._make, steps.running.items()))
        return None

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Its log from `after` on, and then what comes, until the job has ended. Each event once, in order.

        Many may read, each at its own pace. Raises `BadCursor` for an `after` that is none, and `EntriesGone` if events
        behind it are not kept any more.

        async for event in job.events(after=last_seen):
            print(event.seq, event.type, event.data)
        """
        async for entries in follow(self.log(), after):
            for entry in entries:
                yield event_of(entry)

    def log(self) -> JobLog:
        """Its log, for what serves it to others: see `lastcall.streams`."""
        return JobLog(self._client, self.id)

    async def text(self, stream: str) -> str:
        """What the job has written to `ctx.stream(stream)` until now, without what was taken back."""
        view, log, after = TextView(), self.log(), 0
        while True:
            page = await log.read(after, _ENTRIES_AT_ONCE)
            view.apply(page.entries)
            if not page.entries:
                return view.text(stream)
            after = page.entries[-1].seq

    def _known(self, status: JobStatus | None) -> JobStatus:
        if status is None:
            raise UnknownJob(f"there is no job {self.id} any more")
        return status


def result_of(row: JobRow, codec: ValueCodec | None) -> Any:
    """The result of an ended job, or the error that tells why there is none."""
    if row.status is JobStatus.COMPLETED:
        return load_plain(row.result) if codec is None else codec.load(row.result or "null")
    error = load_plain(row.error)
    if row.status is JobStatus.CANCELLED:
        raise JobCancelled(f"job {row.id} ({row.task}) was cancelled ({row.cancel_reason or 'user'})")
    told = (
        f"{error.get('type')}: {error.get('message')}" if isinstance(error, dict) else "no error was recorded"
    )
    raise JobFailed(f"job {row.id} ({row.task}) failed: {told}", error if isinstance(error, dict) else None)


def event_of(entry: Entry) -> Event:
    seq, type, data, attempt, step, at = entry
    return Event(seq, type, load_plain(data), attempt, step, at)


def _step_info(row: StepRow) -> StepInfo:
    return StepInfo(
        row.key,
        row.status,
        load_plain(row.value),
        load_plain(row.error),
        row.attempt,
        row.started_at,
        row.ended_at,
    )


def to_epoch(at: datetime) -> float:
    """Seconds since the epoch; a naive time is UTC, never this machine's zone, which another worker would not know."""
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
