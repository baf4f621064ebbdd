"""What a play has shown, promise by promise. Pure: it reads what the ledger, the store and the users have seen.

Most of it is the checker's of the crash tests (`tests/jobs/crash/checker.py`); what a fleet has besides, readers, keys,
schedules and deploys, is judged here.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lastcall.jobs import AttemptOutcome, JobStatus
from lastcall.streams import TextView
from tests.jobs.crash import checker
from tests.jobs.crash.checker import Broken, Facts, Leniency, Told
from tests.jobs.crash.ledger import Line

from .plan import POSTGRES, Action, Options, to_json
from .work import TICK_SECONDS, answer, expected
from .workers import STOP_SECONDS

KINDS = {
    **checker.KINDS,
    "keys": (6, "keys that stand for more than one job"),
    "orders": (6, "rows of a user's transaction without their job, or jobs without them"),
    "ticks": (6, "ticks of the schedule not fired exactly once"),
    "readers": (10, "readers that saw something else than the log"),
    "text": (10, "streams whose text is not what was said"),
    "late": (11, "jobs that went on long after their cancel was acknowledged"),
}

# What a busy machine may be late by. The order of a log, which is exact, is looked at besides.
_LENIENCY = {POSTGRES: Leniency(clock=0.25, awakening=2.0, transaction=20.0)}
_LENIENCY_ELSEWHERE = Leniency(clock=0.05, awakening=1.0)
# What a worker takes to hear of a cancel beside the third of a lease, after which it asks; and longer, if the database
# was hurt meanwhile.
_HEARING_SECONDS = 2.0
_HEARING_IN_TROUBLE_SECONDS = 5.0
_SHOWN = 50
# Less than a worker gives its last writes before it goes without them.
_AWAY_SECONDS = 2.0


class Played(NamedTuple):
    """Everything there is to be judged. `seen`: what readers were given, by job; `done`: the attacks as they came;
    `orders`: rows of the user's own that were written together with a job."""

    options: Options
    plan: list[Action]
    done: list[list[Any]]
    attacks: Counter[str]
    attacked_seconds: float
    calm_seconds: float
    lines: list[Line]
    facts: list[Facts]
    orders: list[str]
    seen: Mapping[str, list[list[int]]]
    unread: int
    exits: Counter[str]
    bad_exits: list[str]
    log: str = ""


