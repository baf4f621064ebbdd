"""Durable jobs on a Celery fleet, and Celery's own tasks from asyncio. The only file that imports celery.

The module that makes the carrier is imported by the programs that submit and by the Celery workers:

    app = Celery("shop", broker="redis://localhost")
    jobs = Jobs("postgresql://localhost/shop")
    carrier = CeleryCarrier(app, jobs)

Pools: `prefork` where processes are forked (Linux), `threads`, `solo`. gevent and eventlet are refused: in their one
thread a job that computes would keep the worker from renewing its lease.

How the stop reaches the jobs. Celery tells its pool's processes nothing when it shuts down warmly, and in a cold
shutdown tells them with SIGTERM at the very end. So this file hears of it first: by `worker_shutting_down` and by a
step in the worker's blueprint, and, because Celery's own handler of SIGQUIT first waits for its soft shutdown, by a
handler chained before that one. It passes the news on through a pipe that was made before the fork.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Final, Self

import billiard  # type: ignore[import-untyped]
import celery  # type: ignore[import-untyped]
from celery import bootsteps, signals, states
from celery.backends.base import DisabledBackend  # type: ignore[import-untyped]
from celery.exceptions import SoftTimeLimitExceeded  # type: ignore[import-untyped]
from kombu.exceptions import KombuError

from .._core._diagnose import error_text
from .._core._plan import ShutdownPlan
from .._core._state import StopReason
from ..exceptions import BadDeclaration, BrokerUnavailable, InstallError, UnknownTaskName
from ..jobs import Jobs, JobStatus
from ..jobs._settings import seconds
from ._host import Host, StopPipes
from ._sender import Sender, Submissions
from ._sent import Answer, SentTask, Watch

_FLUSH_SECONDS: Final = 2.0

_STATUS: Final = {
    states.PENDING: JobStatus.QUEUED,
    states.RECEIVED: JobStatus.QUEUED,
    states.STARTED: JobStatus.RUNNING,
    states.RETRY: JobStatus.SCHEDULED,
    states.SUCCESS: JobStatus.COMPLETED,
    states.FAILURE: JobStatus.FAILED,
    states.REVOKED: JobStatus.CANCELLED,
    states.REJECTED: JobStatus.CANCELLED,
}


class CeleryCarrier:
    """Lets the Celery workers of `app` run the jobs of `jobs`.

    `queues`: the Celery queue for the jobs of a queue of ours, by its name; all others go where Celery routes the task
    `task_name` ("lastcall.run_job"). `plan`: how jobs leave when the worker stops; within Celery's warm shutdown, and
    cut to its `worker_soft_shutdown_timeout` in a soft one. `resend_seconds` (10): how long a job may be queued without
    being picked up before a worker sends a message for it again.

    In a program that submits, use it as a block: inside it, whatever is submitted to `jobs` is sent for. Outside, jobs
    are as safe, and a worker's sweep finds them.

    Raises `BadDeclaration` for an app that runs tasks eagerly, and for impossible numbers.

        async with carrier:
            job = await analyse.submit("docs/")
    """

    def __init__(
        self,
        app: celery.Celery,
        jobs: Jobs,
        *,
        queues: Mapping[str, str] | None = None,
        task_name: str = "lastcall.run_job",
        plan: ShutdownPlan | None = None,
        resend_seconds: float = 10.0,
    ) -> None:
        if app.conf.task_always_eager:
            raise BadDeclaration(
                "this Celery app has task_always_eager, so there is nobody to carry a job; in tests use jobs.worker(), "
                "or lastcall.testing.run_jobs"
            )
        self.app = app
        self.jobs = jobs
        self.plan = plan or ShutdownPlan()
        self._queues = dict(queues or {})
        self._resend_seconds = seconds("CeleryCarrier(resend_seconds)", resend_seconds, zero=False)

        # Results are in the engine, and a message that is lost or comes twice does no harm: so no late acknowledgement,
        # whose visibility timeout brings long jobs' messages back while they run.
        def run_job(job_id: str) -> str:
            return self._worker.host().run(job_id, on_interrupt=_meaning)

        self._task = app.task(run_job, name=task_name, ignore_result=True, acks_late=False, shared=False)
        self._sender = self._new_sender()
        self._watch = Watch(_CeleryBackend(app))
        self._stop_observing: Any = None
        self._worker = _InWorker(self)
        app.steps["worker"].add(self._worker.step(f"lastcall {task_name}"))

    def __repr__(self) -> str:
        return f"<CeleryCarrier {self._task.name!r} of {self.app!r} for {self.jobs!r}>"

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

    async def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> SentTask[Any]:
        """Send a task of Celery's own: the task itself, its name, or a signature (`resize.s().set(queue="slow")`).

        It is not a durable job: it is what Celery makes of it. Raises `UnknownTaskName` for a name that the app does
        not know here, `BrokerUnavailable` if it could not be sent.
        """
        signature = task if isinstance(task, celery.Signature) else self._known(task).s()
        task_id = await asyncio.to_thread(_send, self.app, signature, args, kwargs)
        return SentTask(self._watch, task_id, signature.task, self._why_blind(signature))

    def _known(self, task: Any) -> Any:
        name = task if isinstance(task, str) else getattr(task, "name", None)
        if name not in self.app.tasks:
            known = (
                ", ".join(sorted(known for known in self.app.tasks if not known.startswith("celery.")))
                or "none"
            )
            raise UnknownTaskName(f"this Celery app knows no task {name or task!r}; it knows: {known}")
        return self.app.tasks[name]

    def _why_blind(self, signature: Any) -> str | None:
        task = self.app.tasks.get(signature.task)
        if isinstance(self.app.backend, DisabledBackend):
            return "the Celery app has no result backend; give it one with Celery(backend=...)"
        if task is not None and task.ignore_result:
            return "the task is declared with ignore_result=True"
        return None

    # --- in a Celery worker ----------------------------------------------------------------------------

    def _new_sender(self) -> Sender:
        return Sender(self._publish, "Celery")

    def _publish(self, job_id: str, queue: str) -> None:
        route = {"queue": self._queues[queue]} if queue in self._queues else {}
        _send(self.app, self._task.s(job_id).set(ignore_result=True, **route), (), {})

    def _new_host(self, concurrency: int) -> Host:
        return Host(
            self.jobs,
            self._new_sender(),
            concurrency=concurrency,
            plan=self.plan,
            resend_seconds=self._resend_seconds,
        )


def _meaning(error: BaseException) -> StopReason:
    """What an interruption of the thread that waits for a job means for it."""
    return StopReason.TIMEOUT if isinstance(error, SoftTimeLimitExceeded) else StopReason.SHUTDOWN


class _InWorker:
    """What happens in a Celery worker: a step in its blueprint, the pipes to its processes, one host in each."""

    def __init__(self, carrier: CeleryCarrier) -> None:
        self._carrier = carrier
        self._host: Host | None = None
        # The ends to read from, and those whose closing tells.
        self._pipes: StopPipes | None = None
        self._tellers: list[int] = []

    def step(self, step_name: str) -> type:
        """The step for the worker's blueprint: it starts after the pool, and is stopped before it."""
        mine = self

        class HandOver(bootsteps.StartStopStep):  # type: ignore[misc]
            name = step_name
            requires = ("celery.worker.components:Pool",)

            def __init__(self, worker: Any, **options: Any) -> None:
                super().__init__(worker, **options)
                mine.prepare(worker)

            def start(self, worker: Any) -> None:
                mine.start(worker)

            def close(self, worker: Any) -> None:
                mine.tell()

            def stop(self, worker: Any) -> None:
                mine.end()

            def terminate(self, worker: Any) -> None:
                mine.tell(force_in=0)
                mine.end()

        return HandOver

    def host(self) -> Host:
        """The host of this process. Raises `InstallError` outside of a worker."""
        if self._host is None:
            raise InstallError(
                f"{self._carrier!r} was not started with this worker; the module that makes it must be imported when "
                "the worker starts: celery -A that_module worker"
            )
        return self._host

    # --- in the main process ---------------------------------------------------------------------------

    def prepare(self, worker: Any) -> None:
        """Before the pool starts. Raises `InstallError` for a pool that cannot carry."""
        kind = _kind_of(worker.pool_cls)
        if kind == "prefork":
            # Connected here and not at import, so that only the processes of this pool hear of it.
            (stop, tell_stop), (force, tell_force) = os.pipe(), os.pipe()
            self._pipes, self._tellers = StopPipes(stop, force), [tell_stop, tell_force]
            signals.worker_process_init.connect(self._on_process_init, weak=False)
            signals.worker_process_shutdown.connect(self._on_process_shutdown, weak=False)
        signals.worker_shutting_down.connect(self._on_shutting_down, weak=False)

    def start(self, worker: Any) -> None:
        """The pool has started, and Celery's signal handlers are in place."""
        if self._pipes is None:
            self._host = self._carrier._new_host(worker.concurrency)
            self._host.start()
        if threading.current_thread() is threading.main_thread():
            self._chain(signal.SIGQUIT)

    def tell(self, *, force_in: float | None = None) -> None:
        """Tell the jobs, here or in the pool's processes. Called from signal handlers, too."""
        if self._host is not None:
            self._host.tell_to_stop(force_in=force_in)
            return
        keep = 0 if force_in == 0 else 1
        while len(self._tellers) > keep:
            os.close(self._tellers.pop(0))

    def end(self) -> None:
        """Wait until the jobs of this process have left; the pool waits for its processes."""
        host, self._host = self._host, None
        if host is not None:
            host.stop()

    def _on_shutting_down(self, sig: str = "", how: str = "", **_: Any) -> None:
        self.tell()
        if sig == "SIGINT" and how == "Warm":
            self._chain(signal.SIGINT)  # Celery has just made the next one a cold shutdown

    def _chain(self, signum: signal.Signals) -> None:
        before = signal.getsignal(signum)
        if not callable(before):
            return
        call = before

        def on_cold(number: int, frame: FrameType | None) -> None:
            # Celery's own handler tells nobody before its soft shutdown is over.
            soft_seconds = self._carrier.app.conf.worker_soft_shutdown_timeout
            self.tell(force_in=max(0.0, soft_seconds))
            call(number, frame)

        signal.signal(signum, on_cold)

    # --- in a process of the pool ----------------------------------------------------------------------

    def _on_process_init(self, **_: Any) -> None:
        while self._tellers:  # or nobody would see the main process close them
            os.close(self._tellers.pop())
        self._host = self._carrier._new_host(1)
        self._host.start(self._pipes)

    def _on_process_shutdown(self, **_: Any) -> None:
        self.end()


