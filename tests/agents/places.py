"""What the tests of queues share: a place for queues to live, agents that wait for a word, bounded waits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from lastcall.agents import AgentQueue, Run, RunStatus
from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs import Jobs
from tests.jobs.running import PATIENCE_SECONDS, eventually

__all__ = ["PATIENCE_SECONDS", "Gated", "Place", "ended", "eventually", "reaches"]


class Place:
    """Makes queues: in memory, or on the store at `path`."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def is_durable(self) -> bool:
        return self.path is not None

    def jobs(self) -> Jobs | None:
        """Another `Jobs` on the store, not open yet."""
        # Nobody pulls the plug of the machine here, and that is all that `full` is for.
        return None if self.path is None else Jobs(SqliteEngine(str(self.path), synchronous="off"))

    def queue(self, agent: Any, **options: Any) -> AgentQueue:
        """A queue for this agent, to be used as a block."""
        return AgentQueue(agent, jobs=self.jobs(), **options)


class Gated:
    """An agent whose answers wait for a word. `begun`: the prompts in the order in which they were begun."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.running: set[Any] = set()
        self.most = 0
        self._gates: dict[Any, asyncio.Event] = {}
        self._open = False

    async def run(self, prompt: Any) -> Any:
        self.begun.append(prompt)
        self.running.add(prompt)
        self.most = max(self.most, len(self.running))
        try:
            if not self._open:
                await self._gate(prompt).wait()
            return f"answer to {prompt}"
        finally:
            self.running.discard(prompt)

    def _gate(self, prompt: Any) -> asyncio.Event:
        return self._gates.setdefault(prompt, asyncio.Event())

    def let(self, prompt: Any) -> None:
        """Let this one answer."""
        self._gate(prompt).set()

    def let_all(self) -> None:
        """Let all answer, from now on at once."""
        self._open = True
        for gate in self._gates.values():
            gate.set()

    async def has_begun(self, prompt: Any) -> None:
        """Wait until it was asked this."""
        await eventually(lambda: prompt in self.begun)


async def reaches(run: Run, status: RunStatus | str) -> None:
    """Wait until the run has this status."""
    wanted = RunStatus(status)

    async def is_there() -> bool:
        return await run.status() is wanted

    await eventually(is_there)


async def ended(runs: Iterable[Run]) -> list[RunStatus]:
    """Wait for their ends; how they ended."""
    return [(await run.wait(PATIENCE_SECONDS)).status for run in runs]


Agent = Callable[[Any], Awaitable[Any]]
