"""Limits over all workers: by key, by concurrency of a task, by rate."""

from __future__ import annotations

import asyncio

from ..._core._state import StopReason
from ...jobs._rows import (
    AttemptEnd,
    Cancelled,
    Completed,
    Failed,
    HandedOver,
    Outcome,
    Suspended,
    TaskLimits,
    Wait,
)
from ...jobs._state import WaitKind
from ._harness import Harness
from ._support import ERROR, LEASE_SECONDS, TASK, a_job, a_worker, ask, end, start, take, take_ids

ONE_AT_ONCE = {(TASK, ""): TaskLimits(concurrency=1)}
TWO_PER_TEN_SECONDS = {(TASK, ""): TaskLimits(rate_count=2, rate_seconds=10.0)}
SLEEP = Suspended((Wait("nap", WaitKind.SLEEP, seconds=3600.0),))


async def _two_workers(h: Harness) -> None:
    await h.engine.join(a_worker("w"))
    await h.other.join(a_worker("v"))


async def a_limit_key_holds_back(h: Harness) -> None:
    """Three jobs of one key of which two may run; the third begins when one has ended."""
    await _two_workers(h)
    await h.engine.submit([a_job(job_id, limit_key="k", limit=2) for job_id in "abc"])
    assert await take_ids(h.engine, "w", limit=1) == ["a"]
    assert await take_ids(h.other, "v") == ["b"]
    assert await take_ids(h.engine, "w") == []
    await end(h.other, "b", 1, Completed("1"))
    assert await take_ids(h.engine, "w") == ["c"]


async def a_limit_key_is_nobody_elses_limit(h: Harness) -> None:
    """Jobs of other keys and of none pass the ones that are held back."""
    await h.engine.join(a_worker())
    await h.engine.submit(
        [
            a_job("a", limit_key="k", limit=1),
            a_job("b", limit_key="k", limit=1),
            a_job("c", limit_key="other", limit=1),
            a_job("d"),
        ]
    )
    assert await take_ids(h.engine) == ["a", "c", "d"]


async def every_end_frees_the_place(h: Harness) -> None:
    """Whatever becomes of the running job, the next one of its key may begin."""
    outcomes: list[Outcome] = [
        Completed("1"),
        Failed(ERROR),
        Failed(ERROR, retry_in_seconds=3600.0),
        Cancelled(StopReason.USER),
        SLEEP,
    ]
    await h.engine.join(a_worker())
    for n, outcome in enumerate(outcomes):
        await h.engine.submit([a_job(f"{n}.{part}", limit_key=f"{n}", limit=1) for part in "ab"])
        assert await take_ids(h.engine) == [f"{n}.a"]
        await end(h.engine, f"{n}.a", 1, outcome)
        assert await take_ids(h.engine) == [f"{n}.b"]


async def a_cancel_frees_the_place(h: Harness) -> None:
    """The job that has the place is cancelled before it began."""
    await h.engine.join(a_worker())
    await h.engine.submit([a_job(job_id, limit_key="k", limit=1) for job_id in "ab"])
    await h.engine.cancel("a", StopReason.USER)
    assert await take_ids(h.engine) == ["b"]


async def cancelling_one_that_is_held_frees_nothing(h: Harness) -> None:
    """A job that waits for its place is cancelled; the others wait on."""
    await h.engine.join(a_worker())
    await h.engine.submit([a_job(job_id, limit_key="k", limit=1) for job_id in "abc"])
    assert await take_ids(h.engine) == ["a"]
    await h.engine.cancel("b", StopReason.USER)
    assert await take_ids(h.engine) == []
    await end(h.engine, "a", 1, Completed("1"))
    assert await take_ids(h.engine) == ["c"]


async def a_loss_that_fails_frees_the_place(h: Harness) -> None:
    """The worker of the job that has the place dies, and the job with it."""
    await h.engine.submit([a_job(job_id, limit_key="k", limit=1, max_lost=1) for job_id in "ab"])
    await h.engine.join(a_worker("w"))
    assert await take_ids(h.engine, "w") == ["a"]
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.join(a_worker("v"))
    await h.other.rescue("v")
    assert await take_ids(h.other, "v") == ["b"]


async def a_job_given_back_goes_on_at_once(h: Harness) -> None:
    """Handing over does not send a job to the end of those that wait for its key."""
    await _two_workers(h)
    await h.engine.submit([a_job(job_id, limit_key="k", limit=1) for job_id in "ab"])
    assert await take_ids(h.engine, "w") == ["a"]
    await end(h.engine, "a", 1, HandedOver())
    assert await take_ids(h.other, "v") == ["a"]


async def the_held_go_by_priority_and_age(h: Harness) -> None:
    """Three jobs wait for a place; the urgent one is the youngest."""
    await h.engine.join(a_worker())
    await h.engine.submit([a_job("first", limit_key="k", limit=1)])
    for job_id, priority in {"b": 0, "c": 0, "urgent": 9}.items():
        await h.engine.submit([a_job(job_id, limit_key="k", limit=1, priority=priority)])
    order = []
    for _ in range(4):
        (job,) = await take(h.engine)
        order.append(job.id)
        await end(h.engine, job.id, 1, Completed("1"))
    assert order == ["first", "urgent", "b", "c"]


