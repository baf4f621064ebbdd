"""From the call of submit to the first line of the job, at an even pace; beside one commit on the same disk."""

from collections.abc import Callable
from itertools import chain
from statistics import quantiles
from typing import Any, NamedTuple

from .catalog import OURS, Setting
from .child import measure
from .marks import count_marks, read_marks
from .report import progress
from .rows import Block, Goal, Row
from .run import PROBLEMS, Run
from .workers import ContenderFailed, Worker, submit, wait_until

BOOT_SECONDS = 60
END_SECONDS = 60


class Beside(NamedTuple):
    """What the waits are compared with: seconds of each commit at the same pace, and the goals for p50 and p99."""

    section: str
    floor_name: str
    floor: Callable[[Run], list[float]]
    goals: tuple[Goal, Goal]


class Waits(NamedTuple):
    """Seconds, round by round: a commit on the same disk, and the contender right after it."""

    floors: list[list[float]]
    values: list[list[float]]


def sqlite_floor(run: Run) -> list[float]:
    taken: list[float] = measure("commits", count=run.sizes.paced, per_second=run.sizes.per_second)
    return taken


SQLITE = Beside(
    "latency",
    "insert and commit",
    sqlite_floor,
    (Goal("≤ 2 ms", value_at_most=2.0), Goal("≤ 6 ms", value_at_most=6.0)),
)


def rows(run: Run, beside: Beside = SQLITE) -> list[Row]:
    pace = f"at {run.sizes.per_second:.0f}/s"
    blocks = (
        Block(beside.section, f"Submit to start {pace}, p50", "ms"),
        Block(beside.section, f"Submit to start {pace}, p99", "ms"),
    )
    for setting in run.settings:
        if setting.name == OURS:
            contender(run, setting, f"{OURS}, one process", one_process, blocks, beside)
            contender(run, setting, f"{OURS}, two processes", two_processes, blocks, beside)
        else:
            contender(run, setting, setting.name, two_processes, blocks, beside)
    return [row for block in blocks for row in block.rows]


Blocks = tuple[Block, Block]


Measured = Callable[[Run, Setting, Beside], Waits]


def contender(
    run: Run, setting: Setting, name: str, measured: Measured, blocks: Blocks, beside: Beside
) -> None:
    problem = run.problem(setting)
    failed = False
    if not problem:
        progress(f"latency     {name}")
        try:
            add(run, setting, name, measured(run, setting, beside), blocks, beside)
            return
        except PROBLEMS as error:
            problem, failed = str(error), True
    for block in blocks:
        block.add_problem(name, problem, failed=failed, ours=setting.ours)


def one_process(run: Run, setting: Setting, beside: Beside) -> Waits:
    waits = Waits([], [])
    order = {"count": run.sizes.paced, "per_second": run.sizes.per_second}
    for _ in range(run.sizes.paced_rounds):
        waits.floors.append(beside.floor(run))
        waits.values.append(measure("ours_start", url=run.servers.new_url(setting), **order))
    return waits


def two_processes(run: Run, setting: Setting, beside: Beside) -> Waits:
    """Submitted by one process and run by another one that is awake."""
    count = run.sizes.paced
    waits = Waits([], [])
    with run.place(setting) as place:
        submit(setting, run.peers, place, "enqueue", 1)
        worker = Worker(setting, run.peers, place)
        try:
            wait_until(lambda: count_marks(place.folder) >= 1 or worker.ended, BOOT_SECONDS)
            if not count_marks(place.folder):
                raise ContenderFailed(f"no job has run; {worker.why()}")
            for number in range(run.sizes.paced_rounds):
                waits.floors.append(beside.floor(run))
                submit(setting, run.peers, place, "pace", count, run.sizes.per_second)
                expected = 1 + (number + 1) * count
                wait_until(lambda: count_marks(place.folder) >= expected or worker.ended, END_SECONDS)  # noqa: B023
                if count_marks(place.folder) < expected:
                    why = "the worker ended" if worker.ended else f"a job had not run after {END_SECONDS} s"
                    raise ContenderFailed(f"{why}; {worker.why()}")
                waits.values.append([mark.waited for mark in read_marks(place.folder)[-count:]])
        finally:
            worker.stop()
    return waits


def percentile(seconds: list[float], percent: int) -> float:
    """In milliseconds."""
    return quantiles(seconds, n=100, method="inclusive")[percent - 1] * 1e3


def add(run: Run, setting: Setting, name: str, waits: Waits, blocks: Blocks, beside: Beside) -> None:
    """The middle by rounds; the tail of all rounds together, because a round is too short to have one."""
    fields: dict[str, Any] = {
        "floor_name": beside.floor_name,
        "durability": setting.durability,
        "count": run.sizes.paced * run.sizes.paced_rounds,
        "ours": setting.ours,
        "note": setting.worker,
    }
    middle, tail = blocks
    middle.add(
        name,
        [percentile(each, 50) for each in waits.floors],
        [percentile(each, 50) for each in waits.values],
        goal=beside.goals[0] if setting.ours else None,
        **fields,
    )
    tail.add(
        name,
        [percentile(list(chain(*waits.floors)), 99)],
        [percentile(list(chain(*waits.values)), 99)],
        goal=beside.goals[1] if setting.ours else None,
        **fields,
    )
