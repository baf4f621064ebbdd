"""Submitting: what is written down, in which order, when it is due, and what keys do."""

from __future__ import annotations

import asyncio

from ...jobs._engine import read_log
from ...jobs._rows import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_LOST,
    Completed,
    EventPage,
    JobQuery,
    NewJob,
    Submitted,
)
from ...jobs._state import JobStatus
from ._harness import Harness
from ._support import a_job, a_worker, end, look, start, status_of, take, take_ids


async def every_field_comes_back(h: Harness) -> None:
    """A job with a value in every field."""
    new = NewJob(
        id="a",
        task="billing.send",
        args='{"to": "x"}',
        version="2",
        queue="mail",
        priority=-3,
        key="k",
        limit_key="customer 7",
        limit=2,
        labels='{"tenant": "t"}',
        options='{"timeout": 5}',
        parent_id="p",
        max_lost=1,
        max_attempts=2,
        retention_seconds=60.0,
    )
    assert await h.engine.submit([new]) == [Submitted("a", JobStatus.QUEUED, created=True)]
    row = await look(h.other)
    assert (row.id, row.task, row.version, row.queue) == ("a", "billing.send", "2", "mail")
    assert (row.args, row.labels, row.options) == (new.args, new.labels, new.options)
    assert (row.priority, row.key, row.limit_key, row.parent_id) == (-3, "k", "customer 7", "p")
    assert row.created_at == h.clock.wall()


async def a_plain_job_has_nothing_else(h: Harness) -> None:
    """A job with no more than a task and arguments."""
    await h.engine.submit([a_job()])
    row = await look(h.engine)
    assert (row.status, row.version, row.queue, row.priority) == (JobStatus.QUEUED, "", "default", 0)
    assert (row.attempt, row.failures, row.lost, row.waits) == (0, 0, 0, ())
    assert {row.result, row.error, row.progress, row.key, row.limit_key, row.labels, row.options} == {None}
    assert {row.parent_id, row.worker_id, row.cancel_reason} == {None}
    assert {row.due_at, row.started_at, row.ended_at, row.expires_at} == {None}
    assert await h.engine.attempts("a") == []
    assert await h.engine.steps("a") == []
    assert await read_log(h.engine, "a", 0, 10) == EventPage([], 1, 0, JobStatus.QUEUED)
    assert (DEFAULT_MAX_LOST, DEFAULT_MAX_ATTEMPTS) == (
        NewJob("", "", "").max_lost,
        NewJob("", "", "").max_attempts,
    )


async def texts_come_back_as_they_were(h: Harness) -> None:
    """Quotes, percent signs, emoji, right-to-left text, line ends and an escaped NUL in every text."""
    odd = 'it\'s "100%" \\ ; -- ? :a $1 {x}\r\n\t\U0001f377 \u05e9\u05dc\u05d5\u05dd \\u0000 \u2028'
    new = a_job(
        odd, task=odd, args=odd, version=odd, queue=odd, key=odd, options=odd, parent_id=odd, limit_key=odd
    )
    await h.engine.submit([new])
    row = await look(h.other, odd)
    texts = (
        row.id,
        row.task,
        row.args,
        row.version,
        row.queue,
        row.key,
        row.options,
        row.parent_id,
        row.limit_key,
    )
    assert set(texts) == {odd}
    await h.other.join(a_worker(odd))
    (job,) = await take(h.other, odd, tasks={(odd, odd): None}, queues=[odd])
    assert job.args == odd


async def large_arguments_come_back(h: Harness) -> None:
    """One mebibyte of arguments."""
    args = '"' + "0123456789abcdef" * (1 << 16) + '"'
    await h.engine.submit([a_job(args=args)])
    assert (await look(h.other)).args == args


async def a_batch_answers_in_its_order(h: Harness) -> None:
    """Five hundred jobs at once, some of them delayed."""
    batch = [a_job(f"{n}", delay_seconds=60.0 if n % 7 == 0 else None) for n in range(500)]
    answers = await h.engine.submit(batch)
    assert [answer.id for answer in answers] == [job.id for job in batch]
    expected = [JobStatus.SCHEDULED if n % 7 == 0 else JobStatus.QUEUED for n in range(500)]
    assert [answer.status for answer in answers] == expected
    rows = await h.engine.find(JobQuery(limit=1000))
    assert [row.id for row in rows] == [job.id for job in reversed(batch)]


async def an_empty_batch_is_nothing(h: Harness) -> None:
    """Somebody submits a list that turned out empty."""
    assert await h.engine.submit([]) == []
    assert await h.engine.find(JobQuery()) == []


async def a_delay_counts_from_now(h: Harness) -> None:
    """A job delayed by a minute is not there before, and there after."""
    (answer,) = await h.engine.submit([a_job(delay_seconds=60.0)])
    assert answer.status is JobStatus.SCHEDULED
    row = await look(h.engine)
    assert (row.status, row.due_at) == (JobStatus.SCHEDULED, h.clock.wall() + 60.0)
    await h.engine.join(a_worker())
    h.advance(59.0)
    assert await take_ids(h.engine) == []
    h.advance(1.0)
    assert await take_ids(h.engine) == ["a"]


async def a_time_to_begin_is_kept(h: Harness) -> None:
    """A job for a given moment."""
    due_at = h.clock.wall() + 90.0
    (answer,) = await h.engine.submit([a_job(due_at=due_at)])
    assert answer.status is JobStatus.SCHEDULED
    assert (await look(h.engine)).due_at == due_at
    await h.engine.join(a_worker())
    h.advance(89.0)
    assert await take_ids(h.engine) == []
    h.advance(1.0)
    assert await take_ids(h.engine) == ["a"]


