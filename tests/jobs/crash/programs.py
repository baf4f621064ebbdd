"""The processes that run the jobs: what a forked child calls with its settings, and what it exits with."""

from __future__ import annotations

import json
import logging
import os
import resource
from typing import Any, NamedTuple

import lastcall
from lastcall.engines.sqlite import SqliteEngine
from lastcall.engines.sqlite._clock import SystemClock
from lastcall.jobs import Job, Jobs, _lease
from lastcall.jobs._processes import ProcessIdentity
from tests.support.loops import FACTORIES

from .ledger import Ledger, having, read
from .traps import Trap, to_itself
from .work import Work

NUMBER = 7
_LOOK_SECONDS = 0.01


class Settings(NamedTuple):
    """Of one process. `place`, `nth`, `signal`: the trap. `clock`: a file with the seconds its wall clock is off.

    `known` False: nobody can tell which process it is, so only its lease says whether it lives.
    """

    program: str
    database: str
    ledger: str
    log: str
    place: str | None = None
    nth: int = 0
    signal: str = "SIGKILL"
    lease_seconds: float = 15.0
    concurrency: int = 10
    known: bool = True
    clock: str | None = None
    file_limit: int | None = None
    stalls: bool = False
    drain_seconds: float = 20.0
    loop: str = "asyncio"


class OffClock:
    """A wall clock that is off by what a file says, and the machine's own monotonic one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._system = SystemClock()

    def wall(self) -> float:
        with open(self._path, encoding="ascii") as file:
            return self._system.wall() + float(file.read() or 0)

    def monotonic(self) -> float:
        return self._system.monotonic()


class Process:
    """What every program has: the ledger, the trap, the jobs and their work."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.trap = Trap(settings.place, settings.nth, self._sprung)
        self.ledger = Ledger(settings.ledger, self.trap.passes)
        self.ledger.write("boot", settings.program)
        self.trap.install()
        if not settings.known:
            make_unknown()
        clock = None if settings.clock is None else OffClock(settings.clock)
        engine = SqliteEngine(settings.database, clock=clock)
        self.jobs = Jobs(engine, lease_seconds=settings.lease_seconds)
        self.work = Work(self.jobs, self.ledger, settings.ledger, stalls=settings.stalls)

    def _sprung(self) -> None:
        self.trap.is_set = False
        settings = self.settings
        self.ledger.write("sprung", f"{settings.place} {settings.nth} {settings.signal}")
        to_itself(self.settings.signal)()

    def tell_counts(self) -> None:
        self.trap.is_set = False
        self.ledger.write("counts", json.dumps(self.trap.counts))


async def rich(process: Process) -> None:
    """Submit one rich job, unless an earlier process has, and see it to its end, or to this process' stop."""
    settings, trap, ledger = process.settings, process.trap, process.ledger
    trap.is_set = settings.signal == "SIGKILL"
    async with process.jobs.worker(concurrency=settings.concurrency):
        ledger.write("up")
        trap.is_set = True
        job = await process.work.rich.options(key="rich").submit(NUMBER)
        ledger.write("submitted", "rich", job.id)
        await _attend(process, job)
        # Told from here on, the program would be stopped twice.
        trap.is_set = settings.signal == "SIGKILL"
    process.tell_counts()


async def _attend(process: Process, job: Job[Any]) -> None:
    """Send the job what it waits for, and decide what it asks."""
    shutdown = lastcall.current_shutdown()
    while not shutdown.requested:
        info = await job.info()
        if info.status.final:
            return
        await _send(process, job, "early", "first word")
        if "signal late" in info.waits_for:
            await _send(process, job, "late", "second word")
        if "step_outcome_unknown" in info.waits_for:
            await process.work.decide(job, NUMBER)
        await shutdown.sleep(_LOOK_SECONDS)


async def _send(process: Process, job: Job[Any], name: str, word: str) -> None:
    """Once; twice, if this process dies in between, and then the second message is never received."""
    if not having(read(process.settings.ledger), "sent", key=name):
        await job.send(name, word)
        process.ledger.write("sent", name, job.id)


async def serve(process: Process) -> None:
    """A worker, until it is told to stop."""
    settings = process.settings
    process.trap.is_set = True
    plan = lastcall.ShutdownPlan(drain=settings.drain_seconds)
    async with (
        lastcall.TaskManager(plan=plan),
        process.jobs.worker(concurrency=settings.concurrency) as worker,
    ):
        process.ledger.write("up", worker.id)
        await lastcall.current_shutdown().wait()
        process.ledger.write("told")


PROGRAMS = {"rich": rich, "serve": serve}


def main(settings: Settings) -> None:
    """In the child. Raises SystemExit with what the process exits with."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    if settings.file_limit is not None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (settings.file_limit, most))
    process = Process(settings)
    lastcall.run(PROGRAMS[settings.program](process), loop_factory=FACTORIES[settings.loop])


def main_with(**settings: Any) -> None:
    """`main`, as the nursery calls it."""
    main(Settings(**settings))


def make_unknown() -> None:
    """As on a machine without /proc: another worker cannot see whether this process is gone."""
    _lease.this_process = lambda: ProcessIdentity(os.getpid(), None, None, None)
