"""What an engine itself tells in a job's log, and how much of a log it keeps (`jobs/_events.py`)."""

from __future__ import annotations

import json
from typing import Any

from ..._core._state import StopReason
from ...jobs._engine import read_log
from ...jobs._rows import (
    AttemptEnd,
    Cancelled,
    Completed,
    EventRow,
    Failed,
    HandedOver,
    NewEvent,
    Outcome,
    StepRecord,
    Suspended,
    Wait,
)
from ...jobs._state import JobStatus, StepStatus, WaitKind
from ._harness import Harness
from ._support import (
    ERROR,
    LEASE_SECONDS,
    WORKER,
    a_job,
    a_worker,
    again,
    done,
    end,
    log_of,
    start,
    take,
)

GO = Wait("go", WaitKind.SIGNAL, "go")


async def _told(h: Harness, job_id: str = "a") -> list[tuple[int, str, str | None]]:
    """The job's statuses in its log, seen from outside: the attempt, the status, the reason."""
    events = [event for event in await log_of(h.other, job_id) if event.type == "status"]
    assert {event.step for event in events} <= {None}
    told = [(event.attempt, json.loads(event.data)) for event in events]
    return [(attempt, data["status"], data.get("reason")) for attempt, data in told]


async def _data(h: Harness, type: str, job_id: str = "a") -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in await log_of(h.other, job_id) if event.type == type]


# --- statuses ------------------------------------------------------------------------------------------


async def a_plain_job_leaves_its_log_empty(h: Harness) -> None:
    """Ten jobs with one attempt and nothing to tell: that they have completed says the job itself."""
    await h.engine.submit([a_job(f"{n}") for n in range(10)])
    await h.engine.join(a_worker())
    claimed = await take(h.engine)
    await h.engine.finish([AttemptEnd(job.id, job.attempt, Completed("1")) for job in claimed])
    for job in claimed:
        page = await read_log(h.other, job.id, 0, 10)
        assert page is not None
        assert (page.events, page.first, page.last, page.status) == ([], 1, 0, JobStatus.COMPLETED)


async def a_log_tells_that_its_job_has_completed(h: Harness) -> None:
    """Jobs end together, of which some have told something: an event, a step, an earlier attempt, from outside."""
    ids = ["event", "step", "nothing", "again", "outside", "none", "zero"]
    await h.engine.submit([a_job(job_id) for job_id in ids])
    await h.engine.join(a_worker())
    await take(h.engine)
    await h.engine.append_events("event", 1, [NewEvent("n", "1")])
    await h.engine.record_step("step", 1, done("one"))
    await h.other.append_events("outside", None, [NewEvent("n", "1")])
    await end(h.engine, "again", 1, HandedOver())
    await again(h.engine, "again")
    fences = {job_id: 2 if job_id == "again" else 1 for job_id in ids}
    at = h.clock.wall()
    await h.engine.finish([AttemptEnd(job_id, attempt, Completed("1")) for job_id, attempt in fences.items()])
    for job_id in ("event", "step", "again", "outside"):
        last = (await log_of(h.other, job_id))[-1]
        assert last == EventRow(last.seq, fences[job_id], None, "status", last.data, at)
        assert json.loads(last.data) == {"status": "completed"}
    for job_id in ("nothing", "none", "zero"):
        assert await log_of(h.other, job_id) == []


async def one_that_completes_alone_is_told_as_well(h: Harness) -> None:
    """One job ends, with a log, and another one without."""
    attempt = await start(h.engine)
    await h.engine.append_events("a", attempt, [NewEvent("n", "1")])
    await end(h.engine, "a", attempt, Completed("1"))
    assert await _told(h) == [(1, "completed", None)]
    await end(h.engine, "b", await start(h.engine, "b"), Completed("1"))
    assert await log_of(h.engine, "b") == []


async def every_attempt_but_the_first_is_told(h: Harness) -> None:
    """A job is handed over twice; the log says who runs it, and why it was given back."""
    await start(h.engine)
    await end(h.engine, "a", 1, HandedOver())
    await again(h.engine)
    await end(h.engine, "a", 2, HandedOver(StopReason.GROUP))
    await again(h.engine)
    assert await _told(h) == [
        (1, "queued", "shutdown"),
        (2, "running", None),
        (2, "queued", "group"),
        (3, "running", None),
    ]
    running = [data for data in await _data(h, "status") if data["status"] == "running"]
    assert running == [{"status": "running", "worker": WORKER}] * 2


