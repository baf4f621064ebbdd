"""Suspects: who may be what kills its workers runs alone, so that innocents do not fail with it."""

from __future__ import annotations

from typing import Any

from ..._core._state import StopReason
from ...jobs._rows import (
    ClaimResult,
    Completed,
    Failed,
    HandedOver,
    StepRecord,
    Suspended,
    TaskLimits,
    Wait,
)
from ...jobs._state import JobStatus, StepStatus, WaitKind
from ._harness import Harness
from ._support import (
    ERROR,
    LEASE_SECONDS,
    TASK,
    a_job,
    a_worker,
    again,
    ask,
    done,
    end,
    look,
    start,
    status_of,
    take,
    take_ids,
)

NAP = Wait("nap", WaitKind.SLEEP, seconds=5.0)


async def _die(h: Harness, *workers: str) -> None:
    """Every worker dies with what it held; these join anew."""
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.rescue("rescuer")
    for worker in workers:
        await h.engine.join(a_worker(worker))


async def _suspects(h: Harness, *job_ids: str, **fields: Any) -> None:
    """Jobs of which the next loss would be the last; a worker `w` that holds nothing has joined, and a worker `v`."""
    await h.engine.submit([a_job(job_id, **{"max_lost": 2, **fields}) for job_id in job_ids])
    await h.engine.join(a_worker())
    task = fields.get("task", TASK)
    tasks = {(task, fields.get("version", "")): None}
    assert await take_ids(h.engine, tasks=tasks) == list(job_ids)
    await _die(h, "w", "v")


async def before_the_last_loss_a_job_is_a_suspect(h: Harness) -> None:
    """Of three losses in a row, the first two a job may share with others, the third it has alone."""
    await h.engine.submit([a_job("a", max_lost=3), a_job("b", max_lost=4)])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == ["a", "b"]
    await _die(h, "w")
    assert await take_ids(h.engine) == ["a", "b"]
    await _die(h, "w")
    assert await take_ids(h.engine) == ["a"]
    assert await take_ids(h.engine) == []
    await _die(h, "w")
    assert await status_of(h.engine, "a") is JobStatus.FAILED
    assert await take_ids(h.engine) == ["b"]


async def the_innocent_complete_beside_a_poison(h: Harness) -> None:
    """One of six jobs kills its worker each time; whenever it does not run, those that run complete."""
    innocent = ["0", "1", "2", "4", "5"]
    await h.engine.submit([a_job(f"{n}") for n in range(6)])
    await h.engine.join(a_worker())
    for _ in range(20):
        claimed = await take(h.engine)
        if any(job.id == "3" for job in claimed):
            await _die(h, "w")
        else:
            for job in claimed:
                await end(h.engine, job.id, job.attempt, Completed("1"))
    assert [await status_of(h.engine, job_id) for job_id in innocent] == [JobStatus.COMPLETED] * 5
    poison = await look(h.engine, "3")
    assert (poison.status, poison.lost) == (JobStatus.FAILED, 3)


async def a_suspect_comes_first_and_alone(h: Harness) -> None:
    """A worker that holds nothing asks for a hundred; others are older, and more urgent."""
    await h.engine.submit([a_job("older"), a_job("urgent", priority=9)])
    await _suspects(h, "a", version="1")
    versions = {(TASK, ""): None, (TASK, "1"): None}
    assert await take_ids(h.engine, tasks=versions) == ["a"]
    assert await take_ids(h.engine, "v", tasks=versions) == ["urgent", "older"]


async def a_worker_with_a_suspect_gets_nothing(h: Harness) -> None:
    """It asks for more; everything else goes to another worker, until the suspect has ended."""
    await _suspects(h, "a")
    assert await take_ids(h.engine) == ["a"]
    await h.engine.submit([a_job("b"), a_job("c")])
    assert await ask(h.engine) == ClaimResult([], None, False)
    assert await take_ids(h.other, "v", limit=1) == ["b"]
    await end(h.engine, "a", 2, Completed("1"))
    assert await take_ids(h.engine) == ["c"]


async def a_worker_that_holds_something_gets_no_suspect(h: Harness) -> None:
    """It gets others and hears that a suspect waits, also when it asks for nothing; when it is empty, it gets it."""
    await _suspects(h, "a")
    await h.engine.submit([a_job("b", version="1"), a_job("c", version="1")])
    versions = {(TASK, "1"): None, (TASK, ""): None}
    assert await take_ids(h.engine, limit=1, tasks={(TASK, "1"): None}) == ["b"]
    result = await ask(h.engine, tasks=versions)
    assert ([job.id for job in result.jobs], result.suspect_waits) == (["c"], True)
    assert await ask(h.engine, limit=0) == ClaimResult([], None, True)
    await end(h.engine, "b", 1, Completed("1"))
    assert await ask(h.engine, tasks=versions) == ClaimResult([], None, True)
    await end(h.engine, "c", 1, HandedOver())
    assert await ask(h.engine, limit=0) == ClaimResult([], None, False)
    result = await ask(h.engine, tasks=versions)
    assert ([job.id for job in result.jobs], result.suspect_waits) == (["a"], False)


