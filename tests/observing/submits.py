"""A process that submits one job inside a request's span, and prints the span of the submission."""

import asyncio
import sys

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lastcall.jobs import Jobs
from lastcall.otel import instrument


async def main(url: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    jobs = Jobs(url)

    @jobs.task(name="work")
    async def work(number: int) -> int:
        raise AssertionError("this process has no worker")

    instrument(jobs=jobs, tracer_provider=provider)
    async with jobs:
        with provider.get_tracer("request").start_as_current_span("POST /work"):
            context.attach(baggage.set_baggage("tenant", "acme"))
            await work.options(labels={"for": "test"}, retries=2).submit(7)
    (submit,) = [span for span in exporter.get_finished_spans() if span.name == "submit work"]
    assert submit.context is not None
    print(trace.format_trace_id(submit.context.trace_id), trace.format_span_id(submit.context.span_id))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