def _kind_of(pool_class: type) -> str:
    modules = {base.__module__.rpartition(".")[2] for base in pool_class.__mro__}
    for kind in ("threads", "solo", "prefork"):
        if {"threads": "thread"}.get(kind, kind) in modules:
            break
    else:
        raise InstallError(
            f"jobs cannot be carried by the Celery pool {pool_class.__module__}: in its one thread a job that computes "
            "would keep the worker from renewing its lease. Start the worker with --pool prefork, threads or solo"
        )
    if kind == "prefork" and billiard.get_start_method() != "fork":
        raise InstallError(
            "where Celery's prefork pool does not fork, its processes cannot be told of a warm shutdown; start the "
            "worker with --pool threads"
        )
    return kind


def _send(app: celery.Celery, signature: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Send a task, once; its id. Blocks. Raises `BrokerUnavailable`."""
    try:
        with app.producer_pool.acquire(block=True) as producer:
            # First of all the broker: Celery would begin with its result store, and try that for twenty seconds.
            producer.connection.ensure_connection(max_retries=1, interval_start=0)
            options = {"retry": False, **signature.options}
            sent = signature.apply_async(args, kwargs, producer=producer, **options)
    except (KombuError, OSError, RuntimeError) as error:
        raise BrokerUnavailable(f"task {signature.task!r} was not sent: {error_text(error)}") from error
    return str(sent.id)


class _CeleryBackend:
    """Celery's result backend and remote control, for `_sent`."""

    def __init__(self, app: celery.Celery) -> None:
        self._app = app

    def look(self, ids: Sequence[str]) -> list[Answer]:
        return [self._look(task_id) for task_id in ids]

    def _look(self, task_id: str) -> Answer:
        try:
            meta = self._app.backend.get_task_meta(task_id)
        except Exception as error:  # each backend has errors of its own
            raise BrokerUnavailable(
                f"Celery's result backend does not tell of task {task_id}: {error_text(error)}"
            ) from error
        # A state of the user's own, by `update_state`, is told while the task runs.
        status = _STATUS.get(meta["status"], JobStatus.RUNNING)
        if status is not JobStatus.FAILED:
            return Answer(status, meta.get("result"))
        raised = meta.get("result")
        told = {
            "type": type(raised).__name__,
            "message": str(raised),
            "traceback": str(meta.get("traceback") or ""),
        }
        return Answer(status, None, told)

    def cancel(self, task_id: str) -> None:
        try:
            self._app.control.revoke(task_id, terminate=True)
        except (KombuError, OSError) as error:
            raise BrokerUnavailable(f"task {task_id} was not revoked: {error_text(error)}") from error
