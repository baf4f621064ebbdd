"""Opening, closing, two engine objects on one store, many callers at once."""

from __future__ import annotations

import asyncio

from ..._core._state import StopReason
from ...jobs._engine import read_log
from ...jobs._rows import AttemptEnd, Completed, JobQuery, NewEvent, Suspended, Wait
from ...jobs._state import CancelOutcome, JobStatus, WaitKind
from ._harness import Harness
from ._support import a_job, a_worker, done, end, everything, look, start, status_of, take, take_ids

MANY = 40


async def opening_again_is_harmless(h: Harness) -> None:
    """A second open on an open engine, with jobs in it."""
    await h.engine.submit([a_job()])
    await h.engine.open()
    assert await status_of(h.engine) is JobStatus.QUEUED


async def closing_again_or_unopened_is_harmless(h: Harness) -> None:
    """An engine is closed that was never opened, another one twice."""
    engine = h.make()
    await engine.close()
    await engine.open()
    await engine.close()
    await engine.close()


async def an_engine_object_opens_again_after_its_close(h: Harness) -> None:
    """One engine object is closed and opened, as by a web app whose lifespan runs twice."""
    await h.engine.submit([a_job()])
    await h.engine.close()
    await h.engine.open()
    assert await status_of(h.engine) is JobStatus.QUEUED
    await h.engine.submit([a_job("b")])
    assert await status_of(h.other, "b") is JobStatus.QUEUED


async def everything_survives_a_restart(h: Harness) -> None:
    """Jobs in every stage, with steps, events, waits, a worker and a schedule, are the same after a restart."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, done("one"))
    await h.engine.append_events("a", attempt, [NewEvent("progress", '"half"', "one")])
    await h.engine.cancel("a", StopReason.USER)
    attempt = await start(h.engine, "b")
    await end(h.engine, "b", attempt, Suspended((Wait("go", WaitKind.SIGNAL, "go", 60.0),)))
    attempt = await start(h.engine, "c")
    await end(h.engine, "c", attempt, Completed("1"))
    await h.engine.submit([a_job("d", delay_seconds=60.0), a_job("e", key="k", labels='{"x": "y"}')])
    await h.engine.fire("nightly", h.clock.wall(), None)
    before = await everything(h.engine)
    await h.reopen()
    assert await everything(h.engine) == before
    assert await everything(h.other) == before


async def what_one_engine_wrote_the_other_reads(h: Harness) -> None:
    """A verb returns after its commit, so another process sees it the moment it has returned."""
    attempt = await start(h.engine)
    assert await everything(h.other) == await everything(h.engine)
    await h.engine.record_step("a", attempt, done("one"))
    assert await h.other.steps("a") == await h.engine.steps("a")
    await h.engine.append_events("a", attempt, [NewEvent("log", "1")])
    assert await read_log(h.other, "a", 0, 10) == await read_log(h.engine, "a", 0, 10)
    await end(h.engine, "a", attempt, Completed("7"))
    assert (await look(h.other)).result == "7"
    assert await h.other.attempts("a") == await h.engine.attempts("a")


async def a_job_passes_from_engine_to_engine(h: Harness) -> None:
    """One process submits, another runs, the first one ends it: the fence counts, not the connection."""
    await h.engine.submit([a_job()])
    await h.other.join(a_worker())
    (job,) = await take(h.other)
    assert await end(h.engine, "a", job.attempt, Completed("1")) is JobStatus.COMPLETED
    assert await status_of(h.other) is JobStatus.COMPLETED


async def many_callers_at_once(h: Harness) -> None:
    """Forty tasks submit, claim, record and finish on two engine objects at the same time; each job runs once."""
    await h.bare.join(a_worker("w"))
    await h.bare_other.join(a_worker("v"))
    engines = {"w": h.bare, "v": h.bare_other}
    answers = await asyncio.gather(
        *(engines["wv"[n % 2]].submit([a_job(f"{n}")]) for n in range(MANY)),
    )
    assert [answer.id for (answer,) in answers] == [f"{n}" for n in range(MANY)]
    claims = await asyncio.gather(*(take(engines["wv"[n % 2]], "wv"[n % 2], limit=3) for n in range(MANY)))
    claimed = [(job, "wv"[n % 2]) for n, jobs in enumerate(claims) for job in jobs]
    assert sorted(job.id for job, _ in claimed) == sorted(f"{n}" for n in range(MANY))
    applied = await asyncio.gather(
        *(engines[worker].record_step(job.id, job.attempt, done("s")) for job, worker in claimed)
    )
    assert all(applied)
    ends = await asyncio.gather(
        *(engines[worker].finish([AttemptEnd(job.id, 1, Completed("1"))]) for job, worker in claimed)
    )
    assert [status for (status,) in ends] == [JobStatus.COMPLETED] * MANY
    rows = await h.bare.find(JobQuery(limit=MANY + 1))
    assert [row.attempt for row in rows] == [1] * MANY


async def reads_and_writes_at_once(h: Harness) -> None:
    """Readers ask while writers write; a submitted batch is seen whole or not at all."""

    async def write(n: int) -> None:
        await h.bare.submit([a_job(f"{n}.{part}", queue=f"{n}") for part in range(5)])

    async def read(n: int) -> int:
        return len(await h.bare_other.find(JobQuery(queue=f"{n}")))

    for n in range(5):
        _, *counts = await asyncio.gather(write(n), *(read(n) for _ in range(10)))
        assert set(counts) <= {0, 5}
        assert await read(n) == 5


async def a_cancelled_caller_leaves_all_or_nothing(h: Harness) -> None:
    """A caller is cancelled while its batch is on the way to the store."""
    for n in range(10):
        batch = [a_job(f"{n}.{part}", queue=f"{n}") for part in range(5)]
        writing = asyncio.ensure_future(h.bare.submit(batch))
        for _ in range(n):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        # What is asked for afterwards comes after it: the engine is in order and the batch is whole.
        await h.bare.submit([a_job(f"after {n}")])
        assert len(await h.bare.find(JobQuery(queue=f"{n}"))) in {0, 5}
    assert len(await h.bare.find(JobQuery(queue="default"))) == 10


async def one_end_of_an_attempt_counts(h: Harness) -> None:
    """Two engines finish and cancel the same job at the same time, again and again."""
    await h.bare.join(a_worker())
    for n in range(10):
        await h.bare.submit([a_job(f"{n}")])
        assert await take_ids(h.bare) == [f"{n}"]
        finish = AttemptEnd(f"{n}", 1, Completed("1"))
        first, second, cancel = await asyncio.gather(
            h.bare.finish([finish]),
            h.bare_other.finish([finish]),
            h.bare_other.cancel(f"{n}", StopReason.USER),
        )
        assert sorted([first, second], key=str) == [[None], [JobStatus.COMPLETED]] or sorted(
            [first, second], key=str
        ) == [[JobStatus.COMPLETED], [None]]
        assert cancel in {CancelOutcome.REQUESTED, CancelOutcome.ALREADY_ENDED}
        assert await status_of(h.bare, f"{n}") is JobStatus.COMPLETED
