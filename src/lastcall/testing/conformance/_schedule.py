"""Schedules: one tick fires once, across all workers, and never back."""

from __future__ import annotations

import asyncio

from ...jobs._rows import JobQuery, ScheduleRow
from ...jobs._state import JobStatus
from ._harness import Harness
from ._support import a_job, a_worker, look, take_ids


async def _last_ticks(h: Harness) -> list[ScheduleRow]:
    return sorted((await h.other.overview()).schedules)


async def a_tick_submits_its_job(h: Harness) -> None:
    """The first tick of a schedule; its job is as any other."""
    job = a_job("a", args="[1]", queue="q", priority=3, labels='{"schedule": "nightly"}')
    assert await h.engine.fire("nightly", 1000.0, job) is True
    row = await look(h.other)
    assert (row.status, row.args, row.queue, row.priority) == (JobStatus.QUEUED, "[1]", "q", 3)
    assert row.labels == '{"schedule": "nightly"}'
    assert await _last_ticks(h) == [ScheduleRow("nightly", 1000.0)]
    await h.engine.join(a_worker())
    assert await take_ids(h.engine) == ["a"]


async def a_tick_fires_once(h: Harness) -> None:
    """Another worker comes with the same tick."""
    assert await h.engine.fire("nightly", 1000.0, a_job("a")) is True
    assert await h.other.fire("nightly", 1000.0, a_job("b")) is False
    assert [row.id for row in await h.engine.find(JobQuery())] == ["a"]


async def a_schedule_never_goes_back(h: Harness) -> None:
    """A worker whose clock is behind comes with an earlier tick; a later one fires."""
    await h.engine.fire("nightly", 1000.0, a_job("a"))
    assert await h.other.fire("nightly", 999.0, a_job("b")) is False
    assert await _last_ticks(h) == [ScheduleRow("nightly", 1000.0)]
    assert await h.other.fire("nightly", 1001.0, a_job("c")) is True
    assert [row.id for row in await h.engine.find(JobQuery())] == ["c", "a"]
    assert await _last_ticks(h) == [ScheduleRow("nightly", 1001.0)]


async def a_tick_may_be_passed_over(h: Harness) -> None:
    """A missed tick is skipped: it moves the schedule on, and nothing is submitted."""
    assert await h.engine.fire("nightly", 1000.0, None) is True
    assert await h.engine.find(JobQuery()) == []
    assert await h.other.fire("nightly", 1000.0, a_job("a")) is False
    assert await h.engine.find(JobQuery()) == []


async def schedules_do_not_know_each_other(h: Harness) -> None:
    """Two schedules have the same tick."""
    assert await h.engine.fire("nightly", 1000.0, a_job("a")) is True
    assert await h.engine.fire("hourly", 1000.0, a_job("b")) is True
    assert await _last_ticks(h) == [ScheduleRow("hourly", 1000.0), ScheduleRow("nightly", 1000.0)]


async def a_schedule_outlives_a_restart(h: Harness) -> None:
    """All processes were restarted between a tick and its repetition."""
    await h.engine.fire("nightly", 1000.5, a_job("a"))
    await h.reopen()
    assert await _last_ticks(h) == [ScheduleRow("nightly", 1000.5)]
    assert await h.engine.fire("nightly", 1000.5, a_job("b")) is False


async def one_of_many_workers_is_first(h: Harness) -> None:
    """Ten workers on two engines fire the same tick at the same time: one of them submits."""
    engines = [h.bare, h.bare_other] * 5
    fired = await asyncio.gather(
        *(engine.fire("nightly", 1000.0, a_job(f"{n}")) for n, engine in enumerate(engines))
    )
    assert sum(fired) == 1
    assert [row.id for row in await h.bare.find(JobQuery())] == [f"{fired.index(True)}"]


async def a_job_of_a_tick_respects_its_key(h: Harness) -> None:
    """The job of the last tick is still there under the key that the next one uses: there is still one job."""
    await h.engine.fire("nightly", 1000.0, a_job("a", key="nightly"))
    assert await h.engine.fire("nightly", 2000.0, a_job("b", key="nightly")) is True
    assert [row.id for row in await h.engine.find(JobQuery())] == ["a"]


async def a_job_of_a_tick_may_be_delayed(h: Harness) -> None:
    """A schedule whose jobs begin a minute after the tick."""
    await h.engine.fire("nightly", h.clock.wall(), a_job("a", delay_seconds=60.0))
    assert (await look(h.engine)).status is JobStatus.SCHEDULED
