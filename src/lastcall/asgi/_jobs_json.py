"""Durable jobs as JSON: one form for the HTTP face and for the command line.

Takes what `lastcall.jobs` gives, by its attributes, and does not import it: a web process without jobs need not have
what jobs need.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..jobs import AttemptRow, JobInfo, Overview, PastShutdown, StepInfo
    from ..jobs._rows import JobRow
    from ..streams import Entry


def show_job(info: JobInfo) -> dict[str, Any]:
    """Everything about a job but its steps, attempts and events."""
    return info.to_json()


def list_job(info: JobInfo, *, with_args: bool = True) -> dict[str, Any]:
    """A job in a list: without its result and its traceback, which a page of fifty must not multiply."""
    shown = show_job(info)
    del shown["result"]
    if not with_args:
        del shown["args"]
    if info.error is not None:
        shown["error"] = {name: text for name, text in info.error.items() if name != "traceback"}
    return shown


def show_page(infos: list[JobInfo], limit: int) -> dict[str, Any]:
    """One page of a list, of jobs that were asked for with one more than `limit`: so `next` is certain."""
    page = infos[:limit]
    more = len(infos) > limit
    return {
        "jobs": [list_job(info) for info in page],
        "shown": len(page),
        "next": page[-1].id if more else None,
    }


def show_step(step: StepInfo) -> dict[str, Any]:
    """A recorded step with its value."""
    return step._asdict()


def show_attempt(attempt: AttemptRow) -> dict[str, Any]:
    """One try; its error as an object."""
    shown = attempt._asdict()
    shown["error"] = None if attempt.error is None else json.loads(attempt.error)
    return shown


def show_event(event: Entry) -> dict[str, Any]:
    """An entry of a job's log."""
    return {**event._asdict(), "data": json.loads(event.data)}


def undecided_steps(row: JobRow) -> list[str]:
    """The steps whose outcome a waiting job asks a person for."""
    return [wait.name.partition(":")[2] for wait in row.waits if wait.kind == "decision" and wait.name]


def show_overview(overview: Overview) -> dict[str, Any]:
    """Counts by status, in all and by queue; the workers; the schedules. `now`: the store's clock."""
    queues: dict[str, dict[str, int]] = {}
    total: dict[str, int] = {}
    for (queue, status), count in overview.counts.items():
        queues.setdefault(queue, {})[status] = count
        total[status] = total.get(status, 0) + count
    workers = [
        {**worker._asdict(), "queues": None if worker.queues is None else sorted(worker.queues)}
        for worker in overview.workers
    ]
    schedules = [schedule._asdict() for schedule in overview.schedules]
    return {"now": overview.now, "jobs": total, "queues": queues, "workers": workers, "schedules": schedules}


def show_shutdown(past: PastShutdown) -> dict[str, Any]:
    """A shutdown of the past, with its report as JSON and as text."""
    report = json.loads(past.report.to_json())
    return {**past._asdict(), "report": report, "text": str(past.report)}
