"""Jobs in a user's own transaction, for engines that have `submit_within`.

How a connection is made and which are refused is the engine's business, and tested with the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from ...jobs._engine import SupportsConnections
from ...jobs._rows import Completed, JobQuery, NewJob, Submitted
from ._harness import Harness, UserTransaction
from ._listen import HEARD_WITHIN_SECONDS
from ._support import a_job, a_worker, end, take, take_ids


async def _submit(h: Harness, transaction: UserTransaction, jobs: Sequence[NewJob]) -> list[Submitted]:
    return await cast(SupportsConnections, h.bare).submit_within(transaction.connection, jobs)


async def _ids(h: Harness) -> list[str]:
    return [row.id for row in reversed(await h.other.find(JobQuery()))]


async def a_job_is_there_from_the_commit_on(h: Harness) -> None:
    """Before it nobody sees the job, by any verb; afterwards it is as if it had been submitted."""
    await h.other.join(a_worker())
    async with h.transaction() as transaction:
        (answer,) = await _submit(h, transaction, [a_job()])
        assert answer.id == "a" and answer.created
        assert await h.engine.get(["a"]) == [] and await _ids(h) == []
        assert await take(h.other) == []
        await transaction.commit()
    (job,) = await take(h.other)
    assert (job.id, job.attempt, job.args) == ("a", 1, "[]")
    assert await end(h.other, "a", 1, Completed("1")) == "completed"


async def a_rollback_takes_the_jobs_back(h: Harness) -> None:
    """Nothing of them is left: their keys and ids are free, and their lanes claim nothing."""
    async with h.transaction() as transaction:
        await _submit(h, transaction, [a_job("a", key="k"), a_job("b", queue="new", delay_seconds=5.0)])
        await transaction.rollback()
    assert await _ids(h) == []
    (answer,) = await h.engine.submit([a_job("a", key="k", args="[2]")])
    assert answer.created and not answer.conflict


async def every_field_arrives(h: Harness) -> None:
    """What is submitted in a transaction looks like what is submitted without one."""
    fields = {
        "priority": 3, "queue": "slow", "version": "2", "labels": '{"who": "ann"}', "options": '{"retries": 1}',
        "max_lost": 7, "max_attempts": 9, "retention_seconds": 5.0, "delay_seconds": 60.0, "parent_id": "p",
    }  # fmt: skip
    async with h.transaction() as transaction:
        await _submit(h, transaction, [a_job("within", key="1", **fields)])
        await transaction.commit()
    await h.engine.submit([a_job("plain", key="2", **fields)])
    within, plain = await h.other.get(["within", "plain"])
    assert within == plain._replace(id="within", key="1")
    assert [row.id for row in await h.other.find(JobQuery(label=("who", "ann")))] == ["plain", "within"]


async def keys_hold_within_and_across(h: Harness) -> None:
    """A key of before, and one of this very transaction, are found; a conflict writes nothing of its call, and the
    transaction goes on."""
    await h.engine.submit([a_job("old", key="old")])
    async with h.transaction() as transaction:
        answers = await _submit(h, transaction, [a_job("x", key="old"), a_job("new", key="new")])
        assert [(answer.id, answer.created) for answer in answers] == [("old", False), ("new", True)]
        answers = await _submit(h, transaction, [a_job("y", key="new"), a_job("z", key="z")])
        assert [(answer.id, answer.created) for answer in answers] == [("new", False), ("z", True)]
        answers = await _submit(h, transaction, [a_job("no"), a_job("neither", key="old", args="[7]")])
        assert [answer.conflict for answer in answers] == [False, True]
        assert not any(answer.created for answer in answers)
        await transaction.commit()
    assert await _ids(h) == ["old", "new", "z"]


async def limits_hold(h: Harness) -> None:
    """Three jobs under a limit of one, submitted in a transaction, beside one that runs: one after the other."""
    limit = {"limit_key": "k", "limit": 1}
    await h.engine.join(a_worker())
    await h.engine.submit([a_job("first", **limit)])
    assert await take_ids(h.engine) == ["first"]
    async with h.transaction() as transaction:
        await _submit(h, transaction, [a_job(job_id, **limit) for job_id in "abc"])
        await transaction.commit()
    running = "first"
    for job_id in "abc":
        assert await take_ids(h.engine) == []
        await end(h.engine, running, 1, Completed("1"))
        assert await take_ids(h.engine) == [job_id]
        running = job_id


async def an_open_transaction_is_in_nobodys_way(h: Harness) -> None:
    """It has submitted under a limit key and stays open: jobs of that key are submitted, run and end meanwhile."""
    limit = {"limit_key": "k", "limit": 1}
    await h.engine.join(a_worker())
    async with h.transaction() as transaction:
        await _submit(h, transaction, [a_job("within", **limit)])
        async with asyncio.timeout(HEARD_WITHIN_SECONDS):
            for job_id in "ab":
                await h.engine.submit([a_job(job_id, **limit)])
                assert await take_ids(h.engine) == [job_id]
                await end(h.engine, job_id, 1, Completed("1"))
        await transaction.commit()
    assert await take_ids(h.engine) == ["within"]


async def the_commit_is_heard_of(h: Harness) -> None:
    """By another process, and by the engine that has written the job itself, which cannot know when that is."""
    for engine in (h.other, h.engine):
        async with h.transaction() as transaction:
            await _submit(h, transaction, [a_job(f"{id(engine)}")])
            news = asyncio.Event()
            end_listening = engine.listen(news.set)
            try:
                await transaction.commit()
                async with asyncio.timeout(HEARD_WITHIN_SECONDS):
                    await news.wait()
            finally:
                end_listening()
