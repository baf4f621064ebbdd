"""The SQLite engine and the model are told the same things at random: each answer and everything visible must agree.

`LASTCALL_LONG=1` looks for much longer. What it prints of a failure is a program; Hypothesis keeps it for the next run.
"""

import asyncio
import os
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lastcall._core._state import StopReason
from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs._engine import read_log
from lastcall.jobs._rows import (
    AttemptEnd,
    ClaimRequest,
    JobQuery,
    NewEvent,
    NewJob,
    Outcome,
    StepRecord,
    Suspended,
    Wait,
    WorkerRow,
)
from lastcall.jobs._state import FINAL, JobStatus, WaitKind
from lastcall.testing import VirtualClock
from tests.engines.model import Job, ModelStore
from tests.engines.operations import (
    CALLS,
    ENGINE,
    EVENTS,
    JUMPS,
    LEASE_SECONDS,
    LIMITS,
    LIVING,
    MESSAGES,
    NEW_JOBS,
    OUTCOMES,
    PAUSES,
    PICK,
    QUEUES,
    REASONS,
    RECORDS,
    STALE,
    STYLES,
    TASKS,
    VERSIONS,
    WAITS,
    WORKERS,
)
from tests.engines.worlds import Ask, Worlds, visible

# A failure is made smaller for up to five minutes before it is shown.
SHRINKING_SECONDS = 400
LONG = os.environ.get("LASTCALL_LONG") == "1"


async def rescued(engine: Any, worker_id: str) -> list[Any]:
    return sorted(await engine.rescue(worker_id))


class EngineMachine(RuleBasedStateMachine):
    """Two SQLite engines on one file, as two workers that are clients too, and what the model says of them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = VirtualClock()
        self.worlds = Worlds(self.clock)
        self.real: list[SqliteEngine] = []
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

    @property
    def store(self) -> ModelStore:
        """The model's store: what is there to be asked for."""
        return self.worlds.any

    def both(self, at: int, ask: Ask) -> None:
        answer = self.loop.run_until_complete(ask(self.real[at]))
        self.loop.run_until_complete(self.worlds.explain(ask, answer))

    def all_at_once(self, calls: list[tuple[int, Ask]]) -> None:
        async def gathered() -> list[object]:
            return list(await asyncio.gather(*(ask(self.real[at]) for at, ask in calls)))

        answers = self.loop.run_until_complete(gathered())
        asks = [ask for _, ask in calls]
        self.loop.run_until_complete(self.worlds.explain_all(asks, answers))

    @invariant()
    def all_that_is_visible_agrees(self) -> None:
        ids = [*self.store.jobs, "nothing"]
        seen = self.loop.run_until_complete(visible(self.real[self.submitted % 2], ids))
        self.loop.run_until_complete(self.worlds.agree(ids, seen))

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
        self.both(at, lambda engine: rescued(engine, WORKERS[who]))

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

    @rule(
        who=ENGINE,
        rounds=st.lists(
            st.tuples(st.sampled_from([0, 1, 2, 100]), st.lists(OUTCOMES, max_size=2), PAUSES),
            min_size=1,
            max_size=4,
        ),
    )
    def crash_beside(self, who: int, rounds: list[tuple[int, list[Outcome], float]]) -> None:
        """A worker dies with nearly all there is while another one holds something; then both go on for a while."""
        self.claim(1 - who, 1 - who, 1, list(TASKS), VERSIONS, None)
        self.crash(who, [], [], True)
        for limit, outcomes, seconds in rounds:
            for each in (1 - who, who):
                self.claim(each, each, limit, list(TASKS), VERSIONS, None)
            ends = [
                AttemptEnd(job_id, job.attempt, outcome)
                for (job_id, job), outcome in zip(reversed(self.running()), outcomes, strict=False)
            ]
            self.both(who, lambda engine, ends=ends: engine.finish(ends))  # type: ignore[misc]
            self.clock.advance(seconds)

    # --- jobs ---

    @rule(at=ENGINE, jobs=NEW_JOBS, parent=st.none() | PICK)
    def submit(self, at: int, jobs: list[dict[str, Any]], parent: int | None) -> None:
        batch = self.batch(jobs, None if parent is None else self.some_id(parent))
        self.both(at, lambda engine: engine.submit(batch))

    def batch(self, jobs: list[dict[str, Any]], parent_id: str | None) -> list[NewJob]:
        first = self.submitted + 1
        self.submitted += len(jobs)
        return [
            NewJob(id=f"j{number}", parent_id=parent_id, **fields)
            for number, fields in enumerate(jobs, first)
        ]

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
        self.both(at, lambda engine: read_log(engine, ids[0], limit, limit))

    @rule(rounds=st.lists(st.lists(st.tuples(ENGINE, CALLS), min_size=2, max_size=4), min_size=1, max_size=3))
    def at_once(self, rounds: list[list[tuple[int, tuple[Any, ...]]]]) -> None:
        """Verbs of two processes and of many tasks meet in one commit, or fight for the next."""
        for calls in rounds:
            self.all_at_once([(at, self.ask(*call)) for at, call in calls])

    def ask(self, verb: str, what: Any, how: Any = None) -> Ask:
        match verb:
            case "submit":
                batch = self.batch(what, None)
                return lambda engine: engine.submit(batch)
            case "finish":
                end = AttemptEnd(*self.fence(what, 0), how)
                return lambda engine: engine.finish([end])
            case "claim":
                known = {(task, version): LIMITS[task] for task in TASKS for version in VERSIONS}
                return lambda engine: engine.claim(ClaimRequest(WORKERS[what], 3, known))
            case "record_step" | "append_events":
                fence = self.fence(what, 0)
                return lambda engine: getattr(engine, verb)(*fence, how)
            case "rescue":
                return lambda engine: rescued(engine, WORKERS[what])
            case "renew" | "resign":
                return lambda engine: getattr(engine, verb)(WORKERS[what])
            case "cancel":
                job_id = self.some_id(what, *LIVING)
                return lambda engine: engine.cancel(job_id, how)
            case "send":
                job_id = self.some_id(what, *LIVING)
                self.sent += 1
                data = f"{self.sent}"
                return lambda engine: engine.send(job_id, how, data)
            case _:
                job_id = self.some_id(what, *FINAL)
                return lambda engine: getattr(engine, verb)(job_id)

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
TestEngineMachine = pytest.mark.slow(
    pytest.mark.timeout(7200 if LONG else SHRINKING_SECONDS)(EngineMachine.TestCase)
)
