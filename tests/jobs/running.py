"""What the tests of running jobs share: bounded waits, one way to fail once, and engines with trouble."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from lastcall import ShutdownPlan, TaskManager
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import Backoff, Engine, Event, Job, JobStatus

# Longer than anything here takes on a busy machine; no test waits for it to pass.
PATIENCE_SECONDS = 20.0

AT_ONCE = Backoff(first_seconds=0, jitter=0)


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait, boundedly, until the condition holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        held = condition()
        if await held if inspect.isawaitable(held) else held:
            return
        if loop.time() > deadline:
            raise AssertionError(f"it did not come true within {seconds:g} s: {inspect.getsource(condition)}")
        await asyncio.sleep(0.005)


async def reaches(job: Job[Any], status: JobStatus | str) -> None:
    """Wait until the job has this status."""
    wanted = JobStatus(status)

    async def is_there() -> bool:
        return await job.status() is wanted

    await eventually(is_there)


async def ended(job: Job[Any]) -> JobStatus:
    """Wait for the job's end; how it ended."""
    return (await job.wait(timeout=PATIENCE_SECONDS)).status


async def set_within(event: asyncio.Event) -> None:
    """Wait for an event that must come."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await event.wait()


async def outcomes(job: Job[Any]) -> list[str]:
    """How the attempts of a job ended, with the reason of those that were given back."""
    return [
        f"{row.outcome}" + (f" ({row.reason})" if row.outcome == "handed_over" else "")
        for row in await job.attempts()
    ]


async def told(job: Job[Any], after: int = 0) -> list[Event]:
    """What the job itself has told in its log: the engine's own entries left out."""
    return [event async for event in job.events(after) if event.type not in ("status", "step")]


def manager(drain: float = 10, cancel: float = 5, close: float = 5) -> TaskManager:
    """A manager with a plan that is over before the test's patience."""
    return TaskManager(plan=ShutdownPlan(notice=0, drain=drain, cancel=cancel, close=close))


class Faulty:
    """A real engine whose verbs can be made to fail (those named in `away`) or to wait (those in `held`)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.away: set[str] = set()
        self.held: dict[str, asyncio.Event] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._engine, name)
        if not inspect.iscoroutinefunction(verb):
            return verb

        async def call(*args: Any) -> Any:
            self.calls.append(name)
            if name in self.held:
                await self.held[name].wait()
            if name in self.away:
                raise EngineUnavailable(f"the test has taken {name} away")
            return await verb(*args)

        return call
