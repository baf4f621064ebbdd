"""Cancelling: at once what does not run, by request what does, and who wins when something else happens too."""

from __future__ import annotations

from ..._core._state import StopReason
from ...jobs._rows import (
    Cancelled,
    CancelRequest,
    Completed,
    Failed,
    HandedOver,
    Outcome,
    Renewal,
    Suspended,
    Wait,
)
from ...jobs._state import AttemptOutcome, CancelOutcome, JobStatus, WaitKind
from ._harness import Harness
from ._support import (
    ERROR,
    LEASE_SECONDS,
    WORKER,
    a_job,
    a_worker,
    ask,
    end,
    everything,
    last_attempt,
    look,
    start,
    status_of,
    take,
    take_ids,
)

USER = StopReason.USER


async def _cancel(h: Harness, job_id: str = "a", reason: StopReason = USER) -> CancelOutcome:
    """From another process than the one that runs it."""
    return await h.other.cancel(job_id, reason)


async def a_queued_job_is_cancelled_at_once(h: Harness) -> None:
    """Nobody has begun it, and nobody ever will."""
    await h.engine.submit([a_job()])
    h.advance(1.0)
    assert await _cancel(h) is CancelOutcome.CANCELLED
    row = await look(h.engine)
    assert (row.status, row.cancel_reason, row.ended_at) == (JobStatus.CANCELLED, USER, h.clock.wall())
    assert row.expires_at is not None
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == []


async def a_scheduled_job_is_cancelled_at_once(h: Harness) -> None:
    """Its time comes, and nothing happens."""
    await h.engine.submit([a_job(delay_seconds=60.0)])
    assert await _cancel(h) is CancelOutcome.CANCELLED
    await h.engine.join(a_worker())
    h.advance(61.0)
    assert await take_ids(h.engine) == []
    assert await status_of(h.engine) is JobStatus.CANCELLED


async def a_waiting_job_is_cancelled_at_once(h: Harness) -> None:
    """It sleeps and waits for a message; neither wakes it any more, and it holds no waits."""
    attempt = await start(h.engine)
    nap, go = Wait("nap", WaitKind.SLEEP, seconds=60.0), Wait("go", WaitKind.SIGNAL, "go")
    await end(h.engine, "a", attempt, Suspended((nap, go)))
    assert await _cancel(h) is CancelOutcome.CANCELLED
    assert await h.engine.send("a", "go", "1") is JobStatus.CANCELLED
    h.advance(61.0)
    await h.engine.renew(WORKER)
    result = await ask(h.engine)
    assert (result.jobs, result.next_due_seconds) == ([], None)
    row = await look(h.engine)
    assert (row.status, row.cancel_reason, row.waits) == (JobStatus.CANCELLED, USER, ())
    assert await h.engine.steps("a") == []


async def a_running_job_is_asked(h: Harness) -> None:
    """Its worker hears of it at the next renewal, and at each one until the attempt has ended."""
    attempt = await start(h.engine)
    assert await h.engine.renew(WORKER) == Renewal(True, [])
    assert await _cancel(h) is CancelOutcome.REQUESTED
    row = await look(h.engine)
    assert (row.status, row.cancel_reason, row.ended_at) == (JobStatus.RUNNING, USER, None)
    for _ in range(2):
        assert await h.engine.renew(WORKER) == Renewal(True, [CancelRequest("a", attempt, USER)])
    assert await end(h.engine, "a", attempt, Cancelled(USER)) is JobStatus.CANCELLED
    assert await h.engine.renew(WORKER) == Renewal(True, [])


async def a_cancel_is_told_to_the_worker_that_runs_it(h: Harness) -> None:
    """Two workers, three jobs, two cancels: each worker hears of its own."""
    first = await start(h.engine, "a", "w")
    second = await start(h.engine, "b", "v")
    await start(h.engine, "c", "w")
    await _cancel(h, "a")
    await _cancel(h, "b", StopReason.TIMEOUT)
    assert await h.engine.renew("w") == Renewal(True, [CancelRequest("a", first, USER)])
    assert await h.other.renew("v") == Renewal(True, [CancelRequest("b", second, StopReason.TIMEOUT)])


async def a_request_may_be_read_without_a_renewal(h: Harness) -> None:
    """A worker hears that something changed and looks for cancels; its lease is as long as before."""
    attempt = await start(h.engine)
    assert await h.engine.cancel_requests(WORKER) == []
    await _cancel(h)
    h.advance(LEASE_SECONDS - 1.0)
    assert await h.engine.cancel_requests(WORKER) == [CancelRequest("a", attempt, USER)]
    assert await h.engine.cancel_requests("another") == []
    h.advance(2.0)
    assert [job.id for job in await h.other.rescue("v")] == ["a"]
    assert await h.engine.cancel_requests(WORKER) == []


async def a_request_outlives_a_restart(h: Harness) -> None:
    """A cancel is a fact, not a message: it is there after everything was closed and opened again."""
    attempt = await start(h.engine)
    await _cancel(h)
    await h.reopen()
    assert (await h.engine.renew(WORKER)).cancels == [CancelRequest("a", attempt, USER)]


async def every_reason_is_kept(h: Harness) -> None:
    """Cancels for each of the reasons there are."""
    for reason in StopReason:
        await h.engine.submit([a_job(f"queued {reason}")])
        await _cancel(h, f"queued {reason}", reason)
        assert (await look(h.engine, f"queued {reason}")).cancel_reason is reason
        await start(h.engine, f"running {reason}")
        await _cancel(h, f"running {reason}", reason)
        assert (await look(h.engine, f"running {reason}")).cancel_reason is reason


