"""Waiting: sleeping, waiting for other jobs, several waits at once, what is kept from suspension to suspension."""

from __future__ import annotations

from ..._core._state import StopReason
from ...jobs._rows import Cancelled, Completed, Failed, HandedOver, Outcome, Suspended, Wait
from ...jobs._state import JobStatus, StepStatus, WaitKind
from ._harness import Harness
from ._support import (
    ERROR,
    LEASE_SECONDS,
    WORKER,
    a_job,
    a_worker,
    again,
    done,
    end,
    look,
    start,
    status_of,
    take_ids,
)


def sleep(seconds: float, step: str = "nap") -> Wait:
    return Wait(step, WaitKind.SLEEP, seconds=seconds)


def signal(name: str, seconds: float | None = None) -> Wait:
    return Wait(f"wait {name}", WaitKind.SIGNAL, name, seconds)


def children(*ids: str, step: str = "children") -> Wait:
    return Wait(step, WaitKind.JOBS, jobs=ids)


async def _suspend(h: Harness, attempt: int, *waits: Wait, job_id: str = "a") -> JobStatus | None:
    return await end(h.engine, job_id, attempt, Suspended(waits))


async def _pass(h: Harness, seconds: float) -> None:
    """Time during which the worker lives."""
    h.advance(seconds)
    await h.engine.join(a_worker())


async def a_sleep_is_over_after_its_time(h: Harness) -> None:
    """A job sleeps for an hour; then its step is completed with null, and it goes on."""
    attempt = await start(h.engine)
    assert await _suspend(h, attempt, sleep(3600.0)) is JobStatus.WAITING
    await _pass(h, 3599.0)
    assert await take_ids(h.engine) == []
    assert await h.engine.steps("a") == []
    await _pass(h, 1.0)
    assert await again(h.engine) == attempt + 1
    (step,) = await h.other.steps("a")
    assert (step.key, step.status, step.value, step.error) == ("nap", StepStatus.COMPLETED, "null", None)
    assert step.ended_at == h.clock.wall()
    row = await look(h.other)
    assert (row.waits, row.failures, row.lost) == ((), 0, 0)


async def a_sleep_of_nothing_is_over_at_once(h: Harness) -> None:
    """A job sleeps for no time at all."""
    attempt = await start(h.engine)
    assert await _suspend(h, attempt, sleep(0.0)) is JobStatus.QUEUED
    assert [step.value for step in await h.engine.steps("a")] == ["null"]
    assert (await look(h.engine)).waits == ()
    assert await again(h.engine) == attempt + 1


async def a_suspension_for_nothing_goes_on_at_once(h: Harness) -> None:
    """A job is suspended without a single wait: nothing could ever wake it."""
    attempt = await start(h.engine)
    assert await _suspend(h, attempt) is JobStatus.QUEUED
    assert await again(h.engine) == attempt + 1


async def a_sleep_outlives_a_restart(h: Harness) -> None:
    """Everything is closed and opened while the job sleeps; it wakes when it would have."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, sleep(60.0))
    h.advance(30.0)
    await h.reopen()
    await _pass(h, 29.0)
    assert await take_ids(h.engine) == []
    await _pass(h, 1.0)
    assert await again(h.engine) == attempt + 1


async def a_jump_of_the_clock_moves_a_sleep(h: Harness) -> None:
    """The wall clock is set forward past the end of a sleep."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, sleep(1800.0))
    h.jump_wall(1800.0)
    assert await again(h.engine) == attempt + 1


async def a_job_sleeps_many_times(h: Harness) -> None:
    """Thirty suspensions cost nothing: no failure, no loss, an attempt each."""
    attempt = await start(h.engine, max_attempts=2, max_lost=1)
    for n in range(30):
        assert await _suspend(h, attempt, sleep(10.0, f"nap {n}")) is JobStatus.WAITING
        await _pass(h, 10.0)
        attempt = await again(h.engine)
    row = await look(h.engine)
    assert (row.attempt, row.failures, row.lost) == (31, 0, 0)
    assert [step.key for step in await h.engine.steps("a")] == [f"nap {n}" for n in range(30)]


async def every_end_of_a_child_wakes(h: Harness) -> None:
    """A parent waits for one child, which completes, fails or is cancelled."""
    outcomes: dict[str, Outcome] = {
        "a": Completed("1"),
        "b": Failed(ERROR),
        "c": Cancelled(StopReason.TIMEOUT),
    }
    for parent, outcome in outcomes.items():
        attempt = await start(h.engine, parent)
        child = await start(h.engine, f"{parent}.child", parent_id=parent)
        assert await _suspend(h, attempt, children(f"{parent}.child"), job_id=parent) is JobStatus.WAITING
        await end(h.other, f"{parent}.child", child, outcome)
        assert await status_of(h.engine, parent) is JobStatus.QUEUED
        (step,) = await h.engine.steps(parent)
        assert (step.key, step.status, step.value) == ("children", StepStatus.COMPLETED, "null")
        await again(h.engine, parent)


