"""The places at which a job of a test can be made to die, counted: each await of its own task, each commit.

Who calls it: `run_jobs` puts it around a program's jobs when a test wants to die at a place. What it owns: the counts,
and which steps are recorded. Nothing of this is in the product: the store and the functions are wrapped for the test.

    await       something that the job's function, or a step in its task, has waited for has come
    commit      before a write of a worker: a step, events, a child, the end of an attempt
    committed   after such a write, or a claim, before anybody hears of it
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Literal, TypeVar, cast

from ..jobs import Engine, Jobs, StepStatus, SupportsTransactions
from ..jobs._attempt import Attempt, current_attempt
from ..jobs._rows import AttemptEnd, ClaimRequest, ClaimResult, NewEvent, NewJob, StepRecord, Submitted
from ..jobs._state import JobStatus

T = TypeVar("T")

PlaceKind = Literal["await", "commit", "committed"]
KINDS: tuple[PlaceKind, ...] = ("await", "commit", "committed")


class Places:
    """Counts from `arm` on. At the `nth` place of the kind `kind` it lets the worker die, once."""

    def __init__(self, die: Callable[[], Awaitable[None]], die_soon: Callable[[], None]) -> None:
        self._die = die
        self._die_soon = die_soon
        self._armed = False
        self._kind: PlaceKind | None = None
        self._nth = 0
        self.counts: Counter[str] = Counter()
        self.sprung: str | None = None  # where it died, for people
        self.recorded: set[tuple[str, str]] = set()  # steps that are written as completed, by job and key
        self.repeated: list[str] = []

    def arm(self, kind: PlaceKind | None = None, nth: int = 0) -> None:
        """Begin to count; and die there."""
        self._armed, self._kind, self._nth = True, kind, nth
        self.counts.clear()

    def _springs(self, kind: PlaceKind, what: str) -> bool:
        if not self._armed:
            return False
        self.counts[kind] += 1
        if kind != self._kind or self.counts[kind] != self._nth:
            return False
        self._kind = None
        self.sprung = f"{kind} {self._nth} ({what})"
        return True

    # --- awaits ---

    def wrap(self, fn: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        """The same function, which passes a place whenever it goes on."""

        @functools.wraps(fn)
        async def passing(*args: Any, **kwargs: Any) -> T:
            value: T = await _Passing(fn(*args, **kwargs), self)
            return value

        return passing

    def goes_on(self, attempt: Attempt) -> bool:
        """An attempt's own task goes on. True: its worker dies now, and it must not go on."""
        if attempt.is_cancelled or not self._springs("await", _where(attempt)):
            return False
        self._die_soon()  # in another task, for this one is cancelled by it
        return True

    # --- commits ---

    async def write(self, write: Callable[[], Awaitable[T]], what: str) -> T:
        """A write between its two places. One whose worker has died by then is refused by its fence."""
        if self._springs("commit", what):
            await self._die()
        answer = await write()
        if self._springs("committed", what):
            await self._die()
        return answer

    async def claimed(self, claim: Callable[[], Awaitable[ClaimResult]]) -> ClaimResult:
        """A claim counts if it has brought something."""
        result = await claim()
        if result.jobs and self._springs("committed", "a claim"):
            await self._die()
        return result

    # --- what must not happen ---

    def begins(self, attempt: Attempt, key: str) -> None:
        """A step is about to run."""
        if (attempt.claimed.id, key) in self.recorded:
            self.repeated.append(key)

    def completes(self, job_id: str, step: StepRecord) -> None:
        """A step has been written."""
        if step.status is StepStatus.COMPLETED:
            self.recorded.add((job_id, step.key))


def _where(attempt: Attempt) -> str:
    return f"in attempt {attempt.claimed.attempt} of {attempt.claimed.task!r}"


class _Passing:
    """Awaits a coroutine from outside: each value it yields to the loop goes through, each resumption is a place."""

    def __init__(self, coro: Coroutine[Any, Any, Any], places: Places) -> None:
        self._coro = coro
        self._places = places

    def __await__(self) -> Generator[Any, Any, Any]:
        coro, places, attempt = self._coro, self._places, current_attempt.get()
        error: BaseException | None = None
        while True:
            try:
                waits_for = coro.send(None) if error is None else coro.throw(error)
            except StopIteration as stop:
                return stop.value
            error = None
            try:
                yield waits_for
                if attempt is not None and places.goes_on(attempt):
                    yield from attempt.park().__await__()
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as raised:
                error = raised


class PlacesEngine:
    """An engine, with a place before and after each write that a worker makes."""

    def __init__(self, engine: Engine, places: Places) -> None:
        self._engine = engine
        self._places = places

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        """A child, or what the test submits meanwhile."""
        what = f"submit {', '.join(job.task for job in jobs)}"
        return await self._places.write(lambda: self._engine.submit(jobs), what)

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        return await self._places.claimed(lambda: self._engine.claim(request))

    async def append_events(self, job_id: str, attempt: int | None, events: Sequence[NewEvent]) -> int | None:
        what = f"events {', '.join(event.type for event in events[:3])}"
        return await self._places.write(lambda: self._engine.append_events(job_id, attempt, events), what)

    async def record_step(self, job_id: str, attempt: int, step: StepRecord) -> bool:
        async def write() -> bool:
            applied = await self._engine.record_step(job_id, attempt, step)
            if applied:
                self._places.completes(job_id, step)
            return applied

        return await self._places.write(write, f"step {step.key} {step.status}")

    async def transact(
        self, job_id: str, attempt: int, step: StepRecord, work: Callable[[Any], str]
    ) -> str | None:
        async def write() -> str | None:
            engine = cast(SupportsTransactions, self._engine)
            told = await engine.transact(job_id, attempt, step, work)
            if told is not None:
                if (job_id, step.key) in self._places.recorded:
                    self._places.repeated.append(step.key)
                self._places.completes(job_id, step)
            return told

        return await self._places.write(write, f"transaction {step.key}")

    async def finish(self, ends: Sequence[AttemptEnd]) -> list[JobStatus | None]:
        what = ", ".join(type(end.outcome).__name__ for end in ends[:3])
        return await self._places.write(lambda: self._engine.finish(ends), f"the end of an attempt: {what}")


def wrap_functions(jobs: Jobs, places: Places) -> Callable[[], None]:
    """Let the functions of all tasks pass places; returns what undoes that. In threads and processes are none."""
    tasks = [
        task
        for task in jobs._tasks.values()
        if task.is_async and task.settings.run == "auto" and inspect.iscoroutinefunction(task.fn)
    ]
    before = [(task, task.fn) for task in tasks]
    for task in tasks:
        task.fn = places.wrap(task.fn)

    def undo() -> None:
        for task, fn in before:
            task.fn = fn

    return undo
