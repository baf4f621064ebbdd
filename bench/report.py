"""The rows as a plain table for people and as JSON for programs."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import groupby

from .rows import Row

TITLES = {
    "spawn": "Spawn to collected end, CPU µs per task (floor: raw create_task, awaited)",
    "memory": "Resident memory, bytes per waiting task (floor: a bare task in asyncio.sleep)",
    "stop": "Cancel all waiting tasks and see them end, µs per task (floor: cancel and gather)",
    "import": "Import in a fresh interpreter, CPU ms, asyncio included (floor: bare import asyncio)",
}
PACKAGES = ("lastcall", "uvloop", "anyio", "aiojobs", "starlette")


def machine() -> dict[str, str]:
    """What was measured on: versions and the size of the machine, nothing that names it."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    } | versions


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _cells(row: Row) -> list[str]:
    digits = 0 if row.unit == "B" else 2
    extra = "" if row.extra is None else f"+{row.extra:,.{0 if row.unit == 'B' else 1}f} {row.unit}"
    verdict = "" if row.goal_met is None else f"{row.goal}: {'met' if row.goal_met else 'NOT MET'}"
    return [
        row.contender,
        _number(row.floor, digits),
        _number(row.value, digits),
        _number(row.ratio_min),
        _number(row.ratio_median),
        _number(row.ratio_max),
        extra,
        verdict,
        row.note,
    ]


HEAD = ["contender", "floor", "value", "min ×", "median ×", "max ×", "extra", "goal", "note"]
NUMERIC = range(1, 7)


def _aligned(lines: Sequence[list[str]]) -> Iterable[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    for line in lines:
        cells = [
            cell.rjust(width) if column in NUMERIC else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def table(rows: Sequence[Row]) -> str:
    """All rows, one block for each section, loop and body, fastest first."""
    out = [", ".join(f"{name} {version}" for name, version in machine().items())]
    for (section, loop, body), block in groupby(
        rows_in_order(rows), key=lambda row: (row.section, row.loop, row.body)
    ):
        members = list(block)
        out += ["", " | ".join(part for part in (TITLES[section], loop, body) if part)]
        measured = [row for row in members if not row.problem]
        if measured:
            out += _aligned([HEAD, *(_cells(row) for row in measured)])
        out += [f"{row.contender}: {row.problem}" for row in members if row.problem]
    return "\n".join(out)


def rows_in_order(rows: Sequence[Row]) -> list[Row]:
    """Sections as they came; within a block by ratio, unmeasured rows last."""
    places = {
        key: place
        for place, key in enumerate(dict.fromkeys((row.section, row.loop, row.body) for row in rows))
    }
    sections = list(TITLES)
    return sorted(
        rows,
        key=lambda row: (
            sections.index(row.section),
            places[row.section, row.loop, row.body],
            float("inf") if row.ratio_median is None else row.ratio_median,
        ),
    )


def write_json(path: str, rows: Sequence[Row]) -> None:
    """The machine, the command and every row, with the field names of `Row`."""
    content = {"machine": machine(), "arguments": sys.argv[1:], "rows": [asdict(row) for row in rows]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
