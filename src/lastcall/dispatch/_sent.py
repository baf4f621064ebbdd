"""A task of the carrier's own, seen from asyncio through a handle like `Job`: status, result, cancel.

Who calls it: the carrier's own file, which brings `Backend`, the blocking questions. What it owns: one task that asks
for all handles that are waited for, in a thread. Such a task is what its carrier makes of it: no steps, no fence, and
a cancel that is a message. What must survive a crash is a durable job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from ..exceptions import BadDeclaration, JobCancelled, JobFailed
from ..jobs import JobStatus

R_co = TypeVar("R_co", covariant=True)

_FIRST_SECONDS: Final = 0.02
_LONGEST_SECONDS: Final = 0.5
_SLOWER: Final = 1.5


class Answer(NamedTuple):
    """What the carrier knows of a task. `error`: type, message and traceback, when it has failed."""

    status: JobStatus
    result: Any = None
    error: dict[str, str] | None = None


class Backend(Protocol):
    """The carrier's side. Every method blocks, is called in a thread, and raises `BrokerUnavailable`."""

    def look(self, ids: Sequence[str]) -> list[Answer]:
        """Where each of these tasks is."""

    def cancel(self, task_id: str) -> None:
        """Ask for its end."""


class Watch:
    """Asks for everybody at once; less often the longer nothing happens."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._waiting: dict[str, list[asyncio.Future[Answer]]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._pause = _FIRST_SECONDS

    async def final(self, task_id: str) -> Answer:
        """The answer when the task has ended."""
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task_id, []).append(waiter)
        self._pause = _FIRST_SECONDS
        if self._asking is None or self._asking.done() or self._asking.cancelling():
            loop = asyncio.get_running_loop()
            self._asking = asyncio.Task(self._ask(), loop=loop, name="ask for carried tasks")
        try:
            return await waiter
        finally:
            waiters = self._waiting.get(task_id, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiting.pop(task_id, None)
            if not self._waiting and self._asking is not None:
                self._asking.cancel()

    async def _ask(self) -> None:
        while self._waiting:
            ids = list(self._waiting)
            try:
                answers = await asyncio.to_thread(self.backend.look, ids)
            except Exception as error:
                for waiter in [waiter for id in ids for waiter in self._waiting.pop(id, ())]:
                    if not waiter.done():
                        waiter.set_exception(error)
                return
            for task_id, answer in zip(ids, answers, strict=True):
                if answer.status.final:
                    for waiter in self._waiting.pop(task_id, ()):
                        if not waiter.done():
                            waiter.set_result(answer)
            self._pause = min(self._pause * _SLOWER, _LONGEST_SECONDS)
            await asyncio.sleep(self._pause)


class SentTask(Generic[R_co]):
    """A task that the carrier has been given, by its id.

    `blind`: why nobody can know how it ends, if so.

        sent = await carrier.submit(resize, "cat.png", width=200)
        print(await sent.status(), await sent.result(timeout=60))
    """

    def __init__(self, watch: Watch, task_id: str, name: str, blind: str | None = None) -> None:
        self.id = task_id
        self.name = name
        self._watch = watch
        self._blind = blind

    def __repr__(self) -> str:
        return f"<SentTask {self.name} {self.id}>"

    async def status(self) -> JobStatus:
        """Where it is, as far as the carrier tells: `queued` is also what it answers for a task that it has forgotten.

        Raises `BrokerUnavailable`, and `BadDeclaration` where results are not kept.
        """
        self._require_sight()
        (answer,) = await asyncio.to_thread(self._watch.backend.look, [self.id])
        return answer.status

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """Return when it has ended, however; its status. Raises TimeoutError, and as `status`."""
        return (await self._final(timeout)).status

    async def result(self, timeout: float | None = None) -> R_co:
        """What it returned. Raises `JobFailed`, `JobCancelled`, TimeoutError (it goes on then), and as `status`."""
        answer = await self._final(timeout)
        if answer.status is JobStatus.CANCELLED:
            raise JobCancelled(f"{self!r} was revoked")
        if answer.status is JobStatus.FAILED:
            error = answer.error or {}
            raise JobFailed(f"{self!r} failed: {error.get('type')}: {error.get('message')}", error)
        value: R_co = answer.result
        return value

    async def cancel(self) -> None:
        """Ask the carrier to drop it, or to end it if it runs. That is a message: a worker that is away does not hear
        it, and whether it came in time is told by `wait()`. Raises `BrokerUnavailable`."""
        await asyncio.to_thread(self._watch.backend.cancel, self.id)

    async def _final(self, timeout: float | None) -> Answer:
        self._require_sight()
        async with asyncio.timeout(timeout):
            return await self._watch.final(self.id)

    def _require_sight(self) -> None:
        if self._blind is not None:
            raise BadDeclaration(f"nobody can tell how {self!r} ends: {self._blind}")