async def a_child_that_is_cancelled_from_outside_wakes(h: Harness) -> None:
    """The child has not begun when a user cancels it."""
    attempt = await start(h.engine)
    await h.engine.submit([a_job("child", task="later", parent_id="a")])
    await _suspend(h, attempt, children("child"))
    await h.other.cancel("child", StopReason.USER)
    assert await again(h.engine) == attempt + 1


async def a_child_that_is_lost_for_good_wakes(h: Harness) -> None:
    """The worker of the child dies, and the child may not be tried again."""
    attempt = await start(h.engine)
    await start(h.engine, "child", "v", parent_id="a", max_lost=1)
    await _suspend(h, attempt, children("child"))
    h.advance(LEASE_SECONDS + 1.0)
    await h.engine.join(a_worker())
    await h.engine.rescue(WORKER)
    assert await status_of(h.engine, "child") is JobStatus.FAILED
    assert await again(h.engine) == attempt + 1


async def all_children_must_have_ended(h: Harness) -> None:
    """Three children: two end, one of them before the parent waits; a retry by hand takes an end back."""
    attempt = await start(h.engine)
    ids = ["x", "y", "z"]
    fences = {job_id: await start(h.engine, job_id, parent_id="a") for job_id in ids}
    await end(h.engine, "x", fences["x"], Completed("1"))
    assert await _suspend(h, attempt, children(*ids)) is JobStatus.WAITING
    await end(h.engine, "y", fences["y"], Failed(ERROR))
    assert await status_of(h.engine) is JobStatus.WAITING
    await h.engine.retry("y")
    fences["y"] = await again(h.engine, "y")
    await end(h.engine, "z", fences["z"], Completed("1"))
    assert await status_of(h.engine) is JobStatus.WAITING
    await end(h.engine, "y", fences["y"], Completed("1"))
    assert await again(h.engine) == attempt + 1


async def children_that_have_ended_are_not_waited_for(h: Harness) -> None:
    """All of them ended before, or were purged, or never existed, or there are none."""
    attempt = await start(h.engine)
    for child in ("x", "purged"):
        fence = await start(h.engine, child)
        await end(h.engine, child, fence, Completed("1"))
    await h.engine.purge("purged")
    for n, ids in enumerate((["x"], ["purged"], ["never"], ["x", "purged", "never"], [])):
        assert await _suspend(h, attempt, children(*ids, step=f"{n}")) is JobStatus.QUEUED
        attempt = await again(h.engine)
    assert [step.value for step in await h.engine.steps("a")] == ["null"] * 5


async def a_child_that_is_handed_over_has_not_ended(h: Harness) -> None:
    """The child passes from worker to worker, fails and is tried again, and sleeps; the parent waits on."""
    attempt = await start(h.engine)
    child = await start(h.engine, "child")
    await _suspend(h, attempt, children("child"))
    outcomes: list[Outcome] = [HandedOver(), Failed(ERROR, retry_in_seconds=0.0), Suspended((sleep(0.0),))]
    for outcome in outcomes:
        await end(h.engine, "child", child, outcome)
        child = await again(h.engine, "child")
        assert await status_of(h.engine) is JobStatus.WAITING


async def two_parents_of_one_child_both_wake(h: Harness) -> None:
    """Two jobs wait for the same third one."""
    first, second = await start(h.engine, "a"), await start(h.engine, "b")
    child = await start(h.engine, "child")
    await _suspend(h, first, children("child"), job_id="a")
    await _suspend(h, second, children("child"), job_id="b")
    await end(h.engine, "child", child, Completed("1"))
    assert await take_ids(h.engine) == ["a", "b"]


async def the_first_of_several_waits_wakes(h: Harness) -> None:
    """A job sleeps and waits for a message at the same time; the message comes, the sleep stays."""
    attempt = await start(h.engine)
    waits = (sleep(60.0), signal("go"))
    await _suspend(h, attempt, *waits)
    assert (await look(h.other)).waits == waits
    assert await h.engine.send("a", "go", "1") is JobStatus.QUEUED
    assert (await look(h.other)).waits == waits[:1]
    assert [step.key for step in await h.engine.steps("a")] == ["wait go"]


async def a_wait_left_over_is_satisfied_while_the_job_runs(h: Harness) -> None:
    """One wait woke the job; while it runs, a message, a child's end and the time satisfy the others."""
    attempt = await start(h.engine)
    child = await start(h.engine, "child")
    waits = (signal("first"), signal("second"), children("child"), sleep(10.0))
    await _suspend(h, attempt, *waits)
    await h.engine.send("a", "first", "1")
    await again(h.engine)
    assert await h.engine.send("a", "second", "2") is JobStatus.RUNNING
    await end(h.engine, "child", child, Completed("1"))
    h.advance(10.0)
    assert await take_ids(h.engine) == []
    row = await look(h.engine)
    assert (row.status, row.waits, row.attempt) == (JobStatus.RUNNING, (), attempt + 1)
    keys = [step.key for step in await h.engine.steps("a")]
    assert keys == ["wait first", "wait second", "children", "nap"]


