"""``lastcall demo``: the service, the terminal and the signals together, in one process and one loop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lastcall import ManagerState, ShutdownPlan, TaskManager, current_shutdown
from lastcall.cli._listen import listen
from lastcall.cli._render import render
from lastcall.cli._say import Unusable
from lastcall.demo.app import build
from lastcall.demo.corpus import check_path, printable
from lastcall.demo.database import Place, may_be_set_aside, set_aside, usual_place
from lastcall.demo.structure import PARSED_NAME
from lastcall.demo.study import Study
from lastcall.exceptions import EngineUnavailable, JobError, SchemaTooNew
from lastcall.jobs import Jobs

_HOST = "127.0.0.1"
_PLAN = ShutdownPlan(drain=10, cancel=3, close=2)
_LINES_OF_PROGRESS = 10
_INSIST_SECONDS = 0.1


class CannotStart(Exception):
    """The demo cannot begin; the message is one line for the person who called it."""


def run_demo(
    path: Path | None, *, once: bool, as_json: bool, port: int, limit: int, db: Path | None, fresh: bool
) -> int:
    """Serve the demo until it is done (`once`) or stopped, and return the exit code of the process.

    Raises :class:`CannotStart`, before anything is begun, if `path`, `port` or the database cannot be used.
    """
    check_readable(path)
    place = find_place(db)
    # Other people's code is parsed, not run: what the parser thinks of their string escapes is not our news.
    warnings.filterwarnings("ignore", module=PARSED_NAME)
    with _listen(port) as listener, _Signals() as signals:
        demo = _Demo(path, once=once, as_json=as_json, limit=limit, place=place, signals=signals)
        return asyncio.run(demo.run(listener, fresh=fresh))


def check_readable(path: Path | None) -> None:
    """Raise :class:`CannotStart` if there is nothing to analyse."""
    if path is None:
        return
    try:
        check_path(path)
    except OSError as error:
        raise CannotStart(f"cannot read {printable(str(path))}: {error.strerror or error}") from None


def find_place(db: Path | None) -> Place:
    """Return where to keep what is done. Raises :class:`CannotStart`."""
    if db is not None:
        return Place(db.absolute(), ours=False)
    try:
        return usual_place()
    except OSError as error:
        why = f"{error.strerror}: {error.filename}"
        raise CannotStart(
            f"there is no place to keep what is done ({why}). Choose a file with --db"
        ) from None


def _listen(port: int) -> socket.socket:
    try:
        return listen(_HOST, port)
    except Unusable as error:
        raise CannotStart(str(error)) from None


class _Signals:
    """Takes the signals that uvicorn hands back when it has ended.

    Without it SIGTERM would end the process right there, before the shutdown report is printed.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _note(self, number: int, _: FrameType | None) -> None:
        self.first = self.first or number


class _Server(uvicorn.Server):
    """A uvicorn server that tells when it has started, and leaves the second signal to the shutdown plan.

    Uvicorn's own answer to a second Ctrl-C is to leave without the lifespan, and so without a report.
    """

    def __init__(self, config: uvicorn.Config, manager: TaskManager) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._manager = manager
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self.ready.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, _INSIST_SECONDS, self._force_drain)
        else:
            super().handle_exit(sig, frame)

    def _force_drain(self) -> None:
        # The library forces by itself, but takes a repeat within a second for the echo of a process group.
        if self._manager.state in (ManagerState.NOTICE, ManagerState.DRAINING):
            self._manager.force()


