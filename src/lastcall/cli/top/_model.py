"""What `top` shows at one moment, and how fast work ends between moments. Plain values."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_KEPT = 60
_BARS = "▁▂▃▄▅▆▇█"


class Row(NamedTuple):
    """A piece of work that has not ended. `kind`: job, or a task's own kind. `what`: the one thing worth knowing."""

    kind: str
    id: str
    name: str
    status: str
    seconds: float | None
    what: str

    @property
    def is_job(self) -> bool:
        return self.kind == "job"


_ORDER = ("running", "pending", "queued", "waiting", "scheduled")


def ordered(rows: Iterable[Row]) -> list[Row]:
    """What runs first, and of that what runs longest."""
    places = {status: place for place, status in enumerate(_ORDER)}
    return sorted(rows, key=lambda row: (places.get(row.status, len(places)), -(row.seconds or 0.0)))


class Lease(NamedTuple):
    """A worker and its claim. `left_seconds`: of its lease; below 0, others may take its jobs."""

    id: str
    host: str
    pid: int
    running: int
    concurrency: int
    left_seconds: float
    queues: Sequence[str] | None


class Snapshot(NamedTuple):
    """`at`: the local monotonic clock. `state`: the manager's, or `database`, or `away`. `tasks`: counts of tasks by
    status, None for a database. `jobs`: counts by queue and status, None without jobs. `ended`: tasks and jobs so far.
    `drain`: what PREFIX/drain told last, once a shutdown has begun."""

    at: float
    place: str
    state: str
    tasks: Mapping[str, int] | None
    jobs: Mapping[str, Mapping[str, int]] | None
    workers: Sequence[Lease]
    rows: Sequence[Row]
    drain: Mapping[str, Any] | None = None
    trouble: str | None = None

    @property
    def ended(self) -> int:
        total = sum(count for status, count in (self.tasks or {}).items() if status in _ENDED)
        for counts in (self.jobs or {}).values():
            total += sum(count for status, count in counts.items() if status in _ENDED)
        return total

    def to_json(self) -> dict[str, Any]:
        told = self._asdict() | {
            "workers": [worker._asdict() for worker in self.workers],
            "rows": [row._asdict() for row in self.rows],
        }
        del told["at"]
        return told


_ENDED = frozenset({"completed", "failed", "cancelled"})


class Throughput:
    """How many pieces of work ended per second, between looks."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=_KEPT)
        self._before: tuple[float, int] | None = None

    def note(self, snapshot: Snapshot) -> None:
        if snapshot.state == "away":
            self._before = None  # what ended meanwhile is not known to have ended at any time
            return
        now = (snapshot.at, snapshot.ended)
        if self._before is not None and now[0] > self._before[0]:
            # Ended jobs are deleted in the end, and a new process counts from 0: no reason for a negative rate.
            self._rates.append(max(0, now[1] - self._before[1]) / (now[0] - self._before[0]))
        self._before = now

    @property
    def now(self) -> float | None:
        """None: it takes two looks."""
        return self._rates[-1] if self._rates else None

    def bars(self) -> str:
        """The last minute or so, as a small plot."""
        most = max(self._rates, default=0.0)
        if not most:
            return ""
        return "".join(_BARS[min(len(_BARS) - 1, int(rate / most * len(_BARS)))] for rate in self._rates)