async def scheduled_and_waiting_jobs_have_no_place(h: Harness) -> None:
    """A key whose jobs are delayed and asleep has room; when they are ready they wait for their turn."""
    attempt = await start(h.engine, "asleep", limit_key="k", limit=1)
    await end(h.engine, "asleep", attempt, Suspended((Wait("nap", WaitKind.SLEEP, seconds=10.0),)))
    await h.engine.submit([a_job("late", limit_key="k", limit=1, delay_seconds=10.0)])
    await h.engine.submit([a_job("now", limit_key="k", limit=1)])
    assert await take_ids(h.engine) == ["now"]
    h.advance(10.0)
    assert await take_ids(h.engine) == []
    await end(h.engine, "now", 1, Completed("1"))
    (first,) = await take(h.engine)
    await end(h.engine, first.id, first.attempt, Completed("1"))
    (second,) = await take(h.engine)
    assert {first.id, second.id} == {"asleep", "late"}


async def a_limit_key_holds_over_many_claims_at_once(h: Harness) -> None:
    """Two workers on two engines claim at the same time, and no more than two jobs of the key ever run."""
    await h.bare.join(a_worker("w"))
    await h.bare_other.join(a_worker("v"))
    await h.bare.submit([a_job(f"{n}", limit_key="k", limit=2) for n in range(8)])
    ended = 0
    while ended < 8:
        claims = await asyncio.gather(
            take(h.bare, "w"), take(h.bare_other, "v"), take(h.bare, "w"), take(h.bare_other, "v")
        )
        running = [job for jobs in claims for job in jobs]
        assert len(running) == min(2, 8 - ended)
        for job in running:
            await end(h.bare, job.id, job.attempt, Completed("1"))
        ended += len(running)


async def the_concurrency_of_a_task_holds_over_workers(h: Harness) -> None:
    """One job of the task at once, two workers; other tasks are free."""
    await _two_workers(h)
    await h.engine.submit([a_job("a"), a_job("b"), a_job("c", task="free")])
    tasks = {**ONE_AT_ONCE, ("free", ""): None}
    assert await take_ids(h.engine, "w", tasks=tasks) == ["a", "c"]
    assert await take_ids(h.other, "v", tasks=tasks) == []
    await end(h.engine, "a", 1, Completed("1"))
    assert await take_ids(h.other, "v", tasks=tasks) == ["b"]


async def the_concurrency_of_a_task_counts_all_versions(h: Harness) -> None:
    """Old and new code of a task share its limit."""
    await _two_workers(h)
    await h.engine.submit([a_job("a", version="1"), a_job("b", version="2")])
    limits = TaskLimits(concurrency=1)
    assert await take_ids(h.engine, "w", tasks={(TASK, "1"): limits}) == ["a"]
    assert await take_ids(h.other, "v", tasks={(TASK, "2"): limits}) == []
    await end(h.engine, "a", 1, HandedOver())
    assert await take_ids(h.other, "v", tasks={(TASK, "2"): limits}) == ["b"]


async def a_waiting_job_does_not_count_as_running(h: Harness) -> None:
    """A task that may run once has a job asleep; another one may run."""
    await h.engine.submit([a_job("a"), a_job("b")])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine, tasks=ONE_AT_ONCE) == ["a"]
    await end(h.engine, "a", 1, SLEEP)
    assert await take_ids(h.engine, tasks=ONE_AT_ONCE) == ["b"]


async def concurrency_within_one_claim(h: Harness) -> None:
    """One claim for ten slots takes no more of a task than its limit, and fills up with others."""
    await h.engine.submit([a_job(f"{n}") for n in range(5)] + [a_job("free", task="free")])
    await h.engine.join(a_worker())
    tasks = {(TASK, ""): TaskLimits(concurrency=2), ("free", ""): None}
    assert await take_ids(h.engine, tasks=tasks) == ["0", "1", "free"]


async def a_rate_is_full_at_first_and_refills_evenly(h: Harness) -> None:
    """Two starts per ten seconds: two at once, then one every five seconds, over two workers."""
    await _two_workers(h)
    await h.engine.submit([a_job(f"{n}") for n in range(5)])
    assert await take_ids(h.engine, "w", tasks=TWO_PER_TEN_SECONDS) == ["0", "1"]
    assert await take_ids(h.other, "v", tasks=TWO_PER_TEN_SECONDS) == []
    h.advance(4.0)
    assert await take_ids(h.other, "v", tasks=TWO_PER_TEN_SECONDS) == []
    h.advance(1.0)
    assert await take_ids(h.other, "v", tasks=TWO_PER_TEN_SECONDS) == ["2"]
    assert await take_ids(h.engine, "w", tasks=TWO_PER_TEN_SECONDS) == []
    h.advance(10.0)
    assert await take_ids(h.engine, "w", tasks=TWO_PER_TEN_SECONDS) == ["3", "4"]


