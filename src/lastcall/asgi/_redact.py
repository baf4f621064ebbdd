"""What the user's `redact` hook makes of values before they are shown: in answers, in logs, in reports.

Who calls it: the pages, with JSON that is about to be sent. What can go wrong: a hook that fails. It must not show
what it was meant to hide, so nothing of the value is shown then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from .._core._report import ShutdownReport
from ..streams import Entry, Log, LogPage
from ._access import Redact, Shown

logger = logging.getLogger("lastcall.asgi")

# Where events that jobs and engines write by themselves name a step.
_KEYS = {"step": "key", "step.reset": "step"}

_WITHHELD = "(not shown: the redact hook failed)"


class Redactor:
    """The hook, or none."""

    def __init__(self, redact: Redact | None) -> None:
        self._redact = redact

    def value(self, task: str, what: str, value: Any, name: str | None = None) -> Any:
        """What is shown in place of `value`; None is nothing that could be hidden."""
        if self._redact is None or value is None:
            return value
        try:
            return self._redact(Shown(task, what, name, value))
        except Exception:
            logger.exception("redact failed for the %s of %r; nothing of it is shown", what, task)
            return _WITHHELD

    def error(self, task: str, error: Any, name: str | None = None) -> Any:
        """An error stays an object, so that pages can rely on it."""
        shown = self.value(task, "error", error, name)
        return shown if shown is None or isinstance(shown, dict) else {"message": str(shown)}

    def job(self, shown: dict[str, Any]) -> dict[str, Any]:
        """A job, a job in a list, or the snapshot of a job."""
        if self._redact is None:
            return shown
        task = shown["task"]
        found: dict[str, Any] = {
            what: self.value(task, what, shown[what])
            for what in ("args", "result", "progress")
            if what in shown
        }
        return {**shown, **found, "error": self.error(task, shown.get("error"))}

    def step(self, task: str, shown: dict[str, Any]) -> dict[str, Any]:
        """A step with its value."""
        key = shown["key"]
        value, error = self.value(task, "step", shown["value"], key), self.error(task, shown["error"], key)
        return {**shown, "key": self.key(task, key), "value": value, "error": error}

    def key(self, task: str, key: str) -> str:
        """The identity of a step, in which its arguments are written out."""
        return str(self.value(task, "step_key", key))

    def attempt(self, task: str, shown: dict[str, Any]) -> dict[str, Any]:
        """One try."""
        return {**shown, "error": self.error(task, shown["error"])}

    def report(self, report: ShutdownReport) -> ShutdownReport:
        """The record of a shutdown, whose tasks and resources may have ended with errors."""
        if self._redact is None:
            return report
        tasks = tuple(one._replace(error=self._told(one.name, one.error)) for one in report.tasks)
        resources = tuple(one._replace(error=self._told(one.name, one.error)) for one in report.resources)
        return report._replace(tasks=tasks, resources=resources)

    def _told(self, task: str, error: str | None) -> str | None:
        shown = self.value(task, "error", error)
        return None if shown is None else str(shown)

    def log(self, log: Log) -> Log:
        """The log of a job, as it may be seen."""
        return log if self._redact is None else _RedactedLog(log, self)


class _RedactedLog:
    """A log whose entries went through the hook. It has the id of the log itself: readers of one still share a tail."""

    def __init__(self, log: Log, redactor: Redactor) -> None:
        self.id: str | None = getattr(log, "id", None)
        self._log = log
        self._redactor = redactor
        self._task: str | None = None

    async def read(self, after: int, limit: int) -> LogPage:
        page = await self._log.read(after, limit)
        if not page.entries:
            return page
        if self._task is None:
            self._task = str((await self._log.snapshot()).get("task", ""))
        task = self._task
        return page._replace(entries=[self._entry(task, entry) for entry in page.entries])

    def _entry(self, task: str, entry: Entry) -> Entry:
        redactor, data = self._redactor, json.loads(entry.data)
        member = _KEYS.get(entry.type)
        if isinstance(data, dict) and isinstance(data.get(member), str):
            data = {**data, member: redactor.key(task, data[member])}
        shown = redactor.value(task, "event", data, entry.type)
        step = None if entry.step is None else redactor.key(task, entry.step)
        return entry._replace(data=json.dumps(shown, default=repr), step=step)

    async def snapshot(self) -> dict[str, Any]:
        return self._redactor.job(await self._log.snapshot())

    def watch(self) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        return self._log.watch()
