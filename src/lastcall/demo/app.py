"""The service that `lastcall demo` runs. Copy from here.

Every file is one tracked task, at most `limit` at a time; the blocking part of each runs in a tracked thread.
A stop ends the analysis at the next file, keeps what is known, and lets the streams say good-bye.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse

from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.demo.analysis import FileAnalysis, analyse_file
from lastcall.demo.corpus import Skipped, Source, find_files
from lastcall.demo.report import Report, build_report
from lastcall.fastapi import StreamResponse, install

WORDS_PER_SECOND = 40


class Study:
    """One analysis of one folder: what is known so far, and a way to hear of more."""

    def __init__(self, path: Path | None, manager: TaskManager, *, limit: int) -> None:
        self.path = path
        self.manager = manager
        self.limit = limit
        self.results: list[FileAnalysis | Skipped] = []
        self.files_found = 0
        self.state = "listing"  # then "analysing", "comparing", and at last "done" or "failed"
        self.latest = ""
        self.report: Report | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Analyse every file; leave a report of whatever was analysed when this ends."""
        try:
            corpus = await self.manager.run_in_thread(find_files, self.path, name="list files")
            self.files_found = len(corpus.sources) + len(corpus.skipped)
            self.results.extend(corpus.skipped)
            self._tell("analysing")
            async with self.manager.group("analyse", limit=self.limit, on_error="isolate") as group:
                for source in corpus.sources:
                    group.create_task(self._analyse(source), name=source.name)
            self._tell("comparing")
            compare = self.manager.run_in_thread(self._build_report, corpus.root, name="compare files")
            self.report = await compare
        finally:
            self._tell("done" if self.report else "failed")

    async def _analyse(self, source: Source) -> None:
        if current_shutdown().requested:  # a stop ends the work between two files, never inside one
            return
        self.results.append(
            await self.manager.run_in_thread(analyse_file, source, name=f"read {source.name}")
        )
        self._tell("analysing", source.name)

    def _build_report(self, root: str) -> Report:
        return build_report(root, self.results, files_found=self.files_found)

    def _tell(self, state: str, latest: str = "") -> None:
        self.state, self.latest = state, latest
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed")

    def progress(self) -> dict[str, Any]:
        """Where the analysis stands."""
        return {"state": self.state, "done": len(self.results), "of": self.files_found, "latest": self.latest}

    async def updates(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the progress whenever it changes. A slow reader misses steps, never the last one."""
        while True:
            changed, ended = self._changed, self.ended
            yield self.progress()
            if ended:
                return
            await changed.wait()

    async def summary(self) -> AsyncIterator[dict[str, str]]:
        """Yield the summary word by word, as a language model would."""
        async for _ in self.updates():
            pass
        for word in re.findall(r"\S+\s*", self.report.summary if self.report else ""):
            yield {"text": word}
            if not await current_shutdown().sleep(1 / WORDS_PER_SECOND):
                return


def build(path: Path | None = None, *, limit: int = 4, manager: TaskManager | None = None) -> FastAPI:
    """Make the service for one folder (without one: a part of Python's standard library).

    The analysis begins when the service starts. The app's `state.study` holds what is known so far.

    >>> uvicorn.run(build(Path("docs")))
    """
    manager = manager or TaskManager(name="lastcall demo", plan=ShutdownPlan(drain=10, cancel=3, close=2))
    study = Study(path, manager, limit=limit)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        manager.create_task(study.run(), name="study")
        yield

    app = FastAPI(title="lastcall demo", lifespan=lifespan)
    app.state.study = study
    install(app, manager)

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return files("lastcall.demo").joinpath("page.html").read_text("utf-8")

    @app.get("/progress")
    def progress() -> StreamResponse:
        return StreamResponse(study.updates())

    @app.get("/summary")
    def summary() -> StreamResponse:
        return StreamResponse(study.summary())

    @app.get("/report")
    def report() -> Response:
        if study.report is None:
            return JSONResponse(study.progress(), status_code=202)
        return JSONResponse(study.report.to_json())

    return app
