"""From the call of submit to the first line of the job, at an even pace; beside one commit on the same disk."""

from statistics import quantiles
from typing import NamedTuple

from .catalog import OURS, Setting
from .child import measure
from .marks import count_marks, read_marks
from .report import progress
from .rows import Block, Goal, Row
from .run import PROBLEMS, Run
from .workers import ContenderFailed, Worker, submit, wait_until

BOOT_SECONDS = 60
END_SECONDS = 60
FLOOR_NAME = "insert and commit"
MEDIAN_GOAL = Goal("≤ 2 ms", value_at_most=2.0)
TAIL_GOAL = Goal("≤ 6 ms", value_at_most=6.0)


class Spread(NamedTuple):
    p50: float
    p99: float


def spread(seconds: list[float]) -> Spread:
    """In milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return Spread(cuts[49] * 1e3, cuts[98] * 1e3)


def rows(run: Run) -> list[Row]:
    pace = f"at {run.sizes.per_second:.0f}/s"
    middle = Block("latency", f"Submit to start {pace}, p50", "ms")
    tail = Block("latency", f"Submit to start {pace}, p99", "ms")
    if run.with_ours:
        one_process(run, middle, tail)
    for setting in run.settings:
        two_processes(run, setting, middle, tail)
    return middle.rows + tail.rows


def floor(run: Run) -> Spread:
    return spread(measure("commits", count=run.sizes.paced, per_second=run.sizes.per_second))


def one_process(run: Run, middle: Block, tail: Block) -> None:
    name = f"{OURS}, one process"
    setting = next(setting for setting in run.settings if setting.ours)
    problem = run.problem(setting)
    if problem:
        for block in (middle, tail):
            block.add_problem(name, problem, ours=True)
        return
    progress(f"latency     {name}")
    try:
        base = floor(run)
        found = spread(measure("ours_start", count=run.sizes.paced, per_second=run.sizes.per_second))
    except PROBLEMS as error:
        for block in (middle, tail):
            block.add_problem(name, str(error), failed=True, ours=True)
        return
    add(run, setting, name, base, found, middle, tail)


def two_processes(run: Run, setting: Setting, middle: Block, tail: Block) -> None:
    name = f"{OURS}, two processes" if setting.ours else setting.name
    problem = run.problem(setting)
    if problem:
        for block in (middle, tail):
            block.add_problem(name, problem, ours=setting.ours)
        return
    progress(f"latency     {name}")
    try:
        base = floor(run)
        found = spread(waits(run, setting))
    except PROBLEMS as error:
        for block in (middle, tail):
            block.add_problem(name, str(error), failed=True, ours=setting.ours)
        return
    add(run, setting, name, base, found, middle, tail)


def waits(run: Run, setting: Setting) -> list[float]:
    """Seconds from submit to start, of jobs submitted by one process and run by another one that is awake."""
    count = run.sizes.paced
    with run.place(setting) as place:
        submit(setting, run.peers, place, "enqueue", 1)
        worker = Worker(setting, run.peers, place)
        try:
            if not wait_until(lambda: count_marks(place.folder) >= 1 or worker.ended, BOOT_SECONDS):
                raise ContenderFailed(f"no job ran within {BOOT_SECONDS} s; {worker.why()}")
            submit(setting, run.peers, place, "pace", count, run.sizes.per_second)
            wait_until(lambda: count_marks(place.folder) > count or worker.ended, END_SECONDS)
            marks = read_marks(place.folder)[1:]
        finally:
            worker.stop()
    if len(marks) < count:
        raise ContenderFailed(f"{len(marks)} of {count} jobs had run {END_SECONDS} s after the last submit")
    return [mark.waited for mark in marks]


def add(
    run: Run, setting: Setting, name: str, base: Spread, found: Spread, middle: Block, tail: Block
) -> None:
    for block, base_ms, found_ms, goal in (
        (middle, base.p50, found.p50, MEDIAN_GOAL),
        (tail, base.p99, found.p99, TAIL_GOAL),
    ):
        block.add(
            name,
            [base_ms],
            [found_ms],
            floor_name=FLOOR_NAME,
            goal=goal if setting.ours else None,
            durability=setting.durability,
            count=run.sizes.paced,
            ours=setting.ours,
            note=setting.worker,
        )
