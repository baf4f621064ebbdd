"""Steps: written once and for all, in the order in which they were first recorded, by the running attempt only."""

from __future__ import annotations

import asyncio

from ...jobs._rows import Completed, HandedOver, StepRecord
from ...jobs._state import JobStatus, StepPolicy, StepStatus
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
    everything,
    look,
    start,
    take,
    take_ids,
)


async def a_completed_step_is_there(h: Harness) -> None:
    """Every field of a step comes back, through another engine."""
    attempt = await start(h.engine)
    h.advance(10.0)
    record = StepRecord("fetch", StepStatus.COMPLETED, '{"n": 1}', None, StepPolicy.ONCE, False, 2.0)
    assert await h.engine.record_step("a", attempt, record) is True
    (row,) = await h.other.steps("a")
    assert (row.key, row.status, row.value, row.error) == ("fetch", StepStatus.COMPLETED, '{"n": 1}', None)
    assert (row.policy, row.main, row.attempt) == (StepPolicy.ONCE, False, attempt)
    assert (row.started_at, row.ended_at) == (h.clock.wall() - 2.0, h.clock.wall())


async def a_step_that_is_started_has_no_end(h: Harness) -> None:
    """The intent of a step is written before it is carried out."""
    attempt = await start(h.engine)
    record = StepRecord("pay", StepStatus.STARTED, policy=StepPolicy.ONCE)
    assert await h.engine.record_step("a", attempt, record) is True
    (row,) = await h.other.steps("a")
    assert (row.status, row.value, row.ended_at) == (StepStatus.STARTED, None, None)
    assert (row.policy, row.main, row.started_at) == (StepPolicy.ONCE, True, h.clock.wall())


async def a_started_step_is_completed(h: Harness) -> None:
    """Started, then completed, by the same attempt; it keeps its place in the order."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, StepRecord("pay", StepStatus.STARTED, policy=StepPolicy.ONCE))
    await h.engine.record_step("a", attempt, done("other"))
    h.advance(1.0)
    assert await h.engine.record_step("a", attempt, done("pay", "9", policy=StepPolicy.ONCE)) is True
    first, second = await h.engine.steps("a")
    assert (first.key, first.status, first.value) == ("pay", StepStatus.COMPLETED, "9")
    assert first.ended_at == h.clock.wall()
    assert second.key == "other"


async def a_failed_step_may_be_written_anew(h: Harness) -> None:
    """It failed, and succeeded at the second try."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, StepRecord("s", StepStatus.FAILED, error=ERROR))
    (row,) = await h.engine.steps("a")
    assert (row.status, row.error, row.value, row.ended_at) == (
        StepStatus.FAILED,
        ERROR,
        None,
        h.clock.wall(),
    )
    await h.engine.record_step("a", attempt, done("s", "2"))
    (row,) = await h.engine.steps("a")
    assert (row.status, row.error, row.value) == (StepStatus.COMPLETED, None, "2")


async def a_completed_step_is_never_changed(h: Harness) -> None:
    """Another value, a failure and a new start are written over a completed step, by this attempt and the next."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, done("s", "1"))
    before = await h.engine.steps("a")
    h.advance(1.0)
    for _ in range(2):
        for record in (
            done("s", "2"),
            StepRecord("s", StepStatus.FAILED, error=ERROR),
            StepRecord("s", StepStatus.STARTED, policy=StepPolicy.ONCE, main=False),
        ):
            assert await h.engine.record_step("a", attempt, record) is True
            assert await h.engine.steps("a") == before
        await end(h.engine, "a", attempt, HandedOver())
        attempt = await again(h.engine)


async def steps_keep_the_order_of_their_first_record(h: Harness) -> None:
    """Names in no alphabetical order, over two attempts, some of them written anew."""
    attempt = await start(h.engine)
    for key in ("c", "a", "d"):
        await h.engine.record_step("a", attempt, StepRecord(key, StepStatus.STARTED))
    await end(h.engine, "a", attempt, HandedOver())
    attempt = await again(h.engine)
    for key in ("b", "d", "a", "c"):
        await h.engine.record_step("a", attempt, done(key))
    assert [row.key for row in await h.other.steps("a")] == ["c", "a", "d", "b"]
    assert {row.attempt for row in await h.other.steps("a")} == {attempt}


async def steps_belong_to_their_job(h: Harness) -> None:
    """Two jobs have a step of the same name; an unknown job has none."""
    first, second = await start(h.engine, "a"), await start(h.engine, "b")
    await h.engine.record_step("a", first, done("s", "1"))
    await h.engine.record_step("b", second, done("s", "2"))
    assert [row.value for row in await h.engine.steps("a")] == ["1"]
    assert [row.value for row in await h.engine.steps("b")] == ["2"]
    assert await h.engine.steps("nothing") == []


async def a_step_needs_the_running_attempt(h: Harness) -> None:
    """Older and newer attempts than the running one, jobs that do not run, an unknown job: lost, nothing written."""
    attempt = await start(h.engine)
    await end(h.engine, "a", attempt, HandedOver())
    attempt = await again(h.engine)
    ended = await start(h.engine, "ended")
    await end(h.engine, "ended", ended, Completed("1"))
    await h.engine.submit([a_job("queued")])
    before = await everything(h.engine)
    for job_id, fence in (
        ("a", attempt - 1),
        ("a", attempt + 1),
        ("ended", ended),
        ("queued", 0),
        ("queued", 1),
        ("nothing", 1),
    ):
        assert await h.engine.record_step(job_id, fence, done("s")) is False
    assert await everything(h.engine) == before


async def a_lost_attempt_writes_no_step(h: Harness) -> None:
    """A stalled worker goes on in the middle of its job, which another one has taken over."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, StepRecord("s", StepStatus.STARTED, policy=StepPolicy.ONCE))
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.join(a_worker("v"))
    await h.other.rescue("v")
    assert await h.engine.record_step("a", attempt, done("s", '"stale"')) is False
    (job,) = await take(h.other, "v")
    assert job.has_steps
    assert await h.engine.record_step("a", attempt, done("s", '"stale"')) is False
    assert await h.other.record_step("a", job.attempt, done("s", '"fresh"')) is True
    (row,) = await h.engine.steps("a")
    assert (row.value, row.attempt) == ('"fresh"', job.attempt)


async def a_job_whose_lease_ran_out_unnoticed_still_writes(h: Harness) -> None:
    """The worker is late with its renewal, but nobody has taken the job from it."""
    attempt = await start(h.engine)
    h.advance(LEASE_SECONDS + 1.0)
    assert await h.engine.record_step("a", attempt, done("s")) is True
    assert await end(h.engine, "a", attempt, Completed("1")) is JobStatus.COMPLETED


async def steps_recorded_at_the_same_time_are_all_there(h: Harness) -> None:
    """Thirty steps of one job run in parallel; each one is recorded once."""
    attempt = await start(h.bare)
    answers = await asyncio.gather(
        *(h.bare.record_step("a", attempt, done(f"{n}", f"{n}", main=False)) for n in range(30))
    )
    assert answers == [True] * 30
    rows = await h.bare.steps("a")
    assert sorted((row.key, row.value) for row in rows) == sorted((f"{n}", f"{n}") for n in range(30))


async def a_step_changes_nothing_of_the_job(h: Harness) -> None:
    """A step is recorded; the job runs on as before."""
    attempt = await start(h.engine)
    before = await look(h.engine)
    await h.engine.record_step("a", attempt, done("s"))
    assert await look(h.engine) == before
    assert await take_ids(h.engine, WORKER) == []
