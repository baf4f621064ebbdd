"""Jobs for people: tables that fit a terminal of eighty columns, and are whole when they go into a file or a pipe.

Names, arguments and errors are other people's words: drawn as text and never as markup, and without the characters
that would drive a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from shutil import get_terminal_size
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lastcall.cli._say import one_line, printable
from lastcall.jobs import AttemptRow, JobInfo, JobStatus, Overview, PastShutdown, StepInfo

# For files and pipes: nothing is cut off there that a search might look for.
_WIDE = 200
# With less room than this, a list has one column for the task and what is worth knowing of it.
_NARROW = 60

_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "lost": "red"}


def draw_jobs(infos: Sequence[JobInfo], now: float) -> str:
    """A list of jobs, one a line."""
    if not infos:
        return "no jobs\n"
    ages = [_ago(now - info.created_at) for info in infos]
    table = _table("ID", "STATUS", "AGE")
    left = _line_width() - sum(1 + max(map(len, column)) for column in ([infos[0].id], JobStatus, ages))
    narrow = left < _NARROW
    longest = 0 if narrow else min(max(len(info.task) for info in infos), left // 2)
    if not narrow:
        table.add_column("TASK", max_width=longest, overflow="fold")
    table.add_column(
        "TASK" if narrow else "WHAT", max_width=max(10, left - longest - 1), no_wrap=True, overflow="ellipsis"
    )
    for info, age in zip(infos, ages, strict=True):
        what = [f"{info.task}: {what_of(info)}"] if narrow else [info.task, what_of(info)]
        table.add_row(_text(info.id), _word(info.status), _text(age), *map(_text, what))
    return _draw([table])


def draw_job(
    info: JobInfo,
    steps: Sequence[StepInfo],
    attempts: Sequence[AttemptRow],
    undecided: Sequence[str],
    events: Sequence[Mapping[str, Any]],
    now: float,
) -> str:
    """One job: what it is, what it did."""
    parts: list[RenderableType] = [_facts(info, undecided, now)]
    if info.error and info.error.get("traceback"):
        lines = map(printable, info.error["traceback"].splitlines())
        parts += [_head("Traceback"), Padding(Text("\n".join(lines)), (0, 0, 0, 2))]
    if steps:
        table = _table("STATUS", "ATTEMPT", "TOOK", "STEP", "VALUE", folded=2)
        for step in steps:
            took = "" if step.ended_at is None else _seconds(step.ended_at - step.started_at)
            value = _json(step.value) if step.error is None else _json(step.error.get("message"))
            table.add_row(
                _word(step.status), _text(str(step.attempt)), _text(took), _text(step.key), _text(value)
            )
        parts += [_head("Steps"), Padding(table, (0, 0, 0, 2))]
    if attempts:
        parts += [_head("Attempts"), Padding(_attempts(attempts), (0, 0, 0, 2))]
    if events:
        table = _table("SEQ", "AT", "TYPE", "DATA", folded=2)
        for event in events:
            table.add_row(
                _text(str(event["seq"])),
                _text(_clock(event["at"])),
                _text(event["type"]),
                _text(_json(event["data"])),
            )
        parts += [_head("Last events"), Padding(table, (0, 0, 0, 2))]
    return _draw(parts)


def draw_overview(overview: Overview) -> str:
    """Counts, workers, schedules."""
    queues = sorted({queue for queue, _ in overview.counts})
    parts: list[RenderableType] = []
    if queues:
        table = _table("QUEUE", *(status.upper() for status in JobStatus))
        for column in table.columns[1:]:
            column.justify = "right"
        for queue in queues:
            counts = [overview.counts.get((queue, status), 0) for status in JobStatus]
            table.add_row(_text(queue), *(_text(str(count or "-")) for count in counts))
        parts.append(table)
    else:
        parts.append(Text("no jobs"))
    parts.append(_head("Workers"))
    if overview.workers:
        table = _table("ID", "PID", "RUNNING", "SEEN", "HOST", "QUEUES", folded=2)
        for worker in overview.workers:
            late = overview.now - worker.renewed_at > worker.lease_seconds
            table.add_row(
                _text(worker.id),
                _text(str(worker.pid)),
                _text(f"{worker.running}/{worker.concurrency}"),
                Text(_ago(overview.now - worker.renewed_at), style="red" if late else ""),
                _text(worker.host),
                _text("all" if worker.queues is None else ", ".join(sorted(worker.queues))),
            )
        parts.append(Padding(table, (0, 0, 0, 2)))
    else:
        parts.append(Text("  none"))
    if overview.schedules:
        table = _table("LAST TICK", "SCHEDULE", folded=1)
        for schedule in overview.schedules:
            table.add_row(_text(_clock(schedule.last_tick)), _text(schedule.name))
        parts += [_head("Schedules"), Padding(table, (0, 0, 0, 2))]
    return _draw(parts)


def draw_streams(streams: Sequence[Mapping[str, Any]], now: float) -> str:
    """Free-standing streams, one a line; of forks also whose."""
    if not streams:
        return "no streams\n"
    has_forks = any(stream["forked_from"] is not None for stream in streams)
    heads = ["ENTRIES", "BYTES", "WRITTEN", "STATE", "TYPE", "STREAM", *(["FORK OF"] if has_forks else [])]
    table = _table(*heads, folded=2 if has_forks else 1)
    for column in table.columns[:2]:
        column.justify = "right"
    for stream in streams:
        table.add_row(
            _text(str(stream["entries"])),
            _text(str(stream["bytes"])),
            _text(f"{_ago(now - stream['updated_at'])} ago"),
            _text("closed" if stream["closed"] else "open"),
            _text(stream["content_type"]),
            _text(stream["name"]),
            *([_text(stream["forked_from"] or "")] if has_forks else []),
        )
    return _draw([table])


def draw_schedules(rows: Sequence[Mapping[str, Any]], now: float, *, declared: bool) -> str:
    """Schedules, the next first. `declared`: whether the app that declares them is known."""
    if not rows:
        return "no schedules\n"
    heads = ("NEXT", "IN", "CRON", "ZONE") if declared else ()
    table = _table("LAST TICK", *heads, "SCHEDULE", folded=1)
    for row in rows:
        cells = [_clock(row["last_tick"]) if row["last_tick"] is not None else "-"]
        if declared and row["next_tick"] is not None:
            cells += [_clock(row["next_tick"]), _ago(row["next_tick"] - now), row["cron"], row["timezone"]]
        elif declared:
            cells += ["never: not declared", "-", "-", "-"]
        table.add_row(*(_text(cell) for cell in (*cells, row["name"])))
    return _draw([table])


# --- parts ----------------------------------------------------------------------------------------------


def _facts(info: JobInfo, undecided: Sequence[str], now: float) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def fact(name: str, value: str | Text | None) -> None:
        if value:
            table.add_row(name, _text(value) if isinstance(value, str) else value)

    fact("id", info.id)
    fact("task", info.task + (f" (version {info.version})" if info.version else ""))
    fact("status", _word(info.status))
    fact("queue", f"{info.queue}, priority {info.priority}" if info.priority else info.queue)
    fact("key", info.key)
    fact("labels", ", ".join(f"{name}={value}" for name, value in info.labels.items()))
    fact("parent", info.parent_id)
    fact("arguments", _json(info.args))
    fact("created", _when(info.created_at, now))
    if info.status is JobStatus.SCHEDULED:
        fact("due", _when(info.due_at, now))
    fact("started", _when(info.started_at, now))
    fact("ended", _when(info.ended_at, now))
    fact("worker", info.worker_id)
    fact("attempts", f"{info.attempt} ({info.failures} failed, {info.lost} lost)" if info.attempt else None)
    fact("progress", None if info.progress is None else _json(info.progress))
    fact("waits for", ", ".join(info.waits_for))
    fact("undecided", ", ".join(undecided))
    fact("cancelled by", None if info.cancel_reason is None else info.cancel_reason.value)
    fact("result", _json(info.result) if info.status is JobStatus.COMPLETED else None)
    fact("error", _error(info.error))
    return table


def _attempts(attempts: Sequence[AttemptRow]) -> Table:
    table = _table("ATTEMPT", "OUTCOME", "STARTED", "TOOK", "WORKER", "WHY", folded=1)
    for attempt in attempts:
        took = "" if attempt.ended_at is None else _seconds(attempt.ended_at - attempt.started_at)
        error = _error(json.loads(attempt.error)) if attempt.error else None
        table.add_row(
            _text(str(attempt.attempt)),
            _word(attempt.outcome or "running"),
            _text(_clock(attempt.started_at)),
            _text(took),
            _text((attempt.worker_id or "")[-12:]),
            _text(error or attempt.reason or ""),
        )
    return table


def what_of(info: JobInfo) -> str:
    """The one thing worth knowing of a job in a list."""
    if info.error is not None:
        return _error(info.error) or ""
    if info.waits_for:
        return "waits for " + ", ".join(info.waits_for)
    if info.progress is not None and not info.status.final:
        return _progress(info.progress)
    return _json(info.args) if info.args else ""


def _progress(progress: Any) -> str:
    if not isinstance(progress, dict) or "done" not in progress:
        return _json(progress)
    told = f"{progress['done']}" + (f" of {progress['of']}" if "of" in progress else "")
    return f"{told} {progress.get('message', '')}".strip()


def _error(error: Mapping[str, str] | None) -> str | None:
    return None if error is None else f"{error.get('type', 'error')}: {error.get('message', '')}"


def draw_shutdowns(shutdowns: Sequence[PastShutdown], now: float) -> str:
    """Reports, each below a line that says whose it is."""
    if not shutdowns:
        return "no reports of shutdowns\n"
    return "\n".join(_shutdown(past, now) for past in shutdowns)


def _shutdown(past: PastShutdown, now: float) -> str:
    workers = "".join(f", worker {worker}" for worker in past.worker_ids)
    head = f"{_clock(past.at)} ({_ago(now - past.at)} ago)  {past.host}, process {past.pid}{workers}"
    lines = [one_line(head), *map(printable, str(past.report).splitlines())]
    if past.tasks_left_out:
        lines.append(f"  {past.tasks_left_out} more tasks are not listed, for want of room")
    if not past.is_complete:
        lines.append("  written before the store closed: how the closing went is in the log of the process")
    return "".join(f"{line}\n" for line in lines)


def _table(*heads: str, folded: int = 0) -> Table:
    """The last `folded` columns are broken where the line is too short; an id in two lines could not be copied."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for number, head in enumerate(heads, 1):
        table.add_column(head, no_wrap=number <= len(heads) - folded, overflow="fold")
    return table


def _head(title: str) -> RenderableType:
    return Padding(Text(title, style="bold"), (1, 0, 0, 0))


def _text(text: str) -> Text:
    return Text(one_line(text))


def _word(status: str) -> Text:
    return Text(str(status), style=_STYLES.get(str(status), ""))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _draw(parts: Iterable[RenderableType]) -> str:
    console = Console(highlight=False, width=_line_width())
    with console.capture() as drawn:
        for part in parts:
            console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines())


def _line_width() -> int:
    """That of the terminal, or what COLUMNS says."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return get_terminal_size().columns if known else _WIDE


# --- times ----------------------------------------------------------------------------------------------


def _when(at: float | None, now: float) -> str | None:
    if at is None:
        return None
    away = f"in {_ago(at - now)}" if at > now else f"{_ago(now - at)} ago"
    return f"{_clock(at)} ({away})"


def _clock(at: float) -> str:
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # a delay of a million years
        return f"{at:g}"


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
