"""What is done to jobs that have ended: retried by hand, purged, pruned."""

from __future__ import annotations

from typing import Any

from ..._core._state import StopReason
from ...jobs._engine import read_log
from ...jobs._rows import Cancelled, Completed, Failed, JobQuery, NewEvent, Outcome, Suspended, Wait
from ...jobs._state import AttemptOutcome, JobStatus, WaitKind
from ._harness import Harness
from ._support import (
    ERROR,
    a_job,
    a_worker,
    again,
    done,
    end,
    everything,
    look,
    start,
    status_of,
    take,
    take_ids,
)

DAY_SECONDS = 24 * 3600.0


async def _ended(h: Harness, job_id: str = "a", **fields: Any) -> None:
    attempt = await start(h.engine, job_id, **fields)
    await end(h.engine, job_id, attempt, Completed("1"))


async def _in_every_stage(h: Harness) -> dict[str, JobStatus]:
    """One job in each status that is not final."""
    attempt = await start(h.engine, "waiting")
    await end(h.engine, "waiting", attempt, Suspended((Wait("s", WaitKind.SIGNAL, "go"),)))
    await start(h.engine, "running")
    await h.engine.submit([a_job("queued"), a_job("scheduled", delay_seconds=60.0)])
    return {name: JobStatus(name) for name in ("waiting", "running", "queued", "scheduled")}


