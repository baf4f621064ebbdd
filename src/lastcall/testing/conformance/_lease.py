"""Workers: joining, renewing, resigning, and being taken for dead by others, but never because a clock jumped."""

from __future__ import annotations

import asyncio

from ...jobs._rows import Completed, HandedOver, Renewal, Rescued, Suspended, Wait
from ...jobs._state import AttemptOutcome, JobStatus, WaitKind
from ._harness import Harness
from ._support import (
    LEASE_SECONDS,
    WORKER,
    a_job,
    a_worker,
    again,
    done,
    end,
    everything,
    last_attempt,
    look,
    start,
    status_of,
    take,
    take_ids,
)


async def _worker_ids(h: Harness) -> list[str]:
    return sorted(worker.id for worker in (await h.other.overview()).workers)


async def a_worker_is_listed(h: Harness) -> None:
    """Every field of a worker that has joined, as others see it, and how many jobs it runs."""
    worker = a_worker(
        host="box",
        pid=42,
        process_start="1234.5",
        boot_id="b-1",
        pid_namespace="pid:[4026531836]",
        lease_seconds=20.0,
        concurrency=7,
        queues=frozenset({"q", "r"}),
    )
    await h.engine.join(worker)
    joined_at = h.clock.wall()
    h.advance(3.0)
    await h.engine.renew(WORKER)
    await h.engine.submit([a_job("a"), a_job("b")])
    await take(h.engine)
    (row,) = (await h.other.overview()).workers
    assert row == worker._replace(joined_at=joined_at, renewed_at=h.clock.wall(), running=2)


async def a_worker_of_every_queue_is_listed_as_such(h: Harness) -> None:
    """No queues named is another thing than no queues."""
    await h.engine.join(a_worker("w", queues=None))
    await h.engine.join(a_worker("v", queues=frozenset()))
    assert {worker.id: worker.queues for worker in (await h.other.overview()).workers} == {
        "w": None,
        "v": frozenset(),
    }


async def a_lease_that_is_over_is_rescued(h: Harness) -> None:
    """The worker says nothing for longer than its lease; another one takes its jobs, and it is listed no more."""
    attempt = await start(h.engine)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.join(a_worker("v"))
    assert await h.other.rescue("v") == [Rescued("a", attempt, WORKER, JobStatus.QUEUED)]
    row = await look(h.engine)
    assert (row.status, row.lost, row.failures, row.worker_id) == (JobStatus.QUEUED, 1, 0, None)
    last = await last_attempt(h.engine)
    assert (last.outcome, last.worker_id, last.ended_at) == (AttemptOutcome.LOST, WORKER, h.clock.wall())
    assert await _worker_ids(h) == ["v"]
    (job,) = await take(h.other, "v")
    assert (job.id, job.attempt, job.failures) == ("a", attempt + 1, 0)


async def a_lease_that_holds_is_left_alone(h: Harness) -> None:
    """A second before its end."""
    await start(h.engine)
    h.advance(LEASE_SECONDS - 1.0)
    await h.other.join(a_worker("v"))
    assert await h.other.rescue("v") == []
    assert await status_of(h.engine) is JobStatus.RUNNING
    assert await _worker_ids(h) == ["v", "w"]


async def each_worker_has_the_lease_it_asked_for(h: Harness) -> None:
    """A short lease and a long one."""
    await h.engine.join(a_worker("short", lease_seconds=5.0))
    await h.engine.join(a_worker("long", lease_seconds=500.0))
    h.advance(6.0)
    await h.other.rescue("v")
    assert await _worker_ids(h) == ["long"]


async def a_renewed_lease_begins_anew(h: Harness) -> None:
    """A worker that renews in time is never rescued, for as long as it may run."""
    await start(h.engine)
    for _ in range(5):
        h.advance(LEASE_SECONDS - 1.0)
        assert await h.engine.renew(WORKER) == Renewal(True, [])
        assert await h.other.rescue("v") == []
    assert await status_of(h.engine) is JobStatus.RUNNING


