"""Reports of shutdowns that outlive their process: the last entries of a stream of the store that is lastcall's own.

Who calls it: `Client`, when somebody lets go of the store in a shutdown, and `Jobs`, for those who look back. What it
owns: which reports are worth it, how much of one is kept, and for how long.

A report is written by the process that it is about, right before its store closes: so it knows how all work ended, and
not how the closing went on. What can go wrong: everything about the store. Then the log says so, and the process ends
as it would have; the engine's `last_words` sees to it that closing waits for no write. A killed process leaves none.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary, WeakSet

from .._core._manager import TaskManager
from .._core._report import Outcome, ResourceOutcome, ShutdownReport, TaskOutcome
from .._core._roster import Roster, logger
from .._core._state import ManagerState
from ..streams._policy import JSON
from ..streams._port import EntryRow, Page, StreamStore, Write
from ..streams._port import Outcome as Answer
from ._engine import Engine, SupportsLastWords

# No name of a user's: one with a control character is refused by every verb and every page of streams, so that nobody
# writes here, or reads past the redaction of reports.
STREAM = "\x1flastcall/shutdowns"
KEEP_BYTES = 4 * 1024 * 1024
KEEP_SECONDS = 30 * 86400.0
MAX_BYTES = 64 * 1024

_PATIENCE_SECONDS = 1.0
# Of the time that is left for closing the store: the rest is for closing it.
_SHARE = 0.5
_TEXT, _LINES, _LINE = 1000, 50, 300
_WORKERS = 20
_RESOURCES_SHARE = 0.25
_PAGE_BYTES = 1024 * 1024
_LOOKS = 5

_WRITTEN = (Answer.APPLIED, Answer.CREATED)

# What is worth the room, the most telling first.
_TELLING = (
    Outcome.REFUSED,
    Outcome.THREAD_LEFT,
    Outcome.FAILED,
    Outcome.CANCELLED,
    Outcome.HANDED_OVER,
    Outcome.STOPPED,
    Outcome.FINISHED,
)


class PastShutdown(NamedTuple):
    """The report of a shutdown, as its process has left it in the store.

    `id` grows with each. `at`: when it was written, by the store's clock. `worker_ids`: of the workers that the process
    ran, as jobs and leases name them. `is_complete` False: it was written before the store closed, so the `close` phase
    and what closed after the store are not in it. `tasks_left_out`: of `report.tasks`, for want of room (64 KiB a
    report); `report.counts` has all of them.
    """

    id: int
    at: float
    host: str
    pid: int
    worker_ids: tuple[str, ...]
    is_complete: bool
    tasks_left_out: int
    report: ShutdownReport


class Reports:
    """Those of the shutdowns of one process, on one store."""

    def __init__(self) -> None:
        self._worker_ids: WeakKeyDictionary[Roster, deque[str]] = WeakKeyDictionary()
        self._expected: WeakSet[Roster] = WeakSet()
        self._left: WeakSet[Roster] = WeakSet()

    def expect(self, manager: TaskManager) -> None:
        """What this manager has is a server or a worker: its shutdown is worth a report, however it goes."""
        self._expected.add(manager._roster)

    def joined(self, manager: TaskManager, worker_id: str) -> None:
        """A worker that this manager has goes by this name; one that lost its lease gets another."""
        self._worker_ids.setdefault(manager._roster, deque(maxlen=_WORKERS)).append(worker_id)

    async def leave(self, engine: Engine, manager: TaskManager) -> None:
        """Write the report of the shutdown of this manager, once, if it is worth it. Raises nothing but cancellation,
        and takes no longer than a second."""
        report = manager.report_so_far or manager.report
        roster = manager._roster
        if report is None or roster in self._left or not hasattr(engine, "last_words"):
            return
        if not is_worth_it(report, expected=roster in self._expected):
            return
        self._left.add(roster)
        seconds = _seconds_for_it(manager, report)
        try:
            if seconds <= 0:
                raise TimeoutError("the plan leaves no time for it")
            is_complete = manager.state is ManagerState.CLOSED
            entry = encode(report, worker_ids=self._worker_ids.get(roster, ()), is_complete=is_complete)
            write = Write(STREAM, [entry], JSON, False, None, None, KEEP_BYTES, KEEP_SECONDS)
            async with asyncio.timeout(seconds):
                written = await cast(SupportsLastWords, engine).last_words(write, seconds)
            if written.outcome not in _WRITTEN:
                raise RuntimeError(f"the store answers {written.outcome}")
        except Exception as error:
            why = str(error) or f"the store did not answer within {seconds:.1f} s"
            logger.warning(
                "the report of the shutdown of %r is not kept in the store, only in this log: %s",
                manager.name,
                why,
                extra={"event": "shutdown.report_not_kept"},
            )


def is_worth_it(report: ShutdownReport, *, expected: bool) -> bool:
    """Whether somebody may want to read it later. A script that ends well, a thousand times a day, would leave no room
    for the others."""
    return expected or report.forced or not report.clean


def _seconds_for_it(manager: TaskManager, report: ShutdownReport) -> float:
    """A part of what the plan leaves for closing, or, where the manager has closed before, of what it did not use."""
    until = manager._resources.until
    if manager.state is not ManagerState.CLOSED and until is not None:
        left = until - manager._roster.clock()
    else:
        left = report.budget_seconds - max(0.0, time.time() - report.started_at)
    return min(_PATIENCE_SECONDS, left * _SHARE)


# --- writing --------------------------------------------------------------------------------------------


def encode(report: ShutdownReport, *, worker_ids: Iterable[str], is_complete: bool) -> bytes:
    """A report of this process as an entry, within `MAX_BYTES`."""
    resources = _fitting(map(_short, report.resources), int(MAX_BYTES * _RESOURCES_SHARE))
    bare = report._replace(name=report.name[:_TEXT], tasks=(), resources=tuple(resources))
    left: dict[str, Any] = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "worker_ids": list(worker_ids),
        "is_complete": is_complete,
        "tasks_left_out": len(report.tasks),
        "report": json.loads(bare.to_json()),
    }
    tasks = _fitting(map(_short, report.tasks), MAX_BYTES - len(json.dumps(left)))
    left["tasks_left_out"] = len(report.tasks) - len(tasks)
    left["report"]["tasks"] = [task._asdict() for task in tasks]
    return json.dumps(left).encode()


def _short(one: Any) -> Any:
    """A task or a resource, none of whose words is endless."""
    lines = [line[:_LINE] for line in one.stack[-_LINES:]]
    stack = (*(["..."] if len(one.stack) > _LINES else []), *lines)
    short = one._replace(name=one.name[:_TEXT], stack=stack, error=one.error and one.error[:_TEXT])
    if isinstance(short, TaskOutcome):
        return short._replace(id=short.id[:_TEXT], group=short.group and short.group[:_TEXT])
    return short


def _fitting(entries: Iterable[TaskOutcome | ResourceOutcome], room_bytes: int) -> list[Any]:
    """As many as there is room for, the most telling of them, in the order in which they were."""
    listed = list(entries)
    chosen: list[int] = []
    for number in sorted(range(len(listed)), key=lambda number: _rank(listed[number])):
        room_bytes -= len(json.dumps(listed[number]._asdict())) + 2
        if room_bytes < 0:
            break
        chosen.append(number)
    return [listed[number] for number in sorted(chosen)]


def _rank(one: TaskOutcome | ResourceOutcome) -> tuple[int, bool]:
    return _TELLING.index(one.outcome), not getattr(one, "cut_off", False)


# --- reading --------------------------------------------------------------------------------------------


async def last_shutdowns(engine: Engine, limit: int) -> list[PastShutdown]:
    """The last ones of all processes on this store, the newest first. Raises `EngineUnavailable`."""
    store: StreamStore | None = getattr(engine, "streams", None)
    entries = [] if store is None else await _last_entries(store, limit)
    read = [decode(entry) for entry in reversed(entries)]
    return [past for past in read if past is not None]


async def _last_entries(store: StreamStore, limit: int) -> list[EntryRow]:
    entries: list[EntryRow] = []
    for _ in range(_LOOKS):  # one that is written meanwhile may push out the oldest
        page = await store.find(STREAM)
        if page.row is None or not page.row.last:
            return []
        after, last = max(page.row.first - 1, page.row.last - limit), page.row.last
        entries = []
        while after < last:
            page = await store.read(STREAM, after, last - after, _PAGE_BYTES)
            if not _has_entries(page):
                break
            entries += page.entries
            after = entries[-1].seq
        else:
            return entries
    return entries


def _has_entries(page: Page) -> bool:
    return page.outcome is Answer.FOUND and bool(page.entries)


def decode(entry: EntryRow) -> PastShutdown | None:
    """What another process has left; None, with a line in the log, for what this version cannot read."""
    try:
        left = json.loads(entry.data)
        return PastShutdown(
            entry.seq,
            entry.at,
            str(left["host"]),
            int(left["pid"]),
            tuple(map(str, left["worker_ids"])),
            bool(left["is_complete"]),
            int(left["tasks_left_out"]),
            ShutdownReport.from_json(json.dumps(left["report"])),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning(
            "the report %d of a shutdown cannot be read, and is left out: %r; a newer lastcall may have written it",
            entry.seq,
            error,
            extra={"event": "shutdown.report_unreadable"},
        )
        return None
