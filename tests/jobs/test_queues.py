"""Queues that are declared: one that is misspelled is refused wherever it is given, and nothing is written."""

import pytest

from lastcall.exceptions import BadDeclaration
from lastcall.jobs import Jobs, JobStatus
from tests.engines.model import ModelEngine

pytestmark = pytest.mark.loops("asyncio")


@pytest.fixture
def jobs() -> Jobs:
    return Jobs(ModelEngine(), queues=["default", "mail"])


async def test_a_submission_to_an_unknown_queue(jobs: Jobs) -> None:
    """`options(queue="maill")`: the error names the queue and those there are."""

    @jobs.task
    async def send() -> None: ...

    with pytest.raises(BadDeclaration, match="'maill'.*default, mail"):
        await send.options(queue="maill").submit()
    async with jobs:
        assert await jobs.find() == []
        job = await send.options(queue="mail").submit()
        assert (await job.info()).queue == "mail"


async def test_a_task_of_an_unknown_queue(jobs: Jobs) -> None:
    """A task declared for a queue that is not there would have jobs that nobody runs."""
    with pytest.raises(BadDeclaration, match="'send'.*'maill'"):

        @jobs.task(name="send", queue="maill")
        async def send() -> None: ...

    assert jobs.tasks == {}


async def test_a_worker_of_an_unknown_queue(jobs: Jobs) -> None:
    """A worker that serves a misspelled queue would idle for ever."""
    with pytest.raises(BadDeclaration, match="worker.*'maill'"):
        jobs.worker(queues=["maill"])


async def test_without_a_declaration_any_name_will_do() -> None:
    """A queue nobody serves yet: the job waits in it until somebody does."""
    jobs = Jobs(ModelEngine())

    @jobs.task
    async def send() -> None: ...

    async with jobs:
        job = await send.options(queue="later").submit()
        async with jobs.worker(queues=["default"]):
            assert await job.status() is JobStatus.QUEUED
        async with jobs.worker(queues=["later"]):
            await job.result(timeout=30)


async def test_a_result_that_is_there_needs_no_time(jobs: Jobs) -> None:
    """`timeout=0` asks whether it has ended: it has, so the result is given; it has not, so TimeoutError."""

    @jobs.task
    async def answer() -> int:
        return 42

    async with jobs:
        job = await answer.submit()
        with pytest.raises(TimeoutError):
            await job.result(timeout=0)
        async with jobs.worker():
            await job.wait(timeout=30)
        assert await job.result(timeout=0) == 42
