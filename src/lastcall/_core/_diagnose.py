"""Where work stands: the whole await chain of a task, the frames of a thread.

`Task.get_stack()` shows one frame of a suspended task, its outermost coroutine; whoever is paged needs
the innermost. So the chain of `cr_await` is walked down to whatever is really being waited for.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from types import FrameType
from typing import Any

_DEPTH = 100


def task_stack(task: asyncio.Task[Any]) -> list[str]:
    """One line per frame, outermost first, and in the last line what is waited for."""
    lines: list[str] = []
    awaited: Any = task.get_coro()
    for _ in range(_DEPTH):
        frame = _frame_of(awaited)
        if frame is None:
            break
        lines.append(_line(frame, frame.f_lineno))
        awaited = _next_of(awaited)
    if awaited is not None and _frame_of(awaited) is None:
        lines.append(f"waiting for {awaited!r}")
    return lines


def thread_stack(ident: int | None, *, below: str | None = None) -> list[str]:
    """One line per frame of a running thread, outermost first; empty if it is gone.

    `below`: the qualified name of the function that runs the thread; it and what is above it tell nobody anything.
    """
    frame = None if ident is None else sys._current_frames().get(ident)
    if frame is None:
        return []
    frames = [(f, lineno) for f, lineno in traceback.walk_stack(frame)][::-1]
    names = [f.f_code.co_qualname for f, _ in frames]
    start = names.index(below) + 1 if below in names else 0
    return [_line(f, lineno) for f, lineno in frames[start:]]


def _line(frame: FrameType, lineno: int | None) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{lineno} in {code.co_qualname}"


def _frame_of(awaited: Any) -> FrameType | None:
    for attribute in ("cr_frame", "gi_frame", "ag_frame"):
        frame: FrameType | None = getattr(awaited, attribute, None)
        if frame is not None:
            return frame
    return None


def _next_of(awaited: Any) -> Any:
    for attribute in ("cr_await", "gi_yieldfrom", "ag_await"):
        below = getattr(awaited, attribute, None)
        if below is not None:
            return below
    return None
