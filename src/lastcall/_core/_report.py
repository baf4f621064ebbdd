"""ShutdownReport: what a shutdown did, for the log, for a file, and for the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Self, TypeVar

from ._plan import Phase
from ._state import Kind, StopReason

T = TypeVar("T")


class Outcome(StrEnum):
    """How one piece of work met the shutdown. `handed_over`: a durable job, given back unharmed."""

    FINISHED = "finished"
    STOPPED = "stopped"
    HANDED_OVER = "handed_over"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REFUSED = "refused"
    THREAD_LEFT = "thread_left"


class PhaseReport(NamedTuple):
    """How long a phase was allowed to take, and took."""

    phase: Phase
    budget_seconds: float
    seconds: float


class TaskOutcome(NamedTuple):
    """One task's end. `seconds` counts from the begin of the shutdown; `stack` is there for who would not end.

    `cut_off`: cancelled by the shutdown at its deadline. Others that are `cancelled` were so by somebody else,
    or were endless streams that had their grace.
    """

    id: str
    name: str
    kind: Kind
    group: str | None
    daemon: bool
    outcome: Outcome
    seconds: float
    reason: StopReason | None = None
    cut_off: bool = False
    error: str | None = None
    swallowed_cancel: bool = False
    stack: tuple[str, ...] = ()


class ResourceOutcome(NamedTuple):
    """One `on_close` resource: `finished`, `failed`, or `refused` (it did not close in time)."""

    name: str
    outcome: Outcome
    seconds: float
    error: str | None = None
    stack: tuple[str, ...] = ()


class ShutdownReport(NamedTuple):
    """The record of one shutdown.

    `counts` has all work that was there when the drain began or was born in it, by outcome.
    `tasks` has each of them: all that refused to end, and the first thousand of every other outcome.
    `clean` is True if nothing that should have been waited for was cut off, failed or left behind.

        report = manager.report
        print(report)                        # readable, a line per thing that matters
        path.write_text(report.to_json())
    """

    name: str
    reason: StopReason
    started_at: float
    seconds: float
    budget_seconds: float
    phases: tuple[PhaseReport, ...]
    counts: Mapping[Outcome, int]
    tasks: tuple[TaskOutcome, ...]
    resources: tuple[ResourceOutcome, ...] = ()
    forced: bool = False
    late_births_refused: int = 0
    unclean: int = 0

    @property
    def clean(self) -> bool:
        """Nothing was cut off, failed, or was left behind."""
        return self.unclean == 0 and all(r.outcome is Outcome.FINISHED for r in self.resources)

    @property
    def left_behind(self) -> tuple[TaskOutcome, ...]:
        """Tasks that refused to end and threads still running: what can keep a process from exiting."""
        return tuple(t for t in self.tasks if t.outcome in (Outcome.REFUSED, Outcome.THREAD_LEFT))

    @property
    def exit_code(self) -> int:
        """0 if clean, otherwise 1."""
        return 0 if self.clean else 1

    def to_json(self, *, indent: int | None = None) -> str:
        """The whole report as a JSON object."""
        data: dict[str, Any] = self._asdict()
        for name in ("phases", "tasks", "resources"):
            data[name] = [entry._asdict() for entry in getattr(self, name)]
        data |= {"clean": self.clean, "exit_code": self.exit_code}
        return json.dumps(data, indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The report that `to_json` has written, maybe in another version: members that are not known here are left
        out, and those that are missing have their defaults. Raises ValueError for what is no report.
        """
        try:
            return _read(cls, json.loads(text), _OF_REPORT)
        except (TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ValueError(f"this is no report of a shutdown: {error!r}") from error

    def _bad_ends(self) -> list[str]:
        lines: list[str] = []
        told = dict.fromkeys(Outcome, 0)
        for task in self.tasks:
            if task.outcome not in _EVENTFUL:
                continue
            if task.outcome is Outcome.CANCELLED and (task.daemon or not task.cut_off):
                continue
            told[task.outcome] += 1
            if task.stack or told[task.outcome] <= _TOLD:
                lines += _task_lines(task)
        for outcome, count in told.items():
            if outcome in (Outcome.CANCELLED, Outcome.FAILED) and count > _TOLD:
                lines.append(f"  and {self.counts[outcome] - _TOLD} more {outcome}")
        return lines

    def __str__(self) -> str:
        """Several lines for people: verdict, phases, counts, then everything that did not go well."""
        verdict = "clean" if self.clean else "NOT clean"
        forced = ", forced" if self.forced else ""
        lines = [
            f"shutdown of {self.name} ({self.reason}{forced}): {verdict}, "
            f"{self.seconds:.2f} s of {self.budget_seconds:g} s"
        ]
        lines.append(
            "  phases: " + (", ".join(f"{p.phase} {p.seconds:.2f} s" for p in self.phases) or "none")
        )
        counted = ", ".join(f"{n} {outcome}" for outcome, n in self.counts.items() if n)
        lines.append(f"  work: {counted or 'none was running'}")
        if self.late_births_refused:
            lines.append(f"  {self.late_births_refused} new tasks were refused meanwhile")
        lines += self._bad_ends()
        for resource in self.resources:
            if resource.outcome is not Outcome.FINISHED:
                lines.append(
                    f"  resource {resource.name!r} {resource.outcome}: {resource.error or 'did not close in time'}"
                )
                lines += [f"      {line}" for line in resource.stack]
        return "\n".join(lines)


_TOLD = 20  # bad ends of one outcome in the readable text; the JSON has more

_EVENTFUL = frozenset({Outcome.CANCELLED, Outcome.FAILED, Outcome.REFUSED, Outcome.THREAD_LEFT})


def _task_lines(task: TaskOutcome) -> list[str]:
    group = f" in group {task.group!r}" if task.group else ""
    what = {
        Outcome.CANCELLED: "was cancelled at its deadline",
        Outcome.FAILED: f"failed: {task.error}",
        Outcome.REFUSED: "was cancelled and would not end; it stands at",
        Outcome.THREAD_LEFT: "is a thread that would not end; it stands at",
    }[task.outcome]
    return [
        f"  {task.kind} {task.name!r} ({task.id}){group} {what}",
        *(f"      {line}" for line in task.stack),
    ]


# --- reading --------------------------------------------------------------------------------------------


def _read(kind: Callable[..., T], data: dict[str, Any], readers: Mapping[str, Callable[[Any], Any]]) -> T:
    """A NamedTuple of what is known of it in `data`; `readers`: of the members that are no plain JSON."""
    known = {name: data[name] for name in getattr(kind, "_fields", ()) if name in data}
    return kind(**{name: readers[name](value) if name in readers else value for name, value in known.items()})


def _many(kind: Callable[..., Any], readers: Mapping[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return lambda entries: tuple(_read(kind, entry, readers) for entry in entries)


def _counts(data: dict[str, int]) -> dict[Outcome, int]:
    return {Outcome(outcome): count for outcome, count in data.items()}


def _reason(word: str | None) -> StopReason | None:
    return None if word is None else StopReason(word)


_OF_TASK: Mapping[str, Callable[[Any], Any]] = {
    "kind": Kind,
    "outcome": Outcome,
    "reason": _reason,
    "stack": tuple,
}
_OF_REPORT: Mapping[str, Callable[[Any], Any]] = {
    "reason": StopReason,
    "phases": _many(PhaseReport, {"phase": Phase}),
    "counts": _counts,
    "tasks": _many(TaskOutcome, _OF_TASK),
    "resources": _many(ResourceOutcome, {"outcome": Outcome, "stack": tuple}),
}
