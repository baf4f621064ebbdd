"""Small helpers of the cases: how a job, a worker and a claim are written shortly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...jobs._engine import Engine, read_log
from ...jobs._rows import (
    AttemptEnd,
    AttemptRow,
    Claimed,
    ClaimRequest,
    ClaimResult,
    EventRow,
    JobQuery,
    JobRow,
    NewJob,
    Outcome,
    StepRecord,
    TaskLimits,
    WorkerRow,
)
from ...jobs._state import JobStatus, StepStatus

TASK = "work"
WORKER = "w"
LEASE_SECONDS = 15.0
ERROR = '{"type": "ValueError", "message": "no", "traceback": "..."}'
UNLIMITED: Mapping[tuple[str, str], TaskLimits | None] = {(TASK, ""): None}


def a_job(job_id: str = "a", **fields: Any) -> NewJob:
    """A job of the task `work` that may run at once."""
    return NewJob(**{"id": job_id, "task": TASK, "args": "[]", **fields})


def a_worker(worker_id: str = WORKER, **fields: Any) -> WorkerRow:
    """A worker of which nobody can say which process it is."""
    identity = {"process_start": None, "boot_id": None, "pid_namespace": None}
    terms = {"lease_seconds": LEASE_SECONDS, "concurrency": 10, "queues": None}
    return WorkerRow(**{"id": worker_id, "host": "host", "pid": 1, **identity, **terms, **fields})


def done(key: str, value: str = "1", **fields: Any) -> StepRecord:
    """A completed step."""
    return StepRecord(key, StepStatus.COMPLETED, value, **fields)


async def ask(
    engine: Engine,
    worker_id: str = WORKER,
    limit: int = 100,
    tasks: Mapping[tuple[str, str], TaskLimits | None] = UNLIMITED,
    queues: Iterable[str] | None = None,
) -> ClaimResult:
    """Claim."""
    chosen = None if queues is None else frozenset(queues)
    return await engine.claim(ClaimRequest(worker_id, limit, tasks, chosen))


async def take(engine: Engine, worker_id: str = WORKER, limit: int = 100, **terms: Any) -> list[Claimed]:
    """Claim, and only the jobs."""
    return (await ask(engine, worker_id, limit, **terms)).jobs


async def take_ids(engine: Engine, worker_id: str = WORKER, limit: int = 100, **terms: Any) -> list[str]:
    """Claim, and only the ids."""
    return [job.id for job in await take(engine, worker_id, limit, **terms)]


async def start(engine: Engine, job_id: str = "a", worker_id: str = WORKER, **fields: Any) -> int:
    """Submit a job and claim it, for a worker that joins for it; its attempt."""
    await engine.submit([a_job(job_id, **fields)])
    await engine.join(a_worker(worker_id))
    return await again(engine, job_id, worker_id)


async def again(engine: Engine, job_id: str = "a", worker_id: str = WORKER) -> int:
    """Claim the one job that can be claimed now; its attempt."""
    claimed = await take(engine, worker_id)
    assert [job.id for job in claimed] == [job_id]
    return claimed[0].attempt


async def end(engine: Engine, job_id: str, attempt: int, outcome: Outcome) -> JobStatus | None:
    """Finish one attempt."""
    (status,) = await engine.finish([AttemptEnd(job_id, attempt, outcome)])
    return status


async def look(engine: Engine, job_id: str = "a") -> JobRow:
    """One job that exists."""
    (row,) = await engine.get([job_id])
    return row


async def status_of(engine: Engine, job_id: str = "a") -> JobStatus:
    """The status of a job that exists."""
    return (await look(engine, job_id)).status


async def last_attempt(engine: Engine, job_id: str = "a") -> AttemptRow:
    """The newest attempt of a job that has one."""
    return (await engine.attempts(job_id))[-1]


async def log_of(engine: Engine, job_id: str = "a", after: int = 0, limit: int = 1000) -> list[EventRow]:
    """Events of a job that exists."""
    page = await read_log(engine, job_id, after, limit)
    assert page is not None
    return page.events


async def everything(engine: Engine) -> object:
    """All that can be seen, to be compared: a verb that was refused must have changed nothing of it."""
    jobs = await engine.find(JobQuery(limit=1_000_000))
    overview = await engine.overview()
    return (
        jobs,
        [await engine.attempts(job.id) for job in jobs],
        [await engine.steps(job.id) for job in jobs],
        [await read_log(engine, job.id, 0, 1_000_000) for job in jobs],
        sorted(overview.workers),
        sorted(overview.schedules),
    )
