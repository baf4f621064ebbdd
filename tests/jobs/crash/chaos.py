"""The adversary: several workers on one file, and somebody who kills, stops and stalls them while jobs come in.

Seeded: the seed chooses what is done to whom and when; how the processes then interleave is the machine's.
It submits, cancels, sends messages and reads logs from a process of its own. At least one worker is always left alone,
so there is somebody to take over. When the time is over everybody is let live, and all that was submitted must end.
"""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import AttemptOutcome, CancelOutcome, Job, Jobs, JobStatus
from tests.support.loops import default_flavours, why_missing

from . import checker, ledger
from .checker import Broken, Facts
from .forks import Child, Nursery
from .ledger import Ledger, Line
from .plays import expected
from .programs import Settings
from .work import Work

T = TypeVar("T")

_CALM_SECONDS = 60.0
_READ_SECONDS = 5.0
# Workers that end by themselves are no chaos but a fault in all of them.
_BAD_EXITS = 20
_LOOK_SECONDS = 0.1


class Plan(NamedTuple):
    """How long and how hard. `stall_seconds`: the longest one; longer than the lease, so that it is lost.

    The lease is short, but not so short that a busy disk or an unfair lock ends one: that would be no fault.
    """

    seed: int
    seconds: float
    workers: int = 3
    jobs_per_second: float = 15.0
    attacks_per_second: float = 10.0
    lease_seconds: float = 2.0
    stall_seconds: float = 4.0


class Gaps(NamedTuple):
    """Seconds from what ended an attempt to the start of the next one."""

    kills: Sequence[float]
    hand_overs: Sequence[float]


class Verdict(NamedTuple):
    """What came of it."""

    plan: Plan
    attacks: Counter[str]
    statuses: Counter[str]
    outcomes: Counter[str]
    broken: Sequence[Broken]
    bad_exits: Sequence[str]
    gaps: Gaps
    rejoined: int

    @property
    def holds(self) -> bool:
        return not self.broken and not self.bad_exits

    def text(self) -> str:
        """For people: a line per promise."""
        per_promise = Counter(broken.promise for broken in self.broken)
        lines = [
            f"seed {self.plan.seed}, {self.plan.seconds:g} s, {self.plan.workers} workers",
            f"attacks survived: {_counted(self.attacks)}",
            f"jobs: {_counted(self.statuses)}",
            f"attempts: {_counted(self.outcomes)}",
            f"workers that woke up without their lease and joined again: {self.rejoined}",
            f"gap after a kill: {_spread(self.gaps.kills)}",
            f"gap after a hand-over: {_spread(self.gaps.hand_overs)}",
            *(f"promise {n}: {text}: {per_promise[n]}" for n, text in _PROMISES.items()),
            *(f"  BROKEN {broken.promise}: {broken.job}: {broken.told}" for broken in self.broken[:50]),
            *(f"  BAD EXIT {told}" for told in self.bad_exits),
            "all promises hold" if self.holds else "PROMISES WERE BROKEN",
        ]
        return "\n".join(lines)


_PROMISES = {
    0: "limits exceeded",
    6: "jobs lost, or ended wrongly",
    7: "completed steps repeated",
    8: "orderly stops that cost something",
    9: "stale writes accepted",
    10: "logs with gaps, or repeated unannounced",
    11: "cancels without an effect, or unasked",
    12: "unknown tasks not deferred",
}


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s, of {len(seconds)}"


