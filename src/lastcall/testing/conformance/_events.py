"""Events: numbered from 1 without gaps, fenced for workers, open to those outside."""

from __future__ import annotations

import asyncio

from ...jobs._engine import read_log
from ...jobs._rows import Completed, EventPage, EventRow, HandedOver, NewEvent, ReadFrom
from ...jobs._state import JobStatus
from ._harness import Harness
from ._support import LEASE_SECONDS, a_job, a_worker, again, end, everything, log_of, look, start, status_of


async def events_count_from_one(h: Harness) -> None:
    """Two appends; every field of an event comes back, through another engine."""
    attempt = await start(h.engine)
    assert await h.engine.append_events("a", attempt, [NewEvent("log", '"hello"', "one")]) == 1
    first_at = h.clock.wall()
    h.advance(1.0)
    assert await h.engine.append_events("a", attempt, [NewEvent("x.y", "{}"), NewEvent("log", "2")]) == 3
    assert await log_of(h.other) == [
        EventRow(1, attempt, "one", "log", '"hello"', first_at),
        EventRow(2, attempt, None, "x.y", "{}", h.clock.wall()),
        EventRow(3, attempt, None, "log", "2", h.clock.wall()),
    ]


async def events_are_read_from_a_place_on(h: Harness) -> None:
    """A reader resumes in the middle, reads in portions, and finds nothing after the end."""
    attempt = await start(h.engine)
    await h.engine.append_events("a", attempt, [NewEvent("n", f"{n}") for n in range(1, 11)])
    assert [event.seq for event in await log_of(h.engine, after=7)] == [8, 9, 10]
    assert [event.seq for event in await log_of(h.engine, after=3, limit=4)] == [4, 5, 6, 7]
    assert await read_log(h.engine, "a", 10, 100) == EventPage([], 1, 10, JobStatus.RUNNING)
    assert await read_log(h.engine, "a", 99, 100) == EventPage([], 1, 10, JobStatus.RUNNING)


async def a_page_tells_where_the_log_stands(h: Harness) -> None:
    """A log that is empty, then has three entries; asked for none, for some, for all; and a job nobody knows."""
    attempt = await start(h.engine)
    assert await read_log(h.other, "a", 0, 10) == EventPage([], 1, 0, JobStatus.RUNNING)
    await h.engine.append_events("a", attempt, [NewEvent("n", f"{n}") for n in range(1, 4)])
    for after, limit, seen in ((0, 0, []), (0, 2, [1, 2]), (2, 2, [3]), (0, 10, [1, 2, 3])):
        page = await read_log(h.other, "a", after, limit)
        assert page is not None
        assert ([event.seq for event in page.events], page.first, page.last) == (seen, 1, 3)
    assert await read_log(h.engine, "nothing", 0, 100) is None


async def many_logs_are_read_together(h: Harness) -> None:
    """Two logs, each from a place of its own, one that has nothing new, one asked for twice, and one nobody knows."""
    fences = {job_id: await start(h.engine, job_id) for job_id in ("a", "b")}
    for job_id, count in (("a", 3), ("b", 1)):
        await h.engine.append_events(job_id, fences[job_id], [NewEvent("n", f"{n}") for n in range(count)])
    await end(h.engine, "b", fences["b"], Completed("1"))  # which is told in its log
    reads = [ReadFrom("a", 1), ReadFrom("nothing"), ReadFrom("b", 2), ReadFrom("a")]
    pages = await h.other.read_events(reads, 1)
    assert pages[1] is None
    found = [([event.seq for event in page.events], page.last, page.status) for page in pages if page]
    assert found == [([2], 3, JobStatus.RUNNING), ([], 2, JobStatus.COMPLETED), ([1], 3, JobStatus.RUNNING)]
    assert await h.engine.read_events([], 10) == []


async def numbers_go_on_over_attempts(h: Harness) -> None:
    """The log of a job is one, whoever wrote it; an event tells its attempt, 0 from outside."""
    attempt = await start(h.engine)
    await h.engine.append_events("a", attempt, [NewEvent("n", "1")])
    await end(h.engine, "a", attempt, HandedOver())  # each of these is told in the log, too
    assert await h.other.append_events("a", None, [NewEvent("n", "2")]) == 3
    attempt = await again(h.engine)
    await h.engine.append_events("a", attempt, [NewEvent("n", "3")])
    await end(h.engine, "a", attempt, Completed("1"))
    assert await h.other.append_events("a", None, [NewEvent("n", "4")]) == 7
    events = await log_of(h.engine)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert [(event.seq, event.attempt, event.data) for event in events if event.type == "n"] == [
        (1, 1, "1"),
        (3, 0, "2"),
        (5, 2, "3"),
        (7, 0, "4"),
    ]


