"""`run="process"`: a job's function in a process of its own, for code that must be killable.

A fresh interpreter (spawn: nothing of this process' threads and locks is inherited) imports the function and calls it.
The process is told of a stop by SIGTERM, once, which `current_shutdown()` shows in it: when the drain begins, or when
its job is cancelled, and it is killed when its grace after that cancel is over. It also ends when this process ends,
however: its end of the pipe tells it.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from traceback import format_exception
from typing import Any, NamedTuple

from .._core._diagnose import error_text
from .._core._manager import TaskManager
from .._core._plan import ShutdownPlan
from .._core._run import run as run_main
from ..exceptions import BadArguments, BadDeclaration
from ._attempt import Attempt

# How much later than its children a worker may hear of the signal that was sent to all of them.
_HEARSAY_SECONDS = 1.0


class ProcessDied(RuntimeError):
    """The process of a `run="process"` job ended without an answer: killed, out of memory, or a crash in C code."""


async def run_in_process(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    attempt: Attempt,
) -> Any:
    """Call the function there, and return what it returned; what it raised is raised here, its traceback as a note."""
    try:
        order = pickle.dumps((f"{fn.__module__}:{fn.__qualname__}", tuple(args), dict(kwargs)))
    except Exception as error:
        raise BadArguments(f"{attempt!r}: its arguments cannot be sent to a process: {error}") from error
    child = _Child(repr(attempt), order)
    # In a thread: starting takes milliseconds, and an answer may be longer than a pipe holds. It ends with the process.
    loop = attempt.crew.loop
    talking: asyncio.Task[_Answer | None] = asyncio.Task(attempt.crew.lane.call(child.talk), loop=loop)
    telling = asyncio.Task(_tell(child, attempt), loop=loop)
    try:
        await asyncio.wait({talking})
    except asyncio.CancelledError:
        child.ask(unwanted=True)
        await asyncio.wait({talking}, timeout=attempt.crew.cancel_grace_seconds * 0.8)
        raise
    finally:
        telling.cancel()
        if not talking.done():
            child.kill()
            await asyncio.wait({talking})
    answer = talking.result()
    if answer is None:
        await _leave_if_stopped(child, attempt)
        raise ProcessDied(
            f"the process of {attempt!r} ended without an answer (exit code {child.exitcode}): killed, or crashed"
        )
    if not answer.succeeded:
        answer.value.add_note(answer.told)
        raise answer.value
    return answer.value


class _Answer(NamedTuple):
    succeeded: bool
    value: Any
    told: str


class _Child:
    """The process, as its worker sees it. `talk` runs in a thread, everything else on the loop."""

    def __init__(self, name: str, order: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, self._theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_run_child, args=(self._theirs, order), name=name, daemon=True
        )
        # Between "asked" and "started": whoever comes second sends the signal, so that it is sent once.
        self._lock = threading.Lock()
        self._asked = self._unwanted = self._started = False

    @property
    def exitcode(self) -> int | None:
        return self._process.exitcode

    def ask(self, *, unwanted: bool = False) -> None:
        """Tell it to stop, once. `unwanted`: if it has not started yet, it need not."""
        with self._lock:
            self._unwanted = self._unwanted or unwanted
            send = self._started and not self._asked
            self._asked = True
        if send:
            self._process.terminate()

    def kill(self) -> None:
        """End it, if it has started; if not, `ask` has told that it is unwanted."""
        if self._started:
            self._process.kill()

    def talk(self) -> _Answer | None:
        """Start it, wait for its answer and its end. None: it died without one, or was not wanted any more."""
        with self._ours:
            with self._theirs:
                if self._unwanted:
                    return None
                self._process.start()
            with self._lock:
                self._started = True
                asked, unwanted = self._asked, self._unwanted
            if unwanted:
                self._process.kill()
            elif asked:
                self._process.terminate()
            answer = self._receive()
        self._process.join()
        return answer

    def _receive(self) -> _Answer | None:
        try:
            answer: _Answer = self._ours.recv()
        except EOFError:
            return None
        except Exception as error:  # what came cannot be read, although the process has tried that
            return _Answer(False, RuntimeError(f"the answer of the process cannot be read: {error}"), "")
        return answer


async def _tell(child: _Child, attempt: Attempt) -> None:
    assert attempt.node is not None
    await attempt.node.wait()
    child.ask()


async def _leave_if_stopped(child: _Child, attempt: Attempt) -> None:
    """A process that was told to stop before it could hear so dies of the signal. So it does when somebody stops us by
    signalling all of our processes (systemd, Ctrl-C), perhaps before we have heard of that ourselves. It is no failure
    of the job, which leaves."""
    assert attempt.node is not None
    if child.exitcode not in (-signal.SIGTERM, -signal.SIGINT):
        return
    if not attempt.told_to_stop:
        waiting = asyncio.Task(attempt.node.wait(), loop=attempt.crew.loop)
        try:
            await asyncio.wait({waiting}, timeout=_HEARSAY_SECONDS)
        finally:
            waiting.cancel()
    if attempt.told_to_stop:
        attempt.leaving = True
        await attempt.park()


# --- in the other process ------------------------------------------------------------------------------


def _run_child(pipe: Connection, order: bytes) -> None:
    """Call the function and send the answer. Runs in the main thread of its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the parent, which then asks us
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        path, args, kwargs = pickle.loads(order)
        answer = _Answer(True, run_main(_call(_load(path), args, kwargs)), "")
    except BaseException as error:
        answer = _Answer(
            False, error if isinstance(error, Exception) else RuntimeError(repr(error)), _text(error)
        )
    pipe.send_bytes(_pickled(answer))


def _pickled(answer: _Answer) -> bytes:
    """As it can be sent, and read: many exceptions can be pickled and not be made again."""
    try:
        pickled = pickle.dumps(answer)
        pickle.loads(pickled)
    except Exception as error:
        what = "result" if answer.succeeded else error_text(answer.value)
        told = answer.told or _text(error)
        return pickle.dumps(_Answer(False, RuntimeError(f"it cannot be sent to the worker: {what}"), told))
    return pickled


async def _call(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """In a manager, so that the function hears of SIGTERM by `current_shutdown()`; its errors are the parent's news."""
    plan = ShutdownPlan(drain=3600, cancel=0, close=0)
    async with TaskManager(plan=plan, on_error=lambda info, error: None) as manager:
        if inspect.iscoroutinefunction(fn):
            return await manager.create_task(fn(*args, **kwargs))
        return await manager.run_in_thread(partial(fn, *args, **kwargs))


def _load(path: str) -> Callable[..., Any]:
    module_name, _, qualname = path.partition(":")
    # `spawn` has imported the parent's main module under this name.
    if module_name == "__main__":
        module_name = "__mp_main__"
    __import__(module_name)
    found: Any = sys.modules[module_name]
    for part in qualname.split("."):
        found = getattr(found, part)
    fn: Callable[..., Any] = getattr(found, "fn", found)  # the decorator has put a Task in its place
    return fn


def _text(error: BaseException) -> str:
    return "in the process:\n" + "".join(format_exception(error))


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def check_importable(fn: Callable[..., Any], where: str) -> None:
    """Raises `BadDeclaration` for a function that another process cannot import."""
    if "<" in fn.__qualname__:
        raise BadDeclaration(f"{where}run='process' needs a function at module level, not {fn.__qualname__}")
