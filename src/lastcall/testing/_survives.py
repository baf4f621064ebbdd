"""assert_survives: a job, killed at every place it passes, must end as if nothing had happened.

Who calls it: tests of programs. The job runs once undisturbed, and its places are counted; then, on a new store each
time, it runs again and its worker dies at the first place, at the second, and so on. "Dies" as in `run_jobs`: nothing
more of the attempt is written, its lease runs out, another worker takes over.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from ..jobs import Call, Engine, Job, Jobs
from ..jobs._rows import JobQuery, JobRow
from ._clock import VirtualClock
from ._places import KINDS, PlaceKind, Places, PlacesEngine, wrap_functions
from ._run import JobsRun, running

R = TypeVar("R")

Drive = Callable[[JobsRun, Job[R]], Awaitable[None]]
Check = Callable[[Job[R]], "Awaitable[object] | object"]

_ROUNDS_MAX = 1000
_TOLD_MAX = 10


class Survived(NamedTuple):
    """`places`: how many of each kind the job passed undisturbed. `crashes`: how many plays had one."""

    places: Mapping[str, int]
    crashes: int


class _Play(NamedTuple):
    at: str
    sprung: bool
    end: Mapping[str, Any]
    wrong: list[str]
    counts: Mapping[str, int]


async def assert_survives(
    jobs: Jobs,
    call: Call[R],
    *,
    before_each: Callable[[], object] | None = None,
    drive: Drive[R] | None = None,
    check: Check[R] | None = None,
    only: tuple[PlaceKind, int] | None = None,
    at_most: int = 300,
) -> Survived:
    """Submit `call` and let its worker die at every await of the job's own task, and before and after every commit.

    Whatever dies, the job must have the same status, the same result, the same steps and the same children as
    undisturbed, and no step that is recorded as completed may run again. A step in flight at a crash does run again, by
    its policy; what your code did in it by then is what `check` is for.

    `before_each()`: called before each play, to empty what the job writes to outside the store. `check(job)`: called
    after each, sync or async; what it raises is a failure of that play. `drive(run, job)`: brings the job to its end;
    default: time passes until it has ended. Give one for a job that waits for messages.
    `at_most` (300): so many plays, spread evenly over a job that has more places. `only`: one place, as a failure names
    it, to look at it alone.

    Raises AssertionError, which names the places and what was wrong there. Values that differ from run to run (a random
    number, the time) must come from steps' arguments or be left out of the result.

        await assert_survives(jobs, fulfil.call("tea"), before_each=charged.clear)
    """
    if not isinstance(call, Call):
        raise TypeError(f"assert_survives takes a call of a task, fulfil.call('tea'), not {call!r}")
    play = _Player(jobs, call, before_each, drive or _let_time_pass, check)
    undisturbed = await play(None, 0)
    if undisturbed.wrong:
        raise AssertionError(f"undisturbed, without any crash: {'; '.join(undisturbed.wrong)}")
    places = [(kind, nth) for kind in KINDS for nth in range(1, undisturbed.counts.get(kind, 0) + 1)]
    if only is not None:
        places = [only]
    elif len(places) > at_most:
        places = [places[len(places) * n // at_most] for n in range(at_most)]
    bad: list[str] = []
    crashes = 0
    for kind, nth in places:
        played = await play(kind, nth)
        crashes += played.sprung
        wrong = [*played.wrong, *_differences(undisturbed.end, played.end)]
        bad += [f"{played.at}: {text}" for text in wrong]
    if bad:
        more = f"\nand {len(bad) - _TOLD_MAX} more" if len(bad) > _TOLD_MAX else ""
        lines = "\n".join(bad[:_TOLD_MAX])
        raise AssertionError(f"{call.task!r} does not survive a crash at\n{lines}{more}")
    return Survived(dict(undisturbed.counts), crashes)


class _Player:
    """One job, played again and again, each time on a store of its own."""

    def __init__(
        self,
        jobs: Jobs,
        call: Call[Any],
        before_each: Callable[[], object] | None,
        drive: Drive[Any],
        check: Check[Any] | None,
    ) -> None:
        self._jobs = jobs
        self._call = call
        self._before_each = before_each
        self._drive = drive
        self._check = check

    async def __call__(self, kind: PlaceKind | None, nth: int) -> _Play:
        """Let it die at this place, or nowhere."""
        if self._before_each is not None:
            self._before_each()
        made: list[Places] = []

        def around(run: JobsRun, engine: Engine) -> Engine:
            run._places = places = Places(run.crash, run._crash_soon)
            made.append(places)
            return cast(Engine, PlacesEngine(engine, places))

        async with running(self._jobs, 10, VirtualClock(), around) as run:
            (places,) = made
            undo = wrap_functions(self._jobs, places)
            try:
                (job,) = await self._jobs.submit_many([self._call])
                places.arm(kind, nth)
                wrong = await self._bring_to_its_end(run, job)
                end = await _end_of(self._jobs, job.id)
            finally:
                undo()
        wrong += [f"step {key!r} ran again, although it was recorded" for key in places.repeated]
        at = places.sprung or f"{kind} {nth}"
        return _Play(at, places.sprung is not None, end, wrong, dict(places.counts))

    async def _bring_to_its_end(self, run: JobsRun, job: Job[Any]) -> list[str]:
        try:
            await self._drive(run, job)
            await run.until_idle()
            if not (await job.status()).final:
                info = await job.info()
                waits = f" for {', '.join(info.waits_for)}" if info.waits_for else ""
                return [f"the job has not ended; it is {info.status}{waits}"]
            if self._check is not None:
                answer = self._check(job)
                if inspect.isawaitable(answer):
                    await answer
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        return []


async def _let_time_pass(run: JobsRun, job: Job[Any]) -> None:
    """Until it has ended; a job that waits for what time does not bring is left."""
    for _ in range(_ROUNDS_MAX):
        await run.until_idle()
        if (await job.status()).final or not await run.advance_to_next():
            return


async def _end_of(jobs: Jobs, job_id: str) -> dict[str, Any]:
    """What must be the same, by what it is called in a message."""
    engine = jobs.engine
    (row,) = await engine.get([job_id])
    steps = await engine.steps(job_id)
    family = await _descendants(engine, job_id)
    return {
        "status": str(row.status),
        "result": row.result,
        "error": None if row.error is None else json.loads(row.error)["type"],
        # Side by side they come in any order.
        "steps": {step.key: str(step.status) for step in steps if not step.key.startswith("~")},
        "children": dict(Counter(f"{child.task} {child.status}" for child in family)),
    }


async def _descendants(engine: Engine, job_id: str) -> list[JobRow]:
    found: list[JobRow] = []
    parents = [job_id]
    while parents:
        children = await engine.find(JobQuery(parent_id=parents.pop(), limit=1000))
        found += children
        parents += [child.id for child in children]
    return found


def _differences(undisturbed: Mapping[str, Any], crashed: Mapping[str, Any]) -> list[str]:
    return [
        f"its {what}: {crashed[what]!r}; undisturbed: {undisturbed[what]!r}"
        for what in undisturbed
        if undisturbed[what] != crashed[what]
    ]