async def only_a_suspect_that_fits_is_told_of(h: Harness) -> None:
    """Workers for other queues, tasks and versions, one that holds the only suspect, one that has not joined."""
    await _suspects(h, "a", queue="q")
    await h.engine.submit([a_job("b"), a_job("c")])
    assert await take_ids(h.engine, limit=1, queues=["default"]) == ["b"]
    assert not (await ask(h.engine, limit=0, queues=["default"])).suspect_waits
    assert not (await ask(h.engine, limit=0, tasks={("other", ""): None})).suspect_waits
    assert not (await ask(h.engine, limit=0, tasks={(TASK, "1"): None})).suspect_waits
    assert (await ask(h.engine, limit=0, queues=["q"])).suspect_waits
    assert await take_ids(h.other, "v", tasks={("other", ""): None}) == []
    assert await take_ids(h.other, "v") == ["a"]
    assert not (await ask(h.engine, limit=0)).suspect_waits
    assert not (await ask(h.engine, "stranger", limit=0)).suspect_waits


async def suspects_run_one_after_the_other(h: Harness) -> None:
    """Three suspects and two workers: each takes one, the higher priority and then the older first."""
    await h.engine.submit([a_job("c", priority=0, max_lost=2), a_job("a", priority=5, max_lost=2)])
    await _suspects(h, "a2", version="1", priority=5)
    await take_ids(h.engine)  # the two others: their first loss
    await _die(h, "w", "v")
    versions = {(TASK, ""): None, (TASK, "1"): None}
    result = await ask(h.engine, tasks=versions)
    assert ([job.id for job in result.jobs], result.suspect_waits) == (["a"], True)
    result = await ask(h.other, "v", tasks=versions)
    assert ([job.id for job in result.jobs], result.suspect_waits) == (["a2"], True)
    await end(h.other, "a2", result.jobs[0].attempt, Completed("1"))
    result = await ask(h.other, "v", tasks=versions)
    assert ([job.id for job in result.jobs], result.suspect_waits) == (["c"], False)


async def a_new_step_acquits_it(h: Harness) -> None:
    """A suspect gets further: its worker gets other jobs beside it, and it may have company the next time."""
    await _suspects(h, "a")
    attempt = await again(h.engine)
    await h.engine.submit([a_job("b")])
    await h.engine.record_step("a", attempt, StepRecord("one", StepStatus.STARTED))
    await h.engine.record_step("a", attempt, StepRecord("two", StepStatus.FAILED, error=ERROR))
    assert await take_ids(h.engine) == []
    await h.engine.record_step("a", attempt, done("one"))
    assert await take_ids(h.engine) == ["b"]
    await end(h.engine, "a", attempt, HandedOver())
    assert not (await ask(h.engine, limit=0)).suspect_waits
    assert await take_ids(h.engine) == ["a"]
    await _die(h, "w")
    assert (await look(h.engine)).status is JobStatus.QUEUED


async def a_step_written_before_acquits_nobody(h: Harness) -> None:
    """The suspect comes again by the steps that it had completed before its loss."""
    attempt = await start(h.engine, max_lost=2)
    await h.engine.record_step("a", attempt, done("one"))
    await _die(h, "w")
    attempt = await again(h.engine)
    await h.engine.submit([a_job("b")])
    await h.engine.record_step("a", attempt, done("one"))
    assert await take_ids(h.engine) == []


async def a_wait_that_is_over_acquits_it(h: Harness) -> None:
    """A suspect sleeps and wakes; another one hears, while it runs, what it had waited for."""
    await _suspects(h, "a")
    attempt = await again(h.engine)
    await end(h.engine, "a", attempt, Suspended((NAP, Wait("go", WaitKind.SIGNAL, "go"))))
    await h.engine.submit([a_job("b")])
    assert await take_ids(h.engine) == ["b"]
    h.advance(5.0)
    assert await take_ids(h.engine) == ["a"]
    await _die(h, "w")
    assert await take_ids(h.engine, limit=1) == ["a"]
    await h.engine.submit([a_job("c")])
    assert await take_ids(h.engine) == []
    await h.engine.send("a", "go", "1")
    assert await take_ids(h.engine) == ["b", "c"]


