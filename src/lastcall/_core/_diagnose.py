"""Where work stands: the whole await chain of a task, the frames of a thread.

`Task.get_stack()` shows one frame of a suspended task, its outermost coroutine; whoever is paged needs
the innermost. So the chain of `cr_await` is walked down to whatever is really being waited for.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
from types import AsyncGeneratorType, CoroutineType, FrameType
from typing import Any

_DEPTH = 100


def task_stack(task: asyncio.Task[Any]) -> list[str]:
    """One line per frame, outermost first, and in the last line what is waited for."""
    lines: list[str] = []
    awaited: Any = None if task.done() else task.get_coro()
    for _ in range(_DEPTH):
        if awaited is None:
            break
        frame = _frame_of(awaited)
        if frame is not None:
            lines.append(_line(frame, frame.f_lineno))
            awaited = _next_of(awaited)
        elif (hidden := _hidden_in(awaited)) is None:
            lines.append(f"waiting for {awaited!r}")
            break
        elif isinstance(hidden, asyncio.Task):
            lines.append(f"waiting for task {hidden.get_name()!r}, which stands at")
            awaited = None if hidden.done() else hidden.get_coro()
        elif isinstance(hidden, asyncio.Future):
            lines.append(f"waiting for {hidden!r}")
            break
        else:
            awaited = hidden
    return lines


def error_text(error: BaseException) -> str:
    """Type and text in one line. An exception whose `__str__` fails must not stop what only wants to mention it."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as failure:
        return f"{type(error).__name__} (its text cannot be made: {type(failure).__name__})"


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


def _hidden_in(awaited: Any) -> Any:
    """What an interpreter's own iterator wraps without an attribute for it: `async for`, `await future`."""
    referents = gc.get_referents(awaited)
    for kind in (AsyncGeneratorType, CoroutineType, asyncio.Task, asyncio.Future):
        for referent in referents:
            if isinstance(referent, kind):
                return referent
    return None


def _next_of(awaited: Any) -> Any:
    for attribute in ("cr_await", "gi_yieldfrom", "ag_await"):
        below = getattr(awaited, attribute, None)
        if below is not None:
            return below
    return None
