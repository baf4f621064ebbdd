"""Submitting."""

from lastcall.jobs import Jobs, JobStatus
from tests.jobs.conftest import Store


async def test_submit_returns_after_the_commit(jobs: Jobs, store: Store) -> None:
    """A job that was submitted is seen by another process at once."""

    @jobs.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with jobs:
        job = await add.submit(1, 2)
        (row,) = await store.rows()
    assert (row.id, row.task, row.args) == (job.id, "add", '{"a":1,"b":2}')
    assert row.status is JobStatus.QUEUED