async def nothing_else_acquits_it(h: Harness) -> None:
    """A suspect is handed over, fails and is tried again, asks for a wait that is over, is given back by its worker."""
    await _suspects(h, "a")
    await h.engine.submit([a_job("b")])
    for outcome in (HandedOver(), Failed(ERROR, retry_in_seconds=0.0), Suspended(())):
        attempt = await again(h.engine)
        await end(h.engine, "a", attempt, outcome)
    await again(h.engine)
    await h.engine.resign("w")
    await h.engine.join(a_worker())
    await again(h.engine)
    await end(h.engine, "a", 6, Failed(ERROR, retry_in_seconds=3.0))
    assert await take_ids(h.engine) == ["b"]
    h.advance(3.0)
    assert await ask(h.engine) == ClaimResult([], None, True)
    assert await take_ids(h.other, "v") == ["a"]


async def a_retry_by_hand_acquits_it(h: Harness) -> None:
    """A job failed by its losses, and a suspect that was cancelled, are retried: like any other job."""
    await _suspects(h, "a", "b")
    assert await take_ids(h.engine) == ["a"]
    await h.engine.cancel("b", StopReason.USER)
    await _die(h, "w")
    assert await status_of(h.engine, "a") is JobStatus.FAILED
    await h.engine.retry("a")
    await h.engine.retry("b")
    assert await take_ids(h.engine) == ["a", "b"]


async def limits_hold_for_suspects(h: Harness) -> None:
    """A suspect whose task runs as often as it may already, or may not start before there is a token: others go on."""
    await _suspects(h, "a", task="narrow")
    await h.engine.submit([a_job("n", task="narrow", version="1"), a_job("b"), a_job("c")])
    one = TaskLimits(concurrency=1)
    tasks = {("narrow", ""): one, (TASK, ""): None}
    assert await take_ids(h.other, "v", tasks={("narrow", "1"): one}) == ["n"]
    result = await ask(h.engine, limit=1, tasks=tasks)
    assert ([job.id for job in result.jobs], result.suspect_waits) == (["b"], True)
    await end(h.engine, "b", 1, Completed("1"))
    await end(h.other, "n", 1, Completed("1"))
    assert await take_ids(h.engine, tasks=tasks) == ["a"]
    await end(h.engine, "a", 2, Completed("1"))


async def a_rate_holds_for_suspects(h: Harness) -> None:
    """No token is left: an empty worker hears when to ask again; one that holds something need not."""
    await _suspects(h, "a")
    tasks = {(TASK, ""): TaskLimits(rate_count=1, rate_seconds=10.0), ("other", ""): None}
    await h.engine.submit([a_job("b", priority=-1), a_job("c", task="other")])
    assert await take_ids(h.engine, tasks=tasks) == ["a"]
    await end(h.engine, "a", 2, HandedOver())
    result = await ask(h.engine, tasks={(TASK, ""): tasks[TASK, ""]})
    assert (result.jobs, result.suspect_waits) == ([], False)
    assert result.next_due_seconds is not None and 0.0 < result.next_due_seconds <= 10.0
    await h.engine.cancel("b", StopReason.USER)
    assert await take_ids(h.engine, tasks=tasks) == ["c"]
    assert await ask(h.engine, tasks=tasks) == ClaimResult([], None, True)
    await end(h.engine, "c", 1, Completed("1"))
    h.advance(10.0)
    assert await take_ids(h.engine, tasks=tasks) == ["a"]


async def a_limit_key_holds_for_suspects(h: Harness) -> None:
    """A suspect keeps its place when it is lost; it gives it up when it fails, and is held back when it comes again."""
    await _suspects(h, "a", limit_key="k", limit=1)
    await h.engine.submit([a_job("b", limit_key="k", limit=1), a_job("c")])
    attempt = await again(h.engine)
    await end(h.engine, "a", attempt, Failed(ERROR, retry_in_seconds=3.0))
    assert await take_ids(h.engine) == ["b", "c"]
    h.advance(3.0)
    assert await ask(h.engine) == ClaimResult([], None, False)
    await end(h.engine, "b", 1, Completed("1"))
    assert await ask(h.engine) == ClaimResult([], None, True)
    await end(h.engine, "c", 1, Completed("1"))
    assert await take_ids(h.engine) == ["a"]
    await h.engine.submit([a_job("d", limit_key="k", limit=1), a_job("e")])
    assert await take_ids(h.other, "v") == ["e"]


async def a_suspect_is_counted_with_the_queued(h: Harness) -> None:
    """A suspect in line, one that runs, and a job that is none, in the overview."""
    await _suspects(h, "a", "b")
    await h.engine.submit([a_job("c")])
    assert await take_ids(h.engine) == ["a"]
    counts = {place: count for place, count in (await h.other.overview()).counts.items() if count}
    assert counts == {("default", JobStatus.QUEUED): 2, ("default", JobStatus.RUNNING): 1}