async def a_time_that_has_passed_is_now(h: Harness) -> None:
    """A moment in the past, and a delay of nothing."""
    await h.engine.submit([a_job("a", due_at=h.clock.wall() - 5.0), a_job("b", delay_seconds=0.0)])
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == ["a", "b"]


async def a_wall_clock_that_jumps_moves_due_times_with_it(h: Harness) -> None:
    """The clock is set forward by an hour while a job is due in half of one, and back while another is."""
    await h.engine.submit([a_job("a", delay_seconds=1800.0)])
    await h.engine.join(a_worker())
    h.jump_wall(3600.0)
    assert await take_ids(h.engine) == ["a"]
    await h.engine.submit([a_job("b", delay_seconds=10.0)])
    h.jump_wall(-3600.0)
    h.advance(10.0)
    assert await take_ids(h.engine) == []
    assert await status_of(h.engine, "b") is JobStatus.SCHEDULED


async def the_same_key_is_the_same_job(h: Harness) -> None:
    """A client submits again because it did not hear the answer, through another engine."""
    await h.engine.submit([a_job("a", key="k")])
    (answer,) = await h.other.submit([a_job("b", key="k", priority=5)])
    assert answer == Submitted("a", JobStatus.QUEUED, created=False)
    assert [row.id for row in await h.engine.find(JobQuery())] == ["a"]
    assert (await look(h.engine)).priority == 0


async def a_key_answers_with_the_status_of_its_job(h: Harness) -> None:
    """The job of a key is running, and later completed, when somebody submits it again."""
    attempt = await start(h.engine, key="k")
    assert await h.engine.submit([a_job("b", key="k")]) == [Submitted("a", JobStatus.RUNNING, False)]
    await end(h.engine, "a", attempt, Completed("1"))
    assert await h.engine.submit([a_job("b", key="k")]) == [Submitted("a", JobStatus.COMPLETED, False)]


async def a_key_with_other_arguments_conflicts(h: Harness) -> None:
    """The same key, other arguments; arguments are compared as text, so a space is enough."""
    await h.engine.submit([a_job("a", key="k", args='{"n":1}')])
    for args in ('{"n":2}', '{"n": 1}'):
        (answer,) = await h.other.submit([a_job("b", key="k", args=args)])
        assert (answer.id, answer.created, answer.conflict) == ("a", False, True)
    assert [row.id for row in await h.engine.find(JobQuery())] == ["a"]


async def a_conflict_writes_nothing_of_its_batch(h: Harness) -> None:
    """The third of four jobs conflicts; two stand before it, one of them with a key of its own."""
    await h.engine.submit([a_job("a", key="k")])
    batch = [a_job("b"), a_job("c", key="other"), a_job("d", key="k", args="[1]"), a_job("e")]
    answers = await h.engine.submit(batch)
    assert [answer.conflict for answer in answers] == [False, False, True, False]
    assert not any(answer.created for answer in answers)
    assert [row.id for row in await h.engine.find(JobQuery())] == ["a"]
    (answer,) = await h.engine.submit([a_job("f", key="other", args="[2]")])
    assert answer == Submitted("f", JobStatus.QUEUED, created=True)


async def a_key_holds_within_its_task(h: Harness) -> None:
    """Two tasks use the same key for different things."""
    await h.engine.submit([a_job("a", key="k")])
    (answer,) = await h.engine.submit([a_job("b", task="other", key="k", args="[1]")])
    assert answer == Submitted("b", JobStatus.QUEUED, created=True)


async def one_key_twice_in_a_batch_is_one_job(h: Harness) -> None:
    """A list with a double entry is submitted."""
    answers = await h.engine.submit([a_job("a", key="k"), a_job("b"), a_job("c", key="k")])
    assert [(answer.id, answer.created) for answer in answers] == [("a", True), ("b", True), ("a", False)]
    assert [row.id for row in await h.engine.find(JobQuery())] == ["b", "a"]


async def one_key_twice_in_a_batch_can_conflict(h: Harness) -> None:
    """A list whose entries contradict each other is submitted."""
    answers = await h.engine.submit([a_job("a", key="k"), a_job("b", key="k", args="[1]")])
    assert [answer.conflict for answer in answers] == [False, True]
    assert await h.engine.find(JobQuery()) == []


async def a_key_is_free_after_its_job_is_gone(h: Harness) -> None:
    """A key holds as long as its job is kept: a purge and a prune free it."""
    attempt = await start(h.engine, key="k", retention_seconds=10.0)
    await end(h.engine, "a", attempt, Completed("1"))
    await h.engine.purge("a")
    (answer,) = await h.engine.submit([a_job("b", key="k", args="[1]", retention_seconds=10.0)])
    assert answer == Submitted("b", JobStatus.QUEUED, created=True)
    (job,) = await take(h.engine)
    await end(h.engine, "b", job.attempt, Completed("1"))
    h.advance(11.0)
    assert await h.engine.prune(10) == 1
    (answer,) = await h.engine.submit([a_job("c", key="k", args="[2]")])
    assert answer == Submitted("c", JobStatus.QUEUED, created=True)


async def one_key_from_many_callers_at_once_is_one_job(h: Harness) -> None:
    """Ten tasks on two engines submit the same key at the same time."""
    engines = [h.bare, h.bare_other] * 5
    answers = await asyncio.gather(
        *(engine.submit([a_job(f"{n}", key="k")]) for n, engine in enumerate(engines))
    )
    assert sum(answer.created for (answer,) in answers) == 1
    assert len({answer.id for (answer,) in answers}) == 1
    assert len(await h.bare.find(JobQuery())) == 1