async def a_rate_saves_up_no_more_than_its_count(h: Harness) -> None:
    """After an hour of quiet two may start at once, not seven hundred."""
    await h.engine.join(a_worker())
    await h.engine.submit([a_job(f"{n}") for n in range(5)])
    assert await take_ids(h.engine, tasks=TWO_PER_TEN_SECONDS) == ["0", "1"]
    h.advance(3600.0)
    await h.engine.renew("w")
    assert await take_ids(h.engine, tasks=TWO_PER_TEN_SECONDS) == ["2", "3"]


async def a_rate_says_when_to_ask(h: Harness) -> None:
    """A job waits for its rate and for nothing else; asking at the time that was named brings it."""
    await h.engine.join(a_worker())
    await h.engine.submit([a_job(f"{n}") for n in range(3)])
    assert await take_ids(h.engine, tasks=TWO_PER_TEN_SECONDS) == ["0", "1"]
    result = await ask(h.engine, tasks=TWO_PER_TEN_SECONDS)
    assert result.jobs == []
    assert result.next_due_seconds is not None
    assert 0.0 < result.next_due_seconds <= 5.0
    h.advance(5.0)
    assert await take_ids(h.engine, tasks=TWO_PER_TEN_SECONDS) == ["2"]


async def only_what_is_taken_uses_up_the_rate(h: Harness) -> None:
    """Claims that found nothing, or had no slot for the job, do not count as starts."""
    await h.engine.join(a_worker())
    for _ in range(5):
        assert await take_ids(h.engine, tasks=TWO_PER_TEN_SECONDS) == []
    await h.engine.submit([a_job(f"{n}") for n in range(3)])
    assert await take_ids(h.engine, limit=0, tasks=TWO_PER_TEN_SECONDS) == []
    assert await take_ids(h.engine, limit=1, tasks=TWO_PER_TEN_SECONDS) == ["0"]
    assert await take_ids(h.engine, limit=1, tasks=TWO_PER_TEN_SECONDS) == ["1"]
    assert await take_ids(h.engine, limit=1, tasks=TWO_PER_TEN_SECONDS) == []


async def a_rate_is_that_of_one_task(h: Harness) -> None:
    """A task whose rate is used up does not hold back another one."""
    await h.engine.join(a_worker())
    await h.engine.submit([a_job(f"{n}") for n in range(3)] + [a_job("free", task="free")])
    tasks = {**TWO_PER_TEN_SECONDS, ("free", ""): None}
    assert await take_ids(h.engine, tasks=tasks) == ["0", "1", "free"]


async def a_rate_outlives_a_clock_that_is_set_back(h: Harness) -> None:
    """The wall clock is set back by a day; the rate goes on after its own time, not after a day."""
    await h.engine.join(a_worker())
    await h.engine.submit([a_job(f"{n}") for n in range(5)])
    assert await take_ids(h.engine, tasks=TWO_PER_TEN_SECONDS) == ["0", "1"]
    h.jump_wall(-86_400.0)
    taken = await take_ids(h.engine, tasks=TWO_PER_TEN_SECONDS)
    h.advance(10.0)
    taken += await take_ids(h.engine, tasks=TWO_PER_TEN_SECONDS)
    assert taken == ["2", "3"]


async def ends_of_one_call_come_one_after_the_other(h: Harness) -> None:
    """Two ends in one call: one wakes a job of a key, the other frees a place of it for one that is held back, and
    wants the key for itself alone. Who comes first has the place."""
    for turn, order in enumerate((["child", "place"], ["place", "child"])):
        key = f"k{turn}"
        await h.engine.join(a_worker())
        await h.engine.submit([a_job(f"parent{turn}", limit_key=key, limit=2), a_job(f"child{turn}")])
        assert await take_ids(h.engine) == [f"parent{turn}", f"child{turn}"]
        wait = Wait("child", WaitKind.JOBS, jobs=(f"child{turn}",))
        await end(h.engine, f"parent{turn}", 1, Suspended((wait,)))
        await h.engine.submit([a_job(f"place{turn}", limit_key=key, limit=2)])
        await h.engine.submit([a_job(f"held{turn}", limit_key=key, limit=1)])
        assert await take_ids(h.engine) == [f"place{turn}"]
        ends = [AttemptEnd(f"{name}{turn}", 1, Completed("1")) for name in order]
        await h.engine.finish(ends)
        first = [f"parent{turn}"] if turn == 0 else [f"parent{turn}", f"held{turn}"]
        assert await take_ids(h.engine) == first
        for job_id in first:
            attempt = 2 if job_id.startswith("parent") else 1
            await end(h.engine, job_id, attempt, Completed("1"))
        for job in await take(h.engine):
            await end(h.engine, job.id, job.attempt, Completed("1"))
