"""Letting go of a task that will not end, after it was named in a report."""

from __future__ import annotations

import asyncio
from typing import Any


def disown(task: asyncio.Task[Any]) -> None:
    """Let the loop end without this task.

    `asyncio.run` cancels whatever `all_tasks()` shows and waits for it for ever; a task that has swallowed its
    cancel once will swallow that one too. And Python's own message at its collection would be a second, worse
    report.
    """
    asyncio._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
