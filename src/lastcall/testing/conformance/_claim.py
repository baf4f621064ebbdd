"""Claiming: who gets which job, in which order, and when to ask again."""

from __future__ import annotations

from ...jobs._rows import Claimed, ClaimResult, Completed, Failed, HandedOver, Suspended, Wait
from ...jobs._state import JobStatus, WaitKind
from ._harness import Harness
from ._support import (
    ERROR,
    LEASE_SECONDS,
    TASK,
    WORKER,
    a_job,
    a_worker,
    again,
    ask,
    done,
    end,
    last_attempt,
    look,
    start,
    status_of,
    take,
    take_ids,
)


async def an_empty_store_has_nothing(h: Harness) -> None:
    """A worker asks before anybody has submitted anything: nothing, and asking again needs news."""
    await h.engine.join(a_worker())
    assert await ask(h.engine) == ClaimResult([], None)


async def a_claim_tells_all_of_the_job(h: Harness) -> None:
    """Every field of a claimed job."""
    created_at = h.clock.wall()
    fields = {"key": "k", "labels": '{"x": "y"}', "options": "{}", "parent_id": "p"}
    await h.engine.submit([a_job("a", args="[7]", queue="q", priority=4, **fields)])
    await h.engine.join(a_worker())
    h.advance(5.0)
    (claimed,) = await take(h.engine)
    assert isinstance(claimed.created_at, float)
    assert claimed == Claimed(
        id="a",
        attempt=1,
        task=TASK,
        version="",
        args="[7]",
        queue="q",
        priority=4,
        failures=0,
        has_steps=False,
        created_at=created_at,
        key="k",
        labels='{"x": "y"}',
        options="{}",
        parent_id="p",
    )


async def a_claimed_job_runs(h: Harness) -> None:
    """What others see of a job that a worker holds."""
    await h.engine.submit([a_job()])
    await h.engine.join(a_worker())
    h.advance(5.0)
    await take(h.engine)
    row = await look(h.other)
    assert (row.status, row.attempt, row.worker_id) == (JobStatus.RUNNING, 1, WORKER)
    assert row.started_at == h.clock.wall()
    attempt = await last_attempt(h.other)
    assert (attempt.attempt, attempt.worker_id, attempt.started_at) == (1, WORKER, h.clock.wall())
    assert {attempt.ended_at, attempt.outcome, attempt.reason, attempt.error} == {None}


async def a_running_job_is_not_claimed_again(h: Harness) -> None:
    """The same worker and another one ask while it runs."""
    await start(h.engine)
    await h.other.join(a_worker("v"))
    assert await take_ids(h.engine) == []
    assert await take_ids(h.other, "v") == []


