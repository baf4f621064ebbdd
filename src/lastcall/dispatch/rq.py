"""Durable jobs on RQ workers, and RQ's own jobs from asyncio. The only file that imports rq.

    queue = Queue("jobs", connection=Redis())
    jobs = Jobs("postgresql://localhost/shop")
    carrier = RqCarrier(queue, jobs)
    Worker = carrier.worker_class()          # rq worker --worker-class shop.Worker jobs

RQ forks a process for each of its jobs, and kills it when it wants it gone; between two of them there is nobody who
could renew a lease, rescue or sweep, and nobody whom RQ would tell of its stop. So jobs are carried by a worker class
that does not fork: it runs one job at a time, in its own process, where a loop of ours lives beside it. What else is
sent to its queues runs in that process, too; give the jobs a queue of their own. More at once: more workers, or
`rq worker-pool`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, Final, NamedTuple, Self

from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job as RqJob
from rq.job import JobStatus as RqStatus
from rq.timeouts import JobTimeoutException

from .._core._diagnose import error_text
from .._core._plan import ShutdownPlan
from .._core._state import StopReason
from ..exceptions import BadDeclaration, BrokerUnavailable, InstallError
from ..jobs import Jobs, JobStatus
from ..jobs._settings import seconds
from ._host import Host
from ._sender import Sender, Submissions
from ._sent import Answer, SentTask, Watch

_FLUSH_SECONDS: Final = 2.0
_BEAT_SECONDS: Final = 30.0
_KEEP_FAILED_SECONDS: Final = 3600
_NO_TIMEOUT: Final = -1

_STATUS: Final = {
    RqStatus.STARTED: JobStatus.RUNNING,
    RqStatus.FINISHED: JobStatus.COMPLETED,
    RqStatus.FAILED: JobStatus.FAILED,
    RqStatus.STOPPED: JobStatus.CANCELLED,
    RqStatus.CANCELED: JobStatus.CANCELLED,
    RqStatus.SCHEDULED: JobStatus.SCHEDULED,
    RqStatus.DEFERRED: JobStatus.WAITING,
}


class _Here(NamedTuple):
    """What runs in this worker's process; `beat` tells RQ that it lives."""

    host: Host
    beat: Callable[[], None]


_here: ContextVar[_Here | None] = ContextVar("lastcall_rq_worker", default=None)


def run_job(job_id: str) -> str:
    """The function that RQ calls for a message. Raises `InstallError` outside of `carrier.worker_class()`."""
    here = _here.get()
    if here is None:
        raise InstallError(
            "a job of lastcall came to an RQ worker that cannot carry it, and stays in its queue; start the worker "
            "with --worker-class, and the class that RqCarrier.worker_class() makes"
        )
    return here.host.run(job_id, on_interrupt=_meaning, every=(_BEAT_SECONDS, here.beat))


def _meaning(error: BaseException) -> StopReason:
    return StopReason.TIMEOUT if isinstance(error, JobTimeoutException) else StopReason.SHUTDOWN


