"""The table of what may follow what, and what a lost attempt comes to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall import StopReason
from lastcall.jobs import AttemptOutcome, CancelOutcome, JobStatus, StepPolicy, StepStatus
from lastcall.jobs._policy import Loss, after_loss
from lastcall.jobs._state import FINAL, TRANSITIONS, Cause

ENDS = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}


def reached_from(status: JobStatus, *, by_hand: bool = True) -> set[JobStatus]:
    """Every status that a job can come to from this one."""
    found: set[JobStatus] = set()
    todo = [status]
    while todo:
        for cause, afters in TRANSITIONS[todo.pop()].items():
            if by_hand or cause is not Cause.RETRY_BY_HAND:
                todo += afters - found
                found |= afters
    return found


def test_every_status_has_a_row() -> None:
    """Nothing is left out, and nothing leads out of the table."""
    assert set(TRANSITIONS) == set(JobStatus)
    assert all(
        afters and afters <= set(JobStatus) for causes in TRANSITIONS.values() for afters in causes.values()
    )


def test_every_cause_stands_in_the_table() -> None:
    """Each word for a change changes something; a submission is what makes a job."""
    used = {cause for causes in TRANSITIONS.values() for cause in causes}
    assert used | {Cause.SUBMIT} == set(Cause) and Cause.SUBMIT not in used


def test_what_is_final_stays() -> None:
    """Only a retry by hand leads back, and never from a result."""
    assert {status for status in JobStatus if status.final} == FINAL == ENDS
    assert TRANSITIONS[JobStatus.COMPLETED] == {}
    for status in (JobStatus.FAILED, JobStatus.CANCELLED):
        assert TRANSITIONS[status] == {Cause.RETRY_BY_HAND: frozenset({JobStatus.QUEUED})}
    assert all(Cause.RETRY_BY_HAND not in TRANSITIONS[status] for status in set(JobStatus) - ENDS)


@pytest.mark.parametrize("status", sorted(set(JobStatus) - ENDS))
def test_no_job_is_stuck(status: JobStatus) -> None:
    """From every status all ends can be reached without a hand, and it can be cancelled at once or by request."""
    assert reached_from(status, by_hand=False) >= ENDS
    assert TRANSITIONS[status][Cause.CANCEL] == {JobStatus.CANCELLED}


def test_every_status_is_reached() -> None:
    """None is only a word."""
    assert reached_from(JobStatus.SCHEDULED) | {JobStatus.SCHEDULED} == set(JobStatus)


def test_only_a_claim_makes_a_job_run() -> None:
    """Nobody runs what he does not hold, and what waits must be queued first."""
    into = {
        (before, cause)
        for before, causes in TRANSITIONS.items()
        for cause, afters in causes.items()
        if JobStatus.RUNNING in afters
    }
    assert into == {(JobStatus.QUEUED, Cause.CLAIM)}


@pytest.mark.parametrize("cause", [Cause.HAND_OVER, Cause.SUSPEND, Cause.LOSE, Cause.RETRY_LATER])
def test_a_cancel_can_win_whenever_a_job_is_given_back(cause: Cause) -> None:
    """Whoever gives a job back may find that it was cancelled meanwhile; and none of this completes it."""
    afters = TRANSITIONS[JobStatus.RUNNING][cause]
    assert JobStatus.CANCELLED in afters and JobStatus.COMPLETED not in afters


def test_the_words_are_those_of_the_vocabulary() -> None:
    """What is stored and shown are these words: a new version must not spell them otherwise."""
    assert list(JobStatus) == [
        "scheduled",
        "queued",
        "running",
        "waiting",
        "completed",
        "failed",
        "cancelled",
    ]
    assert list(AttemptOutcome) == ["completed", "failed", "cancelled", "handed_over", "lost"]
    assert list(StepStatus) == ["started", "completed", "failed"]
    assert list(StepPolicy) == ["replay", "once", "continue"]
    assert list(CancelOutcome) == ["cancelled", "requested", "already_ended", "unknown"]
    assert list(StopReason) == ["user", "disconnect", "shutdown", "timeout", "group", "lease_lost"]


# --- what a lost attempt comes to ----------------------------------------------------------------------

LOSSES = st.builds(
    Loss,
    cancel_requested=st.booleans(),
    completed_steps=st.integers(0, 5),
    steps_at_last_loss=st.integers(0, 5),
    lost_in_a_row=st.integers(0, 5),
    lost=st.integers(0, 9),
    failures=st.integers(0, 9),
    max_lost=st.integers(1, 5),
    max_attempts=st.integers(1, 12),
)


@given(LOSSES)
def test_a_loss_comes_to_what_the_table_allows(loss: Loss) -> None:
    """Queued again, failed with a reason, or cancelled, if that was asked for and only then."""
    after = after_loss(loss)
    assert after.status in TRANSITIONS[JobStatus.RUNNING][Cause.LOSE]
    assert (after.status is JobStatus.CANCELLED) == loss.cancel_requested
    assert (after.why is not None) == (after.status is JobStatus.FAILED)
    assert after.lost_in_a_row >= 1


@given(LOSSES)
def test_a_loss_after_progress_begins_the_count_anew(loss: Loss) -> None:
    """A job that has completed a step since may be lost as often again."""
    progress = loss._replace(completed_steps=loss.steps_at_last_loss + 1)
    assert after_loss(progress).lost_in_a_row == 1
    stuck = loss._replace(completed_steps=loss.steps_at_last_loss)
    assert after_loss(stuck).lost_in_a_row == loss.lost_in_a_row + 1


@given(st.integers(1, 20), st.integers(1, 30), st.lists(st.booleans(), max_size=60))
def test_a_job_that_kills_its_workers_is_stopped(
    max_lost: int, max_attempts: int, progress: list[bool]
) -> None:
    """Loss after loss, with and without a step between: so many in a row and so many altogether, and not one less."""
    loss = Loss(False, 0, 0, 0, 0, 0, max_lost, max_attempts)
    in_a_row = 0
    for n, has_progress in enumerate(progress, 1):
        in_a_row = 1 if has_progress else in_a_row + 1
        loss = loss._replace(completed_steps=loss.steps_at_last_loss + has_progress)
        after = after_loss(loss)
        assert (after.status is JobStatus.FAILED) == (in_a_row >= max_lost or n >= max_attempts)
        if after.why is not None:
            assert "max_lost" in after.why if in_a_row >= max_lost else "max_attempts" in after.why
            return
        loss = loss._replace(
            lost_in_a_row=after.lost_in_a_row, lost=loss.lost + 1, steps_at_last_loss=loss.completed_steps
        )
