"""Reads the ledger and the store when all is over, and names every broken promise. `broken` is pure.

The heart of it: a step is recorded under the attempt that completed it. So the ledger must show no start of it under a
later attempt, and starts under earlier ones only where those attempts were lost or failed while it was in flight.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs import AttemptOutcome, AttemptRow, JobStatus, StepPolicy, StepStatus
from lastcall.jobs._engine import Engine, read_log
from lastcall.jobs._rows import EventRow, JobQuery, JobRow, StepRow

from .ledger import Line
from .work import LIMIT

# Jobs that are looked at side by side.
_AT_ONCE = 100

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
    """How a job must end, with what, and how many of its attempts fail by themselves.

    `resumed`: steps that a stop may cut in the middle, because they go on where they stood.
    """

    statuses: frozenset[JobStatus] = _ENDED_WELL
    result: Any = None
    failures: int = 0
    resumed: frozenset[str] = frozenset()


# What can be broken: the promise of DESIGN.md, and a line for the verdict.
KINDS = {
    "limits": (0, "limits exceeded"),
    "lost": (6, "jobs lost"),
    "ended": (6, "jobs that did not end, or ended wrongly"),
    "repeated": (7, "completed steps repeated"),
    "rows": (7, "transactions whose rows are not there exactly once"),
    "stops": (8, "attempts lost or charged without a crash"),
    "stale": (9, "stale writes accepted, or work begun under a lease that was over"),
    "log": (10, "logs with gaps, or repeated unannounced"),
    "cancels": (11, "cancels without an effect, or unasked"),
    "unknown": (12, "unknown tasks not deferred"),
}


class Broken(NamedTuple):
    """A promise of DESIGN.md that was not kept, and how. `kind`: one of `KINDS`, or of what adds to them."""

    kind: str
    job: str
    told: str
    promise: int

    @classmethod
    def of(cls, kind: str, job: str, told: str, kinds: Mapping[str, tuple[int, str]] = KINDS) -> Broken:
        return cls(kind, job, told, kinds[kind][0])


class Leniency(NamedTuple):
    """What may differ although all is well, in seconds.

    `clock`: clocks of two processes are read one after the other. `awakening`: a stalled process that is continued
    carries out what it was about to do. `transaction`: a store may give an end the time at which its transaction began,
    and then wait for whoever writes under the fence.
    """

    clock: float = 0.002
    awakening: float = 0.1
    transaction: float = 0.0


STRICT = Leniency()


# --- looking -------------------------------------------------------------------------------------------


async def look(database: str) -> list[Facts]:
    """What the store knows of all its jobs, through the port; and the user's table, as its owner sees it."""
    engine = SqliteEngine(database)
    await engine.open()
    try:
        return await look_into(engine, user_rows(database))
    finally:
        await engine.close()


async def look_into(engine: Engine, rows: Mapping[str, Mapping[str, int]]) -> list[Facts]:
    """What any store knows, through the port. `rows`: of the user's table, by job and step."""
    jobs: list[JobRow] = []
    while page := await engine.find(JobQuery(before=jobs[-1].id if jobs else None, limit=500)):
        jobs += page
    facts: list[Facts] = []
    for start in range(0, len(jobs), _AT_ONCE):
        some = jobs[start : start + _AT_ONCE]
        facts += await asyncio.gather(*(_facts(engine, job, rows.get(job.id, {})) for job in some))
    return facts


async def _facts(engine: Engine, job: JobRow, rows: Mapping[str, int]) -> Facts:
    steps = await engine.steps(job.id)
    return Facts(job, await engine.attempts(job.id), steps, await _events(engine, job.id), rows)


async def _events(engine: Engine, job_id: str) -> list[EventRow]:
    page = await read_log(engine, job_id, 0, 100_000)
    return [] if page is None else page.events


