"""Reads the ledger and the store when all is over, and names every broken promise. `broken` is pure.

The heart of it: a step is recorded under the attempt that completed it. So the ledger must show no start of it under a
later attempt, and starts under earlier ones only where those attempts were lost or failed while it was in flight.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs import AttemptOutcome, AttemptRow, JobStatus, StepPolicy, StepStatus
from lastcall.jobs._engine import read_log
from lastcall.jobs._rows import EventRow, JobQuery, JobRow, StepRow

from .ledger import Line
from .work import LIMIT

# Clocks of two processes are read one after the other; a line and a row of one moment may differ so much.
CLOCK_SECONDS = 0.002
# A stalled process that is continued carries out what it was about to do.
AWAKENING_SECONDS = 0.1

_ENDED_WELL = frozenset({JobStatus.COMPLETED})


class Facts(NamedTuple):
    """Everything the store knows of a job. `rows`: how many rows it wrote into the user's own table, by step."""

    job: JobRow
    attempts: Sequence[AttemptRow]
    steps: Sequence[StepRow]
    events: Sequence[EventRow]
    rows: Mapping[str, int] = {}


# A result that is known to the process alone that ran the job.
ANY: Any = object()


class Expected(NamedTuple):
    """How a job must end, with what, and how many of its attempts fail by themselves."""

    statuses: frozenset[JobStatus] = _ENDED_WELL
    result: Any = None
    failures: int = 0


class Broken(NamedTuple):
    """A promise of DESIGN.md that was not kept, and how."""

    promise: int
    job: str
    told: str


# --- looking -------------------------------------------------------------------------------------------


async def look(database: str) -> list[Facts]:
    """What the store knows of all its jobs, through the port; and the user's table, as its owner sees it."""
    engine = SqliteEngine(database)
    await engine.open()
    try:
        jobs: list[JobRow] = []
        while page := await engine.find(JobQuery(before=jobs[-1].id if jobs else None, limit=500)):
            jobs += page
        rows = _user_rows(database)
        return [
            Facts(
                job,
                await engine.attempts(job.id),
                await engine.steps(job.id),
                await _events(engine, job.id),
                rows.get(job.id, {}),
            )
            for job in jobs
        ]
    finally:
        await engine.close()


async def _events(engine: SqliteEngine, job_id: str) -> list[EventRow]:
    page = await read_log(engine, job_id, 0, 100_000)
    return [] if page is None else page.events


