"""Decisions about jobs, apart from carrying them out. Pure: no clock, no store, no loop."""

from __future__ import annotations

from typing import NamedTuple

from ._state import JobStatus


class Loss(NamedTuple):
    """What is known of a job whose attempt was lost.

    `lost_in_a_row` and `steps_at_last_loss` as they were before this loss; `lost` and `failures` count all before it.
    """

    cancel_requested: bool
    completed_steps: int
    steps_at_last_loss: int
    lost_in_a_row: int
    lost: int
    failures: int
    max_lost: int
    max_attempts: int


class AfterLoss(NamedTuple):
    """What the job becomes, the count of losses in a row from now on, and, if it failed, why.

    `suspect`: it may be what kills its workers, so it is to run alone, until it has completed a new step.
    """

    status: JobStatus
    lost_in_a_row: int
    why: str | None = None
    suspect: bool = False


def after_loss(loss: Loss) -> AfterLoss:
    """A lost attempt is not charged, but a job that keeps killing its worker is stopped.

    A user's cancel wins. A new completed step since the last loss is progress and begins the count anew: a long job
    may outlive many deploys, but one that takes its worker down at the same place may do so `max_lost` times only.

    Who dies with it cannot be told from it. So before the loss that would fail a job, it becomes a suspect: that loss
    it can only have when nothing ran beside it. (Not so the cap on all attempts, which says how often, not why.)
    """
    in_a_row = 1 if loss.completed_steps > loss.steps_at_last_loss else loss.lost_in_a_row + 1
    if loss.cancel_requested:
        return AfterLoss(JobStatus.CANCELLED, in_a_row)
    if in_a_row >= loss.max_lost:
        why = (
            f"{in_a_row} attempts in a row were lost without a new completed step (max_lost={loss.max_lost})"
        )
        return AfterLoss(JobStatus.FAILED, in_a_row, why)
    if loss.lost + 1 + loss.failures >= loss.max_attempts:
        why = (
            f"{loss.lost + 1 + loss.failures} attempts failed or were lost (max_attempts={loss.max_attempts})"
        )
        return AfterLoss(JobStatus.FAILED, in_a_row, why)
    # With a `max_lost` of 1 there is no next loss: it has failed above.
    suspect = in_a_row >= loss.max_lost - 1
    return AfterLoss(JobStatus.QUEUED, in_a_row, suspect=suspect)
