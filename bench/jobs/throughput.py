"""Jobs per second: from submit to done in one process, and, as with the peers, submitting and processing apart."""

from typing import Any, NamedTuple

from .catalog import FULL_FSYNC, OURS, Setting
from .child import measure
from .marks import count_marks, read_marks
from .recorded import wait_recorded
from .report import progress
from .rows import Block, Goal, Row
from .run import PROBLEMS, STORE_FLOOR_NAMES, Run
from .workers import ContenderFailed, Worker, submit, wait_until

PROGRAM = "the smallest program"
PROCESS_SECONDS = 60
RECORD_SECONDS = 60
HUEY = "huey-sqlite"


class Apart(NamedTuple):
    """Jobs per second, submitting and processing, and what else there is to say."""

    submit: float
    process: float
    notes: list[str]


def rows(run: Run) -> list[Row]:
    done = Block("throughput", "Submit to done, all in one process", "jobs/s")
    submits = Block("throughput", "Submitted one by one, no worker yet", "jobs/s")
    processed = Block("throughput", "Processed by one worker from a full queue, results recorded", "jobs/s")
    one_commit(run, done)
    if run.with_ours:
        ours(run, done)
    for setting in run.settings:
        apart(run, setting, submits, processed)
    against_huey(run, done)
    return done.rows + submits.rows + processed.rows


def program(run: Run) -> float:
    sizes = run.sizes
    answer = measure("program", count=sizes.jobs, submitters=sizes.submitters, concurrency=sizes.concurrency)
    return float(answer["rate"])


def ours_rate(run: Run) -> float:
    sizes = run.sizes
    answer = measure(
        "ours_done", count=sizes.jobs, submitters=sizes.submitters, concurrency=sizes.concurrency
    )
    return float(answer["rate"])


def one_commit(run: Run, block: Block) -> None:
    """The two floors beside each other."""
    sizes = run.sizes
    floors, values = [], []
    for number in range(sizes.rounds):
        progress(f"throughput  raw SQLite, round {number + 1} of {sizes.rounds}")
        floors.append(program(run))
        values.append(measure("one_commit", count=min(sizes.floor_jobs, sizes.jobs))["both"])
    block.add(
        "raw SQLite, three commits per job",
        floors,
        values,
        floor_name=PROGRAM,
        durability=FULL_FSYNC,
        count=min(sizes.floor_jobs, sizes.jobs),
    )


def ours(run: Run, block: Block) -> None:
    """Pairs; who goes first changes from round to round."""
    sizes = run.sizes
    setting = next(setting for setting in run.settings if setting.ours)
    problem = run.problem(setting)
    if problem:
        block.add_problem(OURS, problem, ours=True)
        return
    floors, values = [], []
    try:
        for number in range(sizes.rounds):
            progress(f"throughput  {OURS}, round {number + 1} of {sizes.rounds}")
            if number % 2 == 0:
                floors.append(program(run))
            values.append(ours_rate(run))
            if number % 2:
                floors.append(program(run))
    except PROBLEMS as error:
        block.add_problem(OURS, str(error), failed=True, ours=True)
        return
    block.add(
        OURS,
        floors,
        values,
        floor_name=PROGRAM,
        goal=Goal("≥ 0.5×", ratio_at_least=0.5),
        durability=setting.durability,
        count=sizes.jobs,
        ours=True,
        note=setting.worker,
    )


def apart(run: Run, setting: Setting, submits: Block, processed: Block) -> None:
    """Everything is submitted, one after another; then the worker starts."""
    problem = run.problem(setting)
    if problem:
        for block in (submits, processed):
            block.add_problem(setting.name, problem, ours=setting.ours)
        return
    count = min(run.sizes.jobs, setting.count)
    floors, found = [], []
    try:
        for number in range(run.sizes.peer_rounds):
            progress(f"throughput  {setting.name}, round {number + 1} of {run.sizes.peer_rounds}")
            floors.append(run.store_floor(setting))
            found.append(measured(run, setting, count))
    except PROBLEMS as error:
        for block in (submits, processed):
            block.add_problem(setting.name, str(error), failed=True, ours=setting.ours)
        return
    fields: dict[str, Any] = {"durability": setting.durability, "count": count, "ours": setting.ours}
    submit_floor, process_floor = STORE_FLOOR_NAMES[setting.store]
    submits.add(
        setting.name,
        [floor["submit"] for floor in floors],
        [apart.submit for apart in found],
        floor_name=submit_floor,
        **fields,
    )
    processed.add(
        setting.name,
        [floor["process"] for floor in floors],
        [apart.process for apart in found],
        floor_name=process_floor,
        note=", ".join(filter(None, [setting.worker, *found[-1].notes])),
        **fields,
    )


def measured(run: Run, setting: Setting, count: int) -> Apart:
    """Rates of submitting and of processing; the latter from the first body to the last recorded result."""
    with run.place(setting) as place:
        submitted = submit(setting, run.peers, place, "enqueue", count)
        worker = Worker(setting, run.peers, place)
        try:
            wait_until(lambda: count_marks(place.folder) >= count or worker.ended, PROCESS_SECONDS)
            marks = read_marks(place.folder) if count_marks(place.folder) else []
            if not marks:
                raise ContenderFailed(f"no job has run; {worker.why()}")
            ended_at = marks[-1].seen
            if len(marks) >= count and setting.recorded:
                ended_at = max(ended_at, wait_recorded(place.folder, setting.recorded, count, RECORD_SECONDS))
        finally:
            worker.stop()
    numbers = {mark[0] for mark in marks}
    notes = [f"first job {marks[0].seen - worker.started_at:.1f} s after the start"]
    if len(numbers) < count:
        notes.append(f"{len(numbers)} of {count} within {PROCESS_SECONDS} s")
    if len(numbers) < len(marks):
        notes.append(f"{len(marks) - len(numbers)} ran more than once")
    seconds = max(ended_at - marks[0].seen, 1e-9)
    return Apart(submitted["rate"], len(numbers) / seconds, notes)


def against_huey(run: Run, block: Block) -> None:
    """The goal that names a peer: from submit to done here, only the processing there; turn by turn."""
    huey = next((setting for setting in run.settings if setting.name == HUEY), None)
    mine = next((setting for setting in run.settings if setting.ours), None)
    if huey is None or mine is None or run.problem(huey) or run.problem(mine):
        return
    floors, values = [], []
    try:
        for number in range(run.sizes.peer_rounds):
            progress(f"throughput  {OURS} and {HUEY}, round {number + 1} of {run.sizes.peer_rounds}")
            floors.append(measured(run, huey, min(run.sizes.jobs, huey.count)).process)
            values.append(ours_rate(run))
    except PROBLEMS as error:
        block.add_problem(OURS, str(error), failed=True, ours=True)
        return
    block.add(
        OURS,
        floors,
        values,
        floor_name=f"{HUEY}, processing only",
        goal=Goal("≥ 5×", ratio_at_least=5),
        durability=mine.durability,
        count=run.sizes.jobs,
        ours=True,
        note=mine.worker,
    )