class Chaos:
    """One run. `folder`: where the database, the ledger and the workers' log are; new and empty."""

    def __init__(self, nursery: Nursery, folder: Path, plan: Plan) -> None:
        self._nursery = nursery
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._settings = Settings(
            "serve",
            str(folder / "jobs.db"),
            str(folder / "ledger"),
            str(folder / "log"),
            lease_seconds=plan.lease_seconds,
            stalls=True,
        )
        self._ledger = Ledger(self._settings.ledger)
        self._jobs = Jobs(f"sqlite:///{self._settings.database}")
        self._work = Work(self._jobs, self._ledger, self._settings.ledger, stalls=True)
        self._unknown = self._jobs.task(name="unknown")(_unknown)
        self._workers: list[Child] = []
        self._attacked: set[int] = set()
        self._killed: set[Child] = set()
        self._attacks: Counter[str] = Counter()
        self._submitted: list[tuple[str, Job[Any]]] = []
        self._read: dict[str, list[int]] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._bad_exits: list[str] = []

    async def run(self) -> Verdict:
        """Attack, then let everything end, then judge."""
        async with self._jobs:
            for _ in range(self._plan.workers):
                self._start()
            over = asyncio.get_running_loop().time() + self._plan.seconds
            async with asyncio.TaskGroup() as group:
                for part in (self._submit, self._attack, self._cancel, self._answer):
                    group.create_task(self._until(over, part))
            await self._calm_down()
            await asyncio.wait(
                self._readers, timeout=_READ_SECONDS
            )  # one that is left saw less than there is
            for reader in self._readers:
                reader.cancel()
        await self._stop_workers()
        self._ledger.close()
        return self._judge(ledger.read(self._settings.ledger), await checker.look(self._settings.database))

    async def _until(self, over: float, part: Callable[[], Awaitable[float]]) -> None:
        """Do a part again and again; it answers how long to pause."""
        loop = asyncio.get_running_loop()
        while (left := over - loop.time()) > 0 and len(self._bad_exits) < _BAD_EXITS:
            await asyncio.sleep(min(left, await part()))

    def _some_time(self, per_second: float) -> float:
        return self._random.expovariate(per_second)

    # --- users -----------------------------------------------------------------------------------------

    async def _submit(self) -> float:
        number = self._random.randrange(1000)
        work, some = self._work, self._random.random()
        if not self._submitted:
            call: Any = work.poison.call()
        elif len(self._submitted) == 1:
            call = self._unknown.call()
        elif some < 0.2:
            call = work.rich.call(number)
        elif some < 0.3:
            call = work.failing.call(number)
        elif some < 0.4:
            call = work.child.call(number)
        elif some < 0.55:
            call = work.limited.call(number % 3)
        else:
            steps, seconds = self._random.randrange(2, 13), self._random.uniform(0.0, 0.1)
            call = work.plain.call(number, steps, round(seconds, 4))
        # Without an answer nobody knows whether it was written; then it need not be there, and may.
        jobs = await _tried(lambda: self._jobs.submit_many([call]))
        if jobs is not None:
            self._ledger.write("submitted", call.job.task, jobs[0].id)
            self._submitted.append((call.job.task, jobs[0]))
            if len(self._submitted) % 5 == 0:
                self._readers.append(asyncio.create_task(self._follow(jobs[0])))
            if call.job.task == "rich":
                await self._insist(lambda: jobs[0].send("early", "first word"))
        return self._some_time(self._plan.jobs_per_second)

    async def _cancel(self) -> float:
        candidates = [job for task, job in self._submitted[-8:] if task not in ("unknown", "poison")]
        if candidates:
            job = self._random.choice(candidates)
            answer = await _tried(job.cancel)
            if answer is not CancelOutcome.ALREADY_ENDED:
                self._ledger.write("cancel", str(answer or "unanswered"), job.id)
        return self._some_time(1.5)

    async def _answer(self) -> float:
        """Send rich jobs the message that they wait for, and decide what they ask."""
        waiting = await _tried(lambda: self._jobs.find(status=JobStatus.WAITING, task="rich", limit=200))
        for info in waiting or ():
            job = self._jobs.job(info.id)
            if "signal late" in info.waits_for:
                await _tried(lambda job=job: job.send("late", "second word"))  # type: ignore[misc]
            if "step_outcome_unknown" in info.waits_for:
                await _tried(lambda job=job, n=info.args["number"]: self._work.decide(job, n))  # type: ignore[misc]
        return _LOOK_SECONDS

    async def _follow(self, job: Job[Any]) -> None:
        """Read a log to its end, whatever happens meanwhile."""
        seen = self._read.setdefault(job.id, [])
        while True:
            try:
                async for event in job.events(after=seen[-1] if seen else 0):
                    seen.append(event.seq)
                return
            except EngineUnavailable:
                await asyncio.sleep(_LOOK_SECONDS)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + _CALM_SECONDS
        while time.monotonic() < deadline:
            if (answer := await _tried(call)) is not None:
                return answer
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError("the store stays away")

    # --- the adversary ---------------------------------------------------------------------------------

    def _start(self) -> None:
        loop = self._random.choice([name for name in default_flavours() if why_missing(name) is None])
        self._workers.append(self._nursery.spawn(self._settings._replace(loop=loop)))

    async def _attack(self) -> float:
        self._reap()
        at_peace = [worker for worker in self._workers if worker.pid not in self._attacked]
        if len(at_peace) >= 2:
            worker = self._random.choice(at_peace)
            self._attacked.add(worker.pid)
            what = self._random.choice(list(ATTACKS))
            self._attacks[what] += 1
            ATTACKS[what](self, worker)
        return self._some_time(self._plan.attacks_per_second)

    def _reap(self) -> None:
        for worker in [worker for worker in self._workers if worker.ended.is_set()]:
            self._workers.remove(worker)
            self._judge_exit(worker)
            asyncio.get_running_loop().call_later(self._random.uniform(0.0, 0.3), self._start)

    def _judge_exit(self, worker: Child) -> None:
        if worker.code == 0 or (worker.code == -9 and worker in self._killed):
            return
        told = [line.what for line in self._lines() if line.pid == worker.pid]
        poisoned = worker.code == -9 and "poison" in told
        # Before `lastcall.run` a signal finds nobody who could take it, and in it at first nothing to drain.
        stopped_early = worker.code in (-signal.SIGTERM, 128 + signal.SIGTERM) and "up" not in told[-4:]
        if not poisoned and not stopped_early:
            self._bad_exits.append(f"{worker.pid} exited with {worker.code} after {told[-3:]}")

    def _kill(self, worker: Child) -> None:
        self._killed.add(worker)
        self._ledger.write("killed", pid=worker.pid)
        worker.send(signal.SIGKILL)

    def _stop(self, worker: Child) -> None:
        self._ledger.write("stopped", pid=worker.pid)
        worker.send(signal.SIGTERM)

    def _stop_and_kill(self, worker: Child) -> None:
        """The grace of an orchestrator that has none."""
        self._stop(worker)
        asyncio.get_running_loop().call_later(self._random.uniform(0.0, 0.05), self._kill, worker)

    def _stall(self, worker: Child) -> None:
        self._ledger.write("stalled", pid=worker.pid)
        worker.send(signal.SIGSTOP)
        seconds = self._random.uniform(0.05, self._plan.stall_seconds)
        asyncio.get_running_loop().call_later(seconds, self._continue, worker)

    def _continue(self, worker: Child) -> None:
        self._ledger.write("continued", pid=worker.pid)
        worker.send(signal.SIGCONT)
        self._attacked.discard(worker.pid)

    # --- the end ---------------------------------------------------------------------------------------

    async def _calm_down(self) -> None:
        """Until every job has ended that can."""
        deadline = time.monotonic() + _CALM_SECONDS
        unknown = sum(task == "unknown" for task, _ in self._submitted)
        while time.monotonic() < deadline and len(self._bad_exits) < _BAD_EXITS:
            self._reap()
            await self._answer()
            overview = await self._insist(self._jobs.overview)
            alive = Counter(dict.fromkeys(JobStatus, 0))
            for (_, status), count in overview.counts.items():
                alive[status] += 0 if status.final else count
            if alive.total() == alive[JobStatus.QUEUED] == unknown:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _lines(self) -> list[Line]:
        return ledger.read(self._settings.ledger)

    async def _stop_workers(self) -> None:
        # Those that were to be started again, and those that still sleep.
        await asyncio.sleep(max(0.3, self._plan.stall_seconds))
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        for worker in self._workers:
            await asyncio.to_thread(worker.wait)
            self._judge_exit(worker)

    def _judge(self, lines: Sequence[Line], facts: Sequence[Facts]) -> Verdict:
        found = checker.broken(lines, facts, expected) + checker.over_the_limits(facts)
        found += [Broken(6, "ticking", f"has not fired at {tick}") for tick in missed_ticks(facts)]
        for fact in facts:
            seen = self._read.get(fact.job.id)
            if seen is not None and seen != [event.seq for event in fact.events]:
                found.append(
                    Broken(10, fact.job.id, f"a reader saw {seen}, and there are {len(fact.events)}")
                )
            if fact.job.task == "unknown" and (fact.job.attempt or fact.job.status is not JobStatus.QUEUED):
                found.append(
                    Broken(12, fact.job.id, f"is {fact.job.status} after {fact.job.attempt} attempts")
                )
        log = Path(self._settings.log).read_text(encoding="utf-8")
        return Verdict(
            self._plan,
            self._attacks,
            Counter(str(fact.job.status) for fact in facts),
            Counter(str(attempt.outcome) for fact in facts for attempt in fact.attempts),
            found,
            self._bad_exits,
            gaps(lines, facts),
            log.count("was taken for dead"),
        )


