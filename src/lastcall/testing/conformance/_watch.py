"""Looks at every job before and after each verb: a change of status that is not in the table fails the case.

Who uses it: `Harness`, which puts a watch around its engines. It owns the set of changes seen so far. It cannot tell
causes apart when verbs run at the same time; such cases use the bare engines.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from ...jobs._engine import Engine
from ...jobs._rows import AttemptEnd, Cancelled, Completed, Failed, HandedOver, JobQuery, Outcome, Suspended
from ...jobs._state import TRANSITIONS, Cause, JobStatus

_READS = frozenset("open close listen get find attempts steps read_events overview cancel_requests".split())
_EVERY_JOB = JobQuery(limit=1_000_000)
# A claim may do two things to one job at once.
_MADE_READY = {JobStatus.SCHEDULED: Cause.DUE, JobStatus.WAITING: Cause.WAKE}


class Change(NamedTuple):
    """One step of a job through the table."""

    before: JobStatus
    cause: Cause
    after: JobStatus


TABLE = frozenset(
    Change(before, cause, after)
    for before, causes in TRANSITIONS.items()
    for cause, statuses in causes.items()
    for after in statuses
)


class Watch:
    """What all watched engines of one harness did to the statuses of jobs."""

    def __init__(self) -> None:
        self.seen: set[Change] = set()

    def over(self, engine: Engine) -> Engine:
        """The same engine, looked at."""
        return cast(Engine, _Watched(engine, self))

    def compare(
        self, verb: str, args: tuple[Any, ...], before: dict[str, JobStatus], after: dict[str, JobStatus]
    ) -> None:
        """Note what changed, and fail on what may not."""
        for job_id in before.keys() - after.keys():
            assert before[job_id].final, f"{verb} deleted {job_id}, which is {before[job_id]}"
        for job_id in after.keys() - before.keys():
            expected = {JobStatus.SCHEDULED, JobStatus.QUEUED}
            assert after[job_id] in expected, f"{verb} made {job_id}, which is {after[job_id]}"
        for job_id in before.keys() & after.keys():
            if before[job_id] is not after[job_id]:
                self._note(verb, args, job_id, before[job_id], after[job_id])

    def _note(
        self, verb: str, args: tuple[Any, ...], job_id: str, before: JobStatus, after: JobStatus
    ) -> None:
        if verb == "claim" and after is JobStatus.RUNNING and before in _MADE_READY:
            path = [
                Change(before, _MADE_READY[before], JobStatus.QUEUED),
                Change(JobStatus.QUEUED, Cause.CLAIM, JobStatus.RUNNING),
            ]
        else:
            path = [Change(before, _cause(verb, args, job_id, before), after)]
        for change in path:
            assert change in TABLE, f"{verb}{args!r} moved {job_id}: {change} is not in the table"
        self.seen.update(path)


class _Watched:
    def __init__(self, engine: Engine, watch: Watch) -> None:
        self._engine = engine
        self._watch = watch

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self._engine, verb)
        if verb in _READS:
            return method

        async def watched(*args: Any) -> Any:
            before = await self._statuses()
            answer = await method(*args)
            self._watch.compare(verb, args, before, await self._statuses())
            return answer

        return watched

    async def _statuses(self) -> dict[str, JobStatus]:
        return {job.id: job.status for job in await self._engine.find(_EVERY_JOB)}


def _cause(verb: str, args: tuple[Any, ...], job_id: str, before: JobStatus) -> Cause:
    if verb == "finish":
        outcomes = [end.outcome for end in cast("list[AttemptEnd]", args[0]) if end.id == job_id]
        if outcomes and before is JobStatus.RUNNING:
            return _cause_of(outcomes[0])
    if verb == "claim":
        return _MADE_READY.get(before, Cause.CLAIM)
    if verb == "cancel" and args[0] == job_id:
        return Cause.CANCEL
    if verb == "retry":
        return Cause.RETRY_BY_HAND
    if before is JobStatus.RUNNING and verb in {"rescue", "resign"}:
        return Cause.LOSE if verb == "rescue" else Cause.HAND_OVER
    return Cause.WAKE


def _cause_of(outcome: Outcome) -> Cause:
    match outcome:
        case Completed():
            return Cause.COMPLETE
        case Failed(_, None):
            return Cause.FAIL
        case Failed():
            return Cause.RETRY_LATER
        case Cancelled():
            return Cause.CANCEL
        case HandedOver():
            return Cause.HAND_OVER
        case Suspended():
            return Cause.SUSPEND
