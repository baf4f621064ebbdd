"""Bad input for the Celery carrier: a clear error, nothing lost."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from celery import Celery

from bench.jobs.redis_server import free_port
from lastcall.dispatch.celery import CeleryCarrier
from lastcall.exceptions import BadDeclaration, BrokerUnavailable, InstallError, JobFailed, UnknownTaskName
from lastcall.jobs import Jobs, JobStatus
from tests.dispatch.celery_program import Program
from tests.dispatch.fleet import Fleet
from tests.dispatch.work import Place
from tests.support.processes import PATIENCE_SECONDS

pytestmark = pytest.mark.loops("asyncio")


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Program]:
    """A program whose broker is away."""
    yield Program(Place(str(tmp_path), f"redis://127.0.0.1:{free_port()}/0"))


async def test_the_broker_is_away(away: Program) -> None:
    """Nobody listens where the broker should be: the job is written down, a task of Celery's own is refused."""
    async with away.carrier:
        job = await away.work.add.submit(2, 3)
        assert await job.status() is JobStatus.QUEUED
        with pytest.raises(BrokerUnavailable, match="'double' was not sent"):
            await away.carrier.submit(away.double, 2)
    async with away.jobs:
        assert await job.status() is JobStatus.QUEUED


async def test_a_task_that_does_not_exist(away: Program) -> None:
    """A task is misspelled, and the error names those that there are."""
    with pytest.raises(
        UnknownTaskName, match="no task 'dubble'; it knows: double, fail, lastcall.run_job, wait"
    ):
        await away.carrier.submit("dubble", 2)


async def test_no_results_are_kept(away: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task has ignore_result=True, and somebody waits for its result, which would be for ever."""
    monkeypatch.setattr(away.double, "ignore_result", True)
    monkeypatch.setattr("lastcall.dispatch.celery._send", lambda *_: "0190a1b2")
    sent = await away.carrier.submit(away.double, 2)
    with pytest.raises(BadDeclaration, match="declared with ignore_result=True"):
        await sent.result(timeout=1)


def test_an_eager_app(tmp_path: Path) -> None:
    """An app runs its tasks in the caller, so no worker would ever get a message."""
    app = Celery("eager", set_as_current=False)
    app.conf.task_always_eager = True
    with pytest.raises(BadDeclaration, match="task_always_eager"):
        CeleryCarrier(app, Jobs(f"sqlite:///{tmp_path}/jobs.db"))


def test_outside_of_a_worker(away: Program) -> None:
    """Somebody calls the task that carries jobs, in a program that is no worker."""
    with pytest.raises(InstallError, match="celery -A that_module worker"):
        away.carrier._task("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")


@pytest.mark.server
async def test_a_pool_that_cannot_carry(fleet: Fleet) -> None:
    """A worker is started with a pool like gevent's: it does not start, and says which pools can."""
    worker = fleet.celery("custom", CELERY_CUSTOM_WORKER_POOL="tests.dispatch.odd_pool:TaskPool")
    assert await fleet.ended(worker) != 0
    assert "Start the worker with --pool prefork, threads or solo" in fleet.log()


@pytest.mark.server
async def test_a_store_of_a_newer_version(fleet: Fleet) -> None:
    """A worker of an old version meets a store of a newer one: it says so for every message, and changes nothing."""
    program = Program(fleet.place)
    async with program.jobs:
        job = await program.work.add.submit(2, 3)
    _make_newer(Path(fleet.place.folder) / "jobs.db")
    fleet.celery("threads")
    sent = await program.carrier.submit(program.carrier._task.s(job.id).set(ignore_result=False))
    sent._blind = None  # the carrier's own task keeps no results, unless asked to
    with pytest.raises(JobFailed, match="InstallError: the carried worker could not start: .*newer"):
        await sent.result(timeout=PATIENCE_SECONDS)


def _make_newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 999999")
