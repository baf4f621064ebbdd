"""The state diagrams of the docs show what the tables of the code say."""

import re

import pytest

from lastcall.jobs import JobStatus
from lastcall.jobs._state import Cause
from scripts.docs.diagrams import IMAGES, draw, job_arrows, job_picture, pictures


@pytest.mark.parametrize("name", pictures())
def test_the_picture_fits_the_table(name: str) -> None:
    """A table was changed, and the picture in the docs was not drawn anew: `python scripts/docs/diagrams.py`."""
    assert (IMAGES / name).read_text(encoding="utf-8") == draw(pictures()[name])


def test_every_state_and_cause_of_a_job_can_be_read() -> None:
    """A label that was left out of the picture would hide a way to an end."""
    text = " ".join(re.findall(r">([^<>]+)<", (IMAGES / "states-job.svg").read_text(encoding="utf-8")))
    assert [word for word in (*JobStatus, *Cause) if word not in text] == []


def test_an_arrow_without_a_place_is_refused() -> None:
    """Somebody adds a transition: the picture must not go on without it."""
    arrows = {**job_arrows(), (JobStatus.COMPLETED, JobStatus.QUEUED): [Cause.RETRY_BY_HAND]}
    with pytest.raises(ValueError, match="completed.*queued"):
        draw(job_picture(arrows))


def test_an_arrow_that_is_gone_is_refused() -> None:
    """Somebody takes a transition out of the table."""
    arrows = {pair: causes for pair, causes in job_arrows().items() if pair != ("waiting", "queued")}
    with pytest.raises(ValueError, match="waiting.*queued"):
        draw(job_picture(arrows))
