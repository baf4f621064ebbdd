"""The screen of `top`, drawn with rich. Names and messages are other people's words: text, never markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lastcall.cli._say import one_line
from lastcall.cli.top._model import Lease, Row, Snapshot, Throughput
from lastcall.cli.top._view import View, visible

STATUS_STYLES = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "waiting": "magenta",
}
_STATE_STYLES = {"open": "green", "database": "green", "away": "bold red"}
_TASKS = ("running", "pending", "completed", "failed", "cancelled", "calls")
_JOBS = ("scheduled", "queued", "running", "waiting", "completed", "failed", "cancelled")
_BAR_CELLS = 30
_WORKERS_SHOWN = 8
_HELP = "q quit   arrows choose   c cancel   / filter   tab all, jobs, tasks   esc forget"


def draw(
    snapshot: Snapshot, throughput: Throughput, view: View, *, rows: int | None, now: datetime
) -> RenderableType:
    """One frame. `rows`: how many the terminal has; None: as many as are needed, and no word about keys."""
    head = [*_head(snapshot, throughput, now), *_drain(snapshot.drain)]
    tables = [*_queues(snapshot), *_workers(snapshot.workers)]
    used = len(head) + sum(table.row_count + 2 for table in tables) + 3
    space = None if rows is None else max(1, rows - used)
    parts: list[RenderableType] = [*head]
    for table in tables:
        parts += [Text(""), table]
    parts += [Text(""), _work(view, visible(view, snapshot.rows), space)]
    if rows is not None:
        parts.append(_foot(view))
    return Group(*parts)


def _head(snapshot: Snapshot, throughput: Throughput, now: datetime) -> Iterator[Text]:
    state = Text(snapshot.state, style=_STATE_STYLES.get(snapshot.state, "bold yellow"))
    yield _line("lastcall top  ", one_line(snapshot.place), "  ", state, now.strftime("  %H:%M:%S"))
    if snapshot.trouble is not None:
        yield _line(Text(one_line(snapshot.trouble), style="red"))
    if snapshot.tasks is not None:
        yield _line("tasks  ", *_counts(snapshot.tasks, _TASKS))
    if snapshot.jobs is not None:
        total = {status: sum(counts.get(status, 0) for counts in snapshot.jobs.values()) for status in _JOBS}
        yield _line("jobs   ", *_counts(total, _JOBS))
    rate = "-" if throughput.now is None else f"{throughput.now:.1f}/s"
    yield _line(f"ended  {rate:<9}", Text(throughput.bars(), style="green"))


def _counts(counts: Mapping[str, int], order: Sequence[str]) -> Iterator[Text]:
    """Those that are not 0, so that the line fits; and always how many run."""
    for status in order:
        count = counts.get(status, 0)
        if count or status == "running":
            yield Text(f"{count} {status}   ", style=STATUS_STYLES.get(status, "") if count else "dim")


def _drain(told: Mapping[str, Any] | None) -> Iterator[Text]:
    """The budget as it runs down, and who is still at the bar."""
    if told is None:
        return
    report = told.get("report")
    if report is not None:
        verdict = "clean" if report.get("clean") else "NOT clean"
        style = "green" if report.get("clean") else "bold red"
        seconds = report.get("seconds")
        took = f" after {seconds:.2f} s" if isinstance(seconds, int | float) else ""
        yield _line("drain  ", Text(f"over{took}: {verdict}", style=style))
        return
    left, total = told.get("remaining_seconds"), (told.get("plan") or {}).get("total")
    if isinstance(left, int | float) and isinstance(total, int | float) and total > 0:
        cells = min(_BAR_CELLS, round(_BAR_CELLS * left / total))
        bar = Text("#" * cells, style="yellow").append("." * (_BAR_CELLS - cells), style="dim")
        yield _line("drain  [", bar, f"] at most {left:.0f} s of {total:g} s left, {told['busy']} at work")


def _queues(snapshot: Snapshot) -> Iterator[Table]:
    if snapshot.jobs is None or len(snapshot.jobs) < 2:
        return
    table = _table("QUEUE", *(status.upper() for status in _JOBS))
    for queue, counts in sorted(snapshot.jobs.items()):
        table.add_row(
            _text(queue), *(Text(str(counts.get(status) or "-"), justify="right") for status in _JOBS)
        )
    yield table


def _workers(workers: Sequence[Lease]) -> Iterator[Table]:
    if not workers:
        return
    table = _table("WORKER", "PID", "RUNNING", "LEASE", "HOST", "QUEUES")
    for worker in workers[:_WORKERS_SHOWN]:
        lease = f"{worker.left_seconds:.0f} s" if worker.left_seconds >= 0 else "over"
        table.add_row(
            _text(worker.id[-12:]),
            _text(str(worker.pid)),
            _text(f"{worker.running}/{worker.concurrency}"),
            Text(lease, style="" if worker.left_seconds >= 0 else "red"),
            _text(worker.host),
            _text("all" if worker.queues is None else ", ".join(worker.queues)),
        )
    if len(workers) > _WORKERS_SHOWN:
        table.add_row(Text(f"and {len(workers) - _WORKERS_SHOWN} more", style="dim"))
    yield table


def _work(view: View, rows: Sequence[Row], space: int | None) -> RenderableType:
    if not rows:
        return Text("nothing is at work, and nothing waits", style="dim")
    table = _table("KIND", "STATUS", "FOR", "ID", "NAME", "WHAT")
    first = _first(view, rows, space)
    shown = rows[first:] if space is None else rows[first : first + space]
    for row in shown:
        table.add_row(
            _text(row.kind),
            Text(one_line(row.status), style=STATUS_STYLES.get(row.status, "")),
            _text("" if row.seconds is None else _for(row.seconds)),
            _text(row.id if len(row.id) < 16 else f"..{row.id[-12:]}"),
            _text(row.name),
            _text(row.what),
            style="reverse" if row.id == view.selected else "",
        )
    return table


def _first(view: View, rows: Sequence[Row], space: int | None) -> int:
    """Which row stands first, so that the selected one can be seen."""
    at = next((n for n, row in enumerate(rows) if row.id == view.selected), 0)
    return 0 if space is None else max(0, at - space + 1)


def _foot(view: View) -> Text:
    if view.asking is not None:
        what = f"cancel {view.asking.kind} {view.asking.name} ({view.asking.id})? y or n"
        return _line(Text(one_line(what), style="bold red"))
    if view.is_typing:
        return _line(f"filter: {one_line(view.needle)}_")
    told = [one_line(view.message)] if view.message else []
    if view.needle:
        told.append(f"filter: {one_line(view.needle)}")
    if view.shown != "all":
        told.append(f"only {view.shown}")
    return _line(Text("   ".join([*told, _HELP]), style="dim"))


def _for(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _line(*parts: str | Text) -> Text:
    line = Text.assemble(*parts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for head in heads:
        table.add_column(head, no_wrap=True, overflow="ellipsis")
    return table


def _text(text: str) -> Text:
    return Text(one_line(text))
