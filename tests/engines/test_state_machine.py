"""The SQLite engine and the model are told the same things at random: each answer and everything visible must agree.

`LASTCALL_LONG=1` looks for much longer. What it prints of a failure is a program; Hypothesis keeps it for the next run.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lastcall._core._state import StopReason
from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs._rows import (
    AttemptEnd,
    Cancelled,
    ClaimRequest,
    Completed,
    Failed,
    HandedOver,
    JobQuery,
    NewEvent,
    NewJob,
    Outcome,
    StepRecord,
    Suspended,
    TaskLimits,
    Wait,
    WorkerRow,
)
from lastcall.jobs._state import FINAL, JobStatus, StepPolicy, StepStatus, WaitKind
from lastcall.testing import VirtualClock
from tests.engines.model import Job, ModelEngine, ModelStore

T = TypeVar("T")
LONG = os.environ.get("LASTCALL_LONG") == "1"

# Times are multiples of a quarter of a second, so that every sum of them is exact on both sides.
LEASE_SECONDS = 8.0
DELAYS = st.sampled_from([0.0, 0.5, 2.0, 5.0])
PAUSES = st.sampled_from([0.25, 1.0, 2.0, 5.0, 8.0, 30.0])
JUMPS = st.sampled_from([-3600.0, -3.0, 3.0, 3600.0])

# Few names, so that jobs meet: under one key, one limit, one queue, one step.
TASKS = ("plain", "narrow", "slow")
VERSIONS = ("1", "2")
QUEUES = ("q", "r")
LIMITS = {
    "plain": None,
    "narrow": TaskLimits(concurrency=2),
    "slow": TaskLimits(rate_count=2, rate_seconds=8.0),
}
WORKERS = ("w0", "w1")
STEPS = st.sampled_from(["s1", "s1", "s2", "wait m", "wait d"])
MESSAGES = st.sampled_from(["m", "m", "n", "d"])
REASONS = st.sampled_from([StopReason.USER, StopReason.TIMEOUT, StopReason.GROUP])
LIVING = frozenset(JobStatus) - FINAL
# Which of the things that are there: taken modulo their number.
PICK = st.integers(min_value=0, max_value=1000)
ENGINE = st.sampled_from([0, 1])

NEW_JOBS = st.lists(
    st.fixed_dictionaries(
        {
            "task": st.sampled_from(TASKS),
            "version": st.sampled_from(VERSIONS),
            "queue": st.sampled_from(QUEUES),
            "args": st.sampled_from(["[]", "[1]"]),
            "priority": st.sampled_from([0, 5]),
            "delay_seconds": st.none() | st.none() | st.none() | DELAYS,
            "key": st.none() | st.none() | st.none() | st.sampled_from(["k1", "k2"]),
            "limit_key": st.sampled_from([None, "l", "l"]),
            "limit": st.sampled_from([1, 1, 2]),
            "labels": st.none() | st.just('{"tenant": "x"}'),
            "max_lost": st.sampled_from([1, 2, 3]),
            "max_attempts": st.sampled_from([2, 100]),
            "retention_seconds": st.sampled_from([None, 0.0, 0.0, 5.0]),
        }
    ),
    min_size=1,
    max_size=5,
)
WAITS = st.lists(
    st.sampled_from(
        [
            Wait("nap 2", WaitKind.SLEEP, seconds=2.0),
            Wait("nap 5", WaitKind.SLEEP, seconds=5.0),
            Wait("no nap", WaitKind.SLEEP, seconds=0.0),
            Wait("wait m", WaitKind.SIGNAL, "m"),
            Wait("wait m 5", WaitKind.SIGNAL, "m", 5.0),
            Wait("wait n", WaitKind.SIGNAL, "n", 2.0),
            Wait("wait d", WaitKind.DECISION, "d"),
            Wait("unknown", WaitKind.JOBS, jobs=("nothing",)),
        ]
    ),
    max_size=3,
    unique=True,
)
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Completed('{"n": 1}')),
    st.just(Failed('{"type": "E"}')),
    st.builds(Failed, st.just('{"type": "E"}'), DELAYS),
    st.builds(Cancelled, REASONS, st.none() | st.just('{"type": "E"}')),
    st.builds(HandedOver, REASONS),
    WAITS.map(lambda waits: Suspended(tuple(waits))),
)
RECORDS = st.builds(
    StepRecord,
    key=STEPS,
    status=st.sampled_from(
        [StepStatus.COMPLETED, StepStatus.COMPLETED, StepStatus.STARTED, StepStatus.FAILED]
    ),
    value=st.sampled_from(["1", "2"]),
    policy=st.sampled_from(list(StepPolicy)),
    main=st.booleans(),
    seconds=st.sampled_from([0.0, 0.5]),
)
EVENTS = st.lists(
    st.builds(NewEvent, st.sampled_from(["log", "progress"]), st.sampled_from(["1", "2"]), st.none() | STEPS),
    max_size=3,
)
STYLES = st.sampled_from(["plain", "plain", "works", "fails"])
# Which fence: mostly the running attempt's own.
STALE = st.sampled_from([0, 0, 0, 0, 0, 0, 0, -1, 1])


async def visible(engine: Any, ids: Sequence[str]) -> dict[str, Any]:
    """Everything that can be seen of the store."""
    jobs, overview, attempts, steps, events = await asyncio.gather(
        engine.find(JobQuery(limit=1000)),
        engine.overview(),
        asyncio.gather(*map(engine.attempts, ids)),
        asyncio.gather(*map(engine.steps, ids)),
        asyncio.gather(*(engine.read_events(job_id, 0, 1000) for job_id in ids)),
    )
    return {
        "jobs": jobs,
        "attempts": dict(zip(ids, attempts, strict=True)),
        "steps": dict(zip(ids, steps, strict=True)),
        "events": dict(zip(ids, events, strict=True)),
        "now": overview.now,
        "counts": {entry: count for entry, count in overview.counts.items() if count},
        "workers": sorted(overview.workers),
        "schedules": sorted(overview.schedules),
    }


class EngineMachine(RuleBasedStateMachine):
    """Two SQLite engines on one file and two model engines on one store, as two workers that are clients too."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = VirtualClock()
        self.store = ModelStore()
        self.real: list[SqliteEngine] = []
        self.models = [ModelEngine(self.clock, self.store) for _ in WORKERS]
        self.submitted = 0
        self.ticks = 0
        self.sent = 0
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        path = os.path.join(self.folder.name, "jobs.db")
        self.real = [SqliteEngine(path, synchronous="off", clock=self.clock) for _ in WORKERS]
        for engine in self.real:
            await engine.open()

    async def _close(self) -> None:
        for engine in self.real:
            await engine.close()

    def teardown(self) -> None:
        try:
            self.loop.run_until_complete(self._close())
        finally:
            self.loop.close()
            self.folder.cleanup()

    # --- telling both ---

    def both(self, at: int, ask: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """Ask the real engine and the model the same; their answer."""
        answer = self.loop.run_until_complete(ask(self.real[at]))
        expected = self.loop.run_until_complete(ask(self.models[at]))
        assert answer == expected, f"SQLite: {answer}\nmodel:  {expected}"
        return answer

    @invariant()
    def all_that_is_visible_agrees(self) -> None:
        ids = [*self.store.jobs, "nothing"]
        seen = self.loop.run_until_complete(visible(self.real[self.submitted % 2], ids))
        expected = self.loop.run_until_complete(visible(self.models[0], ids))
        for what, value in expected.items():
            assert seen[what] == value, f"{what}\nSQLite: {seen[what]}\nmodel:  {value}"

    # --- which job ---

    def some_id(self, pick: int, *statuses: JobStatus) -> str:
        """Mostly a job in one of these statuses, if there is one; sometimes any job, or one that never was."""
        fitting = [job_id for job_id, job in self.store.jobs.items() if job.status in statuses]
        if not fitting or pick % 8 == 0:
            fitting = [*self.store.jobs, "nothing"]
        return fitting[pick // 8 % len(fitting)]

    def fence(self, pick: int, stale: int) -> tuple[str, int]:
        """Mostly a running job under its attempt; sometimes under another one, or a job that does not run."""
        job_id = self.some_id(pick, JobStatus.RUNNING)
        job = self.store.jobs.get(job_id)
        return job_id, (job.attempt if job else 0) + stale

    # --- workers ---

    @initialize(jobs=NEW_JOBS)
    def begin(self, jobs: list[dict[str, Any]]) -> None:
        for at in range(len(WORKERS)):
            self.join(at, at)
        self.submit(0, jobs, None)

    @rule(at=ENGINE, who=ENGINE, verb=st.sampled_from(["join", "renew", "resign", "rescue"]))
    def worker_says(self, at: int, who: int, verb: str) -> None:
        getattr(self, verb)(at, who)

    def join(self, at: int, who: int) -> None:
        worker = WorkerRow(WORKERS[who], "host", 1, None, None, None, LEASE_SECONDS, 4, frozenset(QUEUES))
        self.both(at, lambda engine: engine.join(worker))

    def renew(self, at: int, who: int) -> None:
        self.both(at, lambda engine: engine.cancel_requests(WORKERS[who]))
        self.both(at, lambda engine: engine.renew(WORKERS[who]))

    def resign(self, at: int, who: int) -> None:
        self.both(at, lambda engine: engine.resign(WORKERS[who]))
        self.join(at, who)

    def rescue(self, at: int, who: int) -> None:
        async def rescued(engine: Any) -> list[Any]:
            return sorted(await engine.rescue(WORKERS[who]))

        self.both(at, rescued)

    @rule(
        who=ENGINE,
        retried=st.lists(PICK, max_size=2),
        steps=st.lists(st.tuples(PICK, RECORDS), max_size=2),
        comes_back=st.booleans(),
    )
    def crash(
        self, who: int, retried: list[int], steps: list[tuple[int, StepRecord]], comes_back: bool
    ) -> None:
        """A worker takes what there is, gets a step further or not, and says nothing for as long as its lease."""
        for pick in retried:
            self.retry(who, pick)
        self.claim_all(who)
        for pick, record in steps:
            self.record_step(who, pick, 0, record)
        self.clock.advance(LEASE_SECONDS)
        self.renew(1 - who, 1 - who)
        self.rescue(1 - who, 1 - who)
        if comes_back:
            self.join(who, who)

    # --- jobs ---

    @rule(at=ENGINE, jobs=NEW_JOBS, parent=st.none() | PICK)
    def submit(self, at: int, jobs: list[dict[str, Any]], parent: int | None) -> None:
        parent_id = None if parent is None else self.some_id(parent)
        batch = []
        for fields in jobs:
            self.submitted += 1
            batch.append(NewJob(id=f"j{self.submitted}", parent_id=parent_id, **fields))
        self.both(at, lambda engine: engine.submit(batch))

    @rule(
        at=ENGINE,
        who=ENGINE,
        limit=st.sampled_from([0, 1, 2, 3]),
        tasks=st.sets(st.sampled_from(TASKS), min_size=1).map(sorted) | st.just(list(TASKS)),
        versions=st.sampled_from([VERSIONS, VERSIONS, VERSIONS[:1]]),
        queues=st.sampled_from([None, None, frozenset(QUEUES), frozenset(QUEUES[:1]), frozenset({"else"})]),
    )
    def claim(
        self,
        at: int,
        who: int,
        limit: int,
        tasks: list[str],
        versions: tuple[str, ...],
        queues: frozenset[str] | None,
    ) -> None:
        known = {(task, version): LIMITS[task] for task in tasks for version in versions}
        self.both(at, lambda engine: engine.claim(ClaimRequest(WORKERS[who], limit, known, queues)))

    @rule(who=ENGINE)
    def claim_all(self, who: int) -> None:
        self.claim(who, who, 100, list(TASKS), VERSIONS, None)

    @rule(
        who=ENGINE,
        cancelled=st.lists(PICK, max_size=2),
        outcomes=st.lists(OUTCOMES, min_size=1, max_size=4),
        together=st.booleans(),
    )
    def run(self, who: int, cancelled: list[int], outcomes: list[Outcome], together: bool) -> None:
        """A worker takes what there is, some of it is cancelled, and attempts end one by one or in one call."""
        self.claim_all(who)
        for pick in cancelled:
            job_id = self.some_id(pick, JobStatus.RUNNING)
            self.both(who, lambda engine, job_id=job_id: engine.cancel(job_id, StopReason.USER))  # type: ignore[misc]
        ends = [
            AttemptEnd(job_id, job.attempt, outcome)
            for (job_id, job), outcome in zip(self.running(), outcomes, strict=False)
        ]
        for batch in [ends] if together else [[end] for end in ends]:
            self.both(who, lambda engine, batch=batch: engine.finish(batch))  # type: ignore[misc]

    def running(self) -> list[tuple[str, Job]]:
        return [item for item in self.store.jobs.items() if item[1].status is JobStatus.RUNNING]

    @rule(at=ENGINE, ends=st.lists(st.tuples(PICK, STALE, OUTCOMES), min_size=1, max_size=4))
    def finish(self, at: int, ends: list[tuple[int, int, Outcome]]) -> None:
        """Ends of which some come late, twice or for nothing."""
        batch = [AttemptEnd(*self.fence(pick, stale), outcome) for pick, stale, outcome in ends]
        self.both(at, lambda engine: engine.finish(batch))

    @rule(who=ENGINE, pick=PICK, others=st.lists(PICK, min_size=1, max_size=3))
    def wait_for_jobs(self, who: int, pick: int, others: list[int]) -> None:
        self.claim_all(who)
        job_id, attempt = self.fence(pick, 0)
        jobs = tuple(sorted({self.some_id(other, *LIVING) for other in others} - {job_id}))
        wait = Wait(f"children {' '.join(jobs)}", WaitKind.JOBS, jobs=jobs)
        end = AttemptEnd(job_id, attempt, Suspended((wait,)))
        self.both(who, lambda engine: engine.finish([end]))

    @rule(
        who=ENGINE,
        pick=PICK,
        waits=WAITS,
        more=st.none() | WAITS,
        messages=st.lists(MESSAGES, max_size=3),
        seconds=PAUSES,
    )
    def wait_and_wait_again(
        self,
        who: int,
        pick: int,
        waits: list[Wait],
        more: list[Wait] | None,
        messages: list[str],
        seconds: float,
    ) -> None:
        """A job is suspended, hears something, runs for a while, and is suspended again, for the same or for more."""
        self.claim_all(who)
        job_id = self.some_id(pick, JobStatus.RUNNING)
        for these in (waits, waits if more is None else more):
            end = AttemptEnd(job_id, self.attempt_of(job_id), Suspended(tuple(these)))
            self.both(who, lambda engine, end=end: engine.finish([end]))  # type: ignore[misc]
            self.send_to(who, job_id, messages)
            self.claim_all(who)
            self.clock.advance(seconds)

    def send_to(self, at: int, job_id: str, names: list[str]) -> None:
        for name in names:
            self.sent += 1
            data = f"{self.sent}"
            self.both(at, lambda engine, name=name, data=data: engine.send(job_id, name, data))  # type: ignore[misc]

    def attempt_of(self, job_id: str) -> int:
        return self.store.jobs[job_id].attempt if job_id in self.store.jobs else 1

    @rule(
        who=ENGINE,
        pick=PICK,
        stale=STALE,
        records=st.lists(st.tuples(RECORDS, STYLES), min_size=1, max_size=4),
    )
    def record_steps(self, who: int, pick: int, stale: int, records: list[tuple[StepRecord, str]]) -> None:
        """A job records some steps, partly in a transaction, partly more than once."""
        self.claim_all(who)
        for record, style in records:
            if style == "plain":
                self.record_step(who, pick, stale, record)
            else:
                self.transact(who, pick, stale, record, style == "fails")

    def record_step(self, at: int, pick: int, stale: int, record: StepRecord) -> None:
        job_id, attempt = self.fence(pick, stale)
        self.both(at, lambda engine: engine.record_step(job_id, attempt, record))

    def transact(self, at: int, pick: int, stale: int, record: StepRecord, fails: bool) -> None:
        job_id, attempt = self.fence(pick, stale)

        def work(connection: object) -> str:
            if fails:
                raise ZeroDivisionError
            return "3"

        async def outcome(engine: Any) -> object:
            try:
                return await engine.transact(job_id, attempt, record, work)
            except ZeroDivisionError:
                return ZeroDivisionError

        self.both(at, outcome)

    @rule(at=ENGINE, pick=PICK, stale=st.none() | STALE, events=EVENTS)
    def append_events(self, at: int, pick: int, stale: int | None, events: list[NewEvent]) -> None:
        job_id, attempt = self.fence(pick, stale or 0)
        fence = None if stale is None else attempt
        self.both(at, lambda engine: engine.append_events(job_id, fence, events))

    @rule(at=ENGINE, picks=st.lists(PICK, min_size=1, max_size=3), reason=REASONS)
    def cancel(self, at: int, picks: list[int], reason: StopReason) -> None:
        for pick in picks:
            job_id = self.some_id(pick, *LIVING)
            self.both(at, lambda engine, job_id=job_id: engine.cancel(job_id, reason))  # type: ignore[misc]

    @rule(
        at=ENGINE,
        picks=st.lists(PICK, min_size=1, max_size=3),
        verb=st.sampled_from(["retry", "retry", "purge", "prune"]),
        seconds=st.sampled_from([0.0, 5.0]),
    )
    def after_the_end(self, at: int, picks: list[int], verb: str, seconds: float) -> None:
        self.clock.advance(seconds)
        for pick in picks:
            getattr(self, verb)(at, pick)

    def retry(self, at: int, pick: int) -> None:
        job_id = self.some_id(pick, JobStatus.FAILED, JobStatus.CANCELLED)
        self.both(at, lambda engine: engine.retry(job_id))

    @rule(at=ENGINE, pick=PICK, messages=st.lists(MESSAGES, min_size=1, max_size=3))
    def send(self, at: int, pick: int, messages: list[str]) -> None:
        self.send_to(at, self.some_id(pick, *LIVING), messages)

    def purge(self, at: int, pick: int) -> None:
        job_id = self.some_id(pick, *FINAL)
        self.both(at, lambda engine: engine.purge(job_id))

    def prune(self, at: int, pick: int) -> None:
        self.both(at, lambda engine: engine.prune(1000))

    @rule(
        at=ENGINE,
        schedule=st.sampled_from(["nightly", "hourly"]),
        behind=st.sampled_from([0, 0, 1, 2]),
        job=st.none() | NEW_JOBS.map(lambda jobs: jobs[0]),
    )
    def fire(self, at: int, schedule: str, behind: int, job: dict[str, Any] | None) -> None:
        self.ticks += 1
        new = None if job is None else NewJob(id=f"tick{self.ticks}", **{**job, "key": None})
        self.both(at, lambda engine: engine.fire(schedule, float(self.ticks - behind), new))

    @rule(
        at=ENGINE,
        statuses=st.none() | st.frozensets(st.sampled_from(list(JobStatus)), max_size=3),
        task=st.none() | st.sampled_from(TASKS),
        queue=st.none() | st.sampled_from(QUEUES),
        key=st.none() | st.just("k1"),
        label=st.none() | st.sampled_from([("tenant", "x"), ("tenant", "y")]),
        parent=st.none() | PICK,
        before=st.none() | PICK,
        limit=st.integers(0, 4),
    )
    def look(self, at: int, parent: int | None, before: int | None, limit: int, **conditions: Any) -> None:
        query = JobQuery(
            parent_id=None if parent is None else self.some_id(parent),
            before=None if before is None else self.some_id(before),
            limit=limit,
            **conditions,
        )
        self.both(at, lambda engine: engine.find(query))
        ids = list(dict.fromkeys(self.some_id(pick) for pick in (limit, before, parent) if pick is not None))
        self.both(at, lambda engine: engine.get(ids))
        self.both(at, lambda engine: engine.read_events(ids[0], limit, limit))

    # --- time, and restarts ---

    @rule(seconds=PAUSES)
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=JUMPS)
    def jump_wall(self, seconds: float) -> None:
        self.clock.jump_wall(seconds)

    @rule()
    def reopen(self) -> None:
        self.loop.run_until_complete(self._close())
        self.loop.run_until_complete(self._open())


EngineMachine.TestCase.settings = settings(
    max_examples=2000 if LONG else 50,
    stateful_step_count=100 if LONG else 50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


# Named for pytest, which finds it as it finds any test case.
TestEngineMachine = pytest.mark.slow(pytest.mark.timeout(7200 if LONG else 120)(EngineMachine.TestCase))
