"""Starts the children one after another, pairs their rounds, and makes the rows."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from .catalog import ENTRIES, FLOOR, IMPORTS, Entry
from .imports import measure_import
from .rows import Paired, Row

SECTIONS = ("spawn", "memory", "stop", "import")
CHILD_TIMEOUT_SECONDS = 600

SPAWN_GOAL = 1.8
MEMORY_GOAL_BYTES = 500
STOP_GOAL = 1.2
IMPORT_GOAL_SECONDS = 0.015


@dataclass(frozen=True)
class Sizes:
    """How much work a run does."""

    spawn_tasks: int = 20_000
    spawn_rounds: int = 9
    held_tasks: int = 100_000
    held_rounds: int = 3
    import_rounds: int = 15


FULL = Sizes()
QUICK = Sizes(spawn_tasks=1_000, spawn_rounds=2, held_tasks=5_000, held_rounds=1, import_rounds=2)


class ChildFailed(Exception):
    """A measuring process ended badly; the message is the last line it wrote."""


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def loop_problem(loop: str) -> str:
    """Why that loop cannot be measured here; empty if it can."""
    if loop == "uvloop" and find_spec("uvloop") is None:
        return "uvloop is not installed, not measured"
    if loop == "eager" and sys.version_info < (3, 12):
        return "eager tasks need Python 3.12, not measured"
    return ""


def ask_child(**order: object) -> Any:
    """Run one measurement in a fresh process; ChildFailed if it gives no answer."""
    command = [sys.executable, "-m", f"{__package__}.child", json.dumps(order)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CHILD_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ChildFailed(f"no answer within {CHILD_TIMEOUT_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ChildFailed(lines[-1])
    return json.loads(done.stdout)


def missing(
    entry: Entry, sections: tuple[str, ...], loop: str, bodies: tuple[str, ...] = ("",)
) -> Iterator[Row]:
    """The rows of a library that is not there."""
    problem = f"{entry.package} is not installed, not measured"
    for section in sections:
        for body in bodies:
            yield Row(section, entry.name, loop, body, ours=entry.ours, problem=problem)


def spawn_rows(loop: str, sizes: Sizes) -> Iterator[Row]:
    """Start to collected end, µs per task."""
    bodies = ("sleep0", "return1")
    for entry in ENTRIES:
        if not entry.spawns or entry.name == FLOOR:
            continue
        if not entry.installed:
            yield from missing(entry, ("spawn",), loop, bodies)
            continue
        progress(f"spawn   {loop:8} {entry.name}")
        try:
            answer = ask_child(
                measure="spawn",
                contender=entry.name,
                loop=loop,
                bodies=bodies,
                count=sizes.spawn_tasks,
                rounds=sizes.spawn_rounds,
            )
        except ChildFailed as error:
            for body in bodies:
                yield Row("spawn", entry.name, loop, body, ours=entry.ours, problem=str(error), failed=True)
            continue
        for body in bodies:
            paired = Paired(**answer[body])
            yield Row(
                "spawn",
                entry.name,
                loop,
                body,
                unit="µs",
                **paired.as_fields(scale=1e6 / sizes.spawn_tasks),
                **goal(entry, f"≤ {SPAWN_GOAL}×", paired.ratio <= SPAWN_GOAL),
                ours=entry.ours,
                note=entry.note,
            )


def held_rows(loop: str, sizes: Sizes, sections: tuple[str, ...]) -> Iterator[Row]:
    """Bytes per waiting task, and µs per task to stop them all; both come from the same processes."""
    for entry in ENTRIES:
        if not entry.holds or entry.name == FLOOR:
            continue
        if not entry.installed:
            yield from missing(entry, sections, loop)
            continue
        floors, values = [], []
        try:
            for number in range(sizes.held_rounds):
                progress(f"hold    {loop:8} {entry.name}, round {number + 1} of {sizes.held_rounds}")
                floors.append(ask_child(measure="hold", contender=FLOOR, loop=loop, count=sizes.held_tasks))
                values.append(
                    ask_child(measure="hold", contender=entry.name, loop=loop, count=sizes.held_tasks)
                )
        except ChildFailed as error:
            for section in sections:
                yield Row(section, entry.name, loop, ours=entry.ours, problem=str(error), failed=True)
            continue
        if "memory" in sections:
            yield memory_row(
                entry, loop, Paired([each["bytes"] for each in floors], [each["bytes"] for each in values])
            )
        if "stop" in sections:
            yield stop_row(
                entry, loop, Paired([each["stop"] for each in floors], [each["stop"] for each in values])
            )


def memory_row(entry: Entry, loop: str, paired: Paired) -> Row:
    extra = paired.value - paired.floor
    met = goal(entry, f"≤ +{MEMORY_GOAL_BYTES} B", extra <= MEMORY_GOAL_BYTES)
    return Row(
        "memory",
        entry.name,
        loop,
        unit="B",
        **paired.as_fields(),
        extra=extra,
        **met,
        ours=entry.ours,
        note=entry.note,
    )


def stop_row(entry: Entry, loop: str, paired: Paired) -> Row:
    met = goal(entry, f"≤ {STOP_GOAL}×", paired.ratio <= STOP_GOAL)
    return Row(
        "stop",
        entry.name,
        loop,
        unit="µs",
        **paired.as_fields(scale=1e6),
        **met,
        ours=entry.ours,
        note=entry.note,
    )


def import_rows(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds on top of bare asyncio, and whether anything from outside the standard library came along."""
    for entry in IMPORTS:
        if not entry.installed:
            yield from missing(entry, ("import",), "")
            continue
        progress(f"import  {entry.name}")
        try:
            found = measure_import(entry.name, sizes.import_rounds)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            yield Row("import", entry.name, ours=entry.ours, problem=str(error), failed=True)
            continue
        met = found.added_seconds <= IMPORT_GOAL_SECONDS and not found.third_party
        yield Row(
            "import",
            entry.name,
            unit="ms",
            **found.paired.as_fields(scale=1e3),
            extra=found.added_seconds * 1e3,
            **goal(entry, f"≤ +{IMPORT_GOAL_SECONDS * 1e3:.0f} ms, nothing third-party", met),
            ours=entry.ours,
            note=f"{found.modules} modules, third-party: {', '.join(found.third_party) or 'none'}",
        )


def goal(entry: Entry, text: str, met: bool) -> dict[str, Any]:
    """A goal is ours only; the others are there to compare with."""
    return {"goal": text, "goal_met": met} if entry.ours else {}


def run(sections: tuple[str, ...], loops: tuple[str, ...], sizes: Sizes) -> list[Row]:
    """Measure everything asked for, one process at a time."""
    rows: list[Row] = []
    held = tuple(section for section in ("memory", "stop") if section in sections)
    for loop in loops:
        problem = loop_problem(loop)
        if problem:
            rows += [
                Row(section, "all", loop, problem=problem) for section in sections if section != "import"
            ]
            continue
        if "spawn" in sections:
            rows += spawn_rows(loop, sizes)
        if held:
            rows += held_rows(loop, sizes, held)
    if "import" in sections:
        rows += import_rows(sizes)
    return sorted(rows, key=lambda row: SECTIONS.index(row.section))
