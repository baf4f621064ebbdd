"""What declared tasks, submissions and handles return."""

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_type

from lastcall.jobs import (
    AttemptRow,
    Backoff,
    Call,
    CancelOutcome,
    Context,
    Decision,
    Engine,
    Event,
    Job,
    JobInfo,
    Jobs,
    JobStatus,
    Overview,
    Rate,
    StepInfo,
    StepPolicy,
    Task,
    Worker,
    current_context,
    current_step,
    open_engine,
)


@dataclass
class Report:
    lines: int


jobs = Jobs("sqlite:///jobs.db", lease_seconds=5, max_payload_bytes=1000)


@jobs.task
async def analyse(ctx: Context, folder: str, deep: bool = False) -> Report:
    return Report(len(folder) + deep)


@jobs.task(retries=3, backoff=Backoff(0.5), rate=Rate(10), give_up_on=ValueError, timeout=5)
async def count(*parts: str, case: bool) -> int:
    return len(parts) + case


@jobs.task
def crunch(path: str) -> float:
    return float(len(path))


@jobs.task(run="thread", concurrency_key="path")
def crunch_with_context(ctx: Context, path: str) -> float:
    return float(len(path))


@jobs.task()
async def nothing() -> None:
    """Takes and gives nothing."""


async def plain(folder: str) -> bytes:
    return folder.encode()


async def a_function_keeps_its_type(ctx: Context) -> None:
    coroutine: Coroutine[Any, Any, Report] = analyse(ctx, "a", deep=True)
    assert_type(await coroutine, Report)
    assert_type(await count("a", "b", case=True), int)
    assert_type(crunch("a"), float)
    assert_type(crunch_with_context(ctx, path="a"), float)
    assert_type(await jobs.task(plain)("a"), bytes)
    await nothing()


async def submitting_is_typed() -> None:
    assert_type(await analyse.submit("a"), Job[Report])
    assert_type(await analyse.submit(folder="a", deep=True), Job[Report])
    assert_type(await count.submit("a", "b", case=False), Job[int])
    assert_type(await crunch.submit("a"), Job[float])
    assert_type(await crunch_with_context.submit("a"), Job[float])
    assert_type(await nothing.submit(), Job[None])
    assert_type(await analyse.submit_json({"folder": "a"}), Job[Report])
    assert_type(analyse.call("a"), Call[Report])
    assert_type(analyse.name, str)


async def options_chain() -> None:
    later = analyse.options(key="k", delay=5).options(at=datetime(2027, 1, 1), priority=3, queue="q")
    again = later.options(labels={"a": "b"}, retries=1, timeout=5, retention=60)
    assert_type(await again.submit("a", deep=True), Job[Report])
    assert_type(again.call("a"), Call[Report])


async def many_are_typed() -> None:
    assert_type(await jobs.submit_many([analyse.call("a"), analyse.call("b")]), list[Job[Report]])
    assert_type(await jobs.submit_many(crunch.call(path) for path in "abc"), list[Job[float]])
    mixed: list[Call[Report | float]] = [analyse.call("a"), crunch.call("b")]
    assert_type(await jobs.submit_many(mixed), list[Job[Report | float]])
    assert_type(await jobs.submit_many([analyse.call("a"), count.call(case=True)]), list[Job[object]])
    whatever: Task[..., object] = crunch
    wider: Job[object] = await crunch.submit("a")
    assert_type(whatever.call(5), Call[object])
    assert_type(await wider.result(), object)


async def a_handle_is_typed() -> None:
    job = await analyse.submit("a")
    assert_type(job.id, str)
    assert_type(await job.result(), Report)
    assert_type(await job.result(timeout=5), Report)
    assert_type(await job.wait(timeout=5), JobInfo)
    assert_type(await job.status(), JobStatus)
    assert_type(await job.cancel(), CancelOutcome)
    assert_type(await job.retry(), JobStatus)
    assert_type(await job.send("approval", {"by": "ann"}), JobStatus)
    assert_type(await job.resolve("charge", value=5), JobStatus)
    assert_type(await job.purge(), JobStatus)
    assert_type(await job.steps(), list[StepInfo])
    assert_type(await job.attempts(), list[AttemptRow])
    async for event in job.events(after=5):
        assert_type(event, Event)
        assert_type(event.seq, int)
    info = await job.info()
    assert_type(info, JobInfo)
    assert_type(info.labels, Mapping[str, str])
    assert_type(info.to_json(), dict[str, Any])
    assert_type(jobs.job("id"), Job[Any])


async def looking_is_typed() -> None:
    async with jobs as opened:
        assert_type(opened, Jobs)
        assert_type(await opened.find(status="failed", label=("a", "b"), limit=5), list[JobInfo])
        assert_type(await opened.find(status=[JobStatus.QUEUED, "running"], before="id"), list[JobInfo])
        assert_type(await opened.overview(), Overview)
    assert_type(jobs.tasks, Mapping[tuple[str, str], Task[Any, Any]])
    assert_type(jobs.task_named("analyse"), Task[Any, Any])
    assert_type(jobs.engine, Engine)
    assert_type(open_engine("sqlite:///jobs.db"), Engine)


async def a_worker_is_typed() -> None:
    async with jobs.worker(concurrency=5, queues=["a"]) as worker:
        assert_type(worker, Worker)
        assert_type(worker.id, str)
        assert_type(worker.running, int)


async def a_context_is_typed(ctx: Context) -> None:
    assert_type(await ctx.step(plain, "a"), bytes)
    assert_type(await ctx.step(len, "a"), int)
    assert_type(await ctx.step(plain, "a", name="n", policy=StepPolicy.ONCE, on_unknown=decide), bytes)
    assert_type(await ctx.start(analyse.call("a")), Job[Report])
    assert_type(await ctx.run(analyse.call("a")), Report)
    child = await ctx.start(crunch.call("a"), name="child")
    assert_type(await ctx.result(child), float)
    assert_type(await ctx.gather(child, child), list[float])
    assert_type(await ctx.emit("type", {"a": 1}), int)
    assert_type(ctx.attempt, int)
    assert_type(current_context(), Context)
    assert_type(current_step().idempotency_key, str)


async def decide() -> Decision:
    return Decision(happened=True, value=1)
