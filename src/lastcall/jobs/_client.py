"""What handles, declarations and workers share: the engine, opened when first needed, and the news about jobs.

Who calls it: everybody in this package. What it owns: the engine's life and the list of those who wait for news.
News comes from this process at once, from others by the engine's hint, and at last by asking now and then: a hint may
be lost, so nobody waits on hints alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..exceptions import EngineUnavailable, KeyConflict, PayloadTooLarge, UnknownJob
from ._engine import Engine
from ._ids import is_id
from ._rows import JobRow, NewJob, Submitted

# How often those who wait ask although nobody told them anything.
_ASK_SECONDS = 2.0


class Client:
    def __init__(self, engine: Engine, max_payload_bytes: int) -> None:
        self.engine = engine
        self.max_payload_bytes = max_payload_bytes
        self._is_open = False
        self._opening: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None
        self._on_work: list[Callable[[], None]] = []
        self._on_foreign: list[Callable[[], None]] = []
        self._waiting: dict[str, list[asyncio.Future[JobRow]]] = {}
        self._changed: dict[str, list[asyncio.Future[None]]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._ask_now: asyncio.Event | None = None

    # --- open and close --------------------------------------------------------------------------------

    async def ready(self) -> Engine:
        """The engine, open. Concurrent callers open it once."""
        if self._is_open:
            return self.engine
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="open the job engine")
        opening = self._opening
        try:
            await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None
        return self.engine

    async def _open(self) -> None:
        await self.engine.open()
        self._unlisten = self.engine.listen(self._foreign_change)
        self._is_open = True

    @property
    def is_open(self) -> bool:
        return self._is_open

    def use(self, engine: Engine) -> Engine:
        """Use another engine from now on, which a test does; the one that was used before. Only while it is closed."""
        if self._is_open:
            raise RuntimeError("the jobs are open; another engine can be used only when they are closed")
        before, self.engine = self.engine, engine
        return before

    async def close(self) -> None:
        """Those who still wait for a job hear that nobody will tell them any more."""
        if not self._is_open:
            return
        self._is_open = False
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait({asking})
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(
                        EngineUnavailable("the jobs were closed while somebody waited for one")
                    )
        self._waiting.clear()
        for ids in list(self._changed):
            self.changed((ids,))
        await self.engine.close()

    # --- submitting ------------------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """Write all or none, and tell the workers of this process."""
        engine = self.engine if self._is_open else await self.ready()
        answers = await engine.submit(jobs)
        if any(answer.conflict for answer in answers):
            raise _key_conflict(jobs, answers)
        self.work_arrived()
        return answers

    def check_size(self, text: str, what: str) -> str:
        """`text` itself, or `PayloadTooLarge`. Most texts are far too short to be worth encoding."""
        limit = self.max_payload_bytes
        if len(text) * 4 > limit and (size := len(text.encode())) > limit:
            raise PayloadTooLarge(
                f"{what}: {size} bytes of JSON, and at most {limit} are kept; store it elsewhere and pass its name, "
                "or raise Jobs(max_payload_bytes=...)"
            )
        return text

    # --- news ------------------------------------------------------------------------------------------

    def on_work(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when a job may have become claimable. Returns what ends it."""
        self._on_work.append(callback)
        return lambda: self._on_work.remove(callback)

    def on_foreign(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when another process has changed something. Returns what ends it."""
        self._on_foreign.append(callback)
        return lambda: self._on_foreign.remove(callback)

    def work_arrived(self) -> None:
        """A job may have become claimable."""
        for callback in self._on_work:
            callback()

    def cancel_requested(self) -> None:
        """A worker of this process may have to cancel something, and should ask at once."""
        for callback in self._on_foreign:
            callback()

    def _foreign_change(self) -> None:
        for callback in (*self._on_work, *self._on_foreign):
            callback()
        if self._ask_now is not None:
            self._ask_now.set()
        for job_id in list(self._changed):
            self.changed((job_id,))

    def changed(self, job_ids: Iterable[str]) -> None:
        """This process has changed these jobs: their status, their steps or their events."""
        for job_id in job_ids:
            if job_id in self._waiting and self._ask_now is not None:
                self._ask_now.set()
            for waiter in self._changed.pop(job_id, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def wait_changed(self, job_id: str) -> None:
        """Until something about the job may have changed; not for ever, so that a lost hint costs no more than that."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.setdefault(job_id, []).append(waiter)
        try:
            await asyncio.wait({waiter}, timeout=_ASK_SECONDS)
        finally:
            with contextlib.suppress(KeyError, ValueError):
                self._changed[job_id].remove(waiter)

    # --- waiting for an end ----------------------------------------------------------------------------

    async def get(self, job_id: Any) -> JobRow:
        """Raises `UnknownJob`, also for what is no id."""
        if not is_id(job_id):
            raise UnknownJob(f"{job_id!r} is no job id; ids look like 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
        engine = await self.ready()
        rows = await engine.get([job_id])
        if not rows:
            raise UnknownJob(
                f"there is no job {job_id}; it was never submitted here, or was pruned or purged"
            )
        return rows[0]

    async def wait_final(self, job_id: str) -> JobRow:
        """The job, when it has ended. All who wait share one question to the engine."""
        waiter: asyncio.Future[JobRow] = asyncio.get_running_loop().create_future()
        # Before the first look, so that an end in between is heard of.
        self._waiting.setdefault(job_id, []).append(waiter)
        try:
            row = await self.get(job_id)
            if row.status.final:
                return row
            if self._asking is None or self._asking.done():
                self._ask_now = asyncio.Event()
                self._asking = asyncio.create_task(self._ask(self._ask_now), name="wait for jobs to end")
            return await waiter
        finally:
            waiters = self._waiting.get(job_id, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiting.pop(job_id, None)

    async def _ask(self, now: asyncio.Event) -> None:
        while self._waiting:
            now.clear()
            await self._ask_once()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_SECONDS):
                    await now.wait()

    async def _ask_once(self) -> None:
        asked = list(self._waiting)
        try:
            rows = {row.id: row for row in await self.engine.get(asked)}
        except EngineUnavailable:
            return  # it may come back; the next round asks again
        for job_id in asked:
            row = rows.get(job_id)
            for waiter in self._waiting.get(job_id, ()):
                if waiter.done():
                    continue
                if row is None:
                    waiter.set_exception(
                        UnknownJob(f"the job {job_id} was purged while somebody waited for it")
                    )
                elif row.status.final:
                    waiter.set_result(row)


def _key_conflict(jobs: Sequence[NewJob], answers: Sequence[Submitted]) -> KeyConflict:
    job, answer = next((job, answer) for job, answer in zip(jobs, answers, strict=True) if answer.conflict)
    return KeyConflict(
        f"the key {job.key!r} of task {job.task!r} belongs to job {answer.id} ({answer.status}), which has other "
        "arguments; nothing was submitted. Choose another key, or look that job up"
    )