class Verdict(NamedTuple):
    """What came of it. `figures`: counts and seconds, by name."""

    played: Played
    broken: list[Broken]
    figures: dict[str, Any]

    @property
    def holds(self) -> bool:
        return not self.broken and not self.played.bad_exits

    def counts(self) -> dict[str, int]:
        """Breaches, by kind."""
        found = Counter(broken.kind for broken in self.broken)
        return {kind: found[kind] for kind in KINDS}

    def text(self) -> str:
        """For people: the figures, then a line per promise."""
        options, counts = self.played.options, self.counts()
        lines = [
            f"{options.store}, seed {options.seed}, {self.played.attacked_seconds:.0f} s, {options.workers} workers",
            *(f"{name}: {_shown(value)}" for name, value in self.figures.items()),
            *(f"promise {KINDS[kind][0]}: {KINDS[kind][1]}: {count}" for kind, count in counts.items()),
            *(f"  BROKEN {broken.promise}: {broken.job}: {broken.told}" for broken in self.broken[:_SHOWN]),
            *(f"  BAD EXIT {told}" for told in self.played.bad_exits),
            "all promises hold" if self.holds else "PROMISES WERE BROKEN",
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """With the plan, so that it can be played again."""
        return {
            **to_json(self.played.options, self.played.plan),
            "holds": self.holds,
            "figures": self.figures,
            "promises": self.counts(),
            "broken": [list(broken) for broken in self.broken],
            "bad_exits": self.played.bad_exits,
            "done": self.played.done,
        }


def judge(played: Played) -> Verdict:
    """The whole of it."""
    leniency = _LENIENCY.get(played.options.store, _LENIENCY_ELSEWHERE)
    lines, facts = [*played.lines, *_unable(played.lines)], played.facts
    told = Told(lines, leniency)
    found = checker.broken(lines, facts, expected, leniency) + checker.over_the_limits(lines, facts)
    found += [
        Broken.of(kind, job, text, KINDS)
        for kind, job, text in (
            *_keys(lines, facts),
            *_orders(played),
            *_ticks(facts),
            *_readers(played),
            *_texts(facts),
            *_late(played, told),
            *_deferred(lines, facts, told),
        )
    ]
    poisoned = {line.pid for line in lines if line.what == "poison"}
    died = [line.pid for line in lines if line.what == "died" and line.pid not in poisoned]
    played.bad_exits.extend(f"{pid} was killed, and not by us" for pid in died)
    return Verdict(played, found, _figures(played, told))


_Found = Iterator[tuple[str, str, str]]


def _keys(lines: Sequence[Line], facts: Sequence[Facts]) -> _Found:
    answers: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        if line.what == "keyed":
            answers[line.key].add(line.job)
    there = Counter(fact.job.key for fact in facts if fact.job.task == "once a key")
    for key, jobs in answers.items():
        if len(jobs) > 1 or there[key] != 1:
            yield "keys", key, f"was answered with {sorted(jobs)}, and {there[key]} jobs have it"


def _orders(played: Played) -> _Found:
    rows = Counter(played.orders)
    jobs = Counter(fact.job.key or "" for fact in played.facts if fact.job.task == "order")
    wanted = {line.key: 1 for line in played.lines if line.what == "ordered"}
    wanted |= {line.key: 0 for line in played.lines if line.what == "undone"}
    for name in sorted({*rows, *jobs, *wanted}):
        if rows[name] != jobs[name] or rows[name] != wanted.get(name, rows[name]):
            yield (
                "orders",
                name,
                f"has {rows[name]} rows and {jobs[name]} jobs, and was to have {wanted.get(name)}",
            )


def _ticks(facts: Sequence[Facts]) -> _Found:
    fired = Counter(
        int((fact.job.key or "cron 0").split()[-1]) for fact in facts if fact.job.task == "ticking"
    )
    if fired:
        for tick in range(min(fired), max(fired) + 1, TICK_SECONDS):
            if fired[tick] != 1:
                yield "ticks", f"ticking {tick}", f"was fired {fired[tick]} times"


def _readers(played: Played) -> _Found:
    for fact in played.facts:
        there = [event.seq for event in fact.events]
        for seen in played.seen.get(fact.job.id, ()):
            if seen != there:
                yield "readers", fact.job.id, f"a reader saw {seen}, and there are {len(there)}"


def _texts(facts: Sequence[Facts]) -> _Found:
    for fact in facts:
        if fact.job.task == "talk" and fact.job.status is JobStatus.COMPLETED:
            view, words = TextView(), "".join(answer(_number(fact)))
            view.apply(fact.events)  # type: ignore[arg-type]  # a row has all that an entry has
            for stream in ("answer", "more"):
                if view.text(stream) != words:
                    yield "text", fact.job.id, f"{stream}: {view.text(stream)!r}"


def _number(fact: Facts) -> int:
    # {"number": 7}
    return int("".join(filter(str.isdigit, fact.job.args)))


def _late(played: Played, told: Told) -> _Found:
    usual = played.options.lease_seconds / 3 + _HEARING_SECONDS
    troubles = _troubles(played.lines)
    acknowledged: dict[str, float] = {}
    for line in played.lines:
        if line.what == "cancel" and line.key == "requested":
            acknowledged.setdefault(line.job, line.at)
    for job, at in acknowledged.items():
        hurt = sum(over - began for began, over in troubles if began < at + usual and over > at)
        within = usual + (hurt and hurt + _HEARING_IN_TROUBLE_SECONDS)
        for key, starts in told.starts[job].items():
            for line in starts:
                if line.at > at + within and not told.was_asleep(line):
                    yield (
                        "late",
                        job,
                        f"step {key!r} began {line.at - at:.1f} s after its cancel was acknowledged",
                    )


def _unable(lines: Sequence[Line]) -> list[Line]:
    """Who was told to stop while the database was away, or soon was, for so long that an end may have found no way."""
    away = [(began, over) for began, over in _troubles(lines) if over - began > _AWAY_SECONDS]
    stops = [line for line in lines if line.what == "stopped"]
    return [
        stop._replace(what="unable")
        for stop in stops
        if any(began < stop.at + STOP_SECONDS and over > stop.at for began, over in away)
    ]


def _troubles(lines: Sequence[Line]) -> list[tuple[float, float]]:
    """From when until when something was done to the database."""
    began = [line.at for line in lines if line.what == "trouble"]
    over = [line.at for line in lines if line.what == "trouble over"]
    return list(zip(began, over, strict=False))


def _deferred(lines: Sequence[Line], facts: Sequence[Facts], told: Told) -> _Found:
    """Jobs that no worker knows wait; those of a release are run by workers that have it, and by no others."""
    release_of = {line.pid: int(line.key.split()[0][1:]) for line in lines if line.what == "boot"}
    for fact in facts:
        job = fact.job
        if job.task == "unknown" and (job.attempt or job.status is not JobStatus.QUEUED):
            yield "unknown", f"{job.task} {job.id}", f"is {job.status} after {job.attempt} attempts"
        needs = job.version if job.task == "release" else job.task.removeprefix("new in ")
        if needs[:1] == "r" and needs[1:].isdigit():
            for attempt in fact.attempts:
                for pid in told.pids[job.id, attempt.attempt]:
                    if release_of.get(pid, -1) < int(needs[1:]):
                        yield (
                            "unknown",
                            f"{job.task} {job.id}",
                            f"needs {needs}, and ran on r{release_of.get(pid)}",
                        )


# --- figures -------------------------------------------------------------------------------------------


def _figures(played: Played, told: Told) -> dict[str, Any]:
    lines, facts = played.lines, played.facts
    outcomes = Counter(str(attempt.outcome) for fact in facts for attempt in fact.attempts)
    ends = sum(line.what == "end" for line in lines)
    completed = sum(fact.job.status is JobStatus.COMPLETED for fact in facts)
    kills = {line.pid for line in lines if line.what == "killed"}
    return {
        "attacks survived": dict(sorted(played.attacks.items())),
        "attacks in all": sum(played.attacks.values()),
        "processes killed": len(kills),
        "worker exits": dict(sorted(played.exits.items())),
        "jobs": dict(sorted(Counter(str(fact.job.status) for fact in facts).items())),
        "attempts": dict(sorted(outcomes.items())),
        "effects in the ledger": ends,
        "steps begun again after a crash": sum(
            len(starts) - 1 for steps in told.starts.values() for starts in steps.values() if len(starts) > 1
        ),
        "effects that came too late, and were refused": _refused(facts, lines),
        "workers that woke up without their lease": played.log.count("was taken for dead"),
        "readers": sum(len(readers) for readers in played.seen.values()),
        "readers sent away": played.unread,
        "jobs completed per second": round(completed / max(1.0, played.attacked_seconds), 1),
        "effects per second": round(ends / max(1.0, played.attacked_seconds), 1),
        "seconds until all had ended": round(played.calm_seconds, 1),
        **_gaps(played, told),
    }


def _refused(facts: Sequence[Facts], lines: Sequence[Line]) -> int:
    """Steps that were carried out under a fence that somebody else had taken by then."""
    lost = {
        (fact.job.id, attempt.attempt): attempt.ended_at
        for fact in facts
        for attempt in fact.attempts
        if attempt.outcome is AttemptOutcome.LOST
    }
    return sum(
        line.what == "end" and line.at > (lost.get((line.job, line.attempt)) or float("inf"))
        for line in lines
    )


def _gaps(played: Played, told: Told) -> dict[str, Any]:
    """How long jobs lay still, until their next step began: after a kill, by whether others on the machine could see
    it, and after a hand-over in a stop."""
    lines = played.lines
    killed = {line.pid: line.at for line in lines if line.what == "killed"}
    far = {line.pid for line in lines if line.what == "boot" and " far " in f" {line.key} "}
    found: dict[str, list[float]] = {"kill, seen": [], "kill, by its lease": [], "hand-over": []}
    for fact in played.facts:
        starts = sorted((line.at, line.attempt) for key in told.starts[fact.job.id].values() for line in key)
        for attempt in fact.attempts:
            ended_at = attempt.ended_at or 0.0
            if attempt.outcome is AttemptOutcome.LOST:
                for pid in told.pids[fact.job.id, attempt.attempt] & set(killed):
                    kind = "kill, by its lease" if pid in far else "kill, seen"
                    _add(found[kind], starts, killed[pid], attempt.attempt)
            elif attempt.reason == "shutdown":
                _add(found["hand-over"], starts, ended_at, attempt.attempt)
    return {f"gap after a {kind}": _spread(seconds) for kind, seconds in found.items()}


def _add(gaps: list[float], starts: list[tuple[float, int]], at: float, attempt: int) -> None:
    for start, of_attempt in starts[bisect_left(starts, (at, 0)) :]:
        if of_attempt > attempt:
            gaps.append(start - at)
            return


def _spread(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"count": 0}
    return {
        "count": len(seconds),
        "median": round(statistics.median(seconds), 3),
        "p99": round(sorted(seconds)[int(len(seconds) * 0.99)], 3),
        "worst": round(max(seconds), 3),
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "none"
    return str(value)
