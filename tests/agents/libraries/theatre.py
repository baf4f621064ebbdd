"""One play on one stage: a database, a model, workers that are killed, and what a reader saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lastcall.jobs import Job, Jobs
from tests.agents.libraries.plays import Play, Stage, queue_of
from tests.cli.program import Program
from tests.jobs.running import PATIENCE_SECONDS, eventually
from tests.support.openai_server import OpenAIServer


def shown_by(events: Sequence[Any]) -> str:
    """What a reader shows who has read everything, and takes back what is taken back."""
    shown: dict[str, list[str]] = {}
    for at, event in enumerate(events, 1):
        assert event.seq == at, "a gap"
        if event.type == "step.reset":
            shown.pop(event.data["step"], None)
        elif event.type == "stream.text":
            shown.setdefault(event.step or "", []).append(event.data["text"])
    return "".join("".join(pieces) for pieces in shown.values())


async def generators_end() -> None:
    """openai's streams are nested generators, which it leaves to the loop: one of them ends in each of its turns."""
    for _ in range(50):
        await asyncio.sleep(0)


class Theatre:
    def __init__(
        self, jobs: Jobs, database: str, module: str, name: str, stage: Stage, job: Job[Any]
    ) -> None:
        self.jobs = jobs
        self.stage = stage
        self.job = job
        self._command = [
            "-m",
            f"tests.agents.libraries.{module}",
            database,
            name,
            stage.url,
            str(stage.folder),
        ]

    def worker(self, drain: float = 20) -> Program:
        """A process that works, to be killed; the one that takes over may be `theatre.jobs.worker()` in the test."""
        return Program([*self._command, str(drain)])

    async def result(self) -> Any:
        return await self.job.result(timeout=30)

    async def text(self) -> str:
        """What a reader shows in the end."""
        return shown_by(await self.events())

    async def events(self) -> list[Any]:
        """The log of an ended job."""
        return [event async for event in self.job.events()]

    async def shows(self, text: str) -> None:
        """Wait until a reader of the running job has seen this."""
        seen = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for event in self.job.events():
                if event.type == "stream.text":
                    seen += event.data["text"]
                if text in seen:
                    return
        raise AssertionError(f"the job ended, and had shown {seen!r}")

    async def acted(self, *effects: str) -> None:
        """Wait until these effects have happened."""
        await eventually(lambda: self.stage.effects == list(effects))


@asynccontextmanager
async def play(
    server: OpenAIServer, folder: Path, module: str, name: str, play: Play, prompt: str = "hello"
) -> AsyncIterator[Theatre]:
    """A job that is submitted, with no worker yet."""
    database = f"sqlite:///{folder}/jobs.db"
    stage = Stage(server.url, folder)
    async with Jobs(database) as jobs:
        run = await queue_of(jobs, play, stage).submit(prompt)
        yield Theatre(jobs, database, module, name, stage, jobs.job(run.id))
