"""Steps: what is remembered of a job, and how the code finds it again."""

import asyncio
import functools
import gc
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from lastcall.exceptions import NotInJob
from lastcall.jobs import Context, Jobs, StepStatus, current_context, current_step
from tests.jobs.conftest import Store
from tests.jobs.running import AT_ONCE, Faulty, ended, eventually, outcomes, reaches, set_within, told


class Colour(Enum):
    RED = "red"


class Report(BaseModel):
    title: str
    pages: int


@dataclass
class Point:
    x: float
    y: float


class FirstTime(Exception):
    """What a job raises in its first attempt, so that there is a second one."""


async def error_of(job: Any) -> tuple[str, str]:
    """Type and message of the error that the job ended with."""
    info = await job.wait(timeout=20)
    assert info.error is not None, info
    return info.error["type"], info.error["message"]


# --- remembering ---------------------------------------------------------------------------------------


async def test_a_completed_step_is_not_called_again(jobs: Jobs) -> None:
    """A job fails after its second step: the next attempt goes on there with what the steps have returned."""
    called: list[str] = []

    def note(what: str) -> str:
        called.append(what)
        return what.upper()

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> list[str]:
        found = [await ctx.step(note, "a"), await ctx.step(note, "b")]
        if ctx.attempt == 1:
            raise FirstTime
        return [*found, await ctx.step(note, "c")]

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == ["A", "B", "C"]
        steps = await job.steps()
    assert called == ["a", "b", "c"]
    assert [(step.key.rpartition(".")[2], step.value, step.attempt) for step in steps] == [
        ('note("a")', "A", 1),
        ('note("b")', "B", 1),
        ('note("c")', "C", 2),
    ]


