"""Which task, job and step a log line belongs to: in every line, with the logging of the standard library.

    import logging
    from lastcall.logs import ContextFilter

    handler = logging.StreamHandler()
    handler.addFilter(ContextFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(task_name)s %(job_id)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])

Formatters for JSON take the fields as they are; python-json-logger is a well-kept one. Nothing is looked up where
nothing is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ._core._manager import TaskManager
from ._core._observer import about
from ._core._scope import current_scope
from ._names import LOG_FIELDS

__all__ = ["ContextFilter", "context_fields"]

_ABSENT: Mapping[str, object] = dict.fromkeys((field.name for field in LOG_FIELDS), None)


def context_fields() -> dict[str, object]:
    """What is known of the code that runs now: the fields of docs/observability.md, those that do not apply left out.

    In tasks, in requests that a manager holds, in threads of `run_in_thread`, in jobs and their steps.
    """
    fields: dict[str, object] = {}
    scope = current_scope.get()
    record = None if scope is None else scope.current_record()
    if scope is not None and record is not None:
        if isinstance(scope.roster.owner, TaskManager):
            fields["manager"] = scope.roster.owner.name
        fields["task_id"], fields["task_name"] = record.id, record.name
    job = about.get()
    if job is not None:
        fields |= {"job_id": job.job_id, "job_task": job.job_task, "attempt": job.attempt}
        if job.step is not None:
            fields["step"] = job.step
    return fields


class ContextFilter(logging.Filter):
    """Puts the fields into each record that passes; lets all of them pass. What does not apply is None.

    Add it to a *handler*: a logger's filters do not see what loggers below it log. A handler that works on another
    thread (`QueueHandler`) needs it on the side of the queue where the code runs.
    A field that a record has already, by `extra=`, is left as it is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        given = record.__dict__
        for name, value in {**_ABSENT, **context_fields()}.items():
            given.setdefault(name, value)
        return True
