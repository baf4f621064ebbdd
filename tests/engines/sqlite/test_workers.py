"""Who is dead, by lease and by process, and who is not: real processes, and clocks that jump."""

import json
import signal
from pathlib import Path

import pytest

from lastcall.engines.sqlite._workers import Lease, is_dead
from lastcall.jobs._processes import ProcessIdentity, this_process
from lastcall.jobs._rows import AttemptEnd, ClaimRequest, Completed, NewJob, WorkerRow
from lastcall.jobs._state import JobStatus
from lastcall.testing import VirtualClock

from .support import Program, inside, opened, query

pytestmark = pytest.mark.loops("asyncio")

JOB = NewJob("a", "work", "[]")
TASKS = {("work", ""): None}
HERE = this_process()


def a_worker(worker_id: str, process: ProcessIdentity = HERE, lease_seconds: float = 3600.0) -> WorkerRow:
    return WorkerRow(worker_id, "host", *process, lease_seconds, 10, None)


async def test_a_killed_process(tmp_path: Path) -> None:
    """kill -9 while it holds a job under a lease of an hour: the job is taken at once, also while the dead one is a
    zombie that nobody has waited for."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.submit([JOB])
        with Program("hold", tmp_path / "jobs.db", "w", 3600) as program:
            program.expect("a 1")
            await engine.join(a_worker("v"))
            assert await engine.rescue("v") == []
            program.send(signal.SIGKILL)
            while not (rescued := await engine.rescue("v")):
                pass  # until the kernel has carried it out; the test's own limit ends it
            assert [(job.id, job.attempt, job.worker_id, job.status) for job in rescued] == [
                ("a", 1, "w", JobStatus.QUEUED)
            ]
            assert program.process.returncode is None  # still a zombie


async def test_a_stopped_process(tmp_path: Path) -> None:
    """SIGSTOP: it lives while its lease does, although it does nothing. Past that it is taken for dead; continued, it
    finds its writes refused and its lease gone."""
    clock = VirtualClock()
    async with opened(tmp_path / "jobs.db", clock=clock) as engine:
        await engine.submit([JOB])
        with Program("hold", tmp_path / "jobs.db", "w", 3600) as program:
            program.expect("a 1")
            program.send(signal.SIGSTOP)
            await engine.join(a_worker("v"))
            clock.advance(seconds_until_lease_ends(tmp_path, clock) - 1)
            assert await engine.rescue("v") == []
            clock.advance(2)
            assert [job.id for job in await engine.rescue("v")] == ["a"]
            assert [job.attempt for job in (await engine.claim(ClaimRequest("v", 1, TASKS))).jobs] == [2]
            program.send(signal.SIGCONT)
            program.tell("finish")
            assert json.loads(program.line()) == [None]
            program.expect("False")
            program.tell("end")
            program.end()
        assert await engine.finish([AttemptEnd("a", 2, Completed("2"))]) == [JobStatus.COMPLETED]


def seconds_until_lease_ends(folder: Path, clock: VirtualClock) -> float:
    ((until,),) = query(folder / "jobs.db", "SELECT lease_until FROM lastcall_worker WHERE id = 'w'")
    return float(until) - clock.monotonic()


async def test_a_recycled_pid(tmp_path: Path) -> None:
    """The pid lives, but it is another process: this one here, which began at another time."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.submit([JOB])
        await engine.join(a_worker("w", HERE._replace(process_start="1")))
        await engine.claim(ClaimRequest("w", 1, TASKS))
        await engine.join(a_worker("v"))
        assert [job.id for job in await engine.rescue("v")] == ["a"]


async def test_another_boot(tmp_path: Path) -> None:
    """The machine was started anew since; pids and clocks mean nothing any more."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.submit([JOB])
        await engine.join(a_worker("w", HERE._replace(boot_id="another")))
        await engine.claim(ClaimRequest("w", 1, TASKS))
        await engine.join(a_worker("v"))
        assert [job.id for job in await engine.rescue("v")] == ["a"]


async def test_another_namespace(tmp_path: Path) -> None:
    """A worker in another container: its pid means nothing here, so only its lease counts."""
    clock = VirtualClock()
    async with opened(tmp_path / "jobs.db", clock=clock) as engine:
        await engine.submit([JOB])
        foreign = HERE._replace(pid=2**22 - 1, pid_namespace="pid:[1]")
        await engine.join(a_worker("w", foreign, 15.0))
        await engine.claim(ClaimRequest("w", 1, TASKS))
        await engine.join(a_worker("v"))
        assert await engine.rescue("v") == []
        clock.advance(15)
        assert [job.id for job in await engine.rescue("v")] == ["a"]


async def test_the_wall_clock_jumps(tmp_path: Path) -> None:
    """An hour forward, two back: no lease ends by it; 15 s of real time do."""
    clock = VirtualClock()
    async with opened(tmp_path / "jobs.db", clock=clock) as engine:
        await engine.submit([JOB])
        await engine.join(a_worker("w", lease_seconds=15.0))
        await engine.join(a_worker("v"))
        assert len((await engine.claim(ClaimRequest("w", 1, TASKS))).jobs) == 1
        for jump in (3600, -7200):
            clock.jump_wall(jump)
            clock.advance(5)
            assert await engine.rescue("v") == []
        assert (await engine.renew("w")).alive
        clock.jump_wall(7200)
        clock.advance(14)
        assert await engine.rescue("v") == []
        clock.advance(1)
        assert [job.id for job in await engine.rescue("v")] == ["a"]
        assert not (await engine.renew("w")).alive


async def test_a_job_without_a_worker_is_taken(tmp_path: Path) -> None:
    """The worker's row is missing, for whatever reason: its job does not stay behind for ever."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.submit([JOB])
        await engine.join(a_worker("w"))
        await engine.claim(ClaimRequest("w", 1, TASKS))
        await inside(engine, lambda store: store.execute("DELETE FROM lastcall_worker"))
        await engine.join(a_worker("v"))
        assert [job.id for job in await engine.rescue("v")] == ["a"]


# Leases of 15 s, seen at the monotonic time 100 by this process.
NOBODY = ProcessIdentity(1, None, None, None)


@pytest.mark.parametrize(
    ("process", "until", "dead"),
    [
        (HERE, 100.1, False),
        (HERE, 100.0, True),
        (HERE, 99.0, True),
        # Only without boot ids is a lease that lies too far ahead a sign of a clock that began anew.
        (HERE, 1000.0, False),
        (NOBODY, 115.0, False),
        (NOBODY, 115.1, True),
        (NOBODY, 100.0, True),
        (HERE._replace(boot_id="another"), 110.0, True),
        (HERE._replace(boot_id=None), 110.0, False),
        (HERE._replace(process_start=None), 110.0, False),
        (HERE._replace(process_start="1"), 110.0, True),
        (HERE._replace(process_start="1", pid_namespace="another"), 110.0, False),
        (HERE._replace(process_start="1", pid_namespace=None), 110.0, False),
    ],
)
def test_who_is_dead(process: ProcessIdentity, until: float, dead: bool) -> None:
    """Every sign that counts, and each one that is only half of one."""
    assert is_dead(Lease("w", process, 15.0, until), 100.0, HERE) is dead


def test_who_is_dead_where_nothing_is_known() -> None:
    """On a system without /proc only the lease counts."""
    assert not is_dead(Lease("w", HERE._replace(process_start="1"), 15.0, 110.0), 100.0, NOBODY)
    assert is_dead(Lease("w", HERE, 15.0, 115.1), 100.0, NOBODY)
