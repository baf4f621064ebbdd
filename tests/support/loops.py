"""The event loops the tests run on, and the runner that holds every async test to the first promise.

"Nothing is lost silently" is checked for each test, not only where a test thinks of it: a task left pending,
a coroutine never awaited, an exception nobody retrieved or an object that failed while being collected
fails the test that caused it.
"""

import asyncio
import gc
import io
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.support.virtualtime import VirtualTimeLoop

try:
    import uvloop
except ImportError:  # conftest turns this into a skip with a reason, and CI that into a failure
    uvloop = None

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
LoopErrors = list[dict[str, Any]]

TIMEOUT_SECONDS = 60.0
# A task that ends together with the test was not leaked; its last callbacks may need some turns of the loop.
SETTLING_TURNS = 10


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _uvloop_loop() -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop()


FACTORIES: dict[str, LoopFactory] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": _uvloop_loop,
    "eager": _eager_loop,
    "virtual": VirtualTimeLoop,
}


def why_missing(flavour: str) -> str | None:
    """The reason why this interpreter cannot run on a loop, or None if it can."""
    if flavour == "eager" and sys.version_info < (3, 12):
        return "interpreter: eager tasks came with Python 3.12"
    if flavour == "uvloop" and uvloop is None:
        return "uvloop is not installed"
    return None


def default_flavours() -> list[str]:
    """Every loop a test runs on when it does not choose; on 3.11 that leaves out the eager one."""
    return [name for name in ("asyncio", "uvloop", "eager") if name != "eager" or sys.version_info >= (3, 12)]


def flavours_for(test: str, spec: str) -> list[str]:
    """The loops which `spec` (`asyncio,uvloop:tests/core`) has for a test; an entry with a folder is for that only.

    >>> flavours_for("tests/core/test_run.py::test_it", "asyncio,uvloop:tests/core")
    ['asyncio', 'uvloop']
    >>> flavours_for("tests/jobs/test_waits.py::test_it", "asyncio,uvloop:tests/core")
    ['asyncio']
    """
    entries = [entry.partition(":") for entry in spec.split(",") if entry]
    return [name for name, _, folder in entries if not folder or test.startswith(f"{folder}/")]


def run_checked(
    main: Callable[[], Coroutine[Any, Any, T]],
    flavour: str = "asyncio",
    *,
    timeout: float = TIMEOUT_SECONDS,
    loop_errors: LoopErrors | None = None,
) -> T:
    """Run `main()` on a fresh loop, and fail if it leaves anything behind.

    Calls of the loop's exception handler fail the test too, unless `loop_errors` is a list to collect them
    in. A hang ends after `timeout` seconds of real time with the stacks of all tasks (on the virtual loop,
    whose time is not real, by its own deadlock detection or by the hard limit of the test run).

    >>> async def answer():
    ...     return 42
    >>> run_checked(answer)
    42
    """
    problems: list[str] = []
    hang: list[str] = []
    error: BaseException | None = None

    def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if loop_errors is None:
            problems.append(f"the loop's exception handler was called: {_describe(context)}")
        else:
            loop_errors.append(context)

    async def bounded() -> T:
        loop = asyncio.get_running_loop()
        this = asyncio.current_task()
        assert this is not None

        def give_up() -> None:
            hang.append(_stacks(asyncio.all_tasks(loop)))
            this.cancel("the test took too long")

        watchdog = None if flavour == "virtual" else loop.call_later(timeout, give_up)
        try:
            result = await main()
        finally:
            if watchdog is not None:
                watchdog.cancel()
        problems.extend(await _leaked_tasks(this))
        return result

    with _unraisable_into(problems):
        try:
            with asyncio.Runner(debug=False, loop_factory=FACTORIES[flavour]) as runner:
                runner.get_loop().set_exception_handler(on_loop_error)
                result = runner.run(bounded())
        except BaseException as raised:
            error = raised
        gc.collect()

    if hang:
        raise AssertionError(f"still not done after {timeout:g} s; its tasks:\n{hang[0]}") from error
    if error is not None:
        for problem in problems:
            error.add_note(f"left behind: {problem}")
        raise error
    if problems:
        raise AssertionError("the test left something behind:\n- " + "\n- ".join(problems))
    return result


async def _leaked_tasks(this: asyncio.Task[Any]) -> list[str]:
    for _ in range(SETTLING_TURNS):
        leaked = asyncio.all_tasks() - {this}
        if not leaked:
            return []
        await asyncio.sleep(0)
    leaked = asyncio.all_tasks() - {this}
    return [f"a task is still pending: {_stacks({task})}" for task in leaked]


@contextmanager
def _unraisable_into(problems: list[str]) -> Iterator[None]:
    """Collect what the interpreter can only print, such as "coroutine ... was never awaited"."""

    def note(unraisable: Any) -> None:
        # As text, at once: keeping the object would bring it back to life.
        message = unraisable.err_msg or "exception ignored in"
        problems.append(f"{message} {unraisable.object!r}: {unraisable.exc_value!r}")

    before = sys.unraisablehook
    sys.unraisablehook = note
    try:
        yield
    finally:
        sys.unraisablehook = before


def _describe(context: dict[str, Any]) -> str:
    details = ", ".join(f"{key}={value!r}" for key, value in context.items() if key != "message")
    error = context.get("exception")
    trace = "".join(traceback.format_exception(error)) if error is not None else ""
    return f"{context.get('message')} ({details})\n{trace}".rstrip()


def _stacks(tasks: set[asyncio.Task[Any]]) -> str:
    out = io.StringIO()
    for task in tasks:
        task.print_stack(file=out)
    return out.getvalue()
