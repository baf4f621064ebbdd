"""Jobs per second: from submit to done in one process; and, as with the peers, submitted and processed apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..jobs.catalog import FULL_FSYNC, OURS, Setting
from ..jobs.child import measure
from ..jobs.marks import count_marks, read_marks
from ..jobs.report import progress
from ..jobs.rows import Block, Goal, Row
from ..jobs.run import PROBLEMS
from ..jobs.workers import ContenderFailed, Worker, submit, wait_until
from .catalog import PGQUEUER
from .measuring import FLOOR, Bench, wait_recorded

PROCESS_SECONDS = 60
RECORD_SECONDS = 30
HALF = Goal("≥ 0.5×", ratio_at_least=0.5)
MORE = Goal("≥ 1×", ratio_at_least=1.0)


class Apart(NamedTuple):
    """Jobs per second, submitted one by one and processed; CPU time of worker and server for each, in µs."""

    submit: float
    process: float
    server_us: float
    notes: list[str]


@dataclass
class Answers:
    """What was measured of one setting, pair by pair; or why not."""

    problem: str = ""
    failed: bool = False
    single_floors: list[float] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    values: list[Apart] = field(default_factory=list)


def rows(bench: Bench) -> list[Row]:
    done = Block("postgres", "Submit to done, all in one process", "jobs/s")
    submits = Block("postgres", "Submitted one by one, no worker yet", "jobs/s")
    processed = Block(
        "postgres", "Processed by one worker from a full queue, until all is recorded", "jobs/s"
    )
    if any(setting.ours for setting in bench.settings):
        submit_to_done(bench, done)
    found = in_turns(bench)
    for setting in bench.settings:
        add(bench, setting, found[setting.name], submits, processed)
    beside_pgqueuer(bench, found, processed)
    return done.rows + submits.rows + processed.rows


def submit_to_done(bench: Bench, block: Block) -> None:
    """Pairs; who goes first changes from round to round."""
    sizes = bench.sizes
    floors: list[float] = []
    values: list[float] = []

    def floor() -> None:
        floors.append(bench.floor("batches", count=sizes.jobs)["both"])

    try:
        for number in range(sizes.rounds):
            progress(f"postgres    submit to done, round {number + 1} of {sizes.rounds}")
            if number % 2 == 0:
                floor()
            order = {
                "count": sizes.jobs,
                "submitters": sizes.submitters,
                "concurrency": sizes.concurrency,
            }
            values.append(measure("ours_done", url=bench.server.new_url(), **order)["rate"])
            if number % 2:
                floor()
    except PROBLEMS as error:
        block.add_problem(OURS, str(error), failed=True, ours=True)
        return
    fields = {"durability": FULL_FSYNC, "count": sizes.jobs, "ours": True, "note": "concurrency 100"}
    block.add(OURS, floors, values, floor_name=f"{FLOOR}, one connection", goal=HALF, **fields)


def in_turns(bench: Bench) -> dict[str, Answers]:
    """Round by round, everybody after one another, each right after the floor: a slow moment hits neighbours alike."""
    sizes = bench.sizes
    found = {setting.name: Answers(setting.problem(bench.peers)) for setting in bench.settings}
    for number in range(sizes.rounds):
        for setting in bench.settings:
            answers = found[setting.name]
            rounds = sizes.rounds if setting.ours or setting.name == PGQUEUER else sizes.peer_rounds
            if answers.problem or number >= rounds:
                continue
            progress(f"postgres    {setting.name}, round {number + 1} of {rounds}")
            try:
                answers.single_floors.append(bench.floor("singles", count=sizes.singles)["submit"])
                answers.floors.append(bench.floor("batches", count=sizes.jobs)["process"])
                answers.values.append(measured(bench, setting))
            except PROBLEMS as error:
                answers.problem, answers.failed = str(error), True
    return found


def add(bench: Bench, setting: Setting, answers: Answers, submits: Block, processed: Block) -> None:
    """Some are submitted one after another, the others by the many; then the worker starts."""
    if answers.problem:
        for block in (submits, processed):
            block.add_problem(setting.name, answers.problem, failed=answers.failed, ours=setting.ours)
        return
    fields: dict[str, Any] = {"durability": setting.durability, "ours": setting.ours}
    submits.add(
        setting.name,
        answers.single_floors,
        [each.submit for each in answers.values],
        floor_name="an insert and its commit",
        count=bench.sizes.singles,
        **fields,
    )
    last = answers.values[-1]
    processed.add(
        setting.name,
        answers.floors,
        [each.process for each in answers.values],
        floor_name=f"{FLOOR}, one connection",
        goal=HALF if setting.ours else None,
        count=min(bench.sizes.jobs, setting.count),
        note=", ".join(filter(None, [setting.worker, f"server {last.server_us:.0f} µs", *last.notes])),
        **fields,
    )


def measured(bench: Bench, setting: Setting) -> Apart:
    """Rates of submitting one by one and of processing; the latter from the first body to the last recorded end."""
    singles = bench.sizes.singles
    count = max(min(bench.sizes.jobs, setting.count), 2 * singles)
    with bench.place(setting) as place:
        submitted = submit(setting, bench.peers, place, "enqueue", singles)
        submit(setting, bench.peers, place, "fill", count - singles)
        before = bench.server.cpu_seconds()
        worker = Worker(setting, bench.peers, place)
        try:
            wait_until(lambda: count_marks(place.folder) >= count or worker.ended, PROCESS_SECONDS)
            marks = read_marks(place.folder) if count_marks(place.folder) else []
            if not marks:
                raise ContenderFailed(f"no job has run; {worker.why()}")
            ended_at = marks[-1].seen
            if len(marks) >= count:
                ended_at = max(ended_at, wait_recorded(place.url, setting.recorded, count, RECORD_SECONDS))
        finally:
            used = bench.server.cpu_seconds() - before
            worker.stop()
    notes = [f"first job {marks[0].seen - worker.started_at:.1f} s after the start"]
    if len(marks) < count:
        notes.append(f"{len(marks)} of {count} within {PROCESS_SECONDS} s")
    seconds = max(ended_at - marks[0].seen, 1e-9)
    return Apart(submitted["rate"], len(marks) / seconds, used / len(marks) * 1e6, notes)


def beside_pgqueuer(bench: Bench, found: dict[str, Answers], block: Block) -> None:
    """The goal that names a peer: the same queue, round by round."""
    theirs = found.get(PGQUEUER)
    if theirs is None or theirs.problem:
        return
    for setting in bench.settings:
        ours = found[setting.name]
        if not setting.ours or ours.problem:
            continue
        block.add(
            setting.name,
            [each.process for each in theirs.values],
            [each.process for each in ours.values],
            floor_name=f"{PGQUEUER}, which keeps no results",
            goal=MORE,
            durability=setting.durability,
            count=bench.sizes.jobs,
            ours=True,
        )
