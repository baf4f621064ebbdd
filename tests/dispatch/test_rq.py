"""RQ workers carry jobs, and lose and double none, whatever becomes of messages and workers."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from bench.jobs.redis_server import RedisServer, free_port
from lastcall.dispatch.rq import RqCarrier, run_job
from lastcall.exceptions import BadDeclaration, BrokerUnavailable, InstallError, JobCancelled, JobFailed
from lastcall.jobs import Jobs, JobStatus
from tests.dispatch import rq_program
from tests.dispatch.fleet import Fleet, until_async
from tests.dispatch.rq_program import Program
from tests.dispatch.work import Place
from tests.jobs.crash.ledger import having
from tests.support.processes import PATIENCE_SECONDS

pytestmark = [pytest.mark.server, pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]


def start(fleet: Fleet, kind: str = "tests.dispatch.rq_program.Worker") -> subprocess.Popen[bytes]:
    return fleet.start("rq.cli", "worker", "--url", fleet.place.broker, "--worker-class", kind, "jobs")


@pytest.fixture
def program(fleet: Fleet) -> Iterator[Program]:
    program = Program(fleet.place)
    yield program
    program.redis.close()


@pytest.fixture(scope="module")
def shared(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker for all tests that leave it alive."""
    with Fleet(Place(str(tmp_path_factory.mktemp("shared-rq")), redis.new_url())) as fleet:
        start(fleet)
        yield fleet


@pytest.fixture
def living(shared: Fleet) -> Iterator[Program]:
    program = Program(shared.place)
    yield program
    program.redis.close()


async def test_a_job_runs(living: Program) -> None:
    """A job is submitted, and an RQ worker runs it."""
    async with living.carrier:
        job = await living.work.add.submit(2, 3)
        assert await job.result(timeout=PATIENCE_SECONDS) == 5


async def test_messages_come_twice_or_not_at_all(living: Program) -> None:
    """One job's message comes five times, another one's never; a third message has no job at all."""
    async with living.jobs:
        twice, never = await living.work.add.submit(2, 3), await living.work.add.submit(3, 4)
        for job_id in [twice.id] * 5 + ["no id"]:
            living.carrier._publish(job_id, "default")
        assert await twice.result(timeout=PATIENCE_SECONDS) == 5
        assert await never.result(timeout=PATIENCE_SECONDS) == 7
        assert [len(await job.attempts()) for job in (twice, never)] == [1, 1]


async def test_a_cancel_reaches_the_job(shared: Fleet, living: Program) -> None:
    """Somebody cancels a job that runs inside an RQ worker."""
    async with living.carrier:
        job = await living.work.endless.submit()
        await shared.told("began", job=job.id)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=PATIENCE_SECONDS)
    assert having(shared.lines(), "left", job=job.id, key="user")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_worker_ends(fleet: Fleet, program: Program, how: signal.Signals) -> None:
    """In the middle of a job of steps its worker is told to stop, or is killed: another one goes on."""
    fleet.place.gate(0).touch()
    async with program.carrier:
        first = start(fleet)
        job = await program.work.stepping.submit(3)
        line = await fleet.told("start", key="step 1")
        start(fleet)
        first.send_signal(how)
        if how is signal.SIGKILL:
            await fleet.told("start", key="step 1", attempt=2)
        else:
            await fleet.told("told", key="step 1")
        fleet.place.gate(1).touch()
        next_line = await fleet.told("start", key="step 2")
        fleet.place.gate(2).touch()
        assert await job.result(timeout=PATIENCE_SECONDS) == 3
        outcomes = [str(attempt.outcome) for attempt in await job.attempts()]
    assert outcomes == ["lost" if how is signal.SIGKILL else "handed_over", "completed"]
    assert await fleet.ended(first) == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    assert next_line.pid != line.pid
    ends = [line.key for line in having(fleet.lines(), "end")]
    assert ends == ["step 0", "step 1", "step 2"]
    if how is signal.SIGTERM:
        assert [line.key for line in having(fleet.lines(), "start")] == ends


async def test_a_job_of_rqs_own(fleet: Fleet, program: Program) -> None:
    """RQ's own jobs are started, watched and awaited from asyncio; one fails, one is stopped, one never begins."""
    start(fleet, "rq.Worker")
    sent = await program.carrier.submit(rq_program.double, 21)
    assert await sent.result(timeout=PATIENCE_SECONDS) == 42
    failing = await program.carrier.submit(rq_program.fail)
    with pytest.raises(JobFailed, match="ValueError: as agreed"):
        await failing.result(timeout=PATIENCE_SECONDS)
    running = await program.carrier.submit("tests.dispatch.rq_program.wait")

    async def runs() -> bool:
        return await running.status() is JobStatus.RUNNING

    await until_async(runs, "its start")
    queued = await program.carrier.submit(rq_program.double, 21)
    for one in (queued, running):
        await one.cancel()
        assert await one.wait(timeout=PATIENCE_SECONDS) is JobStatus.CANCELLED


async def test_a_worker_that_cannot_carry(fleet: Fleet, program: Program) -> None:
    """RQ's usual worker gets a message: it says which class is needed, and the job stays in its queue."""
    start(fleet, "rq.Worker")
    async with program.jobs:
        job = await program.work.add.submit(2, 3)
        sent = await program.carrier.submit(run_job, job.id)
        with pytest.raises(JobFailed, match="--worker-class"):
            await sent.result(timeout=PATIENCE_SECONDS)
        assert await job.status() is JobStatus.QUEUED


async def test_the_broker_is_away(tmp_path: Path) -> None:
    """Nobody listens where Redis should be: the job is written down, a job of RQ's own is refused."""
    program = Program(Place(str(tmp_path), f"redis://127.0.0.1:{free_port()}/0"))
    async with program.carrier:
        job = await program.work.add.submit(2, 3)
        with pytest.raises(BrokerUnavailable, match="was not sent"):
            await program.carrier.submit(rq_program.double, 2)
        assert await job.status() is JobStatus.QUEUED


def test_bad_input(tmp_path: Path) -> None:
    """A queue that runs everything in the caller; and the carrying function, called by hand."""
    with pytest.raises(BadDeclaration, match="is_async=False"):
        queue = Queue("jobs", connection=Redis(port=1), is_async=False)
        RqCarrier(queue, Jobs(f"sqlite:///{tmp_path}/jobs.db"))
    with pytest.raises(InstallError, match="worker_class"):
        run_job("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