async def a_failed_job_is_retried(h: Harness) -> None:
    """With its completed steps and its history, and with its counts at nothing."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, done("one"))
    await end(h.engine, "a", attempt, Failed(ERROR, retry_in_seconds=0.0))
    attempt = await again(h.engine)
    await end(h.engine, "a", attempt, Failed(ERROR))
    assert await h.other.retry("a") is JobStatus.QUEUED
    row = await look(h.engine)
    assert (row.status, row.failures, row.lost, row.error) == (JobStatus.QUEUED, 0, 0, None)
    assert (row.ended_at, row.expires_at) == (None, None)
    (job,) = await take(h.engine)
    assert (job.attempt, job.failures, job.has_steps) == (3, 0, True)
    assert [step.key for step in await h.engine.steps("a")] == ["one"]
    outcomes = [attempt.outcome for attempt in await h.engine.attempts("a")]
    assert outcomes == [AttemptOutcome.FAILED, AttemptOutcome.FAILED, None]
    assert await end(h.engine, "a", 2, Completed('"stale"')) is None
    assert await end(h.engine, "a", 3, Completed('"fresh"')) is JobStatus.COMPLETED
    assert (await look(h.engine)).result == '"fresh"'


async def a_cancelled_job_is_retried(h: Harness) -> None:
    """Cancelled before it began, and while it ran: nothing of the cancel is left."""
    await h.engine.submit([a_job("a")])
    await h.engine.cancel("a", StopReason.USER)
    attempt = await start(h.engine, "b")
    await end(h.engine, "b", attempt, Cancelled(StopReason.USER, ERROR))
    for job_id in ("a", "b"):
        assert await h.engine.retry(job_id) is JobStatus.QUEUED
        row = await look(h.engine, job_id)
        assert (row.cancel_reason, row.error, row.ended_at) == (None, None, None)
    assert await take_ids(h.engine) == ["a", "b"]


async def a_job_retried_by_hand_is_not_pruned(h: Harness) -> None:
    """It had expired already when somebody retried it."""
    attempt = await start(h.engine, retention_seconds=10.0)
    await end(h.engine, "a", attempt, Failed(ERROR))
    h.advance(11.0)
    await h.engine.retry("a")
    assert await h.engine.prune(10) == 0
    assert await status_of(h.engine) is JobStatus.QUEUED


async def only_failed_and_cancelled_jobs_are_retried(h: Harness) -> None:
    """A completed job and jobs in every other stage are left as they are; their status is the answer."""
    await _ended(h, "completed")
    stages = await _in_every_stage(h)
    before = await everything(h.engine)
    for job_id, status in {**stages, "completed": JobStatus.COMPLETED}.items():
        assert await h.engine.retry(job_id) is status
    assert await h.engine.retry("nothing") is None
    assert await everything(h.engine) == before


async def a_retried_job_waits_for_its_place(h: Harness) -> None:
    """Another job of its key runs meanwhile."""
    attempt = await start(h.engine, "a", limit_key="k", limit=1)
    await end(h.engine, "a", attempt, Failed(ERROR))
    other = await start(h.engine, "b", limit_key="k", limit=1)
    await h.engine.retry("a")
    assert await take_ids(h.engine) == []
    await end(h.engine, "b", other, Completed("1"))
    assert await take_ids(h.engine) == ["a"]


async def a_purge_deletes_all_of_a_job(h: Harness) -> None:
    """A completed, a failed and a cancelled job with steps, events and attempts are gone; their ids are free."""
    outcomes: dict[str, Outcome] = {"a": Completed("1"), "b": Failed(ERROR), "c": Cancelled(StopReason.USER)}
    for job_id, outcome in outcomes.items():
        attempt = await start(h.engine, job_id)
        await h.engine.record_step(job_id, attempt, done("one"))
        await h.engine.append_events(job_id, attempt, [NewEvent("log", "1")])
        await h.engine.send(job_id, "go", "1")
        status = await end(h.engine, job_id, attempt, outcome)
        assert await h.other.purge(job_id) is status
        assert await h.engine.get([job_id]) == []
        assert await h.engine.steps(job_id) == []
        assert await h.engine.attempts(job_id) == []
        assert await read_log(h.engine, job_id, 0, 10) is None
        assert await h.engine.purge(job_id) is None
    attempt = await start(h.engine, "a")
    assert attempt == 1
    assert (
        await end(h.engine, "a", attempt, Suspended((Wait("s", WaitKind.SIGNAL, "go"),))) is JobStatus.WAITING
    )


async def only_ended_jobs_are_purged(h: Harness) -> None:
    """Jobs in every other stage stay; their status is the answer."""
    stages = await _in_every_stage(h)
    before = await everything(h.engine)
    for job_id, status in stages.items():
        assert await h.engine.purge(job_id) is status
    assert await h.engine.purge("nothing") is None
    assert await everything(h.engine) == before


async def a_job_is_pruned_after_its_retention(h: Harness) -> None:
    """One is kept for a minute, one for no time, one for the usual week."""
    await _ended(h, "minute", retention_seconds=60.0)
    await _ended(h, "none", retention_seconds=0.0)
    await _ended(h, "usual")
    assert await h.engine.prune(10) == 1
    assert [row.id for row in await h.engine.find(JobQuery())] == ["usual", "minute"]
    h.advance(59.0)
    assert await h.engine.prune(10) == 0
    h.advance(1.0)
    assert await h.other.prune(10) == 1
    h.advance(7 * DAY_SECONDS - 61.0)
    assert await h.engine.prune(10) == 0
    h.advance(1.0)
    assert await h.engine.prune(10) == 1
    assert await h.engine.find(JobQuery()) == []


async def every_end_is_pruned(h: Harness) -> None:
    """Failed and cancelled jobs are kept as long as completed ones, with all that belongs to them."""
    attempt = await start(h.engine, "a", retention_seconds=1.0)
    await h.engine.record_step("a", attempt, done("one"))
    await h.engine.append_events("a", attempt, [NewEvent("log", "1")])
    await end(h.engine, "a", attempt, Failed(ERROR))
    await h.engine.submit([a_job("b", retention_seconds=1.0)])
    await h.engine.cancel("b", StopReason.USER)
    h.advance(1.0)
    assert await h.engine.prune(10) == 2
    assert await h.engine.steps("a") == []
    assert await h.engine.attempts("a") == []
    assert await read_log(h.engine, "a", 0, 10) is None


async def only_ended_jobs_are_pruned(h: Harness) -> None:
    """Jobs in every other stage stay, for as long as it may take."""
    await _in_every_stage(h)
    h.advance(1000 * DAY_SECONDS)
    assert await h.engine.prune(10) == 0
    assert len(await h.engine.find(JobQuery())) == 4


async def no_more_is_pruned_than_asked(h: Harness) -> None:
    """Five jobs have expired, and two are pruned at a time."""
    for n in range(5):
        await _ended(h, f"{n}", retention_seconds=1.0)
    h.advance(1.0)
    assert [await h.engine.prune(2) for _ in range(4)] == [2, 2, 1, 0]


async def a_child_is_kept_while_its_parent_lives(h: Harness) -> None:
    """The parent may still ask for the child's result; once it has ended, the child goes by its own retention."""
    parent = await start(h.engine, "parent")
    await _ended(h, "child", parent_id="parent", retention_seconds=1.0)
    await _ended(h, "orphan", parent_id="nobody", retention_seconds=1.0)
    h.advance(5.0)
    assert await h.engine.prune(10) == 1
    assert [row.id for row in await h.engine.find(JobQuery())] == ["child", "parent"]
    await end(h.engine, "parent", parent, Suspended((Wait("nap", WaitKind.SLEEP, seconds=60.0),)))
    assert await h.engine.prune(10) == 0
    await h.engine.cancel("parent", StopReason.USER)
    assert await h.engine.prune(10) == 1
    assert [row.id for row in await h.engine.find(JobQuery())] == ["parent"]


async def kept_children_do_not_hinder_others(h: Harness) -> None:
    """Many expired children of a living parent stand before a job that may be pruned, and only one is asked for."""
    await start(h.engine, "parent")
    for n in range(5):
        await _ended(h, f"child {n}", parent_id="parent", retention_seconds=1.0)
    await _ended(h, "other", retention_seconds=2.0)
    h.advance(5.0)
    assert await h.engine.prune(1) == 1
    assert await h.engine.get(["other"]) == []


async def a_worker_is_not_needed(h: Harness) -> None:
    """A client without a worker retries, purges and prunes."""
    await _ended(h, "a", retention_seconds=1.0)
    await h.engine.resign("w")
    h.advance(1.0)
    assert await h.other.prune(10) == 1
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == []
