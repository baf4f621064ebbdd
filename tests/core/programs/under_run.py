"""Programs under `lastcall.run`, chosen by name. They say what happens in lines; the test waits for the lines."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import lastcall
from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall._core import _run

SHORT = ShutdownPlan(drain=0.5, cancel=0.5, close=0.5)
LONG = ShutdownPlan(drain=60, cancel=60, close=60)


def say(line: str) -> None:
    print(line, flush=True)


async def stubborn(name: str = "stubborn") -> None:
    """Swallows every cancel, for ever."""
    say(f"{name} runs")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            say(f"{name} swallowed a cancel")


async def stops(name: str = "task") -> None:
    await current_shutdown().wait()
    say(f"{name} was told: {current_shutdown().reason}")


# --- with a manager ---


async def drains() -> None:
    """A task and the body are told, and end."""
    async with TaskManager(plan=LONG) as manager:
        manager.create_task(stops())
        say("ready")
        await stops("body")
    say(f"drained, clean: {manager.report is not None and manager.report.clean}")


async def cut_off() -> None:
    """A task that does not obey is cancelled at the deadline."""
    async with TaskManager(plan=SHORT) as manager:
        manager.create_task(asyncio.sleep(3600), name="deaf")
        say("ready")
        await current_shutdown().wait()


async def body_ignores() -> str:
    """The body itself does not obey."""
    async with TaskManager(plan=SHORT):
        say("ready")
        try:
            await asyncio.sleep(3600)
        finally:
            say("body was cancelled")
    return "never"


async def slow() -> None:
    """Needs far longer than anybody would wait."""
    async with TaskManager(plan=LONG) as manager:
        manager.create_task(asyncio.sleep(3600), name="slow")
        say("ready")
        await current_shutdown().wait()
        say("told")
        if manager.state == "draining":
            say("draining")


async def ends_on_request() -> None:
    """Drains until a line comes on stdin: so that a test decides how long it drains."""

    def wait_for_line() -> None:
        sys.stdin.readline()

    async with TaskManager(plan=LONG) as manager:
        manager.run_in_thread(wait_for_line)
        say("ready")
        await current_shutdown().wait()
        say("told")
    say(f"forced: {manager.report is not None and manager.report.forced}")


async def nested() -> None:
    """Two managers, the inner one's resources and work end before the outer one's."""
    async with TaskManager(name="outer", plan=LONG) as outer:
        outer.on_close(lambda: say("outer closed"))
        outer.create_task(stops("outer task"))
        async with TaskManager(name="inner", plan=LONG) as inner:
            inner.on_close(lambda: say("inner closed"))
            inner.create_task(stops("inner task"))
            say("ready")
            await current_shutdown().wait()
    say("done")


async def body_waits_for_shutdown() -> None:
    """The body calls shutdown() itself: the shutdown must not wait for the body."""
    async with TaskManager(plan=LONG) as manager:
        manager.create_task(stops())
        await asyncio.sleep(0)
        report = await manager.shutdown()
        say(f"clean: {report.clean}")


async def opens_another() -> None:
    """A second manager is opened after the signal: it is told at once."""
    async with TaskManager(plan=LONG):
        say("ready")
        await current_shutdown().wait()
    async with TaskManager(plan=LONG) as second:
        await current_shutdown().wait()
        say(f"the second is not ready: {not second.ready}")


async def stubborn_task() -> None:
    async with TaskManager(plan=SHORT) as manager:
        manager.create_task(stubborn())
        await asyncio.sleep(0)
        say("ready")
        await current_shutdown().wait()


async def stuck_thread() -> None:
    async with TaskManager(plan=SHORT) as manager:
        running = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stuck() -> None:
            loop.call_soon_threadsafe(running.set)
            threading.Event().wait()

        manager.run_in_thread(stuck)
        await running.wait()
        say("ready")
        await current_shutdown().wait()


async def endless_finally() -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            say("cleaning up")
            await asyncio.sleep(3600)

    async with TaskManager(plan=SHORT) as manager:
        manager.create_task(work())
        await asyncio.sleep(0)
        say("ready")
        await current_shutdown().wait()


async def raising_callback() -> None:
    def fails(task: asyncio.Task[None]) -> None:
        raise ValueError("in a done-callback")

    async with TaskManager(plan=LONG) as manager:
        manager.create_task(stops()).add_done_callback(fails)
        say("ready")
        await current_shutdown().wait()


async def stubborn_body() -> None:
    """The body of the block swallows its cancel for ever: only the guard is left."""
    async with TaskManager(plan=SHORT):
        say("ready")
        await stubborn("body")


async def hanging_resource() -> None:
    async def hangs_here() -> None:
        await stubborn("resource")

    async with TaskManager(plan=SHORT) as manager:
        manager.on_close(hangs_here, name="pool")
        say("ready")
        await current_shutdown().wait()


# --- without a manager ---


async def no_manager() -> None:
    say("ready")
    try:
        await asyncio.sleep(3600)
    finally:
        say("main cleans up")


async def manager_is_over() -> None:
    """The manager closed well long ago; the signal comes when there is nothing to drain any more."""
    async with TaskManager():
        pass
    say("ready")
    await asyncio.sleep(3600)


async def fails() -> None:
    async with TaskManager() as manager:
        manager.create_task(stops())
        raise LookupError("no such row")


async def exits() -> None:
    async with TaskManager() as manager:
        manager.create_task(stops())
        sys.exit(7)


async def returns() -> str:
    async with TaskManager() as manager:
        return await manager.create_task(asyncio.sleep(0, "the result"))


async def to_thread_returns() -> str:
    """Uses asyncio's own threads, which idle when main() returns."""
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(4)))
    return "the result"


async def stuck_to_thread() -> None:
    """A thread of asyncio's own never returns; nobody awaits it."""
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stuck() -> None:
        loop.call_soon_threadsafe(running.set)
        threading.Event().wait()

    async with TaskManager(plan=SHORT):
        waiting = asyncio.ensure_future(asyncio.to_thread(stuck))
        await running.wait()
        say("ready")
        await current_shutdown().wait()
        del waiting


async def untracked_stubborn() -> None:
    """A task that belongs to no manager would keep asyncio.run for ever."""
    async with TaskManager(plan=SHORT):
        task = asyncio.create_task(stubborn("untracked"))
        await asyncio.sleep(0)
        say("ready")
        await current_shutdown().wait()
        del task


async def generator() -> None:
    """An async generator that was left half way is closed, with its awaits, before the loop is."""

    async def chunks() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            say("generator closed")

    source = chunks()
    await anext(source)
    kept.append(source)
    say("main returns")


async def stubborn_generator() -> None:
    """An async generator whose closing never ends."""

    async def chunks() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await stubborn("generator")

    source = chunks()
    await anext(source)
    kept.append(source)
    say("main returns")


async def blocked() -> None:
    """The loop is blocked by a coroutine that never awaits; nothing posted to the loop is ever heard."""
    say("ready")
    while True:
        pass


kept: list[Any] = []


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    program: Callable[[], Any] = globals()[sys.argv[1]]
    options: dict[str, Any] = {}
    # For what never unwinds: that the wait for it has an end is the point, not its length.
    if "impatient" in sys.argv[2:]:
        _run._EPILOGUE_SECONDS = 1.0
    if "uvloop" in sys.argv[2:]:
        import uvloop

        options["loop_factory"] = uvloop.new_event_loop
    result = lastcall.run(program(), **options)
    say(f"returned {result!r}")
    if "linger" in sys.argv[2:]:
        sys.stdin.readline()
        say("went on after run()")


if __name__ == "__main__":
    main()