async def each_job_has_its_own_log(h: Harness) -> None:
    """Two jobs write by turns."""
    fences = {job_id: await start(h.engine, job_id) for job_id in "ab"}
    for n in (1, 2, 3):
        for job_id, fence in fences.items():
            assert await h.engine.append_events(job_id, fence, [NewEvent("n", f'"{job_id}{n}"')]) == n
    for job_id in fences:
        events = await log_of(h.engine, job_id)
        assert [event.data for event in events] == [f'"{job_id}{n}"' for n in (1, 2, 3)]


async def an_append_of_nothing_is_fine(h: Harness) -> None:
    """A writer flushes an empty buffer."""
    attempt = await start(h.engine)
    await h.engine.append_events("a", attempt, [NewEvent("n", "1")])
    assert await h.engine.append_events("a", attempt, []) == 1
    assert len(await log_of(h.engine)) == 1


async def progress_is_the_progress_of_the_job(h: Harness) -> None:
    """The newest `progress` event is shown with the job; other events are not."""
    attempt = await start(h.engine)
    await h.engine.append_events("a", attempt, [NewEvent("log", '"x"')])
    assert (await look(h.other)).progress is None
    events = [NewEvent("progress", "[1, 3]"), NewEvent("progress", "[2, 3]"), NewEvent("log", '"y"')]
    await h.engine.append_events("a", attempt, events)
    assert (await look(h.other)).progress == "[2, 3]"
    assert len(await log_of(h.engine)) == 4
    await end(h.engine, "a", attempt, HandedOver())
    assert (await look(h.other)).progress == "[2, 3]"


async def an_event_needs_the_running_attempt(h: Harness) -> None:
    """Older and newer attempts than the running one, a job that does not run, an unknown job: lost."""
    attempt = await start(h.engine)
    await end(h.engine, "a", attempt, HandedOver())
    attempt = await again(h.engine)
    await h.engine.submit([a_job("queued")])
    before = await everything(h.engine)
    event = [NewEvent("progress", "1")]
    assert await h.engine.append_events("a", attempt - 1, event) is None
    assert await h.engine.append_events("a", attempt + 1, event) is None
    assert await h.engine.append_events("queued", 0, event) is None
    assert await h.engine.append_events("queued", 1, event) is None
    assert await h.engine.append_events("nothing", 1, event) is None
    assert await h.engine.append_events("nothing", None, event) is None
    assert await everything(h.engine) == before


async def a_lost_attempt_writes_no_event(h: Harness) -> None:
    """A stalled worker streams on although another one has its job."""
    attempt = await start(h.engine)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.join(a_worker("v"))
    await h.other.rescue("v")
    assert await h.engine.append_events("a", attempt, [NewEvent("token", '"x"')]) is None
    assert [event.type for event in await log_of(h.engine)] == ["status"]  # that it was lost


async def events_from_many_writers_have_no_gaps(h: Harness) -> None:
    """Forty appends by turns on two engines, at the same time: each number once, each batch in one piece."""
    attempt = await start(h.bare)
    answers = await asyncio.gather(
        *(
            [h.bare, h.bare_other][n % 2].append_events(
                "a", attempt, [NewEvent("n", f"{n}"), NewEvent("n", f"{n}")]
            )
            for n in range(40)
        )
    )
    events = await log_of(h.bare_other)
    assert [event.seq for event in events] == list(range(1, 81))
    data = [event.data for event in events]
    assert data[::2] == data[1::2]
    assert sorted(data[::2], key=int) == [f"{n}" for n in range(40)]
    assert answers == [2 * (data.index(f"{n}") // 2 + 1) for n in range(40)]


async def a_long_log_is_read_to_its_end(h: Harness) -> None:
    """Two thousand events in batches of a hundred, read in portions of 300."""
    attempt = await start(h.engine)
    for batch in range(20):
        events = [NewEvent("n", f"{batch * 100 + n}") for n in range(100)]
        assert await h.engine.append_events("a", attempt, events) == (batch + 1) * 100
    read: list[EventRow] = []
    while portion := await log_of(h.other, after=len(read), limit=300):
        assert len(portion) <= 300
        read += portion
    assert [event.data for event in read] == [f"{n}" for n in range(2000)]
    assert await status_of(h.engine) == "running"