async def every_end_is_told(h: Harness) -> None:
    """Failed for good, failed and tried again, cancelled by itself."""
    await end(h.engine, "a", await start(h.engine, "a"), Failed(ERROR))
    assert await _told(h, "a") == [(1, "failed", None)]
    await end(h.engine, "b", await start(h.engine, "b"), Failed(ERROR, retry_in_seconds=3600.0))
    assert await _told(h, "b") == [(1, "scheduled", "failed")]
    await end(h.engine, "c", await start(h.engine, "c"), Cancelled(StopReason.USER))
    assert await _told(h, "c") == [(1, "cancelled", "user")]


async def that_a_time_has_come_is_not_told(h: Harness) -> None:
    """A retry is due: the next entry is that it runs."""
    await end(h.engine, "a", await start(h.engine), Failed(ERROR, retry_in_seconds=3.0))
    h.advance(3.0)
    await again(h.engine)
    assert await _told(h) == [(1, "scheduled", "failed"), (2, "running", None)]


async def a_cancel_is_told_when_it_has_happened(h: Harness) -> None:
    """A queued job is cancelled; a running one, which is told when its attempt ends, with the reason that it keeps."""
    await h.engine.submit([a_job("queued")])
    await h.other.cancel("queued", StopReason.DISCONNECT)
    assert await _told(h, "queued") == [(0, "cancelled", "disconnect")]
    outcomes: list[Outcome] = [
        Failed(ERROR, retry_in_seconds=1.0),
        HandedOver(),
        Suspended((GO,)),
        Cancelled(StopReason.TIMEOUT),
    ]
    for n, outcome in enumerate(outcomes):
        attempt = await start(h.engine, f"{n}")
        await h.engine.cancel(f"{n}", StopReason.USER)
        assert await log_of(h.engine, f"{n}") == []
        await end(h.engine, f"{n}", attempt, outcome)
        assert await _told(h, f"{n}") == [(1, "cancelled", "user")]


async def waits_are_told(h: Harness) -> None:
    """A job waits and is woken by a message; asks for what is there already; and hears something while it runs."""
    await end(h.engine, "a", await start(h.engine), Suspended((GO,)))
    await h.other.send("a", "go", "1")
    attempt = await again(h.engine)
    await end(h.engine, "a", attempt, Suspended((Wait("nap", WaitKind.SLEEP, seconds=0.0),)))
    attempt = await again(h.engine)
    await end(h.engine, "a", attempt, Suspended((Wait("other", WaitKind.SIGNAL, "other"), GO)))
    await again(h.engine)
    await h.other.send("a", "other", "1")
    assert await _told(h) == [
        (1, "waiting", None),
        (0, "queued", "wake"),
        (2, "running", None),
        (2, "queued", "wake"),
        (3, "running", None),
        (3, "queued", "wake"),
        (4, "running", None),
    ]
    assert await _data(h, "step") == []


async def a_wait_that_is_due_is_told(h: Harness) -> None:
    """A sleep ends in a claim that asks for nothing; a parent is woken by the end of its child."""
    await end(h.engine, "a", await start(h.engine), Suspended((Wait("nap", WaitKind.SLEEP, seconds=5.0),)))
    wait = Wait("child", WaitKind.JOBS, jobs=("child",))
    await h.engine.submit([a_job("child", task="else")])
    await end(h.engine, "parent", await start(h.engine, "parent"), Suspended((wait,)))
    h.advance(5.0)
    assert await take(h.engine, limit=0) == []
    await h.engine.cancel("child", StopReason.USER)
    for job_id in ("a", "parent"):
        assert await _told(h, job_id) == [(1, "waiting", None), (0, "queued", "wake")]


