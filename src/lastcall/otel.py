"""OpenTelemetry: spans and metrics of tasks, jobs, attempts and steps.

The only file that imports opentelemetry; only its API, the application brings the SDK.

    from lastcall.otel import instrument

    instrument(manager, jobs=jobs)

Work of lastcall outlives the request that starts it, by days perhaps, so it is a trace of its own with a *link* to the
span that started it; what a block waits for (a `TaskGroup` in its `async with`) is a span below it. A job carries the
context of its submission in its own options, to whichever process runs it, baggage included.

What can go wrong: an exporter that is away, which is the SDK's business. What fails here is logged, and harms no work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import metrics, propagate, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from . import _names as names
from ._core._manager import TaskManager
from ._core._observer import TaskObserver
from ._core._record import TaskInfo
from ._core._report import ShutdownReport
from ._core._state import TaskStatus
from ._readings import Readings
from ._version import __version__

if TYPE_CHECKING:
    from .jobs import AttemptResult, Claimed, Jobs, NewJob, StepPolicy

__all__ = ["instrument"]

_NS: Final = 1_000_000_000


def instrument(
    manager: TaskManager | None = None,
    *,
    jobs: Jobs | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Callable[[], None]:
    """Make spans and metrics of everything that `manager` and `jobs` do in this process; returns what ends it.

    The providers default to the global ones. Every process that submits or runs jobs should be instrumented; a job that
    was submitted by one that is not has no link. The names are in docs/observability.md.

    Raises ValueError without a manager and without jobs.

        stop = instrument(manager, jobs=jobs)
    """
    if manager is None and jobs is None:
        raise ValueError("instrument() needs a manager, or jobs=, or both")
    meter = metrics.get_meter("lastcall", __version__, meter_provider)
    tracer = trace.get_tracer("lastcall", __version__, tracer_provider)
    gauges = _Gauges(Readings(manager, jobs), meter)
    stops: list[Callable[[], None]] = [gauges.stop]
    if manager is not None:
        stops.append(manager.observe(_Tasks(manager.name, tracer, meter)))
    if jobs is not None:
        stops.append(jobs.observe(_JobsSeen(tracer, meter)))

    def stop() -> None:
        for each in stops:
            each()

    return stop


# --- metrics that are read -----------------------------------------------------------------------------


class _Gauges:
    """Observed by the SDK when it exports, on its thread. A callback cannot be taken back, so it goes silent."""

    def __init__(self, readings: Readings, meter: metrics.Meter) -> None:
        self._readings: Readings | None = readings
        for metric in _READ:
            make = (
                meter.create_observable_counter
                if metric.shape == "counter"
                else meter.create_observable_gauge
            )
            make(metric.name, [self._callback(metric)], unit=metric.unit, description=metric.about)

    def stop(self) -> None:
        self._readings = None

    def _callback(self, metric: names.Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            readings = self._readings
            if readings is None:
                return
            readings.refresh_from_thread()
            for reading in readings.read():
                if reading.metric is metric:
                    labels = zip(metric.attributes, reading.labels, strict=True)
                    yield Observation(reading.value, _attributes(labels))

        return observe


_READ = (
    names.READY,
    names.TASKS,
    names.CALLS,
    names.TASKS_ENDED,
    names.SWALLOWED,
    names.JOBS,
    names.WORKERS,
    names.SLOTS,
    names.LEASE_AGE,
)


def _attributes(labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {f"lastcall.{name}": value for name, value in labels}


def _histogram(meter: metrics.Meter, metric: names.Metric) -> metrics.Histogram:
    return meter.create_histogram(
        metric.name,
        metric.unit,
        metric.about,
        explicit_bucket_boundaries_advisory=names.BOUNDS_SECONDS,
    )


# --- tasks ---------------------------------------------------------------------------------------------


class _Tasks(TaskObserver):
    def __init__(self, manager: str, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._manager = manager
        self._tracer = tracer
        self._drain_seconds = _histogram(meter, names.DRAIN_SECONDS)
        self._spans: dict[str, Span] = {}

    def task_started(self, task: TaskInfo, context: Context, *, inside: bool) -> None:
        parent, links = _parent_and_links(inside)
        span = self._tracer.start_span(
            names.SPAN_TASK.name.format(name=task.name),
            parent,
            SpanKind.INTERNAL,
            {
                "lastcall.manager": self._manager,
                "lastcall.task.id": task.id,
                "lastcall.task.kind": task.kind.value,
                **({} if task.group is None else {"lastcall.group": task.group}),
                **{f"lastcall.label.{name}": value for name, value in task.labels.items()},
            },
            links,
        )
        self._spans[task.id] = span
        try:
            context.run(otel_context.attach, trace.set_span_in_context(span, parent))
        except RuntimeError:
            pass  # a context of the caller's own, which is entered: what is current there is the caller's choice

    def task_ended(self, task: TaskInfo) -> None:
        span = self._spans.pop(task.id, None)
        if span is None:
            return
        span.set_attribute("lastcall.status", task.status.value)
        if task.reason is not None:
            span.set_attribute("lastcall.reason", task.reason.value)
        if task.swallowed_cancel:
            span.set_attribute("lastcall.swallowed_cancel", True)
        if task.error is not None:
            span.record_exception(task.error)
        if task.status is TaskStatus.FAILED:
            span.set_status(Status(StatusCode.ERROR, None if task.error is None else str(task.error)))
        span.end()

    def shutdown_ended(self, report: ShutdownReport) -> None:
        clean = str(report.clean).lower()
        labels = _attributes(zip(names.DRAIN_SECONDS.attributes, (self._manager, clean), strict=True))
        self._drain_seconds.record(report.seconds, labels)
        at = int(report.started_at * _NS)
        span = self._tracer.start_span(
            names.SPAN_SHUTDOWN.name.format(manager=self._manager),
            otel_context.Context(),
            attributes={
                **labels,
                "lastcall.reason": report.reason.value,
                "lastcall.budget_seconds": report.budget_seconds,
                **{f"lastcall.outcome.{outcome}": n for outcome, n in report.counts.items() if n},
            },
            start_time=at,
        )
        end = at
        for phase in report.phases:
            end += int(phase.seconds * _NS)
            told = {"seconds": phase.seconds, "budget_seconds": phase.budget_seconds}
            span.add_event(f"{phase.phase} is over", told, end)
        if not report.clean:
            span.set_status(Status(StatusCode.ERROR, f"{report.unclean} did not end well"))
        span.end(at + int(report.seconds * _NS))


def _parent_and_links(inside: bool) -> tuple[otel_context.Context, list[Link]]:
    """What a new task's span hangs on. Beside the span the context has more (baggage), which the task keeps."""
    current = otel_context.get_current()
    starter = trace.get_current_span(current).get_span_context()
    if inside or not starter.is_valid:
        return current, []
    return trace.set_span_in_context(trace.INVALID_SPAN, current), [Link(starter)]