async def the_first_reason_stays(h: Harness) -> None:
    """A user cancels, then a group that ends cancels too, and the attempt ends for a third reason."""
    attempt = await start(h.engine)
    assert await _cancel(h) is CancelOutcome.REQUESTED
    assert await _cancel(h, reason=StopReason.GROUP) is CancelOutcome.REQUESTED
    assert (await h.engine.renew(WORKER)).cancels == [CancelRequest("a", attempt, USER)]
    await end(h.engine, "a", attempt, Cancelled(StopReason.TIMEOUT))
    assert (await look(h.engine)).cancel_reason is USER


async def an_ended_job_has_ended(h: Harness) -> None:
    """Cancels of jobs that are completed, failed and cancelled change nothing."""
    outcomes: dict[str, Outcome] = {
        "a": Completed("1"),
        "b": Failed(ERROR),
        "c": Cancelled(StopReason.TIMEOUT),
    }
    for job_id, outcome in outcomes.items():
        attempt = await start(h.engine, job_id)
        await end(h.engine, job_id, attempt, outcome)
    before = await everything(h.engine)
    for job_id in outcomes:
        assert await _cancel(h, job_id) is CancelOutcome.ALREADY_ENDED
    assert await everything(h.engine) == before


async def an_unknown_job_is_unknown(h: Harness) -> None:
    """The id is wrong, or the job has been pruned."""
    assert await _cancel(h, "nothing") is CancelOutcome.UNKNOWN


async def a_result_stands_against_a_request(h: Harness) -> None:
    """The function returned before it heard of the cancel."""
    attempt = await start(h.engine)
    await _cancel(h)
    assert await end(h.engine, "a", attempt, Completed("7")) is JobStatus.COMPLETED
    row = await look(h.engine)
    assert (row.status, row.result) == (JobStatus.COMPLETED, "7")


async def a_final_failure_stands_against_a_request(h: Harness) -> None:
    """It raised, for the last time, before it heard of the cancel."""
    attempt = await start(h.engine)
    await _cancel(h)
    assert await end(h.engine, "a", attempt, Failed(ERROR)) is JobStatus.FAILED
    row = await look(h.engine)
    assert (row.status, row.error) == (JobStatus.FAILED, ERROR)


async def a_request_wins_over_a_retry(h: Harness) -> None:
    """It raised and would be tried again; the failure is charged, but nobody tries."""
    attempt = await start(h.engine)
    await _cancel(h)
    assert await end(h.engine, "a", attempt, Failed(ERROR, retry_in_seconds=1.0)) is JobStatus.CANCELLED
    await _stays_cancelled(h)
    assert (await look(h.engine)).failures == 1
    last = await last_attempt(h.engine)
    assert (last.outcome, last.error) == (AttemptOutcome.FAILED, ERROR)


async def a_request_wins_over_a_hand_over(h: Harness) -> None:
    """A user's cancel races a deploy."""
    attempt = await start(h.engine)
    await _cancel(h)
    assert await end(h.engine, "a", attempt, HandedOver()) is JobStatus.CANCELLED
    await _stays_cancelled(h)


async def a_request_wins_over_a_suspension(h: Harness) -> None:
    """It was about to wait, once for an hour and once for something that is there already."""
    attempt = await start(h.engine, "a")
    await _cancel(h)
    nap = Wait("nap", WaitKind.SLEEP, seconds=3600.0)
    assert await end(h.engine, "a", attempt, Suspended((nap,))) is JobStatus.CANCELLED
    await _stays_cancelled(h)
    attempt = await start(h.engine, "b")
    await h.engine.send("b", "go", "1")
    await _cancel(h, "b")
    go = Wait("go", WaitKind.SIGNAL, "go")
    assert await end(h.engine, "b", attempt, Suspended((go,))) is JobStatus.CANCELLED
    await _stays_cancelled(h, "b")


async def a_request_wins_over_a_loss(h: Harness) -> None:
    """The worker dies after the cancel was requested, before it heard of it."""
    attempt = await start(h.engine)
    await _cancel(h)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.join(a_worker("v"))
    (rescued,) = await h.other.rescue("v")
    assert (rescued.id, rescued.attempt, rescued.status) == ("a", attempt, JobStatus.CANCELLED)
    await _stays_cancelled(h)
    assert (await last_attempt(h.engine)).outcome is AttemptOutcome.LOST


async def a_request_wins_over_a_resignation(h: Harness) -> None:
    """The worker goes with the job in its hands, and the cancel under way."""
    await start(h.engine)
    await _cancel(h)
    assert await h.engine.resign(WORKER) == 1
    await _stays_cancelled(h)


async def a_cancel_after_a_hand_over_finds_it_queued(h: Harness) -> None:
    """The user cancels between two workers."""
    attempt = await start(h.engine)
    await end(h.engine, "a", attempt, HandedOver())
    assert await _cancel(h) is CancelOutcome.CANCELLED
    await _stays_cancelled(h)


async def a_new_attempt_knows_nothing_of_an_old_cancel(h: Harness) -> None:
    """A cancelled job is retried by hand and runs again: its worker is not asked to cancel it."""
    await start(h.engine)
    await _cancel(h)
    await end(h.engine, "a", 1, Cancelled(USER))
    await h.engine.retry("a")
    (job,) = await take(h.engine)
    assert job.attempt == 2
    assert await h.engine.renew(WORKER) == Renewal(True, [])
    assert await end(h.engine, "a", 2, HandedOver()) is JobStatus.QUEUED


async def _stays_cancelled(h: Harness, job_id: str = "a") -> None:
    row = await look(h.engine, job_id)
    assert (row.status, row.cancel_reason, row.waits) == (JobStatus.CANCELLED, USER, ())
    assert row.ended_at == h.clock.wall()
    await h.engine.join(a_worker("late"))
    h.advance(3.0)
    assert await take_ids(h.engine, "late") == []