async def a_wait_that_is_over_is_not_waited_for_again(h: Harness) -> None:
    """The wait was satisfied while the job ran; asked for again beside another one, it wakes the job at once."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, signal("first"), signal("second"))
    await h.engine.send("a", "first", "1")
    attempt = await again(h.engine)
    await h.engine.send("a", "second", "2")
    assert await _suspend(h, attempt, signal("second"), sleep(3600.0)) is JobStatus.QUEUED
    assert (await look(h.engine)).waits == (sleep(3600.0),)


async def a_wait_keeps_the_end_it_was_given_first(h: Harness) -> None:
    """A message wakes a job that also sleeps for a minute; suspended again, it sleeps for what is left of it."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, sleep(60.0), signal("go"))
    await _pass(h, 20.0)
    await h.engine.send("a", "go", "1")
    attempt = await again(h.engine)
    await _pass(h, 20.0)
    assert await _suspend(h, attempt, sleep(60.0)) is JobStatus.WAITING
    await _pass(h, 19.0)
    assert await take_ids(h.engine) == []
    await _pass(h, 1.0)
    assert await again(h.engine) == attempt + 1


async def a_wait_that_ran_out_meanwhile_is_over_at_once(h: Harness) -> None:
    """The sleep's time came while the job ran, and nobody claimed in between."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, sleep(60.0), signal("go"))
    await h.engine.send("a", "go", "1")
    attempt = await again(h.engine)
    h.advance(61.0)
    assert await _suspend(h, attempt, sleep(60.0)) is JobStatus.QUEUED
    assert [step.key for step in await h.engine.steps("a")] == ["wait go", "nap"]


async def waits_are_kept_over_a_hand_over_and_a_retry(h: Harness) -> None:
    """A job with a wait left over is handed over, then fails and is tried again: the wait is still there."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, sleep(60.0), signal("go"))
    await h.engine.send("a", "go", "1")
    attempt = await again(h.engine)
    await end(h.engine, "a", attempt, HandedOver())
    attempt = await again(h.engine)
    await end(h.engine, "a", attempt, Failed(ERROR, retry_in_seconds=0.0))
    attempt = await again(h.engine)
    h.advance(50.0)
    assert await _suspend(h, attempt, sleep(60.0)) is JobStatus.WAITING
    await _pass(h, 10.0)
    assert await again(h.engine) == attempt + 1


async def the_end_of_a_job_ends_its_waits(h: Harness) -> None:
    """A job completes with a wait left over: nothing is due any more, and no step appears."""
    attempt = await start(h.engine)
    await _suspend(h, attempt, sleep(60.0), signal("go"))
    await h.engine.send("a", "go", "1")
    attempt = await again(h.engine)
    await end(h.engine, "a", attempt, Completed("1"))
    await _pass(h, 61.0)
    assert await take_ids(h.engine) == []
    row = await look(h.engine)
    assert (row.status, row.waits) == (JobStatus.COMPLETED, ())
    assert [step.key for step in await h.engine.steps("a")] == ["wait go"]


async def a_step_recorded_as_started_is_completed_in_its_place(h: Harness) -> None:
    """A `once` step lost its process: the job waits for a decision about that step, which stays where it was."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, done("before"))
    await h.engine.record_step("a", attempt, done("pay")._replace(status=StepStatus.STARTED, value=None))
    await h.engine.record_step("a", attempt, done("after"))
    assert await _suspend(h, attempt, Wait("pay", WaitKind.DECISION, "pay?")) is JobStatus.WAITING
    assert await h.engine.send("a", "pay?", '{"value": 3}') is JobStatus.QUEUED
    steps = await h.engine.steps("a")
    assert [(step.key, step.status) for step in steps] == [
        ("before", StepStatus.COMPLETED),
        ("pay", StepStatus.COMPLETED),
        ("after", StepStatus.COMPLETED),
    ]


async def a_woken_job_waits_for_its_place(h: Harness) -> None:
    """While the job slept, another one of its key began: it is queued when it wakes, but held back."""
    attempt = await start(h.engine, limit_key="k", limit=1)
    await _suspend(h, attempt, sleep(10.0))
    other = await start(h.engine, "b", limit_key="k", limit=1)
    h.advance(10.0)
    assert await take_ids(h.engine) == []
    assert await status_of(h.engine) is JobStatus.QUEUED
    await end(h.engine, "b", other, Completed("1"))
    assert await again(h.engine) == attempt + 1