class RqCarrier:
    """Lets RQ workers run the jobs of `jobs`.

    `queue`: where messages go; `queues`: the RQ queue for the jobs of a queue of ours, by its name. `plan`: how jobs
    leave when the worker stops; RQ itself waits without an end. `resend_seconds` (10): how long a job may be queued
    without being picked up before a worker sends a message for it again.

    In a program that submits, use it as a block: inside it, whatever is submitted to `jobs` is sent for.

        async with carrier:
            job = await analyse.submit("docs/")
    """

    def __init__(
        self,
        queue: Queue,
        jobs: Jobs,
        *,
        queues: Mapping[str, Queue] | None = None,
        plan: ShutdownPlan | None = None,
        resend_seconds: float = 10.0,
    ) -> None:
        if not queue._is_async:
            raise BadDeclaration(
                f"{queue!r} has is_async=False, so there is nobody to carry a job; in tests use jobs.worker(), or "
                "lastcall.testing.run_jobs"
            )
        self.queue = queue
        self.jobs = jobs
        self.plan = plan or ShutdownPlan()
        self._queues = dict(queues or {})
        self._resend_seconds = seconds("RqCarrier(resend_seconds)", resend_seconds, zero=False)
        self._sender = self._new_sender()
        self._watch = Watch(_RqBackend(queue))
        self._stop_observing: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<RqCarrier on {self.queue!r} for {self.jobs!r}>"

    def worker_class(self) -> type[SimpleWorker]:
        """The class for `rq worker --worker-class`; keep it in the module under a name of its own."""
        carrier = self

        class CarrierWorker(_CarrierWorker):
            new_host = carrier._new_host

        return CarrierWorker

    # --- in a program that submits ---------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.jobs.__aenter__()
        self._stop_observing = self.jobs.observe(Submissions(self._sender))
        return self

    async def __aexit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop_observing()
        try:
            await asyncio.to_thread(self._sender.close, _FLUSH_SECONDS)
        finally:
            await self.jobs.__aexit__(et, exc, tb)

    async def submit(self, fn: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> SentTask[Any]:
        """Send a job of RQ's own to `queue`: a function, or its path. RQ's options go into `kwargs` as always.

        It is not a durable job: it is what RQ makes of it. Raises `BrokerUnavailable` if it could not be sent.
        """
        sent: RqJob = await asyncio.to_thread(_enqueue, self.queue, fn, args, kwargs)
        return SentTask(self._watch, sent.id, sent.func_name or str(fn))

    # --- what the worker needs -------------------------------------------------------------------------

    def _new_sender(self) -> Sender:
        return Sender(self._publish, "RQ")

    def _publish(self, job_id: str, queue: str) -> None:
        # Without RQ's own time limit: a job has its `timeout=`. And without retries: the sweep sends again.
        self._queues.get(queue, self.queue).enqueue_call(
            run_job, args=(job_id,), timeout=_NO_TIMEOUT, result_ttl=0, failure_ttl=_KEEP_FAILED_SECONDS
        )

    def _new_host(self) -> Host:
        sender = self._new_sender()
        return Host(self.jobs, sender, concurrency=1, plan=self.plan, resend_seconds=self._resend_seconds)


class _CarrierWorker(SimpleWorker):
    """An RQ worker whose process also has a host."""

    new_host: ClassVar[Callable[[], Host]]
    _host: Host | None = None

    def work(self, *args: Any, **kwargs: Any) -> bool:
        try:
            return super().work(*args, **kwargs)
        finally:
            if self._host is not None:
                self._host.stop()

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]
        # Here and not before: RQ has forked its scheduler, if it has one, and what is forked must not have our thread.
        self._host = type(self).new_host()
        self._host.start()

    def perform_job(self, job: Any, queue: Any, execution: Any) -> bool:
        assert self._host is not None
        token = _here.set(_Here(self._host, lambda: self.maintain_heartbeats(job, execution)))
        try:
            return super().perform_job(job, queue, execution)
        finally:
            _here.reset(token)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self._host is not None:
            self._host.tell_to_stop()


def _enqueue(queue: Queue, fn: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> RqJob:
    try:
        return queue.enqueue(fn, *args, **kwargs)
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(f"{fn!r} was not sent: {error_text(error)}") from error


class _RqBackend:
    """What RQ keeps in Redis, for `_sent`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def look(self, ids: Sequence[str]) -> list[Answer]:
        queue = self._queue
        try:
            found = RqJob.fetch_many(ids, connection=queue.connection, serializer=queue.serializer)
            return [_answer(job_id, job) for job_id, job in zip(ids, found, strict=True)]
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(
                f"RQ's Redis does not tell of {len(ids)} jobs: {error_text(error)}"
            ) from error

    def cancel(self, task_id: str) -> None:
        queue = self._queue
        try:
            job = RqJob.fetch(task_id, connection=queue.connection, serializer=queue.serializer)
            if job.get_status() is RqStatus.STARTED:
                send_stop_job_command(queue.connection, task_id, queue.serializer)
            else:
                job.cancel()
        except (InvalidJobOperation, NoSuchJobError):
            pass  # it has ended meanwhile
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"job {task_id} was not cancelled: {error_text(error)}") from error


def _answer(job_id: str, job: RqJob | None) -> Answer:
    if job is None:
        message = f"RQ keeps nothing of job {job_id} any more; raise its result_ttl"
        return Answer(JobStatus.FAILED, None, {"type": "UnknownJob", "message": message, "traceback": ""})
    status = _STATUS.get(job.get_status(refresh=False), JobStatus.QUEUED)
    if status is JobStatus.COMPLETED:
        return Answer(status, job.return_value())
    if status is JobStatus.FAILED:
        ended = job.latest_result()
        trace = ("" if ended is None else ended.exc_string or "").rstrip()
        kind, _, message = trace.rpartition("\n")[2].partition(": ")
        return Answer(status, None, {"type": kind, "message": message, "traceback": trace})
    return Answer(status)