def _user_rows(database: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    with closing(sqlite3.connect(database)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'effects'").fetchone():
            for job, step, count in connection.execute(
                "SELECT job, step, count(*) FROM effects GROUP BY job, step"
            ):
                found[job][step] = count
    return found


# --- judging -------------------------------------------------------------------------------------------


def broken(
    lines: Sequence[Line], facts: Sequence[Facts], expected: Callable[[JobRow], Expected]
) -> list[Broken]:
    """All promises that were not kept. `expected`: how each job must end."""
    told = Told(lines)
    found = [
        Broken(6, job, "was submitted, and is not there")
        for job in told.submitted - {fact.job.id for fact in facts}
    ]
    for fact in facts:
        job = fact.job
        wanted = expected(job)
        for promise, text in (
            *_ended(fact, wanted, told),
            *_steps(fact, told),
            *_attempts(fact, wanted, told),
            *_fences(fact, told),
            *_log(fact),
            *_cancelled(fact, told),
        ):
            found.append(Broken(promise, f"{job.task} {job.id}", text))
    return found


class Told:
    """The ledger's lines, sorted by what they tell."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.submitted = {line.job for line in lines if line.what == "submitted"}
        self.killed = {line.pid for line in lines if line.what == "killed"}
        # By the trap's own word: another thread may still tell something between the trap and the death.
        self.killed |= {line.pid for line in lines if line.what == "sprung" and line.key.endswith(" SIGKILL")}
        self.killed |= {line.pid for line in lines if line.what == "poison"}
        self.stalled = {line.pid for line in lines if line.what == "stalled"}
        self.continued = [(line.pid, line.at) for line in lines if line.what == "continued"]
        self.cancels = {line.job: line for line in lines if line.what == "cancel"}
        self.starts: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
        self.pids: dict[tuple[str, int], set[int]] = defaultdict(set)
        for line in lines:
            if line.what == "start":
                self.starts[line.job][line.key].append(line)
            if line.attempt:
                self.pids[line.job, line.attempt].add(line.pid)

    def was_asleep(self, line: Line) -> bool:
        """Whether the process that wrote a line had only just been continued."""
        return any(pid == line.pid and 0 <= line.at - at <= AWAKENING_SECONDS for pid, at in self.continued)


_Found = Iterator[tuple[int, str]]


def _ended(fact: Facts, wanted: Expected, told: Told) -> _Found:
    job = fact.job
    statuses = wanted.statuses | ({JobStatus.CANCELLED} if job.id in told.cancels else set())
    if job.status not in statuses:
        yield 6, f"is {job.status}, not {' or '.join(sorted(statuses))}: {job.error}"
    elif (
        job.status is JobStatus.COMPLETED
        and wanted.result is not ANY
        and json.loads(job.result or "null") != wanted.result
    ):
        yield 6, f"its result is {job.result}, not {wanted.result}"


def _steps(fact: Facts, told: Told) -> _Found:
    job, recorded = fact.job, {step.key: step for step in fact.steps}
    outcomes = {attempt.attempt: attempt.outcome for attempt in fact.attempts}
    for key, starts in told.starts[job.id].items():
        step = recorded.get(key)
        tries = sorted(line.attempt for line in starts)
        if len(set(tries)) < len(tries):
            yield 7, f"step {key!r} began twice in one attempt: {tries}"
        if step is not None and step.policy is StepPolicy.ONCE and len(tries) > 1:
            yield 7, f"step {key!r}, declared once, began in attempts {tries}"
        done_in = None if step is None or step.status is not StepStatus.COMPLETED else step.attempt
        for tried in tries:
            if done_in is not None and tried > done_in:
                yield 7, f"step {key!r} was completed in attempt {done_in} and began again in {tried}"
            elif tried != done_in and outcomes.get(tried) is AttemptOutcome.HANDED_OVER:
                yield 8, f"step {key!r} had begun in attempt {tried}, which was handed over without it"
            elif tried != done_in and outcomes.get(tried) is AttemptOutcome.COMPLETED:
                yield (
                    7,
                    f"step {key!r} was done in attempt {tried}, which completed, and is not recorded there",
                )
    for step in fact.steps:
        if _has_effect(step) and not told.starts[job.id][step.key]:
            yield 7, f"step {step.key!r} is recorded, and it never began"
        if step.key == "row" and step.status is StepStatus.COMPLETED and fact.rows.get("row") != 1:
            yield 7, f"its transaction is recorded and its rows are {fact.rows.get('row', 0)}"
    if fact.rows.get("row", 0) > ("row" in recorded):
        yield 7, f"its transaction wrote {fact.rows['row']} rows and is not recorded"


def _has_effect(step: StepRow) -> bool:
    """Whether the step tells the ledger of itself. One declared `once` may have been decided upon instead."""
    if step.status is not StepStatus.COMPLETED or step.policy is StepPolicy.ONCE:
        return False
    return step.key != "row" and not step.key.startswith(("~", "start "))


def _attempts(fact: Facts, wanted: Expected, told: Told) -> _Found:
    job, attempts = fact.job, fact.attempts
    if [attempt.attempt for attempt in attempts] != list(range(1, job.attempt + 1)):
        yield 8, f"its attempts are numbered {[attempt.attempt for attempt in attempts]}"
    failed = sum(attempt.outcome is AttemptOutcome.FAILED for attempt in attempts)
    if job.failures != failed:
        yield 8, f"{job.failures} attempts were charged, and {failed} had failed"
    if failed > wanted.failures or (failed < wanted.failures and job.status in wanted.statuses):
        yield 8, f"{failed} attempts failed, and {wanted.failures} fail by themselves"
    for attempt in attempts:
        n, pids = attempt.attempt, told.pids[job.id, attempt.attempt]
        match attempt.outcome:
            case None if job.status.final:
                yield 8, f"attempt {n} has no outcome"
            case AttemptOutcome.HANDED_OVER if attempt.reason not in ("shutdown", "waiting") or attempt.error:
                yield 8, f"attempt {n} was handed over: {attempt.reason}, {attempt.error}"
            case AttemptOutcome.LOST if not (told.killed | told.stalled):
                yield 8, f"attempt {n} was lost, and nothing was killed or stalled"
            case AttemptOutcome.LOST if pids and not pids & (told.killed | told.stalled):
                yield 8, f"attempt {n} was lost, and its process {pids} was neither killed nor stalled"
            case AttemptOutcome.CANCELLED if job.id not in told.cancels:
                yield 11, f"attempt {n} was cancelled ({attempt.reason}), and nobody had asked for it"


def _fences(fact: Facts, told: Told) -> _Found:
    job = fact.job
    ended = {attempt.attempt: attempt.ended_at for attempt in fact.attempts}
    for before, after in zip(fact.attempts, fact.attempts[1:], strict=False):
        if before.ended_at is not None and after.started_at < before.ended_at:
            yield 9, f"attempt {after.attempt} began before attempt {before.attempt} had ended"
    for step in fact.steps:
        until = ended.get(step.attempt)
        # What a wait brought is written by the engine, whenever it comes.
        if not step.key.startswith("~") and until is not None and (step.ended_at or 0.0) > until:
            yield 9, f"step {step.key!r} of attempt {step.attempt} was written after that attempt had ended"
    for event in fact.events:
        until = ended.get(event.attempt)
        if until is not None and event.at > until:
            yield 9, f"event {event.seq} of attempt {event.attempt} was written after that attempt had ended"
    for key, starts in told.starts[job.id].items():
        for line in starts:
            until = ended.get(line.attempt)
            if until is not None and line.at > until + CLOCK_SECONDS and not told.was_asleep(line):
                late = line.at - until
                yield (
                    9,
                    f"step {key!r} of attempt {line.attempt} began {late:.3f} s after that attempt had ended",
                )


def _log(fact: Facts) -> _Found:
    events = fact.events
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield 10, f"its events are numbered {[event.seq for event in events]}"
    attempts = [event.attempt for event in events if event.attempt]
    if attempts != sorted(attempts):
        yield 9, f"its events come from attempts {attempts}, in this order"
    shown: dict[str, int] = {}  # what a reader shows of a step comes from this attempt
    for event in events:
        if event.step is None:
            continue
        if event.type == "step.reset":
            shown.pop(event.step, None)
        elif event.step == "streamed":
            continue  # policy `continue`: it goes on where it was, and no reset is due
        elif shown.setdefault(event.step, event.attempt) != event.attempt:
            yield 10, f"step {event.step!r} was told again in attempt {event.attempt} without a step.reset"
    streamed = [event.data for event in events if event.step == "streamed" and event.type == "token"]
    if streamed != [str(n) for n in range(len(streamed))]:
        yield 10, f"the stream that is continued has {streamed}"


def over_the_limits(facts: Sequence[Facts]) -> list[Broken]:
    """Jobs of the task `limited` that ran at once although their limits forbid it."""
    runs = [
        (attempt.started_at, attempt.ended_at or attempt.started_at, fact.job)
        for fact in facts
        if fact.job.task == "limited"
        for attempt in fact.attempts
    ]
    found = []
    for began, _, job in runs:
        beside = [other for start, end, other in runs if start <= began < end]
        of_its_lane = [other for other in beside if other.limit_key == job.limit_key]
        if len(beside) > LIMIT or len(of_its_lane) > 1:
            found.append(Broken(0, job.id, f"began while {len(beside)} ran, {len(of_its_lane)} of its key"))
    return found


def _cancelled(fact: Facts, told: Told) -> _Found:
    job = fact.job
    asked = told.cancels.get(job.id)
    if asked is None:
        if job.status is JobStatus.CANCELLED:
            yield 11, f"was cancelled ({job.cancel_reason}), and nobody had asked for it"
        return
    if asked.key == "cancelled" and job.status is not JobStatus.CANCELLED:
        yield 11, f"its cancel was answered with 'cancelled', and it is {job.status}"
    for key, starts in told.starts[job.id].items():
        for line in starts:
            if job.ended_at is not None and line.at > job.ended_at + CLOCK_SECONDS:
                if not told.was_asleep(line):
                    yield 11, f"step {key!r} began {line.at - job.ended_at:.3f} s after the job's end"
