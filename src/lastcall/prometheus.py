"""Prometheus: everything lastcall knows, as a page to scrape.

The only file that imports prometheus_client.

    from lastcall.prometheus import Metrics

    metrics = Metrics(manager, jobs=jobs)
    app.mount("/metrics", metrics)

What is counted in the store is read when somebody scrapes, at most once a second and without holding up the loop; what
happens is counted as it happens. What can go wrong: the store is away, then its metrics are missing from the page until
it is back, and nothing else is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from . import _names as names
from ._core._manager import TaskManager
from ._core._observer import TaskObserver
from ._core._report import ShutdownReport
from ._readings import Readings

if TYPE_CHECKING:
    from .jobs import AttemptResult, Claimed, Jobs, NewJob, StepPolicy

__all__ = ["Metrics"]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Metrics:
    """The metrics of a manager, of jobs, or of both; itself an ASGI app that answers a scrape.

    `registry` (default: one of its own): where they are registered, beside the program's own metrics if it is the
    client's `REGISTRY`. A server of the client's own, on a thread, may serve that registry as well.
    `close()` takes them out again. Whoever reaches the app sees the page: task names and counts, no arguments and no
    results. Mount it where only your scraper comes.

    Raises ValueError without a manager and without jobs, and for a registry that has these metrics already.
    """

    def __init__(
        self,
        manager: TaskManager | None = None,
        *,
        jobs: Jobs | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        if manager is None and jobs is None:
            raise ValueError("Metrics() needs a manager, or jobs=, or both")
        self.registry = CollectorRegistry() if registry is None else registry
        self._readings = Readings(manager, jobs)
        self._collectors: list[Any] = []
        self._stops: list[Callable[[], None]] = []
        try:
            self._register(_Read(self._readings))
            if manager is not None:
                drains = self._histogram(names.DRAIN_SECONDS)
                self._stops.append(manager.observe(_Shutdowns(manager.name, drains)))
            if jobs is not None:
                self._stops.append(jobs.observe(_JobsSeen(self)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Count nothing any more, and leave the registry. Again: harmless."""
        for stop in self._stops:
            stop()
        for collector in self._collectors:
            self.registry.unregister(collector)
        self._stops, self._collectors = [], []

    # --- the page ---

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """What a scraper is answered, and its content type, by the Accept header that it sent."""
        await self._readings.refresh()
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer GET and HEAD."""
        if scope["type"] != "http":
            raise RuntimeError(
                f"Metrics answers HTTP, not {scope['type']!r}; mount it below an app of your own"
            )
        status, body, content_type = 405, b"", "text/plain; charset=utf-8"
        if scope["method"] in ("GET", "HEAD"):
            accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
            status = 200
            body, content_type = await self.page(accept.decode("latin-1"))
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *([(b"allow", b"GET, HEAD")] if status == 405 else []),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    # --- what is counted as it happens ---

    def _register(self, collector: Any) -> None:
        self.registry.register(collector)
        self._collectors.append(collector)

    def _counter(self, metric: names.Metric) -> Counter:
        counter = Counter(metric.prometheus, metric.about, metric.attributes, registry=None)
        self._register(counter)
        return counter

    def _gauge(self, metric: names.Metric) -> Gauge:
        gauge = Gauge(metric.prometheus, metric.about, metric.attributes, registry=None)
        self._register(gauge)
        return gauge

    def _histogram(self, metric: names.Metric) -> Histogram:
        histogram = Histogram(
            metric.prometheus,
            metric.about,
            metric.attributes,
            registry=None,
            buckets=names.BOUNDS_SECONDS,
        )
        self._register(histogram)
        return histogram


class _Read:
    """A collector: what is there when somebody looks."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def describe(self) -> Iterable[Family]:
        """Nothing: it is not known before which there are."""
        return []

    def collect(self) -> Iterable[Family]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._readings.refresh_from_thread()  # a server of the client's own; the page has asked already
        families: dict[names.Metric, Family] = {}
        for metric, labels, value in self._readings.read():
            if metric not in families:
                make = CounterMetricFamily if metric.shape == "counter" else GaugeMetricFamily
                families[metric] = make(metric.prometheus, metric.about, labels=metric.attributes)
            family: Any = families[metric]
            family.add_metric(labels, value)
        return families.values()


class _Shutdowns(TaskObserver):
    def __init__(self, manager: str, seconds: Histogram) -> None:
        self._manager = manager
        self._seconds = seconds

    def shutdown_ended(self, report: ShutdownReport) -> None:
        self._seconds.labels(self._manager, str(report.clean).lower()).observe(report.seconds)


class _JobsSeen:
    def __init__(self, metrics: Metrics) -> None:
        self._submitted = metrics._counter(names.SUBMITTED)
        self._running = metrics._gauge(names.ATTEMPTS_RUNNING)
        self._attempts = metrics._counter(names.ATTEMPTS)
        self._entries = metrics._counter(names.ENTRIES)
        self._attempt_seconds = metrics._histogram(names.ATTEMPT_SECONDS)
        self._step_seconds = metrics._histogram(names.STEP_SECONDS)
        self._latency = metrics._histogram(names.LATENCY)
        self._began: dict[tuple[str, int], float] = {}

    def submit_started(self, jobs: Sequence[NewJob]) -> Callable[[BaseException | None], None]:
        def ended(error: BaseException | None) -> None:
            if error is None:
                for job in jobs:
                    self._submitted.labels(job.task, job.queue).inc()

        return ended

    def carry(self, job: NewJob) -> Mapping[str, str]:
        return {}

    def attempt_started(self, job: Claimed, carried: Mapping[str, str]) -> None:
        self._began[job.id, job.attempt] = time.perf_counter()
        self._running.labels(job.task).inc()
        waited = names.waited_seconds(job.attempt, job.created_at, job.options)
        if waited is not None:
            self._latency.labels(job.task, job.queue).observe(waited)

    def attempt_ended(self, job: Claimed, result: AttemptResult) -> None:
        outcome = str(result.outcome)
        self._attempts.labels(job.task, outcome, str(result.reason or "")).inc()
        began = self._began.pop((job.id, job.attempt), None)
        if began is not None:
            self._running.labels(job.task).dec()
            self._attempt_seconds.labels(job.task, outcome).observe(time.perf_counter() - began)

    def step_started(
        self, job: Claimed, key: str, policy: StepPolicy
    ) -> Callable[[BaseException | None], None]:
        began = time.perf_counter()

        def ended(error: BaseException | None) -> None:
            taken = time.perf_counter() - began
            self._step_seconds.labels(job.task, names.outcome_of(error)).observe(taken)

        return ended

    def events_written(self, job: Claimed, count: int) -> None:
        self._entries.labels(job.task).inc(count)