async def losses_are_told(h: Harness) -> None:
    """A job is lost, and lost again, which fails it; another one was to be cancelled when it was lost."""
    await start(h.engine, "a", max_lost=2)
    await start(h.engine, "b")
    await h.engine.cancel("b", StopReason.USER)
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.rescue("rescuer")
    await h.engine.join(a_worker())
    await again(h.engine, "a")
    h.advance(LEASE_SECONDS + 1.0)
    await h.other.rescue("rescuer")
    assert await _told(h, "a") == [(1, "queued", "lost"), (2, "running", None), (2, "failed", "lost")]
    assert await _told(h, "b") == [(1, "cancelled", "user")]


async def what_a_worker_gives_back_is_told(h: Harness) -> None:
    """A worker resigns with two jobs, of which one was to be cancelled."""
    await h.engine.submit([a_job("a"), a_job("b")])
    await h.engine.join(a_worker())
    await take(h.engine)
    await h.engine.cancel("b", StopReason.USER)
    await h.engine.resign(WORKER)
    assert await _told(h, "a") == [(1, "queued", "shutdown")]
    assert await _told(h, "b") == [(1, "cancelled", "user")]


async def a_retry_by_hand_is_told(h: Harness) -> None:
    """A failed job is retried; one that runs is left alone."""
    await end(h.engine, "a", await start(h.engine), Failed(ERROR))
    await h.engine.retry("a")
    await again(h.engine)
    await h.engine.retry("a")
    assert await _told(h) == [(1, "failed", None), (0, "queued", "retry"), (2, "running", None)]


async def what_changes_nothing_tells_nothing(h: Harness) -> None:
    """Ends, steps and cancels that come late; wakings of nobody; a rescue of nobody; and what is forgotten is gone."""
    await end(h.engine, "a", await start(h.engine), Failed(ERROR))
    before = await log_of(h.engine)
    late: tuple[Outcome, ...] = (
        Completed("1"),
        Failed(ERROR),
        HandedOver(),
        Suspended((GO,)),
        Cancelled(StopReason.USER),
    )
    for outcome in late:
        await end(h.engine, "a", 1, outcome)
        await end(h.engine, "a", 2, outcome)
    await h.engine.record_step("a", 1, done("one"))
    await h.engine.cancel("a", StopReason.USER)
    await h.engine.send("a", "go", "1")
    await h.engine.rescue("rescuer")
    assert await log_of(h.engine) == before
    await h.engine.purge("a")
    attempt = await start(h.engine, "a")
    assert (attempt, await log_of(h.engine)) == (1, [])


# --- steps ---------------------------------------------------------------------------------------------


async def steps_are_told_when_they_have_ended(h: Harness) -> None:
    """A step is begun, fails, is completed; another one is completed twice, which counts once."""
    attempt = await start(h.engine)
    await h.engine.record_step("a", attempt, StepRecord("one", StepStatus.STARTED))
    assert await log_of(h.engine) == []
    await h.engine.record_step("a", attempt, StepRecord("one", StepStatus.FAILED, error=ERROR, seconds=0.5))
    await h.engine.record_step("a", attempt, done("one", seconds=2.0))
    h.advance(1.0)
    await h.engine.record_step("a", attempt, done('"two" \\ \U0001f377'))
    await h.engine.record_step("a", attempt, done('"two" \\ \U0001f377'))
    events = await log_of(h.other)
    assert [(event.seq, event.attempt, event.type) for event in events] == [
        (n, attempt, "step") for n in (1, 2, 3)
    ]
    assert [event.step for event in events] == ["one", "one", '"two" \\ \U0001f377']
    assert events[-1].at == h.clock.wall()
    assert await _data(h, "step") == [
        {"key": "one", "status": "failed", "seconds": 0.5},
        {"key": "one", "status": "completed", "seconds": 2.0},
        {"key": '"two" \\ \U0001f377', "status": "completed", "seconds": 0.0},
    ]


async def what_a_step_told_comes_before_its_end(h: Harness) -> None:
    """A step tells something, ends, and the job is handed over."""
    attempt = await start(h.engine)
    await h.engine.append_events("a", attempt, [NewEvent("n", "1", "one")])
    await h.engine.record_step("a", attempt, done("one"))
    await h.engine.append_events("a", attempt, [NewEvent("n", "2")])
    await end(h.engine, "a", attempt, HandedOver())
    assert [event.type for event in await log_of(h.other)] == ["n", "step", "n", "status"]


