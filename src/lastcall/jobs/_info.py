"""JobInfo: what is known of a job, as its handle and its log tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .._core._state import StopReason
from ._codec import load_plain
from ._rows import JobRow
from ._state import JobStatus


class JobInfo(NamedTuple):
    """A snapshot of one job. Times are seconds since the epoch; `args`, `result` and `progress` are plain JSON values.

    `attempt` counts how often it was started, `failures` the attempts that were charged, `lost` those whose process
    died. `error` has `type`, `message` and `traceback`. `waits_for`: what a waiting job waits for, in words.
    """

    id: str
    task: str
    version: str
    queue: str
    status: JobStatus
    priority: int
    attempt: int
    failures: int
    lost: int
    args: Any
    result: Any
    error: Mapping[str, str] | None
    progress: Any
    key: str | None
    labels: Mapping[str, str]
    parent_id: str | None
    worker_id: str | None
    created_at: float
    due_at: float | None
    started_at: float | None
    ended_at: float | None
    cancel_reason: StopReason | None
    waits_for: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return self._asdict()


def info_of(row: JobRow) -> JobInfo:
    """The row with its JSON read."""
    waits = tuple(
        f"{wait.kind} {wait.name or ''}".strip() if wait.kind != "decision" else "step_outcome_unknown"
        for wait in row.waits
    )
    return JobInfo(
        id=row.id,
        task=row.task,
        version=row.version,
        queue=row.queue,
        status=row.status,
        priority=row.priority,
        attempt=row.attempt,
        failures=row.failures,
        lost=row.lost,
        args=load_plain(row.args),
        result=load_plain(row.result),
        error=load_plain(row.error),
        progress=load_plain(row.progress),
        key=row.key,
        labels=load_plain(row.labels) or {},
        parent_id=row.parent_id,
        worker_id=row.worker_id,
        created_at=row.created_at,
        due_at=row.due_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        cancel_reason=row.cancel_reason,
        waits_for=waits,
    )