class _Demo:
    """One run of the command."""

    def __init__(
        self, path: Path | None, *, once: bool, as_json: bool, limit: int, place: Place, signals: _Signals
    ) -> None:
        self._what = "Python's standard library" if path is None else printable(str(path))
        self._once = once
        self._as_json = as_json
        self._place = place
        self._signals = signals
        self._failed = False  # to write the report
        self._notes = Console(stderr=True, highlight=False)  # standard output is for the report alone
        self._manager = TaskManager(name="lastcall demo", plan=_PLAN)
        app = build(path, limit=limit, manager=self._manager, database=place.path)
        self._study: Study = app.state.study
        self._jobs: Jobs = app.state.jobs
        self._server = _Server(uvicorn.Config(app, log_level="warning", access_log=False), self._manager)

    async def run(self, listener: socket.socket, *, fresh: bool) -> int:
        try:
            await self._begin(fresh=fresh)
            if self._signals.first:
                return 128 + self._signals.first
            return await self._serve(listener)
        finally:
            await self._jobs.close()  # as a rule long done, by the manager

    async def _begin(self, *, fresh: bool) -> None:
        """Open the store before anything is served, so that a bad one is one clear line."""
        if self._place.why_there:
            self._say(f"lastcall: {self._place.why_there}. What is done is kept in {self._place.path}.")
        try:
            await self._study.begin(fresh=fresh)
        except (EngineUnavailable, SchemaTooNew) as error:
            if not (fresh and may_be_set_aside(self._place, error)):
                raise CannotStart(self._advise(error)) from None
            await self._jobs.close()
            self._say(f"lastcall: the damaged database was moved to {set_aside(self._place.path)}.")
            await self._study.begin()

    def _advise(self, error: JobError) -> str:
        begin_anew = (
            "Begin anew with --fresh, or choose" if may_be_set_aside(self._place, error) else "Choose"
        )
        return f"{error}. {begin_anew} another file with --db"

    async def _serve(self, listener: socket.socket) -> int:
        url = f"http://{_HOST}:{listener.getsockname()[1]}"
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(url))
            await self._server.serve(sockets=[listener])
            if not self._server.ready.is_set():
                watching.cancel()
                return 1  # uvicorn has said why
            report = await self._manager.shutdown()  # as a rule long done, by the service's own lifespan
            if not self._study.ended:  # it would not end, and the shutdown report names it
                watching.cancel()
        if self._signals.first and report.clean:  # one that is not clean, the library has logged already
            self._say(f"\n{report}")
        if self._study.state == "stopped":
            self._say(f"What is done is kept in {self._place.path}. Run it again to continue.")
        return self._exit_code(report.exit_code)

    def _exit_code(self, shutdown_code: int) -> int:
        complete = self._study.report is not None
        if self._signals.first and not complete:
            return 128 + self._signals.first
        return shutdown_code or int(self._failed or not complete)

    async def _watch(self, url: str) -> None:
        await self._server.ready.wait()
        self._manager.create_task(self._announce_stop(), name="announce stop", daemon=True)
        self._notes.print(f"lastcall demo on [link={url}]{url}[/link]. Ctrl-C stops it, twice forces.")
        if self._study.found is not None:
            self._say(self._what_was_found(self._study.found))
        await (self._progress_bar() if self._notes.is_terminal else self._progress_lines())
        try:
            self._print_report()
        except OSError as error:  # a full disk, or a pipe whose reader has left: nothing to stay for
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._failed = True
            self._server.should_exit = True
            if not isinstance(error, BrokenPipeError):
                self._say(f"lastcall: cannot write the report: {error.strerror or error}")
            return
        if self._once:
            self._server.should_exit = True
        elif self._manager.ready:
            self._notes.print(f"Still serving on [link={url}]{url}[/link] until Ctrl-C.")

    def _what_was_found(self, found: int) -> str:
        of = self._study.of
        done = f"{found} of {of} files were done before" if of else "its files were not listed yet"
        return f"Found an unfinished analysis of {self._what}: {done}; continuing."

    async def _announce_stop(self) -> None:
        await current_shutdown().wait()
        if self._signals_expected():
            self._say("Stopping: the work at hand is finished first. Ctrl-C again forces.")

    def _signals_expected(self) -> bool:
        return not (self._once and self._study.ended)

    async def _progress_bar(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(
            *columns, TextColumn("[dim]{task.fields[latest]}"), console=self._notes, transient=True
        ) as bar:
            task = bar.add_task(**_bar_values(self._study.progress()))
            async for now in self._study.updates():
                bar.update(task, **_bar_values(now))

    async def _progress_lines(self) -> None:
        next_line = 0
        async for now in self._study.updates():
            if now["state"] == "analysing" and now["done"] >= next_line:
                self._say(f"analysed {now['done']} of {now['of']} files")
                next_line = now["done"] + max(1, now["of"] // _LINES_OF_PROGRESS)

    def _print_report(self) -> None:
        study = self._study
        if study.error is not None:
            self._say(f"lastcall: no report: {study.error}")
        if study.report is None:
            return
        here, found = len(study.read_here), study.found or 0
        elsewhere = study.of - here - found
        others = f", {elsewhere} analysed by another process meanwhile" if elsewhere > 0 else ""
        self._say(f"{here} of {study.of} files analysed in this run, {found} found done{others}.")
        if self._as_json:
            sys.stdout.write(json.dumps(study.report.to_json(), indent=2) + "\n")
        else:
            sys.stdout.write(render(study.report))
        sys.stdout.flush()

    def _say(self, text: str) -> None:
        self._notes.print(text, markup=False, soft_wrap=True)


def _bar_values(now: dict[str, Any]) -> dict[str, Any]:
    latest = now["latest"].replace("[", r"\[")
    return {
        "description": now["state"],
        "completed": now["done"],
        "total": now["of"] or None,
        "latest": latest,
    }
