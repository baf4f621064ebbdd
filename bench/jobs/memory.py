"""What a queued job takes on disk and in memory, and what a running one takes in memory."""

from collections.abc import Callable, Sequence

from .catalog import FULL_FSYNC, OURS
from .child import measure
from .report import progress
from .rows import Block, Row
from .run import PROBLEMS, Run


def rows(run: Run) -> list[Row]:
    setting = next((setting for setting in run.settings if setting.ours), None)
    on_disk = Block("memory", "A queued job in the database file", "bytes")
    submitter = Block("memory", "A queued job in the process that submitted it", "bytes")
    running = Block("memory", "A running job that sleeps, resident memory", "bytes")
    blocks = (on_disk, submitter, running)
    if setting is None:
        return []
    problem = run.problem(setting)
    if problem:
        for block in blocks:
            block.add_problem(OURS, problem, ours=True)
        return [row for block in blocks for row in block.rows]
    sizes = run.sizes
    try:
        queued = pairs(run, "queued", "program_queued", "ours_queued", sizes.queued)
        asleep = pairs(run, "running", "bare_tasks", "ours_running", sizes.running)
    except PROBLEMS as error:
        for block in blocks:
            block.add_problem(OURS, str(error), failed=True, ours=True)
        return [row for block in blocks for row in block.rows]
    add(on_disk, queued, "file", "the same row in a bare table", sizes.queued)
    add(submitter, queued, "process", "the smallest program", sizes.queued)
    add(running, asleep, "process", "a bare task in asyncio.sleep", sizes.running)
    return [row for block in blocks for row in block.rows]


Answers = Sequence[dict[str, float]]


def pairs(run: Run, what: str, floor: str, ours: str, count: int) -> tuple[Answers, Answers]:
    floors, values = [], []
    for number in range(run.sizes.memory_rounds):
        progress(f"memory      {what}, round {number + 1} of {run.sizes.memory_rounds}")
        floors.append(measure(floor, count=count))
        values.append(measure(ours, count=count))
    return floors, values


def add(block: Block, found: tuple[Answers, Answers], key: str, floor_name: str, count: int) -> None:
    floors, values = found
    pick: Callable[[Answers], list[float]] = lambda answers: [max(answer[key], 1.0) for answer in answers]  # noqa: E731
    extra = sorted(pick(values))[len(values) // 2] - sorted(pick(floors))[len(floors) // 2]
    block.add(
        OURS,
        pick(floors),
        pick(values),
        floor_name=floor_name,
        durability=FULL_FSYNC if key == "file" else "",
        count=count,
        ours=True,
        note=f"{extra:+,.0f} B",
    )