async def a_late_renewal_counts_if_nobody_was_faster(h: Harness) -> None:
    """The lease had run out, but no one had noticed."""
    await start(h.engine)
    h.advance(LEASE_SECONDS + 5.0)
    assert await h.engine.renew(WORKER) == Renewal(True, [])
    assert await h.other.rescue("v") == []
    assert await status_of(h.engine) is JobStatus.RUNNING


async def a_worker_hears_that_it_was_taken_for_dead(h: Harness) -> None:
    """It stalled past its lease, and asks to renew it after others had taken its jobs."""
    await start(h.engine)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.rescue("v")
    assert await h.engine.renew(WORKER) == Renewal(False, [])
    assert await h.engine.renew("never joined") == Renewal(False, [])
    assert await status_of(h.engine) is JobStatus.QUEUED


async def a_worker_never_rescues_itself(h: Harness) -> None:
    """Its own lease is over; it looks for dead ones, and finds the other, not itself."""
    await start(h.engine, "a", "w")
    await start(h.engine, "b", "v")
    h.advance(LEASE_SECONDS + 1.0)
    rescued = await h.engine.rescue("w")
    assert [job.id for job in rescued] == ["b"]
    assert await status_of(h.engine, "a") is JobStatus.RUNNING
    assert await h.engine.renew("w") == Renewal(True, [])


async def a_process_that_is_gone_need_not_be_waited_for(h: Harness) -> None:
    """A worker was killed. Where that can be seen, its jobs are rescued at once; elsewhere after its lease."""
    await h.engine.submit([a_job()])
    await h.engine.join(h.identify(a_worker()))
    attempt = await again(h.engine)
    await h.other.join(a_worker("v"))
    assert await h.other.rescue("v") == []
    if not h.kill(WORKER):
        h.advance(LEASE_SECONDS + 1.0)
        await h.other.renew("v")
    assert await h.other.rescue("v") == [Rescued("a", attempt, WORKER, JobStatus.QUEUED)]
    assert await _worker_ids(h) == ["v"]
    assert await take_ids(h.other, "v") == ["a"]


async def a_jump_of_the_wall_clock_ends_no_lease(h: Harness) -> None:
    """The clock is set forward by a day, then back by two; the lease ends when its time is over."""
    await start(h.engine)
    for seconds in (86_400.0, -172_800.0):
        h.jump_wall(seconds)
        assert await h.other.rescue("v") == []
        assert await status_of(h.engine) is JobStatus.RUNNING
    h.advance(LEASE_SECONDS + 1.0)
    assert [job.id for job in await h.other.rescue("v")] == ["a"]


async def a_lease_outlives_a_restart(h: Harness) -> None:
    """The process that rescues was started after the worker had joined; the lease is as long as it was."""
    await start(h.engine)
    h.advance(LEASE_SECONDS - 5.0)
    await h.reopen()
    assert await h.other.rescue("v") == []
    h.advance(6.0)
    assert [job.id for job in await h.other.rescue("v")] == ["a"]


async def two_rescuers_rescue_once(h: Harness) -> None:
    """Two workers find the same dead one at the same time: each of its jobs is lost once."""
    await h.bare.submit([a_job(f"{n}") for n in range(5)])
    await h.bare.join(a_worker())
    await take(h.bare)
    h.advance(LEASE_SECONDS + 1.0)
    first, second = await asyncio.gather(h.bare.rescue("u"), h.bare_other.rescue("v"))
    assert sorted(job.id for job in first + second) == [f"{n}" for n in range(5)]
    assert {row.lost for row in await h.bare.get([f"{n}" for n in range(5)])} == {1}
    assert await h.bare.rescue("u") == []


async def a_dead_worker_without_jobs_is_forgotten(h: Harness) -> None:
    """An idle worker dies: nothing to rescue, but it is listed no more."""
    await h.engine.join(a_worker())
    h.advance(LEASE_SECONDS + 1.0)
    assert await h.other.rescue("v") == []
    assert await _worker_ids(h) == []


