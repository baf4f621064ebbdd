"""OpenTelemetry, with its own SDK: spans where they belong, metrics as they are named."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextvars import Context as Variables
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lastcall import ShutdownPlan, TaskGroup, TaskInfo, TaskManager, TaskObserver
from lastcall.jobs import Backoff, Context, Jobs
from lastcall.otel import instrument
from lastcall.testing import run_jobs
from tests.frame.floorplan import ROOT


class Telemetry:
    """An SDK that keeps everything in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.tracer = self.tracers.get_tracer("test")

    @property
    def providers(self) -> dict[str, Any]:
        return {"tracer_provider": self.tracers, "meter_provider": self.meters}

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        """Of one metric: by its attributes the value, or of a histogram the count."""
        data = self.reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data is not None else ():
            for metric in (m for scope in resource.scope_metrics for m in scope.metrics if m.name == name):
                for point in metric.data.data_points:
                    labels = tuple(str(value) for value in (point.attributes or {}).values())
                    found[labels] = getattr(point, "count", None) or getattr(point, "value", 0)
        return found


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.meters.shutdown()
    telemetry.tracers.shutdown()


def links(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def own_id(span: Any) -> int:
    return span.get_span_context().span_id


async def test_a_task_is_a_trace_of_its_own_linked_to_its_request(telemetry: Telemetry) -> None:
    """A request starts a task and ends before it: the span is linked, not a child, and has a child of its own."""
    release = asyncio.Event()
    manager = TaskManager()
    instrument(manager, **telemetry.providers)

    async def work() -> None:
        await release.wait()
        with telemetry.tracer.start_as_current_span("inside"):
            await asyncio.sleep(0)

    async with manager:
        with telemetry.tracer.start_as_current_span("GET /") as request:
            task = manager.create_task(work(), name="work", labels={"to": "ann"})
        release.set()
        await task
    span, inside = telemetry.span("task work"), telemetry.span("inside")
    assert span.parent is None
    assert links(span) == [own_id(request)]
    assert inside.parent is not None and inside.parent.span_id == own_id(span)
    assert span.attributes is not None
    assert (span.attributes["lastcall.status"], span.attributes["lastcall.label.to"]) == ("completed", "ann")


async def test_threads_services_and_blocks(telemetry: Telemetry) -> None:
    """A thread's spans are below its task's; what a block waits for is below the span of the block."""
    manager = TaskManager()
    instrument(manager, **telemetry.providers)

    def crunch() -> None:
        with telemetry.tracer.start_as_current_span("in the thread"):
            pass

    async def fetch() -> None:
        await asyncio.sleep(0)

    async with manager:
        await manager.run_in_thread(crunch, name="crunch")
        with telemetry.tracer.start_as_current_span("GET /") as request:
            async with TaskGroup() as group:
                group.create_task(fetch(), name="fetch")
    inside, fetched = telemetry.span("in the thread"), telemetry.span("task fetch")
    assert inside.parent is not None and inside.parent.span_id == own_id(telemetry.span("task crunch"))
    assert fetched.parent is not None and fetched.parent.span_id == own_id(request)
    assert links(fetched) == []


async def test_failures_and_cuts_show(telemetry: Telemetry) -> None:
    """One task fails, one is cut off by the shutdown: their spans say so, and so does the span of the shutdown."""
    manager = TaskManager(
        name="bar", plan=ShutdownPlan(drain=0, cancel=5, close=1), on_error=lambda info, error: None
    )
    instrument(manager, **telemetry.providers)

    async def fail() -> None:
        raise ValueError("no beer")

    async with manager:
        await asyncio.wait({manager.create_task(fail(), name="fail")})
        manager.create_task(asyncio.Event().wait(), name="stay")
        assert telemetry.points("lastcall.tasks") == {("bar", "pending"): 0, ("bar", "running"): 1}
        assert telemetry.points("lastcall.ready") == {("bar",): 1}
        await asyncio.sleep(0)
    failed, stayed, shut = (telemetry.span(n) for n in ("task fail", "task stay", "shutdown bar"))
    assert not failed.status.is_ok and failed.status.description == "no beer"
    assert failed.events[0].name == "exception"
    assert stayed.attributes is not None and stayed.attributes["lastcall.reason"] == "shutdown"
    assert [event.name for event in shut.events] == ["drain is over", "cancel is over", "close is over"]
    assert not shut.status.is_ok
    assert telemetry.points("lastcall.tasks.ended")["bar", "failed"] == 1
    assert telemetry.points("lastcall.drain.duration") == {("bar", "false"): 1}


async def test_an_observer_that_fails_harms_no_work(caplog: pytest.LogCaptureFixture) -> None:
    """Everything that an observer is told raises: the work goes on, and the log says whose fault it is."""

    class Broken(TaskObserver):
        def task_started(self, task: TaskInfo, context: Variables, *, inside: bool) -> None:
            raise RuntimeError("broken")

        def task_ended(self, task: TaskInfo) -> None:
            raise RuntimeError("broken")

    manager = TaskManager()
    stop = manager.observe(Broken())
    async with manager:
        assert await manager.create_task(asyncio.sleep(0, 7)) == 7
        stop()
        assert await manager.create_task(asyncio.sleep(0, 8)) == 8
    assert [record.levelno for record in caplog.records if "observer" in record.message] == [
        logging.ERROR
    ] * 2


class Shop:
    def __init__(self) -> None:
        self.jobs = Jobs("sqlite:///never-opened.db")
        self.tries = 0

        async def charge(order: str) -> str:
            self.tries += 1
            if self.tries == 1:
                raise ConnectionError("the bank is away")
            return f"receipt {order}"

        @self.jobs.task(name="fulfil", retries=1, backoff=Backoff(first_seconds=5, jitter=0))
        async def fulfil(ctx: Context, order: str) -> str:
            receipt = await ctx.step(charge, order, name="charge")
            async with ctx.stream("note") as out:
                await out.write("done")
            await ctx.sleep(60)
            return receipt

        self.fulfil = fulfil


@pytest.mark.loops("asyncio")
async def test_a_job_from_its_submission_to_its_end(telemetry: Telemetry) -> None:
    """A job fails once, is tried again, waits and completes: three attempts and two steps, linked and counted."""
    shop = Shop()
    instrument(jobs=shop.jobs, **telemetry.providers)
    async with run_jobs(shop.jobs) as run:
        with telemetry.tracer.start_as_current_span("POST /orders") as request:
            job = await shop.fulfil.submit("tea")
        await run.until_idle()
        await run.advance(5)
        await run.advance(60)
        assert await job.result(timeout=5) == "receipt tea"
        counted = await asyncio.to_thread(telemetry.points, "lastcall.jobs")
        assert counted == {("default", "completed"): 1}
    submit = telemetry.span("submit fulfil")
    assert submit.parent is not None and submit.parent.span_id == own_id(request)
    attempts = telemetry.spans("run fulfil")
    assert [links(span) for span in attempts] == [[own_id(submit)]] * 3
    assert all(span.attributes is not None for span in attempts)
    told = [(s.attributes or {}).get("lastcall.outcome") for s in attempts]
    assert told == ["failed", "handed_over", "completed"]
    steps = telemetry.spans("step charge")
    assert [span.parent and span.parent.span_id for span in steps] == [own_id(span) for span in attempts[:2]]
    assert [span.status.is_ok for span in steps] == [False, True]
    assert telemetry.points("lastcall.attempts") == {
        ("fulfil", "failed", ""): 1,
        ("fulfil", "handed_over", "waiting"): 1,
        ("fulfil", "completed", ""): 1,
    }
    assert telemetry.points("lastcall.step.duration") == {("fulfil", "failed"): 1, ("fulfil", "completed"): 1}
    assert telemetry.points("lastcall.queue.latency") == {("fulfil", "default"): 1}
    assert telemetry.points("lastcall.attempts.running") == {("fulfil",): 0}
    # The text and its end; and in the last attempt both once more, behind a reset.
    assert telemetry.points("lastcall.stream.entries") == {("fulfil",): 5}


def test_a_submission_is_found_again_in_another_process(tmp_path: Path, telemetry: Telemetry) -> None:
    """
    1. A process submits inside a request's span, with baggage, and ends.
    2. This one runs the job.
    Result: the attempt's span is linked to the submission's, and the job's code sees the baggage.
    """
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    command = [sys.executable, "-m", "tests.observing.submits", url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen: list[object] = []
    jobs = Jobs(url)

    @jobs.task(name="work")
    async def work(number: int) -> int:
        seen.append(baggage.get_baggage("tenant"))
        return number

    async def run() -> None:
        instrument(jobs=jobs, **telemetry.providers)
        async with jobs, jobs.worker():
            (info,) = await jobs.find()
            assert await jobs.job(info.id).result(timeout=30) == 7

    asyncio.run(run())
    (link,) = telemetry.span("run work").links
    assert done.stdout.split() == [
        trace.format_trace_id(link.context.trace_id),
        trace.format_span_id(link.context.span_id),
    ]
    assert seen == ["acme"]


def test_what_is_instrumented_can_be_let_go() -> None:
    """Without a manager and jobs there is nothing to do, which is an error."""
    with pytest.raises(ValueError, match="needs a manager"):
        instrument()


@pytest.mark.loops("asyncio")
async def test_a_task_that_could_not_be_made_leaves_no_open_span(telemetry: Telemetry) -> None:
    """The loop's task factory refuses after the birth was told: the span ends as failed."""
    manager = TaskManager()
    instrument(manager, **telemetry.providers)
    loop = asyncio.get_running_loop()

    def refuse(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        raise MemoryError("no more tasks")

    async with manager:
        loop.set_task_factory(refuse)
        with pytest.raises(MemoryError):
            manager.create_task(asyncio.sleep(0), name="refused")
        loop.set_task_factory(None)
    assert not telemetry.span("task refused").status.is_ok
