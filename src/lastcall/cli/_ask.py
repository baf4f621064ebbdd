"""``lastcall demo --ask``: the files are analysed, or were before; then an agent answers a question about them.

The answer is a durable run, a turn of the folder's conversation. Stopped or killed in the middle, and asked the same
again, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console

import lastcall
from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.agents import AgentQueue, Budget, Run
from lastcall.cli._demo import CannotStart, check_readable, find_place
from lastcall.demo.answer import Quoter
from lastcall.demo.app import PAYLOAD_BYTES_MAX
from lastcall.demo.corpus import printable
from lastcall.demo.database import Place
from lastcall.demo.passages import Library
from lastcall.demo.structure import PARSED_NAME
from lastcall.demo.study import Study
from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import AgentError, EngineUnavailable, SchemaTooNew
from lastcall.jobs import Jobs
from lastcall.streams import TextView, follow

_PLAN = ShutdownPlan(drain=10, cancel=3, close=2)
_BUDGET = Budget(seconds=600, tokens=500_000, tool_calls=50)
_STOPPED = 130


def run_ask(path: Path | None, question: str, *, limit: int, db: Path | None, fresh: bool) -> int:
    """Answer one question on standard output, and return the exit code of the process.

    Raises :class:`CannotStart`, before anything is begun, if `path`, the database or the model cannot be used.
    """
    if not question.strip():
        raise CannotStart("--ask needs a question")
    check_readable(path)
    place = find_place(db)
    model = _model()
    warnings.filterwarnings("ignore", module=PARSED_NAME)
    return lastcall.run(
        _Asking(path, question.strip(), limit=limit, place=place, model=model).run(fresh=fresh)
    )


def _model() -> str | None:
    """The model to ask. Only one that was named for this is: the files' text is sent to it."""
    model = os.environ.get("OPENAI_MODEL")
    if not model:
        return None
    if not (os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY")):
        raise CannotStart(
            f"OPENAI_MODEL names {printable(model)}, and neither OPENAI_BASE_URL nor OPENAI_API_KEY says where it is"
        )
    try:
        import lastcall.demo.model  # noqa: F401
    except ImportError as error:
        raise CannotStart(
            f"OPENAI_MODEL is set, and asking a model needs {error.name}: pip install 'pydantic-ai-slim[openai]'. "
            "Without OPENAI_MODEL the files are quoted"
        ) from None
    return printable(model)


class _Asking:
    """One question."""

    def __init__(
        self, path: Path | None, question: str, *, limit: int, place: Place, model: str | None
    ) -> None:
        self._path = path
        self._question = question
        self._place = place
        self._model = model
        self._notes = Console(stderr=True, highlight=False)  # standard output is for the answer alone
        self._manager = TaskManager(name="lastcall demo", plan=_PLAN)
        self._jobs = Jobs(SqliteEngine(str(place.path)), max_payload_bytes=PAYLOAD_BYTES_MAX)
        self._study = Study(path, self._jobs, self._manager, limit=limit)
        self._view = TextView()
        self._shown = ""
        self._seen = 0

    async def run(self, *, fresh: bool) -> int:
        try:
            await self._study.begin(fresh=fresh, reuse=True)
        except (EngineUnavailable, SchemaTooNew) as error:
            await self._jobs.close()
            raise CannotStart(f"{error}. Choose another file with --db") from None
        async with self._manager, self._jobs:
            if not await self._analyse():
                return 1 if self._study.error is not None else self._stopped()
            answered = await self._answer()
            return self._stopped() if answered is None else int(not answered)

    def _stopped(self) -> int:
        self._say(f"What is done is kept in {self._place.path}. Ask the same again to continue.")
        return _STOPPED

    async def _analyse(self) -> bool:
        """Whether there is an analysis: one from before, or one made now."""
        study = self._study
        async with self._jobs.worker(concurrency=1, queues=[study.queue]):
            self._manager.create_task(study.follow(), name="follow the job", daemon=True)
            self._manager.create_task(study.hear_of_stop(), name="hear of a stop", daemon=True)
            shown = 0
            async for now in study.updates():
                if now["state"] == "analysing" and now["done"] >= shown:
                    self._say(f"analysed {now['done']} of {now['of']} files")
                    shown = now["done"] + max(1, now["of"] // 10)
        if study.error is not None:
            self._say(f"lastcall: no answer: {study.error}")
        return study.report is not None

    async def _answer(self) -> bool | None:
        """Whether the question was answered. None: a stop came before."""
        async with self._queue() as queue:
            chat = queue.conversation(self._study.job_id)
            last = next(iter((await chat.turns())[-1:]), None)
            run = None
            if last is not None and last.prompt == self._question:
                run = await chat.resume()
            if run is None:
                run = await chat.send(self._question, on_busy="interrupt")
            else:
                self._say("Found this question unanswered; continuing.")
            telling = self._manager.create_task(self._tell(run), name="tell the answer", daemon=True)
            stop = self._manager.create_task(current_shutdown().wait(), name="hear of a stop", daemon=True)
            await asyncio.wait({telling, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if telling.done():
                return telling.result()
            telling.cancel()
            self._say("\nStopping.")
        # It is handed over now, or has spoken its last words in the drain.
        return await self._tell(run) if (await run.status()).final else None

    def _queue(self) -> AgentQueue:
        study = self._study
        assert study.report is not None
        library = Library(self._path, [file.name for file in study.report.files])
        agent: Any = Quoter(library)
        if self._model is not None:
            from lastcall.demo.model import build_agent  # only here, because it may not be installed

            where = os.environ.get("OPENAI_BASE_URL")
            self._say(f"Asking {self._model} at {where or 'the usual place of OpenAI'}.")
            agent = build_agent(
                library, model=self._model, base_url=where, api_key=os.environ.get("OPENAI_API_KEY")
            )
        else:
            self._say("OPENAI_MODEL names no language model: the files are quoted.")
        # A name for each kind of answerer: one cannot go on with what the other has begun.
        kind = "quotes" if self._model is None else "model"
        return AgentQueue(
            agent, jobs=self._jobs, manager=self._manager, name=f"{study.queue} {kind}", budget=_BUDGET
        )

    async def _tell(self, run: Run) -> bool:
        """Write the answer as it comes, from where it was left. What is taken back cannot be unsaid on a terminal, so
        that is said."""
        async for entries in follow(run.log(), self._seen):
            self._seen = entries[-1].seq
            self._view.apply(entries)
            text = self._view.text("answer")
            if not text.startswith(self._shown):
                self._write("\n")
                self._say("(That was cut off; once more.)")
                self._shown = ""
            self._write(text[len(self._shown) :])
            self._shown = text
        try:
            answer = await run.result()
        except AgentError as error:
            self._say(f"\nlastcall: no answer: {error}")
            return False
        self._write("\n" if self._shown else f"{answer}\n")
        return True

    def _write(self, text: str) -> None:
        sys.stdout.write("".join(char if char == "\n" else printable(char) for char in text))
        sys.stdout.flush()

    def _say(self, text: str) -> None:
        self._notes.print(text, markup=False, soft_wrap=True)