async def only_running_jobs_are_lost(h: Harness) -> None:
    """A dead worker had also jobs that it had ended, handed over and put to sleep; these are as they were."""
    fences = {job_id: await start(h.engine, job_id) for job_id in ("ended", "waiting", "lost", "given")}
    await end(h.engine, "ended", fences["ended"], Completed("1"))
    nap = Suspended((Wait("nap", WaitKind.SLEEP, seconds=3600.0),))
    await end(h.engine, "waiting", fences["waiting"], nap)
    await end(h.engine, "given", fences["given"], HandedOver())
    h.advance(LEASE_SECONDS + 1.0)
    assert [job.id for job in await h.other.rescue("v")] == ["lost"]
    assert [await status_of(h.engine, job_id) for job_id in fences] == [
        "completed",
        "waiting",
        "queued",
        "queued",
    ]


async def a_worker_that_resigns_hands_over(h: Harness) -> None:
    """An orderly goodbye: its jobs are queued again, uncharged, and it is listed no more."""
    await h.engine.submit([a_job("a"), a_job("b"), a_job("c")])
    await h.engine.join(a_worker())
    await take(h.engine, limit=2)
    assert await h.engine.resign(WORKER) == 2
    for job_id in ("a", "b"):
        row = await look(h.other, job_id)
        assert (row.status, row.failures, row.lost, row.worker_id) == (JobStatus.QUEUED, 0, 0, None)
        last = await last_attempt(h.other, job_id)
        assert (last.outcome, last.reason) == (AttemptOutcome.HANDED_OVER, "shutdown")
    assert await _worker_ids(h) == []
    await h.other.join(a_worker("v"))
    assert [(job.id, job.attempt) for job in await take(h.other, "v")] == [("a", 2), ("b", 2), ("c", 1)]


async def resigning_twice_is_harmless(h: Harness) -> None:
    """A worker resigns again, and one resigns that had never joined."""
    await start(h.engine)
    assert await h.engine.resign(WORKER) == 1
    assert await h.engine.resign(WORKER) == 0
    assert await h.engine.resign("never joined") == 0


async def a_worker_that_has_resigned_writes_nothing(h: Harness) -> None:
    """Something of it is still running after its goodbye, while another worker goes on with the job."""
    attempt = await start(h.engine)
    await h.engine.resign(WORKER)
    await h.other.join(a_worker("v"))
    (job,) = await take(h.other, "v")
    before = await everything(h.engine)
    assert await h.engine.renew(WORKER) == Renewal(False, [])
    assert await h.engine.record_step("a", attempt, done("s")) is False
    assert await end(h.engine, "a", attempt, Completed("1")) is None
    assert await everything(h.engine) == before
    assert await end(h.other, "a", job.attempt, Completed("1")) is JobStatus.COMPLETED


async def a_worker_taken_for_dead_may_join_again(h: Harness) -> None:
    """It stalled, was rescued, and begins anew under the same name: its new jobs are its own."""
    await start(h.engine)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.rescue("v")
    await h.engine.join(a_worker())
    attempt = await again(h.engine)
    assert attempt == 2
    assert await h.other.rescue("v") == []
    assert await h.engine.renew(WORKER) == Renewal(True, [])
    assert await end(h.engine, "a", attempt, Completed("1")) is JobStatus.COMPLETED


async def joining_again_prolongs_the_lease(h: Harness) -> None:
    """A worker that has not gone joins a second time, and keeps the job that it has."""
    attempt = await start(h.engine)
    h.advance(LEASE_SECONDS - 1.0)
    await h.engine.join(a_worker())
    h.advance(LEASE_SECONDS - 1.0)
    assert await h.other.rescue("v") == []
    assert await _worker_ids(h) == [WORKER]
    assert await end(h.engine, "a", attempt, Completed("1")) is JobStatus.COMPLETED