ATTACKS: dict[str, Callable[[Chaos, Child], None]] = {
    "kill": Chaos._kill,
    "stop": Chaos._stop,
    "stall": Chaos._stall,
    "stop and kill": Chaos._stop_and_kill,
}


def missed_ticks(facts: Sequence[Facts]) -> list[float]:
    """The minutes between the first and the last tick that have no job. (Two of one minute cannot be: of one key.)"""
    fired = sorted(float((fact.job.key or "").split()[-1]) for fact in facts if fact.job.task == "ticking")
    return [tick + 60 for tick, after in zip(fired, fired[1:], strict=False) if after - tick > 60.5]


def gaps(lines: Sequence[Line], facts: Sequence[Facts]) -> Gaps:
    """How long jobs lay still after each kill and after each hand-over in a stop."""
    killed = {line.pid: line.at for line in lines if line.what == "killed"}
    pids = checker.Told(lines).pids
    kills, hand_overs = [], []
    for fact in facts:
        for before, after in zip(fact.attempts, fact.attempts[1:], strict=False):
            ended_at = before.ended_at or 0.0
            if before.outcome is AttemptOutcome.LOST:
                for pid in pids[fact.job.id, before.attempt] & set(killed):
                    if killed[pid] < ended_at:
                        kills.append(after.started_at - killed[pid])
            elif before.reason == "shutdown":
                hand_overs.append(after.started_at - ended_at)
    return Gaps(kills, hand_overs)


async def _tried(call: Callable[[], Awaitable[T]]) -> T | None:
    """The answer, or None: the store could not be used now (a worker sleeps with its lock)."""
    try:
        return await call()
    except EngineUnavailable:
        return None


async def _unknown() -> None:
    raise AssertionError("no worker knows this task")
