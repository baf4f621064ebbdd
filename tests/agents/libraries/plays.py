"""Agents of real libraries as jobs, the same in the test's process and in workers that are killed.

`python -m tests.agents.libraries.play_... DATABASE PLAY URL FOLDER DRAIN` is such a worker. Every effect of a tool is
a line in FOLDER/effects; while FOLDER/hold says so, a tool stands still after it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lastcall
from lastcall import ShutdownPlan, TaskManager
from lastcall.agents import AgentQueue
from lastcall.jobs import Jobs

# Longer than any test waits.
HOLD_SECONDS = 60.0


class Stage:
    """Where the model is, and where the effects go."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    @property
    def effects(self) -> list[str]:
        path = self.folder / "effects"
        return path.read_text().splitlines() if path.exists() else []

    def hold(self, what: str) -> None:
        """Let whoever has this effect stand still after it."""
        (self.folder / "hold").write_text(what)

    def release(self) -> None:
        (self.folder / "hold").unlink()

    def _holds(self, what: str) -> bool:
        path = self.folder / "hold"
        return path.exists() and path.read_text() == what

    async def act(self, what: str) -> None:
        """An effect in the world, and then, perhaps, no end."""
        with (self.folder / "effects").open("a") as file:
            file.write(what + "\n")
        async with asyncio.timeout(HOLD_SECONDS):
            while self._holds(what):
                await asyncio.sleep(0.01)


# An agent as a user would give it to a queue.
Play = Callable[[Stage], Any]


def queue_of(jobs: Jobs, play: Play, stage: Stage, retries: int = 0) -> AgentQueue:
    """The queue in which the agent answers."""
    return AgentQueue(play(stage), jobs=jobs, name="ask", retries=retries)


async def work(
    plays: Mapping[str, Play], database: str, name: str, url: str, folder: str, drain: str
) -> None:
    """Until it is told to stop."""
    jobs = Jobs(database)
    queue_of(jobs, plays[name], Stage(url, Path(folder)))
    manager = TaskManager(plan=ShutdownPlan(notice=0, drain=float(drain), cancel=5, close=5))
    async with manager, jobs.worker(concurrency=2, manager=manager):
        print("ready", flush=True)
        await lastcall.current_shutdown().wait()


def main(plays: Mapping[str, Play]) -> None:
    """The program of a worker."""
    lastcall.run(work(plays, *sys.argv[1:]))
