"""One analysis of one folder, as this process sees it: begun or found, followed to its end, wherever it runs."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sysconfig
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lastcall import TaskManager, current_shutdown
from lastcall.demo.corpus import Source, quoted
from lastcall.demo.job import COMPARISON, LISTING, declare
from lastcall.demo.report import Report
from lastcall.exceptions import JobError, UnknownJob
from lastcall.jobs import Job, JobInfo, Jobs, JobStatus, StepStatus

WORDS_PER_SECOND = 40


class Study:
    """`found`: how many files earlier runs had analysed, None if this analysis is a new one."""

    def __init__(self, path: Path | None, jobs: Jobs, manager: TaskManager, *, limit: int) -> None:
        self.folder = None if path is None else quoted(path.resolve())
        # A queue for each folder: this process runs the analysis it was asked for, and no other that was left behind.
        self.queue = f"demo {_digest(self.folder or 'python ' + quoted(Path(sysconfig.get_path('stdlib'))))}"
        # Then "analysing", "comparing" or "stopping"; at last "done", "failed" or "stopped".
        self.state = "listing"
        self.done = 0
        self.of = 0
        self.latest = ""
        self.found: int | None = None
        self.read_here: set[Source] = set()
        self.report: Report | None = None
        self.error: JobError | None = None
        self._jobs = jobs
        self._analyse = declare(jobs, manager, queue=self.queue, limit=limit, read_here=self.read_here)
        self._job: Job[Report] | None = None
        self._stopping = False
        self._changed = asyncio.Event()

    # --- its job ---------------------------------------------------------------------------------------

    async def begin(self, *, fresh: bool = False, reuse: bool = False) -> None:
        """Find the unfinished analysis of this folder, or submit a new one. Called again, it does nothing.

        `fresh`: cancel the one that is found. `reuse`: a complete one will do. Raises `EngineUnavailable` and
        `SchemaTooNew`.
        """
        if self._job is not None:
            return
        last = next(iter(await self._jobs.find(queue=self.queue, limit=1)), None)
        goes_on = last is not None and not fresh and self._will_do(last, reuse)
        # Of two that begin at once, both name the same predecessor, and so both get the same job.
        key = f"{self.queue} after {last.id if last else 'none'}"
        if last is not None and goes_on:
            key = last.key or key
        self._job = await self._analyse.options(key=key).submit(self.folder)
        if goes_on:
            await self._take_stock()
        elif last is not None:
            await self._forget(last)

    @staticmethod
    def _will_do(last: JobInfo, reuse: bool) -> bool:
        return not last.status.final or (reuse and last.status is JobStatus.COMPLETED)

    async def _take_stock(self) -> None:
        assert self._job is not None
        steps = {step.key: step for step in await self._job.steps() if step.status is StepStatus.COMPLETED}
        listing = steps.pop(LISTING, None)
        steps.pop(COMPARISON, None)
        self.found = self.done = len(steps)
        if listing is not None:
            self._tell(self.done, len(listing.value["sources"]))

    async def _forget(self, last: JobInfo) -> None:
        with contextlib.suppress(UnknownJob):  # another process was faster
            job = self._jobs.job(last.id)
            await job.cancel()
            await job.purge()  # not one that still runs somewhere; it is deleted some time after its end

    async def follow(self) -> None:
        """Hear how the job goes on until it has ended, in this process or another. A shutdown cancels this."""
        assert self._job is not None
        try:
            async for event in self._job.events():
                if event.type == "progress":
                    self._tell(event.data["done"], event.data["of"], event.data.get("message", ""))
            self.report = await self._job.result()
        except JobError as error:
            self.error = error
        finally:
            self.state = "done" if self.report else "failed" if self.error else "stopped"
            self.latest = ""
            self._wake()

    async def hear_of_stop(self) -> None:
        """Pass the news of a shutdown on, so that the streams have something to end with, at once."""
        await current_shutdown().wait()
        if not self.ended:
            self._stopping = True
            self._tell(self.done, self.of)

    # --- what is known ---------------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """The id of its job, once it has begun."""
        assert self._job is not None
        return self._job.id

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "stopped")

    def progress(self) -> dict[str, Any]:
        """Where the analysis stands."""
        return {"state": self.state, "done": self.done, "of": self.of, "latest": self.latest}

    async def updates(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the progress whenever it changes. A slow reader misses steps, never the last one.

        A request is let go at a stop; who is no part of the shutdown goes on to the end.
        """
        while True:
            changed, ended = self._changed, self.ended
            yield self.progress()
            if ended or current_shutdown().requested:
                return
            await changed.wait()

    async def summary(self) -> AsyncIterator[dict[str, str]]:
        """Yield the summary word by word, as a language model would."""
        async for _ in self.updates():
            pass
        for word in re.findall(r"\S+\s*", self.report.summary if self.report else ""):
            yield {"text": word}
            if await current_shutdown().sleep(1 / WORDS_PER_SECOND):
                return

    def _tell(self, done: int, of: int, latest: str = "") -> None:
        # The log has the whole past, and files end in any order: what is known never goes back.
        self.done, self.of = max(self.done, done), of
        self.state = "stopping" if self._stopping else "analysing" if self.done < of else "comparing"
        self.latest = latest
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
