"""The rows as plain tables for people and as JSON for programs."""

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from ..report import machine as bare_machine
from .install_peers import REQUIREMENTS
from .rows import Row

HEAD = [
    "contender",
    "durability",
    "jobs",
    "floor",
    "floor is",
    "value",
    "min ×",
    "median ×",
    "max ×",
    "goal",
    "note",
]
NUMERIC = frozenset({2, 3, 5, 6, 7, 8})


def progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")  # in one piece: scenarios of the deploy test report from threads


def machine() -> dict[str, str]:
    """What was measured on, and the peers' versions; nothing that names the machine."""
    named = bare_machine()
    kept = {name: named[name] for name in ("python", "system", "lastcall") if name in named}
    pinned = [f"{name} {', '.join(wanted)}" for name, wanted in REQUIREMENTS.items()]
    return kept | {"sqlite": sqlite3.sqlite_version, "peers": "; ".join(pinned)}


def headline() -> str:
    return ", ".join(f"{name} {text}" for name, text in machine().items() if name != "peers")


def number(value: float | None) -> str:
    """Three digits that matter; whole from a hundred on."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def aligned(lines: Sequence[Sequence[str]], numeric: frozenset[int] = frozenset()) -> Iterator[str]:
    """Columns of equal width, numbers to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _cells(row: Row) -> list[str]:
    verdict = "" if row.goal_met is None else f"{row.goal}: {'met' if row.goal_met else 'NOT MET'}"
    return [
        row.contender,
        row.durability,
        "-" if row.count is None else f"{row.count:,}",
        number(row.floor),
        row.floor_name,
        number(row.value),
        number(row.ratio_min),
        number(row.ratio_median),
        number(row.ratio_max),
        verdict,
        row.note,
    ]


def problems(found: Iterable[tuple[str, str]]) -> Iterator[str]:
    """One line for each reason, with all that it holds for."""
    names: dict[str, list[str]] = {}
    for name, problem in found:
        if name not in names.setdefault(problem, []):
            names[problem].append(name)
    return (f"{', '.join(listed)}: {problem}" for problem, listed in names.items())


def tables(rows: Iterable[Row]) -> str:
    """One table per question; whoever could not be measured gets a line with the reason."""
    out = [headline()]
    for (section, block), members in groupby(rows, key=lambda row: (row.section, row.block)):
        listed = list(members)
        measured = [row for row in listed if not row.problem]
        unit = next((row.unit for row in measured), "")
        out += ["", f"{section} | {block}" + (f", {unit}" if unit else "")]
        if measured:
            out += aligned([HEAD, *(_cells(row) for row in measured)], NUMERIC)
        out += problems((row.contender, row.problem) for row in listed if row.problem)
    return "\n".join(out)


def write_json(path: str, rows: Iterable[Any]) -> None:
    """The machine, the command and every row, with the field names of the rows' class."""
    content = {"machine": machine(), "arguments": sys.argv[1:], "rows": [asdict(row) for row in rows]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
