"""The report for people, drawn with rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lastcall.demo.report import Report, human_size

_FILES_SHOWN = 12
_GROUPS_SHOWN = 8
_TROUBLE_SHOWN = 12


def render(report: Report) -> str:
    """Draw the report for standard output: in colour for a terminal, plain for a file or a pipe."""
    console = Console(highlight=False)
    with console.capture() as drawn:
        console.print(Group(*_parts(report)))
    return drawn.get()


def _parts(report: Report) -> Iterator[RenderableType]:
    # Names and sentences are other people's words: Text objects, never markup.
    yield Panel(Text(report.summary), title="analysis", box=box.ROUNDED, padding=(1, 2))
    if report.key_terms:
        yield from _section("Key terms", Text(", ".join(report.key_terms)))
    if report.files:
        yield from _section("Largest files", _files(report))
    alike = [("identical", names) for names in report.identical]
    alike += [(f"{group.similarity:.0%} alike", group.names) for group in report.near_duplicates]
    if alike:
        rows = [(share, ", ".join(names)) for share, names in alike]
        yield from _section("The same, or nearly", _table(("", "files"), rows, shown=_GROUPS_SHOWN))
    if report.longest_functions:
        found = [(long.definition, long.file) for long in report.longest_functions]
        rows_of_three = [(f"{d.lines}", d.name, f"{file}:{d.line}") for d, file in found]
        yield from _section("Longest functions", _table(("lines", "name", "where"), rows_of_three))
    trouble = [(skip.name, skip.why) for skip in report.skipped]
    trouble += [(file.name, what) for file in report.files for what in file.trouble]
    if trouble:
        yield from _section(
            "Left out, or read with trouble", _table(("file", "why"), trouble, shown=_TROUBLE_SHOWN)
        )


def _section(title: str, body: RenderableType) -> Iterator[RenderableType]:
    yield Rule(Text(title, style="bold"), align="left", style="dim")
    yield Padding(body, (0, 0, 1, 2))


def _files(report: Report) -> Table:
    largest = sorted(report.files, key=lambda file: (-file.size_bytes, file.name))
    rows = [
        (
            file.name,
            human_size(file.size_bytes),
            f"{file.lines:,}",
            f"{len(file.definitions) or len(file.headings) or ''}",
            ", ".join(file.key_terms),
        )
        for file in largest
    ]
    return _table(("file", "size", "lines", "parts", "key terms"), rows, shown=_FILES_SHOWN)


def _table(heads: Iterable[str], rows: Sequence[tuple[str, ...]], *, shown: int | None = None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        figure = head in ("size", "lines", "parts")
        table.add_column(Text(head), justify="right" if figure else "left", no_wrap=figure)
    for row in rows[:shown]:
        table.add_row(*(Text(cell) for cell in row))
    left = len(rows) - len(rows[:shown])
    if left:
        table.add_row(Text(f"and {left} more", style="dim"))
    return table
