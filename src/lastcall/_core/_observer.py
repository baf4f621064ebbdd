"""Those who watch from beside: metrics and traces. Nobody here knows them; they are told, and may be absent.

Who calls it: the roster (tasks), the manager (shutdowns), and the jobs with observers of their own. What it owns: the
rule that an observer which fails is logged and harms nobody. Without observers all of this costs the look at an empty
tuple.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar
from typing import Any, NamedTuple

from ._record import TaskInfo
from ._report import ShutdownReport

logger = logging.getLogger("lastcall")

Ended = Callable[[BaseException | None], None]
"""What an observer wants called at the end of something: with what it raised, or None."""


class About(NamedTuple):
    """The job that the running code belongs to, and its step if it is in one."""

    job_id: str
    job_task: str
    attempt: int
    step: str | None = None


# Set by jobs, read by `lastcall.logs`, which must not import them.
about: ContextVar[About | None] = ContextVar("lastcall_about", default=None)


class TaskObserver:
    """Is told of a manager's tasks and shutdowns. Override what you need; `manager.observe(...)` begins it.

    Every method is called on the loop, in the middle of things: be quick, and do not wait. What it raises is logged.
    Requests, streams and other work that is only held are not told of; their servers have observers of their own.

        class Slow(TaskObserver):
            def task_ended(self, task: TaskInfo) -> None:
                if (task.seconds or 0) > 60:
                    print(task.name, task.seconds)

        stop = manager.observe(Slow())
    """

    def task_started(self, task: TaskInfo, context: Context, *, inside: bool) -> None:
        """A task is born, and runs no line before this returns. `context`: what it will run in; to set a variable for
        it, `context.run(variable.set, value)`. Called in the context of whoever starts it. `inside`: it is in a group
        whose block waits for it, so that whoever starts it outlives it."""

    def task_ended(self, task: TaskInfo) -> None:
        """It has ended."""

    def shutdown_ended(self, report: ShutdownReport) -> None:
        """The manager has shut down."""


def tell(observers: Iterable[object], verb: str, *args: Any, **named: Any) -> list[Any]:
    """Tell all of them; what they answered. One that fails is logged."""
    answers = []
    for observer in observers:
        try:
            answers.append(getattr(observer, verb)(*args, **named))
        except Exception:
            logger.exception(
                "the observer %r failed at %s; the work goes on",
                observer,
                verb,
                extra={"event": "observer.failed"},
            )
    return answers


def tell_end(ends: Iterable[Ended | None], error: BaseException | None) -> None:
    """Tell those who wanted to know an end, the last one first."""
    for ended in reversed(list(ends)):
        if ended is not None:
            try:
                ended(error)
            except Exception:
                logger.exception(
                    "an observer failed at an end: %r; the work goes on",
                    ended,
                    extra={"event": "observer.failed"},
                )
