"""Looking: single jobs, lists with filters and pages, and the overview."""

from __future__ import annotations

from typing import Any

from ...jobs._rows import Completed, Failed, JobQuery, Suspended, Wait
from ...jobs._state import JobStatus, WaitKind
from ._harness import Harness
from ._support import ERROR, a_job, a_worker, end, start, take


async def _ids(h: Harness, **conditions: Any) -> list[str]:
    return [row.id for row in await h.other.find(JobQuery(**conditions))]


async def jobs_come_in_the_order_asked_for(h: Harness) -> None:
    """Ids in another order than they were submitted in, some of them unknown, and none at all."""
    await h.engine.submit([a_job(job_id) for job_id in "abc"])
    assert [row.id for row in await h.other.get(["c", "nothing", "a", "b"])] == ["c", "a", "b"]
    assert await h.other.get([]) == []
    assert await h.other.get(["nothing"]) == []


async def many_jobs_are_asked_for_at_once(h: Harness) -> None:
    """Two thousand ids in one question, more than fits a statement's parameters in some databases."""
    ids = [f"{n}" for n in range(2000)]
    await h.engine.submit([a_job(job_id) for job_id in ids])
    assert [row.id for row in await h.other.get(ids[::-1])] == ids[::-1]


async def the_newest_come_first(h: Harness) -> None:
    """Submitted one by one, in batches, and at one moment of the clock."""
    await h.engine.submit([a_job("a")])
    await h.engine.submit([a_job("b", priority=9), a_job("c", delay_seconds=60.0)])
    h.advance(1.0)
    await h.engine.submit([a_job("d")])
    assert await _ids(h) == ["d", "c", "b", "a"]


async def a_clock_set_back_does_not_change_the_order(h: Harness) -> None:
    """The wall clock is set back between two jobs: the later one is still the newer."""
    await h.engine.submit([a_job("a")])
    h.jump_wall(-3600.0)
    await h.engine.submit([a_job("b")])
    assert await _ids(h) == ["b", "a"]
    await h.engine.join(a_worker())
    assert [job.id for job in await take(h.engine)] == ["a", "b"]


async def jobs_are_found_by_status(h: Harness) -> None:
    """One job in each status; one status, several, none, and any."""
    attempt = await start(h.engine, "waiting")
    await end(h.engine, "waiting", attempt, Suspended((Wait("s", WaitKind.SIGNAL, "go"),)))
    attempt = await start(h.engine, "completed")
    await end(h.engine, "completed", attempt, Completed("1"))
    attempt = await start(h.engine, "failed")
    await end(h.engine, "failed", attempt, Failed(ERROR))
    await start(h.engine, "running")
    await h.engine.submit([a_job("queued"), a_job("scheduled", delay_seconds=60.0)])
    for name in ("waiting", "completed", "failed", "running", "queued", "scheduled"):
        assert await _ids(h, statuses=frozenset({JobStatus(name)})) == [name]
    chosen = frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED})
    assert await _ids(h, statuses=chosen) == ["queued", "failed"]
    assert await _ids(h, statuses=frozenset()) == []
    assert len(await _ids(h)) == 6


async def jobs_are_found_by_what_they_are(h: Harness) -> None:
    """By task, queue, key and parent, alone and together."""
    await h.engine.submit(
        [
            a_job("a", task="t", queue="q"),
            a_job("b", task="t", queue="r", key="k"),
            a_job("c", task="u", queue="q", key="k", parent_id="a"),
            a_job("d", task="t", queue="q", parent_id="a"),
        ]
    )
    assert await _ids(h, task="t") == ["d", "b", "a"]
    assert await _ids(h, task_part="T") == ["d", "b", "a"] and await _ids(h, task_part="tt") == []
    assert await _ids(h, queue="q") == ["d", "c", "a"]
    assert await _ids(h, key="k") == ["c", "b"]
    assert await _ids(h, parent_id="a") == ["d", "c"]
    assert await _ids(h, task="t", queue="q", parent_id="a") == ["d"]
    assert await _ids(h, task="t", key="k") == ["b"]
    assert await _ids(h, task="t", queue="q", key="k") == []
    for condition in ("task", "queue", "key", "parent_id"):
        assert await _ids(h, **{condition: "nothing"}) == []


async def jobs_are_found_by_label(h: Harness) -> None:
    """Labels with odd names and values; a job without labels is not found by any."""
    await h.engine.submit(
        [
            a_job("a", labels='{"tenant": "x", "user": "1"}'),
            a_job("b", labels='{"tenant": "y"}'),
            a_job("c"),
            a_job("d", labels='{"user": "x"}'),
            a_job("e", labels='{"a.b \'c\\" %": "it\'s 100%"}'),
        ]
    )
    assert await _ids(h, label=("tenant", "x")) == ["a"]
    assert await _ids(h, label=("user", "x")) == ["d"]
    assert await _ids(h, label=("a.b 'c\" %", "it's 100%")) == ["e"]
    assert await _ids(h, label=("tenant", "nothing")) == []
    assert await _ids(h, label=("nothing", "x")) == []
    assert await _ids(h, label=("tenant", "x"), task="other") == []


async def pages_show_each_job_once(h: Harness) -> None:
    """Seven jobs, two to a page, with newer ones coming in between the pages."""
    await h.engine.submit([a_job(f"{n}") for n in range(7)])
    seen: list[str] = []
    before = None
    while page := await _ids(h, before=before, limit=2):
        seen += page
        before = page[-1]
        await h.engine.submit([a_job(f"newer than {before}")])
    assert seen == [f"{n}" for n in range(6, -1, -1)]


async def pages_and_conditions_go_together(h: Harness) -> None:
    """Every third job is of another task; the job that a page ends with need not fit itself."""
    await h.engine.submit([a_job(f"{n}", task="x" if n % 3 == 0 else "y") for n in range(10)])
    assert await _ids(h, task="x", limit=2) == ["9", "6"]
    assert await _ids(h, task="x", before="6", limit=2) == ["3", "0"]
    assert await _ids(h, task="x", before="5", limit=2) == ["3", "0"]
    assert await _ids(h, task="x", before="0") == []


async def a_page_has_no_more_than_asked(h: Harness) -> None:
    """Fifty where nothing is said."""
    await h.engine.submit([a_job(f"{n}") for n in range(60)])
    assert len(await _ids(h)) == 50
    assert len(await _ids(h, limit=1)) == 1
    assert len(await _ids(h, limit=0)) == 0
    assert len(await _ids(h, limit=100)) == 60


async def the_overview_counts(h: Harness) -> None:
    """Jobs of two queues in several statuses; what is not there is not counted."""
    assert (await h.other.overview()).counts == {}
    attempt = await start(h.engine, "a", queue="q")
    await end(h.engine, "a", attempt, Completed("1"))
    await start(h.engine, "b", queue="q")
    await h.engine.submit([a_job("c"), a_job("d"), a_job("e", delay_seconds=60.0)])
    overview = await h.other.overview()
    assert overview.now == h.clock.wall()
    assert {entry: count for entry, count in overview.counts.items() if count} == {
        ("q", JobStatus.COMPLETED): 1,
        ("q", JobStatus.RUNNING): 1,
        ("default", JobStatus.QUEUED): 2,
        ("default", JobStatus.SCHEDULED): 1,
    }


async def the_overview_of_nothing_is_empty(h: Harness) -> None:
    """A new store."""
    overview = await h.engine.overview()
    assert (overview.workers, overview.schedules) == ([], [])
    assert not any(overview.counts.values())
