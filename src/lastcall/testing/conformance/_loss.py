"""Lost attempts: not charged, but a job that keeps killing its workers is stopped."""

from __future__ import annotations

import json

from ...jobs._rows import Failed, HandedOver, StepRecord, Suspended, Wait
from ...jobs._state import AttemptOutcome, JobStatus, StepStatus, WaitKind
from ._harness import Harness
from ._support import ERROR, LEASE_SECONDS, a_worker, again, done, end, last_attempt, look, start, take_ids


async def _lose(h: Harness) -> JobStatus:
    """The worker dies; what its one job has become."""
    h.advance(LEASE_SECONDS + 1.0)
    (rescued,) = await h.other.rescue("rescuer")
    return rescued.status


async def _go_on(h: Harness) -> int:
    await h.engine.join(a_worker())
    return await again(h.engine)


async def too_many_losses_in_a_row_fail(h: Harness) -> None:
    """A job takes its worker down three times without getting further; the error says so."""
    await start(h.engine, max_lost=3)
    for _ in range(2):
        assert await _lose(h) is JobStatus.QUEUED
        await _go_on(h)
    assert await _lose(h) is JobStatus.FAILED
    row = await look(h.engine)
    assert (row.status, row.lost, row.failures, row.ended_at) == (JobStatus.FAILED, 3, 0, h.clock.wall())
    assert row.expires_at is not None
    error = json.loads(row.error or "")
    assert set(error) >= {"type", "message", "traceback"}
    assert "3 attempts in a row were lost" in error["message"]
    attempts = await h.engine.attempts("a")
    assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.LOST] * 3


async def one_loss_may_be_too_many(h: Harness) -> None:
    """A job that must not be tried again after a crash."""
    await start(h.engine, max_lost=1)
    assert await _lose(h) is JobStatus.FAILED
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == []


async def progress_begins_the_count_anew(h: Harness) -> None:
    """Every attempt completes one more step before its worker dies: the job lives on, eight times."""
    attempt = await start(h.engine, max_lost=2)
    for n in range(8):
        await h.engine.record_step("a", attempt, done(f"{n}"))
        assert await _lose(h) is JobStatus.QUEUED
        attempt = await _go_on(h)
    assert (await look(h.engine)).lost == 8
    assert await _lose(h) is JobStatus.FAILED


async def a_step_only_started_is_no_progress(h: Harness) -> None:
    """The worker dies in the middle of the same step, whose start was written down, each time."""
    attempt = await start(h.engine, max_lost=2)
    for expected in (JobStatus.QUEUED, JobStatus.FAILED):
        await h.engine.record_step("a", attempt, StepRecord("s", StepStatus.STARTED))
        await h.engine.record_step("a", attempt, StepRecord("t", StepStatus.FAILED, error=ERROR))
        assert await _lose(h) is expected
        if expected is JobStatus.QUEUED:
            attempt = await _go_on(h)


async def a_step_written_again_is_no_progress(h: Harness) -> None:
    """The attempts complete the same step again and again."""
    attempt = await start(h.engine, max_lost=2)
    await h.engine.record_step("a", attempt, done("s"))
    assert await _lose(h) is JobStatus.QUEUED
    attempt = await _go_on(h)
    await h.engine.record_step("a", attempt, done("s"))
    assert await _lose(h) is JobStatus.FAILED


async def a_wait_that_came_is_progress(h: Harness) -> None:
    """Between two losses the job had slept: it got further."""
    attempt = await start(h.engine, max_lost=2)
    assert await _lose(h) is JobStatus.QUEUED
    attempt = await _go_on(h)
    await end(h.engine, "a", attempt, Suspended((Wait("nap", WaitKind.SLEEP, seconds=0.0),)))
    await _go_on(h)
    assert await _lose(h) is JobStatus.QUEUED


async def a_hand_over_between_losses_changes_nothing(h: Harness) -> None:
    """Lost, handed over, lost: two losses in a row without progress."""
    await start(h.engine, max_lost=2)
    assert await _lose(h) is JobStatus.QUEUED
    attempt = await _go_on(h)
    await end(h.engine, "a", attempt, HandedOver())
    await _go_on(h)
    assert await _lose(h) is JobStatus.FAILED


async def all_attempts_together_are_capped(h: Harness) -> None:
    """Failures and losses count together against `max_attempts`, whatever the progress."""
    attempt = await start(h.engine, max_attempts=4, max_lost=10)
    for n in range(2):
        await end(h.engine, "a", attempt, Failed(ERROR, retry_in_seconds=0.0))
        attempt = await _go_on(h)
        await h.engine.record_step("a", attempt, done(f"{n}"))
    assert await _lose(h) is JobStatus.QUEUED
    attempt = await _go_on(h)
    await h.engine.record_step("a", attempt, done("more"))
    assert await _lose(h) is JobStatus.FAILED
    row = await look(h.engine)
    assert (row.failures, row.lost, row.attempt) == (2, 2, 4)
    assert "max_attempts=4" in json.loads(row.error or "")["message"]


async def a_loss_is_no_failure(h: Harness) -> None:
    """A lost attempt is not charged: the next one is told of no failure."""
    await start(h.engine)
    assert await _lose(h) is JobStatus.QUEUED
    await h.engine.join(a_worker())
    await again(h.engine)
    row = await look(h.engine)
    assert (row.failures, row.lost, row.error) == (0, 1, None)
    assert (await h.engine.attempts("a"))[0].error is None
    assert (await last_attempt(h.engine)).outcome is None


async def a_retry_by_hand_forgives_losses(h: Harness) -> None:
    """A job failed by its losses is retried: the count begins anew."""
    await start(h.engine, max_lost=2)
    assert await _lose(h) is JobStatus.QUEUED
    await _go_on(h)
    assert await _lose(h) is JobStatus.FAILED
    await h.engine.retry("a")
    await _go_on(h)
    assert await _lose(h) is JobStatus.QUEUED
    assert (await look(h.engine)).lost == 1