async def each_claim_is_one_attempt_more(h: Harness) -> None:
    """A job is handed over, fails and waits; its attempts count up and tell its failures and its steps."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, done("one"))
    await end(h.engine, "a", attempt, HandedOver())
    (job,) = await take(h.engine)
    assert (job.attempt, job.failures, job.has_steps) == (2, 0, True)
    await end(h.engine, "a", 2, Failed(ERROR, retry_in_seconds=1.0))
    h.advance(1.0)
    (job,) = await take(h.engine)
    assert (job.attempt, job.failures) == (3, 1)
    await end(h.engine, "a", 3, Suspended((Wait("nap", WaitKind.SLEEP, seconds=1.0),)))
    h.advance(1.0)
    (job,) = await take(h.engine)
    assert (job.attempt, job.failures) == (4, 1)
    assert [row.attempt for row in await h.engine.attempts("a")] == [1, 2, 3, 4]


async def a_claim_tells_which_jobs_have_steps(h: Harness) -> None:
    """Four jobs are handed over, of which the second and the last have recorded something."""
    ids = ["a", "b", "c", "d"]
    await h.engine.submit([a_job(job_id) for job_id in ids])
    await h.engine.join(a_worker())
    assert [job.has_steps for job in await take(h.engine)] == [False] * 4
    for job_id in ("d", "b"):
        await h.engine.record_step(job_id, 1, done("one"))
    for job_id in ids:
        await end(h.engine, job_id, 1, HandedOver())
    assert {job.id: job.has_steps for job in await take(h.engine)} == {
        "a": False,
        "b": True,
        "c": False,
        "d": True,
    }


async def higher_priority_first_then_the_older(h: Harness) -> None:
    """Priorities below, at and above the usual, some of them equal."""
    priorities = {"a": 0, "b": 5, "c": -1, "d": 5, "e": 0, "f": 9}
    for job_id, priority in priorities.items():
        await h.engine.submit([a_job(job_id, priority=priority)])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == ["f", "b", "d", "a", "e", "c"]


async def an_old_job_stays_old(h: Harness) -> None:
    """A job that was handed over, or was delayed, is older than those submitted after it."""
    await h.engine.submit([a_job("late", delay_seconds=10.0)])
    attempt = await start(h.engine, "first")
    await h.engine.submit([a_job("second")])
    await end(h.engine, "first", attempt, HandedOver())
    h.advance(10.0)
    assert await take_ids(h.engine) == ["late", "first", "second"]


async def no_more_than_the_limit(h: Harness) -> None:
    """Five jobs and two slots, then ten."""
    await h.engine.submit([a_job(f"{n}") for n in range(5)])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine, limit=2) == ["0", "1"]
    assert await take_ids(h.engine, limit=10) == ["2", "3", "4"]


async def a_limit_of_nothing_still_makes_ready(h: Harness) -> None:
    """A worker without a free slot asks: it gets nothing, but what is due is queued for others."""
    attempt = await start(h.engine, "b")
    await end(h.engine, "b", attempt, Suspended((Wait("nap", WaitKind.SLEEP, seconds=10.0),)))
    await h.engine.submit([a_job("a", delay_seconds=10.0)])
    h.advance(10.0)
    assert await take_ids(h.engine, limit=0) == []
    assert await status_of(h.engine, "a") is JobStatus.QUEUED
    assert await status_of(h.engine, "b") is JobStatus.QUEUED


async def an_unknown_task_is_deferred(h: Harness) -> None:
    """During a deploy the old worker meets a job of a task that only the new one knows."""
    await h.engine.submit([a_job("a", task="new"), a_job("b")])
    await h.engine.join(a_worker("old"))
    await h.other.join(a_worker("new"))
    assert await take_ids(h.engine, "old", limit=1) == ["b"]
    assert await take_ids(h.engine, "old") == []
    row = await look(h.engine)
    assert (row.status, row.attempt, row.failures) == (JobStatus.QUEUED, 0, 0)
    assert await take_ids(h.other, "new", tasks={("new", ""): None}) == ["a"]


async def an_unknown_version_is_deferred(h: Harness) -> None:
    """Old and new code of one task run side by side; each takes the jobs of its own version."""
    await h.engine.submit([a_job("a", version="2"), a_job("b", version="1"), a_job("c")])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine, tasks={(TASK, "1"): None}) == ["b"]
    assert await take_ids(h.engine, tasks={(TASK, "2"): None, (TASK, ""): None}) == ["a", "c"]


async def a_worker_without_tasks_gets_nothing(h: Harness) -> None:
    """A worker that knows no task at all asks."""
    await h.engine.submit([a_job()])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine, tasks={}) == []


async def queues_are_chosen(h: Harness) -> None:
    """Workers for one queue, for two, for none and for every one."""
    await h.engine.submit([a_job(queue, queue=queue) for queue in ("a", "b", "c", "d")])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine, queues=[]) == []
    assert await take_ids(h.engine, queues=["unknown"]) == []
    assert await take_ids(h.engine, queues=["b"]) == ["b"]
    assert await take_ids(h.engine, queues=["a", "c", "unknown"]) == ["a", "c"]
    assert await take_ids(h.engine) == ["d"]


async def a_worker_that_has_not_joined_gets_nothing(h: Harness) -> None:
    """A worker asks before it joined, and another one after it has resigned."""
    await h.engine.submit([a_job()])
    assert await take_ids(h.engine) == []
    await h.engine.join(a_worker())
    await h.engine.resign(WORKER)
    assert await take_ids(h.engine) == []
    assert await status_of(h.engine) is JobStatus.QUEUED


async def a_worker_taken_for_dead_gets_nothing(h: Harness) -> None:
    """A worker that had stalled past its lease and was rescued asks for more, not knowing of it."""
    await h.engine.submit([a_job()])
    await h.engine.join(a_worker())
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.join(a_worker("v"))
    await h.other.rescue("v")
    assert await take_ids(h.engine) == []
    assert await take_ids(h.other, "v") == ["a"]


async def an_ended_job_is_not_claimed(h: Harness) -> None:
    """A completed and a failed one are left alone."""
    attempt = await start(h.engine, "a")
    await end(h.engine, "a", attempt, Completed("1"))
    attempt = await start(h.engine, "b")
    await end(h.engine, "b", attempt, Failed(ERROR))
    assert await ask(h.engine) == ClaimResult([], None)


async def the_next_delayed_job_says_when_to_ask(h: Harness) -> None:
    """Two delayed jobs: the nearer one counts, and asking at that time brings it."""
    await h.engine.submit([a_job("a", delay_seconds=60.0), a_job("b", delay_seconds=20.0)])
    await h.engine.join(a_worker())
    result = await ask(h.engine)
    assert result.jobs == []
    assert result.next_due_seconds is not None
    assert 0.0 < result.next_due_seconds <= 20.0
    h.advance(20.0)
    result = await ask(h.engine)
    assert [job.id for job in result.jobs] == ["b"]
    assert result.next_due_seconds is not None
    assert 0.0 < result.next_due_seconds <= 40.0


async def the_next_wait_says_when_to_ask(h: Harness) -> None:
    """A sleep and a signal with a timeout; the sleep is over first."""
    attempt = await start(h.engine, "a")
    await end(h.engine, "a", attempt, Suspended((Wait("s", WaitKind.SIGNAL, "go", 60.0),)))
    attempt = await start(h.engine, "b")
    await end(h.engine, "b", attempt, Suspended((Wait("nap", WaitKind.SLEEP, seconds=20.0),)))
    result = await ask(h.engine)
    assert result.next_due_seconds is not None
    assert 0.0 < result.next_due_seconds <= 20.0
    h.advance(20.0)
    await again(h.engine, "b")


async def a_wait_without_an_end_needs_news(h: Harness) -> None:
    """A job waits for a message, however long it takes: nothing to come back for."""
    attempt = await start(h.engine)
    await end(h.engine, "a", attempt, Suspended((Wait("s", WaitKind.SIGNAL, "go"),)))
    assert await ask(h.engine) == ClaimResult([], None)


async def a_failure_says_when_to_ask(h: Harness) -> None:
    """A job that is to be retried in thirty seconds."""
    attempt = await start(h.engine)
    await end(h.engine, "a", attempt, Failed(ERROR, retry_in_seconds=30.0))
    result = await ask(h.engine)
    assert result.jobs == []
    assert result.next_due_seconds is not None
    assert 0.0 < result.next_due_seconds <= 30.0