async def test_a_step_in_flight_is_known_to_its_process(jobs: Jobs, store: Store) -> None:
    """Nothing is written of a step that runs; the process that runs it can tell since when, and another one says that
    it cannot."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await go.wait()
        return "done"

    @jobs.task
    async def work(ctx: Context) -> str:
        return await ctx.step(slow, name="look around")

    before = time.time()
    async with jobs.worker(), store.jobs() as elsewhere:
        job = await work.submit()
        await eventually(begun.is_set)
        running = job.running_steps()
        assert running is not None
        [(key, started_at)] = running
        assert key == "look around" and before - 1 <= started_at <= time.time() + 1
        assert await job.steps() == [] and elsewhere.job(job.id).running_steps() is None
        go.set()
        await job.result(timeout=20)
        await eventually(lambda: job.running_steps() is None)


def report() -> Report:
    return Report(title="x", pages=3)


def point() -> Point:
    return Point(1.5, float("inf"))


def moment() -> datetime:
    return datetime(2026, 11, 1, 12)


def length() -> timedelta:
    return timedelta(days=1, microseconds=5)


def colour() -> Colour:
    return Colour.RED


def pair() -> tuple[int, str]:
    return 1, "x"


def few() -> set[int]:
    return {1, 2}


def raw() -> bytes:
    return b"\xff\x00"


def nested() -> dict[str, list[Point]]:
    return {"a": [Point(0, 1)]}


def nothing() -> None:
    return None


def unannotated_pair():
    return 1, (2, 3)


def text() -> "str | None":
    return "gr\u00fc\u00df\u200d\u2028"


@pytest.mark.parametrize(
    ("fn", "given"),
    [
        *(
            (fn, fn())
            for fn in (report, point, moment, length, colour, pair, few, raw, nested, nothing, text)
        ),
        (unannotated_pair, [1, [2, 3]]),
    ],
)
@pytest.mark.loops("asyncio")
async def test_a_step_gives_back_the_same_in_the_first_and_in_later_attempts(
    jobs: Jobs, fn: Callable[[], Any], given: Any
) -> None:
    """A step returns something that JSON has no word for: by its annotation it is the same on every run."""
    seen = []

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        seen.append(await ctx.step(fn))
        if ctx.attempt == 1:
            raise FirstTime

    async with jobs.worker():
        job = await work.submit()
        assert await ended(job) == "completed"
    assert seen == [given, given]
    assert {type(value) for value in seen} == {type(given)}


async def test_steps_survive_the_worker(jobs: Jobs, store: Store) -> None:
    """The worker that ran the first step is gone: another one, with a `Jobs` of its own, goes on behind it."""
    called: list[str] = []

    def declare(on: Jobs) -> Any:
        @on.task(name="work")
        async def work(ctx: Context) -> int:
            one = await ctx.step(step, 1)
            await ctx.wait_for("go")
            return one + await ctx.step(step, 2)

        return work

    async def step(n: int) -> int:
        called.append(f"step {n}")
        return n * 10

    work = declare(jobs)
    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
    other = store.jobs()
    declare(other)
    async with other.worker():
        again = other.job(job.id)
        await again.send("go")
        assert await again.result(timeout=20) == 30
    assert called == ["step 1", "step 2"]


async def test_a_retry_by_hand_keeps_the_steps(jobs: Jobs) -> None:
    """A job has failed for good; somebody mends the cause and retries it: it goes on where it failed."""
    called: list[str] = []
    mended = False

    async def first() -> int:
        called.append("first")
        return 1

    async def second() -> int:
        called.append("second")
        if not mended:
            raise OSError("broken")
        return 2

    @jobs.task
    async def work(ctx: Context) -> int:
        return await ctx.step(first) + await ctx.step(second)

    async with jobs.worker():
        job = await work.submit()
        assert await error_of(job) == ("OSError", "broken")
        mended = True
        await job.retry()
        assert await job.result(timeout=20) == 3
    assert called == ["first", "second", "second"]


# --- identity ------------------------------------------------------------------------------------------


async def test_steps_side_by_side_keep_their_identity_when_the_timing_differs(jobs: Jobs) -> None:
    """Three branches of two steps each end in one order in the first attempt and in another one in the second."""
    called: list[str] = []
    turns: dict[str, asyncio.Event] = {}

    async def step(name: str) -> str:
        called.append(name)
        await set_within(turns.setdefault(name, asyncio.Event()))
        return f"value of {name}"

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> list[list[str]]:
        async def branch(name: str) -> list[str]:
            one = await ctx.step(step, f"{name}1")
            if ctx.attempt == 1 and name == "b":
                raise FirstTime
            return [one, await ctx.step(step, f"{name}2")]

        return await asyncio.gather(*(branch(name) for name in "abc"))

    async def end(*names: str) -> None:
        for name in names:
            await eventually(lambda: name in called)  # noqa: B023
            turns.setdefault(name, asyncio.Event()).set()

    async with jobs.worker():
        job = await work.submit()
        await end("c1", "c2", "b1")
        # The second attempt: a1 was cut, c is done, b goes on at b2.
        await end("b2", "a1", "a2")
        assert await job.result(timeout=20) == [[f"value of {n}{k}" for k in (1, 2)] for n in "abc"]
    assert sorted(called) == ["a1", "a1", "a2", "b1", "b2", "c1", "c2"]


async def test_the_same_call_twice_at_once_is_two_steps(jobs: Jobs) -> None:
    """One function with the same arguments runs twice side by side, at the very start of both attempts."""
    drawn = iter(range(100))

    async def draw() -> int:
        return next(drawn)

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> list[int]:
        numbers = await asyncio.gather(ctx.step(draw), ctx.step(draw), ctx.step(draw))
        if ctx.attempt == 1:
            raise FirstTime
        return numbers

    async with jobs.worker():
        job = await work.submit()
        assert sorted(await job.result(timeout=20)) == [0, 1, 2]
        keys = [step.key.rpartition(".")[2] for step in await job.steps()]
    assert sorted(keys) == ["draw", "draw #2", "draw #3"]


async def test_a_step_of_a_side_task_beside_those_of_the_job_itself(jobs: Jobs) -> None:
    """A task of the job and the job itself begin with a step each: the second attempt finds all of them again."""
    called: list[str] = []

    async def step(name: str) -> str:
        called.append(name)
        return name

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        side = asyncio.create_task(ctx.step(step, "side"))
        found = await ctx.step(step, "one") + await ctx.step(step, "two") + await side
        if ctx.attempt == 1:
            raise FirstTime
        return found + await ctx.step(step, "three")

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == "onetwosidethree"
    assert sorted(called) == ["one", "side", "three", "two"]


async def test_a_step_in_a_task_group(jobs: Jobs) -> None:
    """Steps are children of an `asyncio.TaskGroup`; one fails, and only what has not completed runs again."""
    called: list[str] = []

    async def step(name: str) -> str:
        called.append(name)
        if name == "bad" and called.count(name) == 1:
            await eventually(lambda: "good" in called)
            await asyncio.sleep(0.05)
            raise FirstTime
        return name

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        async with asyncio.TaskGroup() as group:
            good = group.create_task(ctx.step(step, "good"))
            bad = group.create_task(ctx.step(step, "bad"))
        return good.result() + bad.result()

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == "goodbad"
    assert called == ["good", "bad", "bad"]


async def test_a_name_again_is_the_second_of_this_name(jobs: Jobs) -> None:
    """A loop gives all its steps one name, one after the other: their count tells them apart."""
    called: list[int] = []

    async def step(n: int) -> int:
        called.append(n)
        return n

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> list[int]:
        found = [await ctx.step(step, n + ctx.attempt * 100, name="round") for n in range(3)]
        if ctx.attempt == 1:
            raise FirstTime
        return found

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == [100, 101, 102]
        assert [step.key for step in await job.steps()] == ["round", "round #2", "round #3"]
    assert called == [100, 101, 102]


async def test_two_steps_of_one_name_at_once_are_refused(jobs: Jobs) -> None:
    """Nothing could tell these two apart after a restart: the job fails, clearly, and is not tried again."""

    async def step() -> None:
        await asyncio.sleep(0)

    @jobs.task(retries=5, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        await asyncio.gather(ctx.step(step, name="same"), ctx.step(step, name="same"))

    async with jobs.worker():
        job = await work.submit()
        kind, message = await error_of(job)
        assert kind == "StepCollision"
        assert "'same'" in message and job.id in message and "name=" in message
        assert len(await job.attempts()) == 1


@pytest.mark.parametrize("name", ["~sleep 5", "round #2", "", "a\nb", "x" * 201])
@pytest.mark.loops("asyncio")
async def test_reserved_and_impossible_names_are_refused(jobs: Jobs, name: str) -> None:
    """A step is given a name that waits or counts use, or none at all: an error that names it, and nothing written."""

    async def step() -> None: ...

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.step(step, name=name)

    async with jobs.worker():
        job = await work.submit()
        kind, message = await error_of(job)
        assert kind == "BadDeclaration" and repr(name) in message
        assert await job.steps() == []


@pytest.mark.loops("asyncio")
async def test_names_by_themselves(jobs: Jobs) -> None:
    """Partials, methods, callable objects and long arguments: each step gets a name that is the same on every run."""

    class Index:
        async def add(self, n: int) -> int:
            return n

        async def __call__(self, n: int) -> int:
            return n

    async def add(a: int, b: int = 0) -> int:
        return a + b

    def plain(n: int) -> Any:
        return add(n)

    @jobs.task
    async def work(ctx: Context) -> list[int]:
        index = Index()
        return [
            await ctx.step(functools.partial(add, 1, b=2)),
            await ctx.step(functools.partial(add, b=3), 1),
            await ctx.step(index.add, 5),
            await ctx.step(index, 6),
            await ctx.step(plain, 7),
            len(await ctx.step(str.upper, "x" * 500)),
            len(await ctx.step(str.upper, "\u200d")),
        ]

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == [3, 4, 5, 6, 7, 500, 1]
        keys = [step.key for step in await job.steps()]
    assert len(set(keys)) == 7
    where = "test_names_by_themselves.<locals>."
    assert keys[0] == where + 'add(1,["b",2])'
    assert all(key.isprintable() and len(key) < 200 for key in keys)


@pytest.mark.parametrize("argument", [b"\xff\xfe", {"b", "a", "c"}, object()], ids=["bytes", "set", "object"])
@pytest.mark.loops("asyncio")
async def test_arguments_that_json_cannot_hold_are_no_obstacle(jobs: Jobs, argument: Any) -> None:
    """Arguments of a step are never stored; what they are called is only a name."""

    async def step(given: Any) -> bool:
        return given is argument

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> bool:
        same = await ctx.step(step, argument)
        if ctx.attempt == 1:
            raise FirstTime
        return same

    async with jobs.worker():
        assert await (await work.submit()).result(timeout=20)


@pytest.mark.loops("asyncio")
async def test_arguments_that_cannot_stand_in_a_name_need_one(jobs: Jobs) -> None:
    """A file's name that is no Unicode: the step is refused without a name=, and runs with one."""

    async def step(path: str) -> int:
        return len(path)

    @jobs.task
    async def work(ctx: Context, name: str | None) -> int:
        return await ctx.step(step, "\udcff", name=name)

    async with jobs.worker():
        kind, message = await error_of(await work.submit(None))
        assert kind == "BadDeclaration" and "name=" in message
        assert await (await work.submit("named")).result(timeout=20) == 1


