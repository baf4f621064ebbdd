"""watch_tasks: what a test leaves running, and which tasks swallow their cancellation. Any asyncio code, ours or not.

Who calls it: tests, and the fixtures of the pytest plugin. What it owns, while the block runs: the loop's task factory,
which makes tasks as the one before it did. What can go wrong: tasks made around the loop (`asyncio.Task(...)` by hand)
are seen when they leak, but not when they swallow.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# A task that ends together with the test was not leaked; its last callbacks may need some turns of the loop.
_SETTLING_TURNS = 10


@asynccontextmanager
async def watch_tasks(*, leaked: bool = True, swallowed: bool = True) -> AsyncIterator[None]:
    """Fail if the block leaves tasks pending (`leaked`; they are cancelled then), or if a task that was cancelled in it
    ended as if it had not been (`swallowed`).

    Swallowed is a cancellation that came in from outside the task, was not taken back (`uncancel`, as `asyncio.timeout`
    does), and after which the task returned or raised something else.
    Raises AssertionError with the tasks' names and stacks; to an error of the block itself they are added as notes.

        async with watch_tasks():
            await service.stop()
    """
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks(loop)
    seen = _Swallowed(loop) if swallowed else None
    problems: list[str] = []
    try:
        yield
    except BaseException as error:
        problems = await _leaked(loop, before) if leaked else []
        for problem in problems + (seen.close() if seen is not None else []):
            error.add_note(problem)
        raise
    if leaked:
        problems = await _leaked(loop, before)
    if seen is not None:
        problems += seen.close()
    if problems:
        raise AssertionError("\n".join(problems))


async def _leaked(loop: asyncio.AbstractEventLoop, before: set[asyncio.Task[Any]]) -> list[str]:
    own = {asyncio.current_task()}
    for _ in range(_SETTLING_TURNS):
        if not asyncio.all_tasks(loop) - before - own:
            return []
        await asyncio.sleep(0)
    left = asyncio.all_tasks(loop) - before - own
    problems = [f"a task is still pending: {task.get_name()!r}\n{_stack(task)}" for task in left]
    for task in left:
        task.cancel("the test is over")
    for _ in range(_SETTLING_TURNS):
        await asyncio.sleep(0)
    return problems


class _Swallowed:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._before: Any = loop.get_task_factory()
        self._context = contextvars.Context()
        self._problems: list[str] = []
        loop.set_task_factory(self._make)

    def close(self) -> list[str]:
        self._loop.set_task_factory(self._before)
        return self._problems

    def _make(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        if self._before is None:
            task: Any = asyncio.Task(coro, loop=loop, **options)
        else:
            task = self._before(loop, coro, **options)
        if task.done():  # by an eager factory
            self._look(task)
        else:
            task.add_done_callback(self._look, context=self._context)
        return task

    def _look(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or not task.cancelling():
            return
        # Not `task.exception()`: whoever asks that takes it as retrieved, and the loop would report it no more.
        error = getattr(task, "_exception", None)
        ended = "returned" if error is None else f"raised {type(error).__name__}"
        coro = task.get_coro()
        self._problems.append(
            f"the task {task.get_name()!r} ({getattr(coro, '__qualname__', coro)}) was cancelled and {ended}: it "
            "swallowed the cancellation; let CancelledError pass"
        )


def _stack(task: asyncio.Task[Any]) -> str:
    out = io.StringIO()
    task.print_stack(file=out)
    return out.getvalue().rstrip()
