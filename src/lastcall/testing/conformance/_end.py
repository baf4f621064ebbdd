"""How attempts end: every outcome, and every way in which an end comes too late."""

from __future__ import annotations

from ..._core._state import StopReason
from ...jobs._rows import (
    AttemptEnd,
    Cancelled,
    Completed,
    Failed,
    HandedOver,
    Outcome,
    Suspended,
    Wait,
)
from ...jobs._state import AttemptOutcome, JobStatus, WaitKind
from ._harness import Harness
from ._support import (
    ERROR,
    LEASE_SECONDS,
    WORKER,
    a_job,
    a_worker,
    again,
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

DAY_SECONDS = 24 * 3600.0
NAP = Suspended((Wait("nap", WaitKind.SLEEP, seconds=10.0),))
EVERY_OUTCOME: tuple[Outcome, ...] = (
    Completed("1"),
    Failed(ERROR),
    Failed(ERROR, retry_in_seconds=5.0),
    Cancelled(StopReason.USER),
    HandedOver(),
    NAP,
)


async def completed(h: Harness) -> None:
    """The function returned."""
    attempt = await start(h.engine)
    h.advance(3.0)
    assert await end(h.engine, "a", attempt, Completed('{"n": 1}')) is JobStatus.COMPLETED
    row = await look(h.other)
    assert (row.status, row.result, row.error) == (JobStatus.COMPLETED, '{"n": 1}', None)
    assert row.ended_at == h.clock.wall()
    assert row.expires_at == h.clock.wall() + 7 * DAY_SECONDS
    assert (row.worker_id, row.failures, row.lost, row.cancel_reason) == (None, 0, 0, None)
    last = await last_attempt(h.other)
    assert (last.outcome, last.reason, last.error) == (AttemptOutcome.COMPLETED, None, None)
    assert (last.worker_id, last.started_at, last.ended_at) == (WORKER, h.clock.wall() - 3.0, h.clock.wall())


async def the_retention_of_the_job_counts_from_its_end(h: Harness) -> None:
    """A job that is to be kept for a minute runs for ten seconds."""
    attempt = await start(h.engine, retention_seconds=60.0)
    h.advance(10.0)
    await end(h.engine, "a", attempt, Completed("1"))
    assert (await look(h.engine)).expires_at == h.clock.wall() + 60.0


async def failed(h: Harness) -> None:
    """It raised, and is not to be tried again."""
    attempt = await start(h.engine)
    assert await end(h.engine, "a", attempt, Failed(ERROR)) is JobStatus.FAILED
    row = await look(h.other)
    assert (row.status, row.error, row.result, row.failures) == (JobStatus.FAILED, ERROR, None, 1)
    assert row.ended_at == h.clock.wall()
    last = await last_attempt(h.other)
    assert (last.outcome, last.error, last.ended_at) == (AttemptOutcome.FAILED, ERROR, h.clock.wall())


async def failed_and_tried_again(h: Harness) -> None:
    """It raised twice, is tried again after a while each time, and then returns."""
    attempt = await start(h.engine)
    for n in (1, 2):
        assert await end(h.engine, "a", attempt, Failed(ERROR, 30.0)) is JobStatus.SCHEDULED
        row = await look(h.other)
        assert (row.status, row.failures, row.ended_at) == (JobStatus.SCHEDULED, n, None)
        assert row.due_at == h.clock.wall() + 30.0
        last = await last_attempt(h.other)
        assert (last.outcome, last.error) == (AttemptOutcome.FAILED, ERROR)
        h.advance(29.0)
        await h.engine.renew(WORKER)
        assert await take_ids(h.engine) == []
        h.advance(1.0)
        attempt = await again(h.engine)
        assert attempt == n + 1
    assert await end(h.engine, "a", attempt, Completed("1")) is JobStatus.COMPLETED
    row = await look(h.engine)
    assert (row.failures, row.error) == (2, None)


async def failed_and_tried_again_at_once(h: Harness) -> None:
    """A retry without a pause."""
    attempt = await start(h.engine)
    await end(h.engine, "a", attempt, Failed(ERROR, retry_in_seconds=0.0))
    assert await again(h.engine) == 2


async def cancelled(h: Harness) -> None:
    """It was cancelled by a user, and raised while it cleaned up; another one by its own time limit."""
    attempt = await start(h.engine)
    assert await end(h.engine, "a", attempt, Cancelled(StopReason.USER, ERROR)) is JobStatus.CANCELLED
    row = await look(h.other)
    assert (row.status, row.cancel_reason, row.error) == (JobStatus.CANCELLED, StopReason.USER, ERROR)
    assert (row.ended_at, row.failures) == (h.clock.wall(), 0)
    last = await last_attempt(h.other)
    assert (last.outcome, last.reason, last.error) == (AttemptOutcome.CANCELLED, "user", ERROR)
    attempt = await start(h.engine, "b")
    await end(h.engine, "b", attempt, Cancelled(StopReason.TIMEOUT))
    assert ((await look(h.other, "b")).cancel_reason, (await look(h.other, "b")).error) == ("timeout", None)


async def handed_over(h: Harness) -> None:
    """An orderly stop: nothing is charged, and another worker goes on at once."""
    attempt = await start(h.engine)
    assert await end(h.engine, "a", attempt, HandedOver()) is JobStatus.QUEUED
    row = await look(h.other)
    assert (row.status, row.failures, row.lost, row.error) == (JobStatus.QUEUED, 0, 0, None)
    assert (row.worker_id, row.ended_at) == (None, None)
    last = await last_attempt(h.other)
    assert (last.outcome, last.reason, last.error) == (AttemptOutcome.HANDED_OVER, "shutdown", None)
    await h.other.join(a_worker("v"))
    assert await take_ids(h.other, "v") == ["a"]


async def handed_over_for_another_reason(h: Harness) -> None:
    """A job is given back because its group of tasks ended."""
    attempt = await start(h.engine)
    await end(h.engine, "a", attempt, HandedOver(StopReason.GROUP))
    assert (await last_attempt(h.engine)).reason == "group"


async def handed_over_many_times(h: Harness) -> None:
    """A long job outlives more deploys than it may have attempts that fail."""
    attempt = await start(h.engine, max_attempts=3, max_lost=2)
    for n in range(10):
        assert await end(h.engine, "a", attempt, HandedOver()) is JobStatus.QUEUED
        attempt = await again(h.engine)
        assert attempt == n + 2
    assert await end(h.engine, "a", attempt, Completed("1")) is JobStatus.COMPLETED


async def suspended(h: Harness) -> None:
    """It was given back to wait: not charged, not claimable, no worker."""
    attempt = await start(h.engine)
    assert await end(h.engine, "a", attempt, NAP) is JobStatus.WAITING
    row = await look(h.other)
    assert (row.status, row.waits, row.worker_id) == (JobStatus.WAITING, NAP.waits, None)
    assert (row.failures, row.lost, row.ended_at) == (0, 0, None)
    last = await last_attempt(h.other)
    assert (last.outcome, last.reason, last.error) == (AttemptOutcome.HANDED_OVER, "waiting", None)
    assert await take_ids(h.engine) == []


async def a_second_end_is_lost(h: Harness) -> None:
    """Each outcome is followed by each other one under the same fence: the first one stands."""
    await h.engine.join(a_worker())
    for n, first in enumerate(EVERY_OUTCOME):
        for m, second in enumerate(EVERY_OUTCOME):
            job_id = f"{n}.{m}"
            await h.engine.submit([a_job(job_id, queue=job_id)])
            (job,) = await take(h.engine, queues=[job_id])
            assert await end(h.engine, job_id, job.attempt, first) is not None
            before = await everything(h.engine)
            assert await end(h.engine, job_id, job.attempt, second) is None
            assert await everything(h.engine) == before


async def an_end_twice_in_one_call_counts_once(h: Harness) -> None:
    """A worker sends the same end twice, and then a contradicting one, in one batch."""
    attempt = await start(h.engine)
    ends: list[Outcome] = [Completed("1"), Completed("1"), Failed(ERROR)]
    answers = await h.engine.finish([AttemptEnd("a", attempt, outcome) for outcome in ends])
    assert answers == [JobStatus.COMPLETED, None, None]
    assert (await look(h.engine)).failures == 0


async def a_stale_end_is_lost(h: Harness) -> None:
    """A worker that was taken for dead comes back and ends its attempt, while another one has the job."""
    attempt = await start(h.engine)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.join(a_worker("v"))
    await h.other.rescue("v")
    for stage in ("queued", "running"):
        assert await status_of(h.engine) == stage
        before = await everything(h.engine)
        for outcome in EVERY_OUTCOME:
            assert await end(h.engine, "a", attempt, outcome) is None
        assert await everything(h.engine) == before
        await take(h.other, "v")
    assert await end(h.other, "a", attempt + 1, Completed("1")) is JobStatus.COMPLETED


async def an_end_needs_the_running_attempt(h: Harness) -> None:
    """Ends with numbers of attempts that are not there yet, for jobs that do not run, and for an unknown one."""
    attempt = await start(h.engine, "running")
    await h.engine.submit([a_job("queued"), a_job("scheduled", delay_seconds=60.0)])
    before = await everything(h.engine)
    for outcome in EVERY_OUTCOME:
        answers = await h.engine.finish(
            [
                AttemptEnd("running", attempt + 1, outcome),
                AttemptEnd("running", 0, outcome),
                AttemptEnd("queued", 0, outcome),
                AttemptEnd("queued", 1, outcome),
                AttemptEnd("scheduled", 0, outcome),
                AttemptEnd("unknown", 1, outcome),
            ]
        )
        assert answers == [None] * 6
    assert await everything(h.engine) == before


async def many_ends_in_one_call(h: Harness) -> None:
    """Every outcome and a lost one in one batch; the answers come in its order."""
    ids = [f"{n}" for n in range(len(EVERY_OUTCOME))]
    await h.engine.submit([a_job(job_id) for job_id in ids])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == ids
    ends = [AttemptEnd(job_id, 1, outcome) for job_id, outcome in zip(ids, EVERY_OUTCOME, strict=True)]
    answers = await h.engine.finish([*ends[:3], AttemptEnd("unknown", 1, Completed("1")), *ends[3:]])
    assert answers == [
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.SCHEDULED,
        None,
        JobStatus.CANCELLED,
        JobStatus.QUEUED,
        JobStatus.WAITING,
    ]
    assert [row.status for row in await h.engine.get(ids)] == [answer for answer in answers if answer]


async def an_empty_batch_of_ends_is_nothing(h: Harness) -> None:
    """A worker had nothing to end after all."""
    assert await h.engine.finish([]) == []


async def a_stored_text_is_never_read(h: Harness) -> None:
    """Results, errors and values that are no JSON come back as they were: the engine does not look inside."""
    attempt = await start(h.engine, args="{not json", options="neither")
    await end(h.engine, "a", attempt, Completed("nor {this"))
    row = await look(h.engine)
    assert (row.args, row.options, row.result) == ("{not json", "neither", "nor {this")
    assert (await ask(h.engine)).jobs == []