# --- how much is kept ----------------------------------------------------------------------------------


async def _append(h: Harness, count: int, data: str, at_once: int) -> None:
    for _ in range(count // at_once):
        assert await h.engine.append_events("a", None, [NewEvent("n", data)] * at_once)


async def a_long_log_is_trimmed(h: Harness) -> None:
    """A megabyte goes through a log of 100 000 bytes, one by one and in batches: it keeps most of that, and no more."""
    await h.engine.submit([a_job("a", log_max_bytes=100_000)])
    data = json.dumps("x" * 934)  # about a kilobyte, with what an entry costs besides
    for at_once, total in ((1, 500), (10, 1000)):
        await _append(h, 500, data, at_once)
        page = await read_log(h.other, "a", 0, 10_000)
        assert page is not None
        assert page.last == total
        assert [event.seq for event in page.events] == list(range(page.first, page.last + 1))
        kept = sum(len(event.data) for event in page.events)
        assert 80_000 <= kept <= 100_000
    page = await read_log(h.other, "a", 5, 3)
    assert page is not None and [event.seq for event in page.events] == [
        page.first + place for place in range(3)
    ]


async def a_log_within_its_bounds_is_kept(h: Harness) -> None:
    """Most logs are short."""
    await h.engine.submit([a_job("a", log_max_bytes=100_000, log_max_age_seconds=60.0)])
    await _append(h, 50, json.dumps("x" * 100), 5)
    h.advance(59.0)
    await _append(h, 50, json.dumps("x" * 100), 5)
    assert [event.seq for event in await log_of(h.other)] == list(range(1, 101))


async def the_newest_entry_is_always_kept(h: Harness) -> None:
    """Logs that may hold nearly nothing, for no time; entries that are longer than all that may be kept."""
    await h.engine.submit([a_job("a", log_max_bytes=1)])
    for n in (1, 2, 3):
        assert await h.engine.append_events("a", None, [NewEvent("n", f"{n}")]) == n
        assert await read_log(h.other, "a", 0, 10) == (
            [EventRow(n, 0, None, "n", f"{n}", h.clock.wall())],
            n,
            n,
            JobStatus.QUEUED,
        )
    await h.engine.submit([a_job("b", log_max_age_seconds=0.0)])
    for n in (1, 2):
        h.advance(1.0)
        await h.engine.append_events("b", None, [NewEvent("n", "1"), NewEvent("n", "2")])
        assert [event.seq for event in await log_of(h.other, "b")] == [2 * n - 1, 2 * n]
    h.advance(100.0)
    assert len(await log_of(h.other, "b")) == 2


async def old_entries_go_when_a_new_one_comes(h: Harness) -> None:
    """Entries of ten seconds: what is older goes with the next append, and not before."""
    await h.engine.submit([a_job("a", log_max_age_seconds=10.0)])
    for _ in range(4):
        await h.engine.append_events("a", None, [NewEvent("n", "1")])
        h.advance(4.0)
    assert [event.seq for event in await log_of(h.other)] == [2, 3, 4]
    h.advance(100.0)
    assert [event.seq for event in await log_of(h.other)] == [2, 3, 4]
    await h.engine.append_events("a", None, [NewEvent("n", "1")])
    assert [event.seq for event in await log_of(h.other)] == [5]


async def what_the_engine_tells_counts_too(h: Harness) -> None:
    """A job with nothing but steps: its log does not grow for ever, and other jobs' logs are not touched."""
    attempt = await start(h.engine, log_max_bytes=5_000)
    other = await start(h.engine, "b")
    await h.engine.append_events("b", other, [NewEvent("n", "1")])
    for n in range(100):
        await h.engine.record_step("a", attempt, done(f"{n}"))
    page = await read_log(h.other, "a", 0, 1000)
    assert page is not None
    assert page.last == 100 and 50 < page.first < 100
    assert [event.seq for event in page.events] == list(range(page.first, 101))
    assert len(await log_of(h.other, "b")) == 1
    assert len(await h.engine.steps("a")) == 100