# --- jobs ----------------------------------------------------------------------------------------------


class _JobsSeen:
    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._tracer = tracer
        self._submitted = meter.create_counter(
            names.SUBMITTED.name, names.SUBMITTED.unit, names.SUBMITTED.about
        )
        self._running = meter.create_up_down_counter(
            names.ATTEMPTS_RUNNING.name, names.ATTEMPTS_RUNNING.unit, names.ATTEMPTS_RUNNING.about
        )
        self._attempts = meter.create_counter(names.ATTEMPTS.name, names.ATTEMPTS.unit, names.ATTEMPTS.about)
        self._entries = meter.create_counter(names.ENTRIES.name, names.ENTRIES.unit, names.ENTRIES.about)
        self._attempt_seconds = _histogram(meter, names.ATTEMPT_SECONDS)
        self._step_seconds = _histogram(meter, names.STEP_SECONDS)
        self._latency = _histogram(meter, names.LATENCY)
        self._open: dict[tuple[str, int], tuple[Span, float]] = {}

    # --- submitting ---

    def submit_started(self, jobs: Sequence[NewJob]) -> Callable[[BaseException | None], None]:
        listed = sorted({job.task for job in jobs})
        what = listed[0] if len(listed) == 1 else f"{len(jobs)} jobs"
        span = self._tracer.start_span(
            names.SPAN_SUBMIT.name.format(task=what),
            kind=SpanKind.PRODUCER,
            attributes={
                "lastcall.task": listed,
                "messaging.batch.message_count": len(jobs),
                **({"lastcall.job.id": jobs[0].id} if len(jobs) == 1 else {}),
            },
        )
        token = otel_context.attach(trace.set_span_in_context(span))

        def ended(error: BaseException | None) -> None:
            otel_context.detach(token)
            _end_span(span, error)
            if error is None:
                for job in jobs:
                    self._submitted.add(1, {"lastcall.task": job.task, "lastcall.queue": job.queue})

        return ended

    def carry(self, job: NewJob) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    # --- running ---

    def attempt_started(self, job: Claimed, carried: Mapping[str, str]) -> None:
        submitted = propagate.extract(carried, otel_context.Context())
        link = trace.get_current_span(submitted).get_span_context()
        base = trace.set_span_in_context(trace.INVALID_SPAN, submitted)
        span = self._tracer.start_span(
            names.SPAN_ATTEMPT.name.format(task=job.task),
            base,
            SpanKind.CONSUMER,
            {
                "lastcall.job.id": job.id,
                "lastcall.task": job.task,
                "lastcall.queue": job.queue,
                "lastcall.attempt": job.attempt,
                **({} if job.parent_id is None else {"lastcall.job.parent_id": job.parent_id}),
            },
            [Link(link)] if link.is_valid else None,
        )
        # Never detached: it is the context of the attempt's own task, and ends with it.
        otel_context.attach(trace.set_span_in_context(span, base))
        self._open[job.id, job.attempt] = span, time.perf_counter()
        self._running.add(1, {"lastcall.task": job.task})
        waited = names.waited_seconds(job.attempt, job.created_at, job.options)
        if waited is not None:
            self._latency.record(waited, {"lastcall.task": job.task, "lastcall.queue": job.queue})

    def attempt_ended(self, job: Claimed, result: AttemptResult) -> None:
        outcome = str(result.outcome)
        labels = {"lastcall.task": job.task, "lastcall.outcome": outcome}
        self._attempts.add(1, {**labels, "lastcall.reason": str(result.reason or "")})
        span, began = self._open.pop((job.id, job.attempt), (None, 0.0))
        if span is None:
            return
        self._running.add(-1, {"lastcall.task": job.task})
        self._attempt_seconds.record(time.perf_counter() - began, labels)
        span.set_attribute("lastcall.outcome", outcome)
        if result.reason is not None:
            span.set_attribute("lastcall.reason", str(result.reason))
        if result.error is not None:
            told = _exception_of(result.error)
            span.add_event("exception", told)
            span.set_attribute("error.type", told["exception.type"])
            span.set_status(Status(StatusCode.ERROR, told["exception.message"]))
        elif outcome == "lost":
            span.set_status(Status(StatusCode.ERROR, "the lease was lost; another worker has the job"))
        span.end()

    def step_started(
        self, job: Claimed, key: str, policy: StepPolicy
    ) -> Callable[[BaseException | None], None]:
        began = time.perf_counter()
        span = self._tracer.start_span(
            names.SPAN_STEP.name.format(name=key.split("(", 1)[0]),
            attributes={
                "lastcall.job.id": job.id,
                "lastcall.attempt": job.attempt,
                "lastcall.step": key,
                "lastcall.step.policy": str(policy),
            },
        )
        token = otel_context.attach(trace.set_span_in_context(span))

        def ended(error: BaseException | None) -> None:
            otel_context.detach(token)
            _end_span(span, error)
            labels = {"lastcall.task": job.task, "lastcall.outcome": names.outcome_of(error)}
            self._step_seconds.record(time.perf_counter() - began, labels)

        return ended

    def events_written(self, job: Claimed, count: int) -> None:
        self._entries.add(count, {"lastcall.task": job.task})


def _end_span(span: Span, error: BaseException | None) -> None:
    if isinstance(error, Exception):
        span.record_exception(error)
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, str(error)))
    elif error is not None:
        span.set_attribute("lastcall.cancelled", True)
    span.end()


def _exception_of(error: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"exception.{ours}": str(error.get(theirs, ""))
        for ours, theirs in (("type", "type"), ("message", "message"), ("stacktrace", "traceback"))
    }