def user_rows(database: str) -> dict[str, dict[str, int]]:
    """How many rows each job's steps have written into the user's own table."""
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
    lines: Sequence[Line],
    facts: Sequence[Facts],
    expected: Callable[[JobRow], Expected],
    leniency: Leniency = STRICT,
) -> list[Broken]:
    """All promises that were not kept. `expected`: how each job must end."""
    told = Told(lines, leniency)
    found = [
        Broken.of("lost", job, "was submitted, and is not there")
        for job in sorted(told.submitted - {fact.job.id for fact in facts})
    ]
    for fact in facts:
        job = fact.job
        wanted = expected(job)
        for kind, text in (
            *_ended(fact, wanted, told),
            *_steps(fact, wanted, told),
            *_attempts(fact, wanted, told),
            *_fences(fact, told),
            *_log(fact),
            *_cancelled(fact, told),
        ):
            found.append(Broken.of(kind, f"{job.task} {job.id}", text))
    return found


class Told:
    """The ledger's lines, sorted by what they tell."""

    def __init__(self, lines: Sequence[Line], leniency: Leniency = STRICT) -> None:
        self.leniency = leniency
        self.submitted = {line.job for line in lines if line.what == "submitted"}
        self.killed = {line.pid for line in lines if line.what == "killed"}
        # By the trap's own word: another thread may still tell something between the trap and the death.
        self.killed |= {line.pid for line in lines if line.what == "sprung" and line.key.endswith(" SIGKILL")}
        self.killed |= {line.pid for line in lines if line.what == "poison"}
        self.stalled = {line.pid for line in lines if line.what == "stalled"}
        self._continued: dict[int, list[float]] = defaultdict(list)
        # Told to stop while their store was away for longer than they may take: nothing could be written any more.
        self.unable = {line.pid for line in lines if line.what == "unable"}
        self.cancels = {line.job: line for line in lines if line.what == "cancel"}
        self.starts: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
        self.pids: dict[tuple[str, int], set[int]] = defaultdict(set)
        for line in lines:
            if line.what == "start":
                self.starts[line.job][line.key].append(line)
            if line.what == "continued":
                self._continued[line.pid].append(line.at)
            if line.attempt:
                self.pids[line.job, line.attempt].add(line.pid)

    @property
    def unlucky(self) -> set[int]:
        """Whose attempts may be lost."""
        return self.killed | self.stalled | self.unable

    def was_asleep(self, line: Line) -> bool:
        """Whether the process that wrote a line had only just been continued."""
        return any(0 <= line.at - at <= self.leniency.awakening for at in self._continued.get(line.pid, ()))


_Found = Iterator[tuple[str, str]]


def _ended(fact: Facts, wanted: Expected, told: Told) -> _Found:
    job = fact.job
    statuses = wanted.statuses | ({JobStatus.CANCELLED} if job.id in told.cancels else set())
    if job.status not in statuses:
        yield "ended", f"is {job.status}, not {' or '.join(sorted(statuses))}: {job.error}"
    elif (
        job.status is JobStatus.COMPLETED
        and wanted.result is not ANY
        and json.loads(job.result or "null") != wanted.result
    ):
        yield "ended", f"its result is {job.result}, not {wanted.result}"