@pytest.mark.loops("asyncio")
async def test_a_lambda_needs_a_name(jobs: Jobs) -> None:
    """All lambdas are called alike: without a name= such a step is refused, with one it runs."""

    @jobs.task
    async def bad(ctx: Context) -> int:
        return await ctx.step(lambda: 5)

    @jobs.task
    async def good(ctx: Context) -> int:
        return await ctx.step(lambda: 5, name="five")

    async with jobs.worker():
        kind, message = await error_of(await bad.submit())
        assert kind == "BadDeclaration" and "name=" in message
        assert await (await good.submit()).result(timeout=20) == 5


@pytest.mark.loops("asyncio")
async def test_a_coroutine_in_place_of_a_function_is_refused(jobs: Jobs) -> None:
    """`ctx.step(f())` in place of `ctx.step(f)`: the error says so, and the coroutine does not warn later."""

    async def step() -> None: ...

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.step(step())  # type: ignore[arg-type]

    async with jobs.worker():
        kind, message = await error_of(await work.submit())
        assert kind == "BadDeclaration" and "ctx.step(f, ...)" in message


# --- code that was changed -----------------------------------------------------------------------------


async def test_changed_code_is_told_by_both_names(jobs: Jobs, store: Store) -> None:
    """A deploy renames a step under a job that has it behind it: the job fails and the error names both steps; with
    the step put back, a retry by hand goes on."""
    called: list[str] = []

    async def fetch() -> str:
        called.append("fetch")
        return "x"

    async def download() -> str:
        called.append("download")
        return "y"

    def declare(on: Jobs, step: Callable[[], Any]) -> Any:
        @on.task(name="work", retries=3, backoff=AT_ONCE)
        async def work(ctx: Context) -> str:
            found: str = await ctx.step(step)
            await ctx.wait_for("go")
            return found

        return work

    old = declare(jobs, fetch)
    async with jobs.worker():
        job = await old.submit()
        await reaches(job, "waiting")
    new, put_back = store.jobs(), store.jobs()
    declare(new, download)
    async with new.worker():
        met = new.job(job.id)
        await met.send("go")
        kind, message = await error_of(met)
        assert kind == "StepMismatch"
        assert "fetch'" in message and "download'" in message and job.id in message
        assert len(await met.attempts()) == 2, "an error that every attempt meets is not tried again"
    declare(put_back, fetch)
    async with put_back.worker():
        mended = put_back.job(job.id)
        await mended.retry()
        assert await mended.result(timeout=20) == "x"
    assert called == ["fetch"]


