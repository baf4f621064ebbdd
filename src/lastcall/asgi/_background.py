"""A framework's background tasks, run as tasks of the manager: in order, isolated, listed, drained.

The call that added them waits for them, as frameworks do, but is not needed by them: a server that cancels or
forgets the call (granian, gunicorn's own worker) loses none.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .._core._group import TaskGroup
from .._core._manager import TaskManager
from ..exceptions import DuplicateTask, NotOpen, ShuttingDown
from ._calls import Call, current_call

logger = logging.getLogger("lastcall.asgi")

# Set inside a background task: the manager in whose threads blocking functions run.
background_manager: ContextVar[TaskManager | None] = ContextVar("lastcall_background_manager", default=None)


@dataclass(frozen=True, slots=True)
class BackgroundJob:
    """One background task of a response: how it is called in lists, and what to run."""

    name: str
    start: Callable[[], Coroutine[Any, Any, None]]


async def run_background(call: Call, jobs: Sequence[BackgroundJob]) -> None:
    """Run the jobs one after the other as tasks of the manager, and wait for them.

    A failing job is reported by the manager, once, and the next ones run all the same. Cancelling the caller
    ends its waiting, not the jobs.
    """
    if not jobs:
        return
    group = call.background
    if len(jobs) > 1:
        # A group of their own: the queue behind its limit of one keeps them in order, and shows them as pending.
        # Below the app's group and not below the call, which may be told that its client left.
        group = call.background.group(call.background.name, limit=1, on_error="isolate")
    tasks = list(_start(call, group, jobs))
    if tasks:
        await asyncio.wait(tasks)


def _start(call: Call, group: TaskGroup, jobs: Sequence[BackgroundJob]) -> Iterator[asyncio.Task[None]]:
    for job in jobs:
        context = contextvars.copy_context()
        context.run(current_call.set, None)
        context.run(background_manager.set, call.manager)
        try:
            yield group.create_task(job.start(), name=job.name, context=context)
        except (ShuttingDown, NotOpen) as error:
            logger.error("background task %r of %s was not run: %s", job.name, call.name, error)


def make_background_group(manager: TaskManager) -> TaskGroup:
    """The group of all background tasks of one app; a second app with the same manager gets a second one."""
    number = 1
    while True:
        try:
            return manager.group("background" if number == 1 else f"background {number}", on_error="isolate")
        except DuplicateTask:
            number += 1


def log_leftovers(call: Call) -> None:
    """Name the tasks that were added but that no response carried (it raised, or has no background)."""
    for leftover in call.leftovers:
        for task in getattr(leftover, "tasks", ()):
            logger.warning(
                "background task %r was added in %s but not run: the call ended without a response that carries it",
                job_name(getattr(task, "func", task)),
                call.name,
            )


def job_name(func: object) -> str:
    """The name of a background task in lists and reports."""
    func = getattr(func, "func", func)  # functools.partial
    return getattr(func, "__qualname__", None) or type(func).__qualname__


class _Link:
    """A replaced attribute: what was there, and how many need the replacement."""

    __slots__ = ("original", "replacement", "users")

    def __init__(self, original: Any, replacement: Any) -> None:
        self.original = original
        self.replacement = replacement
        self.users = 0


@contextmanager
def chained(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put `make(original)` in the place of `owner.name`, and give it back when the last user has left.

    Several apps in one process share one replacement. If somebody else has replaced ours meanwhile, it is left alone.
    """
    current = vars(owner)[name]
    link: _Link | None = vars(current).get("_lastcall_link")
    if link is None:
        link = _Link(current, make(current))
        link.replacement._lastcall_link = link
        setattr(owner, name, link.replacement)
    link.users += 1
    try:
        yield
    finally:
        link.users -= 1
        if link.users == 0 and vars(owner).get(name) is link.replacement:
            setattr(owner, name, link.original)