def _steps(fact: Facts, wanted: Expected, told: Told) -> _Found:
    job, recorded = fact.job, {step.key: step for step in fact.steps}
    outcomes = {attempt.attempt: attempt.outcome for attempt in fact.attempts}
    for key, starts in told.starts[job.id].items():
        step = recorded.get(key)
        tries = sorted(line.attempt for line in starts)
        if len(set(tries)) < len(tries):
            yield "repeated", f"step {key!r} began twice in one attempt: {tries}"
        if step is not None and step.policy is StepPolicy.ONCE and len(tries) > 1:
            yield "repeated", f"step {key!r}, declared once, began in attempts {tries}"
        done_in = None if step is None or step.status is not StepStatus.COMPLETED else step.attempt
        for tried in tries:
            if done_in is not None and tried > done_in:
                yield (
                    "repeated",
                    f"step {key!r} was completed in attempt {done_in} and began again in {tried}",
                )
            elif (
                tried != done_in
                and outcomes.get(tried) is AttemptOutcome.HANDED_OVER
                and key not in wanted.resumed
            ):
                yield "stops", f"step {key!r} had begun in attempt {tried}, which was handed over without it"
            elif tried != done_in and outcomes.get(tried) is AttemptOutcome.COMPLETED:
                yield (
                    "repeated",
                    f"step {key!r} was done in attempt {tried}, which completed, and is not recorded there",
                )
    for step in fact.steps:
        if _has_effect(step) and not told.starts[job.id][step.key]:
            yield "repeated", f"step {step.key!r} is recorded, and it never began"
        if _writes_row(step.key) and step.status is StepStatus.COMPLETED and fact.rows.get(step.key) != 1:
            yield (
                "rows",
                f"its transaction {step.key!r} is recorded and its rows are {fact.rows.get(step.key, 0)}",
            )
    for key, count in fact.rows.items():
        if key not in recorded:
            yield "rows", f"its transaction {key!r} wrote {count} rows and is not recorded"


def _writes_row(key: str) -> bool:
    """Whether a step is a transaction that writes one row into the user's table."""
    return key == "row" or key.startswith("row ")


def _has_effect(step: StepRow) -> bool:
    """Whether the step tells the ledger of itself. One declared `once` may have been decided upon instead."""
    if step.status is not StepStatus.COMPLETED or step.policy is StepPolicy.ONCE:
        return False
    return not _writes_row(step.key) and not step.key.startswith(("~", "start "))


def _attempts(fact: Facts, wanted: Expected, told: Told) -> _Found:
    job, attempts = fact.job, fact.attempts
    if [attempt.attempt for attempt in attempts] != list(range(1, job.attempt + 1)):
        yield "stops", f"its attempts are numbered {[attempt.attempt for attempt in attempts]}"
    failed = sum(attempt.outcome is AttemptOutcome.FAILED for attempt in attempts)
    if job.failures != failed:
        yield "stops", f"{job.failures} attempts were charged, and {failed} had failed"
    if failed > wanted.failures or (failed < wanted.failures and job.status in wanted.statuses):
        yield "stops", f"{failed} attempts failed, and {wanted.failures} fail by themselves"
    for attempt in attempts:
        n, pids = attempt.attempt, told.pids[job.id, attempt.attempt]
        match attempt.outcome:
            case None if job.status.final:
                yield "stops", f"attempt {n} has no outcome"
            case AttemptOutcome.HANDED_OVER if attempt.reason not in ("shutdown", "waiting") or attempt.error:
                yield "stops", f"attempt {n} was handed over: {attempt.reason}, {attempt.error}"
            case AttemptOutcome.LOST if not told.unlucky:
                yield "stops", f"attempt {n} was lost, and nothing was killed or stalled"
            case AttemptOutcome.LOST if pids and not pids & told.unlucky:
                yield "stops", f"attempt {n} was lost, and its process {pids} was neither killed nor stalled"
            case AttemptOutcome.CANCELLED if job.id not in told.cancels:
                yield "cancels", f"attempt {n} was cancelled ({attempt.reason}), and nobody had asked for it"


def _fences(fact: Facts, told: Told) -> _Found:
    job, late = fact.job, told.leniency.transaction
    ended = {attempt.attempt: attempt.ended_at for attempt in fact.attempts}
    for before, after in zip(fact.attempts, fact.attempts[1:], strict=False):
        if before.ended_at is not None and after.started_at < before.ended_at - late:
            yield "stale", f"attempt {after.attempt} began before attempt {before.attempt} had ended"
    for step in fact.steps:
        until = ended.get(step.attempt)
        # What a wait brought is written by the engine, whenever it comes.
        if not step.key.startswith("~") and until is not None and (step.ended_at or 0.0) > until + late:
            yield (
                "stale",
                f"step {step.key!r} of attempt {step.attempt} was written after that attempt had ended",
            )
    for event in fact.events:
        until = ended.get(event.attempt)
        if until is not None and event.at > until + late:
            yield (
                "stale",
                f"event {event.seq} of attempt {event.attempt} was written after that attempt had ended",
            )
    for key, starts in told.starts[job.id].items():
        for line in starts:
            until = ended.get(line.attempt)
            if until is not None and line.at > until + told.leniency.clock and not told.was_asleep(line):
                yield (
                    "stale",
                    f"step {key!r} of attempt {line.attempt} began {line.at - until:.3f} s after that attempt had"
                    " ended",
                )