async def test_a_step_that_was_added_in_front_is_noticed(jobs: Jobs, store: Store) -> None:
    """New code asks for a new step before the recorded one: that cannot be the function the job began with."""

    async def step(name: str) -> str:
        return name

    def declare(on: Jobs, names: list[str]) -> Any:
        @on.task(name="work")
        async def work(ctx: Context) -> None:
            for name in names:
                await ctx.step(step, name)
            await ctx.wait_for("go")

        return work

    work = declare(jobs, ["b"])
    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
    other = store.jobs()
    declare(other, ["a", "b"])
    async with other.worker():
        met = other.job(job.id)
        await met.send("go")
        kind, message = await error_of(met)
    assert kind == "StepMismatch" and 'step("a")' in message and 'step("b")' in message


async def test_a_recorded_step_that_is_not_asked_for_is_mentioned(
    jobs: Jobs, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """New code has lost its last step: nothing is wrong enough to fail, but the log says so."""

    async def step() -> None: ...

    def declare(on: Jobs, with_step: bool) -> Any:
        @on.task(name="work")
        async def work(ctx: Context) -> None:
            if with_step:
                await ctx.step(step, name="the lost one")
            await ctx.wait_for("go")

        return work

    work = declare(jobs, True)
    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
    other = store.jobs()
    declare(other, False)
    async with other.worker():
        met = other.job(job.id)
        await met.send("go")
        assert await ended(met) == "completed"
    assert "the lost one" in caplog.text


async def test_a_version_keeps_old_jobs_for_old_workers(jobs: Jobs, store: Store) -> None:
    """A changed function has a new version=: its worker leaves the old job alone, an old worker ends it."""

    def declare(on: Jobs, version: str) -> Any:
        @on.task(name="work", version=version)
        async def work(ctx: Context) -> str:
            return version

        return work

    new = store.jobs()
    old_work, new_work = declare(jobs, "1"), declare(new, "2")
    async with jobs:
        old_job = await old_work.submit()
        async with new.worker():
            assert await (await new_work.submit()).result(timeout=20) == "2"
            assert await old_job.status() == "queued"
        async with jobs.worker():
            assert await old_job.result(timeout=20) == "1"


# --- errors --------------------------------------------------------------------------------------------


async def test_what_a_step_raises_is_raised_in_the_job_and_called_again(jobs: Jobs) -> None:
    """A step fails twice: the job sees the very error, and the next attempt calls the step again."""
    called: list[int] = []

    class Unreachable(Exception): ...

    async def fetch() -> str:
        called.append(1)
        if len(called) < 3:
            raise Unreachable(f"try {len(called)}")
        return "there"

    @jobs.task(retries=2, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        try:
            return await ctx.step(fetch)
        except Unreachable as error:
            assert str(error) == f"try {ctx.attempt}"
            raise

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == "there"
        assert await outcomes(job) == ["failed", "failed", "completed"]
        assert "Unreachable: try 1" in ((await job.attempts())[0].error or "").replace(
            '", "message": "', ": "
        )


@pytest.mark.parametrize("how", ["error", "timeout"])
async def test_a_job_may_go_another_way_after_a_step_that_failed(jobs: Jobs, how: str) -> None:
    """A step fails, the job falls back on another one, and is interrupted behind it: the next attempt asks for the
    failed step again, which is no change of the code."""
    called: list[str] = []

    async def first() -> str:
        called.append("first")
        if how == "timeout":
            await asyncio.sleep(60)
        raise OSError("unreachable")

    async def second() -> str:
        called.append("second")
        return "found by the second"

    @jobs.task
    async def work(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05 if how == "timeout" else None):
                found = await ctx.step(first)
        except OSError:  # TimeoutError is one, too
            found = await ctx.step(second)
        await ctx.wait_for("go")
        return found

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        await job.send("go")
        assert await job.result(timeout=20) == "found by the second"
    assert called == ["first", "second", "first"]


async def test_a_step_that_succeeds_at_last_may_lead_elsewhere(jobs: Jobs) -> None:
    """In the first attempt a step fails and the job falls back; in the second one it succeeds, and the job goes on the
    other way: the fallback is no longer asked for, and what comes next is new."""
    called: list[str] = []

    async def first() -> str:
        called.append("first")
        if len(called) == 1:
            raise OSError("unreachable")
        return "found by the first"

    async def step(name: str) -> str:
        called.append(name)
        return name

    @jobs.task
    async def work(ctx: Context) -> str:
        try:
            found = await ctx.step(first)
        except OSError:
            found = await ctx.step(step, "fallback")
            await ctx.wait_for("go")
        return found + await ctx.step(step, ", then the next")

    async with jobs.worker():
        job = await work.submit()
        await reaches(job, "waiting")
        await job.send("go")
        assert await job.result(timeout=20) == "found by the first, then the next"
    assert called == ["first", "fallback", "first", ", then the next"]


async def test_a_failed_step_is_shown(jobs: Jobs) -> None:
    """A step has failed, and its job with it: `job.steps()` tells which, and why."""

    def step() -> None:
        raise OSError("disk on fire")

    @jobs.task
    async def work(ctx: Context) -> None:
        await ctx.step(step)

    async with jobs.worker():
        job = await work.submit()
        assert await ended(job) == "failed"
        (shown,) = await job.steps()
    assert shown.status is StepStatus.FAILED
    assert shown.error is not None and shown.error["message"] == "disk on fire"


@pytest.mark.parametrize("value", [object(), "x" * 2000], ids=["no JSON", "too large"])
@pytest.mark.loops("asyncio")
async def test_a_value_that_cannot_be_stored_fails_the_job_clearly(store: Store, value: Any) -> None:
    """A step has run, but what it returned cannot be written down: no attempt would fare better, so none is made."""
    jobs = store.jobs(max_payload_bytes=1000)

    def step() -> Any:
        return value

    @jobs.task(retries=5, backoff=AT_ONCE)
    async def work(ctx: Context) -> None:
        await ctx.step(step)

    async with jobs.worker():
        job = await work.submit()
        kind, message = await error_of(job)
        assert kind == ("PayloadTooLarge" if isinstance(value, str) else "BadResult")
        assert "step" in message
        assert len(await job.attempts()) == 1


async def test_a_timeout_while_a_step_is_being_written_does_not_lose_it(store: Store) -> None:
    """The job's own timeout is over when its step has run, and the store still writes: the job hears of the timeout,
    the step is remembered, and the task is as if nobody had ever cancelled it."""
    engine = Faulty(store.engine())
    jobs = Jobs(engine)
    called: list[str] = []
    cancelling: list[int] = []

    async def step(name: str) -> str:
        called.append(name)
        return name

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05):
                found = await ctx.step(step, "one")
        except TimeoutError:
            task = asyncio.current_task()
            assert task is not None
            cancelling.append(task.cancelling())
            await ctx.step(step, "two")
            raise
        return found

    async with jobs.worker():
        engine.held["record_step"] = held = asyncio.Event()
        job = await work.submit()
        await eventually(lambda: "record_step" in engine.calls)
        await asyncio.sleep(0.1)
        held.set()
        assert await job.result(timeout=20) == "one"
        assert await outcomes(job) == ["failed", "completed"]
    assert called == ["one", "two"] and cancelling == [0]


# --- what a job knows of itself --------------------------------------------------------------------------


async def test_what_a_job_knows_of_itself(jobs: Jobs) -> None:
    """A job reads all that its context tells, in itself and in a task that it starts, and tells how far it is."""

    @jobs.task(retries=1, backoff=AT_ONCE)
    async def work(ctx: Context) -> dict[str, Any]:
        if ctx.attempt == 1:
            raise FirstTime
        ahead = await ctx.emit("note", {"n": 1})
        await ctx.progress(1, 4, "a quarter")
        await ctx.log("almost", level="warning")
        return {
            "id": ctx.job_id,
            "key": ctx.key,
            "labels": dict(ctx.labels),
            "attempt": ctx.attempt,
            "failures": ctx.failures,
            "parent": ctx.parent_id,
            "reason": ctx.cancel_reason,
            "stop": ctx.shutdown.requested,
            "seq": ahead,
            "beside": await asyncio.create_task(ask()),
        }

    async def ask() -> str:
        return current_context().job_id

    async with jobs.worker():
        job = await work.options(key="k", labels={"tenant": "ann"}).submit()
        assert await job.result(timeout=20) == {
            "id": job.id,
            "key": "k",
            "labels": {"tenant": "ann"},
            "attempt": 2,
            "failures": 1,
            "parent": None,
            "reason": None,
            "stop": False,
            "seq": 3,
            "beside": job.id,
        }
        assert (await job.info()).progress == {"done": 1, "of": 4, "message": "a quarter"}
        assert [(event.type, event.data, event.attempt) for event in await told(job)] == [
            ("note", {"n": 1}, 2),
            ("progress", {"done": 1, "of": 4, "message": "a quarter"}, 2),
            ("log", {"level": "warning", "message": "almost"}, 2),
        ]


# --- where steps run, and where they cannot -------------------------------------------------------------


async def test_a_plain_function_runs_in_a_thread(jobs: Jobs) -> None:
    """Two blocking steps wait for each other: they must run in two threads, neither of them the loop's, with the
    context of their job."""
    both = threading.Barrier(2, timeout=20)
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    threads = set()
    keys = set()

    def step(name: str) -> str:
        both.wait()
        threads.add(threading.get_ident())
        keys.add(current_step().idempotency_key)
        return f"{name} of {tenant.get()}"

    @jobs.task
    async def work(ctx: Context) -> list[str]:
        tenant.set("ann")
        return list(await asyncio.gather(ctx.step(step, "a"), ctx.step(step, "b")))

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == ["a of ann", "b of ann"]
    assert len(threads) == 2 and threading.get_ident() not in threads
    assert len(keys) == 2 and all(key.startswith(f"{job.id}/") for key in keys)


async def test_the_idempotency_key_of_a_step_is_the_same_in_every_attempt(jobs: Jobs) -> None:
    """A step is tried three times: what it passes on to an outside service stays the same, and is nobody else's."""
    keys = []

    async def charge(n: int) -> None:
        keys.append(current_step().idempotency_key)
        if len(keys) < 3:
            raise FirstTime

    @jobs.task(retries=2, backoff=AT_ONCE)
    async def work(ctx: Context) -> str:
        await ctx.step(charge, 1)
        await ctx.step(charge, 2)
        return ctx.idempotency_key

    async with jobs.worker():
        job = await work.submit()
        assert await job.result(timeout=20) == job.id
    assert keys[0] == keys[1] == keys[2] != keys[3]


@pytest.mark.loops("asyncio")
async def test_outside_a_job_there_are_no_steps() -> None:
    """Code that wants its job's context, or its step's, is called from nowhere: a clear error."""
    with pytest.raises(NotInJob, match="inside a job"):
        current_context()
    with pytest.raises(NotInJob, match="outside a step"):
        current_step()


async def test_code_far_below_finds_its_context(jobs: Jobs) -> None:
    """A function that was given nothing adds a step to the job that calls it."""

    async def deep_down() -> str:
        return await current_context().step(str.upper, "deep")

    @jobs.task
    async def work(n: int) -> str:
        return await deep_down()

    async with jobs.worker():
        job = await work.submit(1)
        assert await job.result(timeout=20) == "DEEP"
        assert len(await job.steps()) == 1


async def test_a_context_that_was_kept_is_of_no_use_after_the_end(jobs: Jobs) -> None:
    """Somebody keeps a job's context and uses it after the job: every verb refuses, and nothing is written."""
    kept: list[Context] = []

    async def step() -> None: ...

    @jobs.task
    async def child() -> None: ...

    @jobs.task
    async def work(ctx: Context) -> None:
        kept.append(ctx)

    async with jobs.worker():
        job = await work.submit()
        await job.result(timeout=20)
        (ctx,) = kept
        for use in (
            lambda: ctx.step(step),
            lambda: ctx.sleep(1),
            lambda: ctx.wait_for("x"),
            lambda: ctx.emit("x"),
            lambda: ctx.progress(1),
            lambda: ctx.start(child.call()),
            lambda: ctx.result(job),
            lambda: ctx.transaction(lambda connection: None, name="x"),
        ):
            with pytest.raises(NotInJob, match="has ended"):
                await use()
        assert ctx.job_id == job.id and ctx.attempt == 1
        assert await job.steps() == []
        assert [each.id for each in await jobs.find()] == [job.id]


@pytest.mark.parametrize("verb", ["step", "sleep", "wait_for", "start"])
async def test_what_can_leave_a_job_is_refused_inside_a_step(jobs: Jobs, verb: str) -> None:
    """A step asks for another step, or waits: it could be neither cut nor remembered there, so a clear error comes at
    once, and no hang at the next deploy."""

    async def inner() -> None: ...

    @jobs.task
    async def child() -> None: ...

    @jobs.task
    async def work(ctx: Context) -> None:
        async def outer() -> None:
            asked = {
                "step": lambda: ctx.step(inner),
                "sleep": lambda: ctx.sleep(5),
                "wait_for": lambda: ctx.wait_for("x"),
                "start": lambda: ctx.start(child.call()),
            }
            await asked[verb]()

        await ctx.step(outer, name="outer")

    async with jobs.worker():
        kind, message = await error_of(await work.submit())
    assert kind == "BadDeclaration" and "'outer'" in message


async def test_nothing_of_a_step_is_kept_after_the_job(jobs: Jobs) -> None:
    """Steps are closures over something large: it goes when the job has ended, however many such jobs there were."""

    class Large: ...

    seen: list[weakref.ref[Large]] = []

    @jobs.task
    async def work(ctx: Context) -> None:
        large = Large()
        seen.append(weakref.ref(large))

        async def step() -> int:
            return id(large)

        await ctx.step(step)

    async with jobs.worker():
        for _ in range(3):
            await (await work.submit()).result(timeout=20)

        def all_gone() -> bool:
            gc.collect()
            return not any(ref() for ref in seen)

        await eventually(all_gone)


@pytest.mark.loops("asyncio")
async def test_an_unhashable_callable_is_a_step_like_any_other(jobs: Jobs) -> None:
    """A dataclass with `__call__` compares by value and so has no hash."""

    @dataclass
    class Add:
        n: int

        async def __call__(self, m: int) -> int:
            return self.n + m

    @jobs.task
    async def work(ctx: Context) -> int:
        return await ctx.step(Add(1), 2)

    async with jobs.worker():
        assert await (await work.submit()).result(timeout=20) == 3
