"""One play: a program with a trap, then the same program without one, then the checker. Many plays, two at a time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from lastcall.jobs import AttemptOutcome, JobStatus
from lastcall.jobs._rows import JobRow

from . import checker, ledger
from .checker import ANY, Expected, Facts
from .forks import Nursery
from .ledger import Line, having
from .programs import Settings
from .work import plain_result, rich_result

T = TypeVar("T")

LONG = os.environ.get("LASTCALL_LONG") == "1"
_AT_ONCE = 2
_FINISH_SECONDS = 20.0


class Trapped(NamedTuple):
    """What came of one play. `sprung` False: the program ended without passing the place so often."""

    place: str
    nth: int
    sprung: bool
    first_code: int
    second_code: int | None
    gone_seconds: float
    lines: list[Line]
    facts: list[Facts]
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.place} {self.nth}"

    @property
    def rich(self) -> Facts:
        (fact,) = [fact for fact in self.facts if fact.job.task == "rich"]
        return fact

    def begins(self) -> dict[str, int]:
        """How often each step of the rich job began."""
        job = self.rich.job.id
        return Counter(line.key for line in self.lines if line.what == "start" and line.job == job)

    @property
    def again_seconds(self) -> float | None:
        """From the start of the second program to the first step it began; None if none was left to begin."""
        second = [line for line in self.lines if line.what == "boot"][-1]
        began = [line.at for line in self.lines if line.what == "start" and line.pid == second.pid]
        return min(began) - second.at if began else None

    def twice(self) -> list[str]:
        """The steps that began more than once."""
        return [key for key, count in self.begins().items() if count > 1]

    def count(self, outcome: AttemptOutcome, reason: str | None = None) -> int:
        """How many attempts at the rich job ended so."""
        return [(a.outcome, a.reason) for a in self.rich.attempts].count((outcome, reason))

    def broken(self) -> list[str]:
        """Broken promises, told so that the play can be found and looked at."""
        found = checker.broken(self.lines, self.facts, expected)
        return [f"at {self.name}: promise {b.promise}: {b.job}: {b.told} ({self.folder})" for b in found]


def play(
    nursery: Nursery,
    folder: Path,
    place: str | None,
    nth: int,
    signal: str = "SIGKILL",
    *,
    again: int | None = None,
) -> Trapped:
    """Run the program into the trap, and once more to its end. `again`: the n-th play in this folder, and only the
    first half of it."""
    folder.mkdir(exist_ok=again is not None)
    free = Settings("rich", str(folder / "jobs.db"), str(folder / "ledger"), str(folder / "log"))
    first = nursery.spawn(free._replace(place=place, nth=nth, signal=signal))
    first_code = first.wait()
    gone_at = time.time()
    sprung = having(ledger.read(free.ledger), "sprung", pid=first.pid)
    second_code = None
    if sprung and again is None:
        second_code = nursery.spawn(free).wait(_FINISH_SECONDS)
    gone_seconds = gone_at - sprung[0].at if sprung else 0.0
    lines = ledger.read(free.ledger)
    facts = asyncio.run(checker.look(free.database))
    return Trapped(
        place or "nowhere", nth, bool(sprung), first_code, second_code, gone_seconds, lines, facts, folder
    )


def counts_of(trapped: Trapped) -> dict[str, int]:
    """How often the program passed each kind of place, when nothing stopped it."""
    (line,) = having(trapped.lines, "counts")
    counts: dict[str, int] = json.loads(line.key)
    return counts


def expected(job: JobRow) -> Expected:
    """How each job of `work` must end."""
    args = json.loads(job.args)
    match job.task:
        case "rich":
            return Expected(result=rich_result(args["number"]), failures=1)
        case "plain":
            return Expected(result=plain_result(args["number"], args["steps"]))
        case "long" | "attentive" | "apart" | "careful":
            return Expected(result=ANY)
        case "innocent":
            return Expected(result=None)
        case "child":
            return Expected(result=args["number"] ** 2)
        case "limited":
            return Expected(result=args["lane"])
        case "ticking":  # a minute may begin when the last worker has just left
            return Expected(frozenset({JobStatus.COMPLETED, JobStatus.QUEUED}))
        case "failing":
            return Expected(frozenset({JobStatus.FAILED}), failures=2)
        case "poison" | "patient poison":
            return Expected(frozenset({JobStatus.FAILED}))
        case "unknown":
            return Expected(frozenset({JobStatus.QUEUED}))
    raise AssertionError(f"nobody knows how {job.task} must end")


def side_by_side(call: Callable[[T], Trapped], over: Sequence[T]) -> list[Trapped]:
    """The plays, two at a time: they mostly wait for the disk."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(call, over))


def seed() -> int:
    """Of this run: LASTCALL_SEED, or a new one."""
    return int(os.environ.get("LASTCALL_SEED") or random.SystemRandom().randrange(10**6))


def chosen(count: int, sample: int, generator: random.Random) -> list[int]:
    """Which of `count` places to play: all of them in a long run, else a sample that is spread over all of them."""
    if LONG or count <= sample:
        return list(range(1, count + 1))
    bounds = [1 + count * n // sample for n in range(sample + 1)]
    return [generator.randrange(low, high) for low, high in zip(bounds, bounds[1:], strict=False)]


def until_free(call: Callable[[int], Trapped], beyond: int) -> list[Trapped]:
    """Plays on beyond the places that were counted, until the program is not caught any more: runs differ."""
    played = []
    for nth in range(beyond + 1, 2 * beyond + 50):
        played.append(call(nth))
        if not played[-1].sprung:
            return played
    raise AssertionError(f"after {len(played)} more places there were still more")