def _log(fact: Facts) -> _Found:
    events = fact.events
    over: set[int] = (
        set()
    )  # attempts whose end is told: the log is in the order in which the fence was looked at
    for event in events:
        if event.attempt in over:
            yield (
                "stale",
                f"event {event.seq} ({event.type}) comes after the end of its attempt {event.attempt}",
            )
        if event.type == "status" and event.attempt and json.loads(event.data)["status"] != "running":
            over.add(event.attempt)
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield "log", f"its events are numbered {[event.seq for event in events]}"
    attempts = [event.attempt for event in events if event.attempt]
    if attempts != sorted(attempts):
        yield "stale", f"its events come from attempts {attempts}, in this order"
    policies = {step.key: step.policy for step in fact.steps}
    shown: dict[str, int] = {}  # what a reader shows of a step comes from this attempt
    for event in events:
        if event.step is None:
            continue
        if event.type == "step.reset":
            shown.pop(event.step, None)
        elif policies.get(event.step) is StepPolicy.CONTINUE:
            continue  # it goes on where it was, and no reset is due
        elif shown.setdefault(event.step, event.attempt) != event.attempt:
            yield "log", f"step {event.step!r} was told again in attempt {event.attempt} without a step.reset"
    streamed = [event.data for event in events if event.step == "streamed" and event.type == "token"]
    if streamed != [str(n) for n in range(len(streamed))]:
        yield "log", f"the stream that is continued has {streamed}"


def over_the_limits(lines: Sequence[Line], facts: Sequence[Facts]) -> list[Broken]:
    """Jobs of the task `limited` whose steps ran at once although their limits forbid it, as the ledger saw them.

    A process that was stalled may end a step whose place somebody else has long been given; it is not counted.
    """
    told = Told(lines)
    lanes = {fact.job.id: fact.job.limit_key for fact in facts if fact.job.task == "limited"}
    running: dict[tuple[str, int, str], str] = {}  # by step: the job
    found = []
    for line in lines:
        if line.job not in lanes or line.pid in told.stalled | told.killed:
            continue
        if line.what == "end":
            running.pop((line.job, line.attempt, line.key), None)
        elif line.what == "start":
            running[line.job, line.attempt, line.key] = line.job
            of_its_lane = [job for job in running.values() if lanes[job] == lanes[line.job]]
            if len(running) > LIMIT or len(of_its_lane) > 1:
                told_so = f"ran while {len(running)} ran, {len(of_its_lane)} of its key"
                found.append(Broken.of("limits", line.job, told_so))
    return found


def _cancelled(fact: Facts, told: Told) -> _Found:
    job = fact.job
    asked = told.cancels.get(job.id)
    if asked is None:
        if job.status is JobStatus.CANCELLED:
            yield "cancels", f"was cancelled ({job.cancel_reason}), and nobody had asked for it"
        return
    if asked.key == "cancelled" and job.status is not JobStatus.CANCELLED:
        yield "cancels", f"its cancel was answered with 'cancelled', and it is {job.status}"
    for key, starts in told.starts[job.id].items():
        for line in starts:
            if job.ended_at is not None and line.at > job.ended_at + told.leniency.clock:
                if not told.was_asleep(line):
                    yield "cancels", f"step {key!r} began {line.at - job.ended_at:.3f} s after the job's end"
