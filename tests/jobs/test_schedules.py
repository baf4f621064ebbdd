"""Schedules: which ticks there are, which of them are fired, and that each becomes one job."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from lastcall.exceptions import BadDeclaration
from lastcall.jobs import Context, Jobs, JobStatus
from lastcall.jobs._scheduler import Cron, Plan, Scheduler, crons_of
from lastcall.testing import VirtualClock
from tests.jobs.conftest import Store
from tests.jobs.running import PATIENCE_SECONDS, Faulty, eventually

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """A moment of a zone's wall clock as seconds since the epoch."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def cron(expression: str, zone: str = "UTC") -> Cron:
    return Cron("it: ", expression, zone)


def utc_of(ticks: list[float]) -> list[str]:
    return [datetime.fromtimestamp(tick, UTC).strftime("%d %H:%M") for tick in ticks]


# --- expressions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    ["", "*", "* * * *", "* * * * * * *", "60 * * * *", "-1 * * * *", "* 24 * * *", "0 0 0 * *", "0 0 32 1 *",
     "0 0 * 13 *", "0 0 * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *", "@daily", "@reboot", "1,,2 * * * *",
     "* * * * MON#6", "\x00 * * * *", "٣ * * * *", "0 0 1 1 1 2026"],
)  # fmt: skip
def test_what_is_no_cron_expression(expression: str) -> None:
    """The error names what it belongs to and the expression."""
    with pytest.raises(BadDeclaration, match="it: .* is no cron expression: ") as caught:
        cron(expression)
    assert repr(expression) in str(caught.value)


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4 *", "0 0 31 2,4,6,9,11 *", "0 0 * 2 MON#5-1"])
def test_a_date_that_never_comes(expression: str) -> None:
    """A schedule that would never fire is refused rather than declared in vain."""
    with pytest.raises(BadDeclaration, match="never comes|is no cron expression"):
        cron(expression)


def test_a_date_that_comes_seldom() -> None:
    """The 29th of February over the year 2100, which is no leap year."""
    found = islice(cron("0 0 29 2 *").ticks(at("2095-01-01")), 3)
    assert [datetime.fromtimestamp(tick, UTC).year for tick in found] == [2096, 2104, 2108]


# --- clocks put forward and back -----------------------------------------------------------------------

BERLIN = "Europe/Berlin"  # forward on 2026-03-29 at 02:00 (+1 to +2), back on 2026-10-25 at 03:00


@pytest.mark.parametrize(
    ("expression", "zone", "after", "until", "expected"),
    [
        # An hour that does not exist: fired at the first moment after it, once.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", "2026-03-30T12:00", ["29 01:00", "30 00:30"]),
        ("0,30 2 * * *", BERLIN, "2026-03-29T00:00", "2026-03-29T12:00", ["29 01:00"]),
        ("0 3 * * *", BERLIN, "2026-03-28T12:00", "2026-03-29T12:00", ["29 01:00"]),
        ("0 * * * *", BERLIN, "2026-03-29T00:30", "2026-03-29T05:00",
         ["29 00:00", "29 01:00", "29 02:00", "29 03:00"]),
        # An hour that comes twice: a fixed time once, a step each time.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", "2026-10-26T12:00", ["25 00:30", "26 01:30"]),
        ("0 3 * * *", BERLIN, "2026-10-24T12:00", "2026-10-25T12:00", ["25 02:00"]),
        ("*/30 * * * *", BERLIN, "2026-10-25T01:30", "2026-10-25T03:00",
         ["25 00:00", "25 00:30", "25 01:00", "25 01:30", "25 02:00"]),
        # A day that does not exist.
        ("0 12 * * *", "Pacific/Apia", "2011-12-28T13:00", "2011-12-31T13:00", ["29 22:00", "30 10:00", "30 22:00"]),
        # Half an hour, at midnight, and the other half of the world.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", "2026-10-04T12:00", ["03 15:30"]),
        ("0 0 * * *", "America/Havana", "2026-03-07T12:00", "2026-03-09T12:00", ["08 05:00", "09 04:00"]),
    ],
)  # fmt: skip
def test_clocks_that_change(expression: str, zone: str, after: str, until: str, expected: list[str]) -> None:
    """Summer time comes and goes: no tick is lost, none comes twice."""
    schedule = cron(expression, zone)
    found = schedule.last_ticks(at(after, zone), at(until, zone), 100)
    assert utc_of(found) == expected


EXPRESSIONS = ["* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "0 0 1 * *", "15 */3 * * MON",
               "*/20 * * * * *", "0 3 29 2 *"]  # fmt: skip
ZONES = ["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.sampled_from(
        [at("2026-03-29T00:00"), at("2026-10-25T00:00"), at("2026-04-04T14:00"), at("2026-11-01T05:00")]
    ),
    st.floats(-2 * HOUR, 4 * HOUR),
    st.floats(0, 3 * HOUR),
    st.integers(1, 130),
)
def test_the_last_ticks_are_the_last_of_all(
    expression: str, zone: str, near: float, offset: float, length: float, most: int
) -> None:
    """Looked for from behind, they are the same as when all are gone through from the front; and in order."""
    schedule, after = cron(expression, zone), near + offset
    until = after + length
    everything = []
    for tick in islice(schedule.ticks(after), 12_000):
        if tick > until:
            break
        everything.append(tick)
    assert everything == sorted(set(everything)) and all(tick > after for tick in everything)
    assert schedule.last_ticks(after, until, most) == everything[-most:]


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), st.floats(at("2020-01-01"), at("2040-01-01")))
def test_going_on_from_a_tick_finds_the_next(expression: str, zone: str, after: float) -> None:
    """A scheduler that begins anew at each tick sees the same ticks as one that never stopped."""
    schedule = cron(expression, zone)
    straight = list(islice(schedule.ticks(after), 5))
    restarted = []
    for _ in range(5):
        after = next(schedule.ticks(after))
        restarted.append(after)
    assert restarted == straight


def test_a_moment_in_the_hour_that_comes_twice() -> None:
    """Asked in the second pass, a tick of the first is past."""
    second_pass = at("2026-10-25T02:15", BERLIN, fold=1)
    assert utc_of([next(cron("30 2 * * *", BERLIN).ticks(second_pass))]) == ["26 01:30"]


# --- plans ---------------------------------------------------------------------------------------------

NOON = at("2026-06-01T12:00")


def plan(expression: str, last: float, now: float, *, catch_up: bool = False, zone: str = "UTC") -> Plan:
    return Plan(cron(expression, zone), last, now, catch_up)


def test_nothing_is_due() -> None:
    """Between two ticks: nothing but the time of the next one."""
    found = plan("0 * * * *", NOON, NOON + 10)
    assert (found.fire, found.pass_over, found.next_at) == ([], None, NOON + HOUR)


@pytest.mark.parametrize("late", [0.0, 0.001, 1.0, 59.0, 60.0])
@pytest.mark.parametrize("catch_up", [True, False])
def test_a_tick_that_has_just_come(late: float, catch_up: bool) -> None:
    """Seen at its moment, and up to a minute later: fired."""
    found = plan("0 12 * * *", NOON - DAY, NOON + late, catch_up=catch_up)
    assert (found.fire, found.pass_over, found.next_at) == ([NOON], None, NOON + DAY)


def test_a_tick_is_not_fired_again() -> None:
    """The last one that was fired is this one."""
    assert plan("0 12 * * *", NOON, NOON).fire == []
    assert plan("0 12 * * *", NOON, NOON, catch_up=True).fire == []


def test_missed_ticks_are_passed_over() -> None:
    """Nobody was there for three hours: the ticks before the last minute are passed over, the one of now is fired."""
    found = plan("0 * * * *", NOON - 3 * HOUR, NOON)
    assert (found.fire, found.pass_over) == ([NOON], NOON - HOUR)
    found = plan("0 * * * *", NOON - 3 * HOUR, NOON + 61)
    assert (found.fire, found.pass_over) == ([], NOON)


def test_missed_ticks_are_made_up_for() -> None:
    """With `catch_up` all of them, in order, but at most the last hundred."""
    found = plan("0 * * * *", NOON - 3 * HOUR, NOON, catch_up=True)
    assert (found.fire, found.pass_over) == ([NOON - 2 * HOUR, NOON - HOUR, NOON], None)
    found = plan("* * * * *", NOON - 30 * DAY, NOON, catch_up=True)
    assert found.fire == [NOON - (99 - n) * MINUTE for n in range(100)]


@pytest.mark.parametrize("catch_up", [True, False])
@pytest.mark.parametrize("expression", ["* * * * *", "* * * * * *", "0 0 1 1 *"])
def test_a_schedule_that_slept_for_years(expression: str, catch_up: bool) -> None:
    """A machine was off for ten years: what to do is known in a moment, and not after millions of ticks."""
    before = time.process_time()
    found = plan(expression, NOON - 3650 * DAY, NOON + 0.5, catch_up=catch_up)
    assert time.process_time() - before < 0.5
    assert len(found.fire) <= 100 and found.next_at > NOON
    if catch_up:
        assert found.fire and found.fire[-1] > NOON - 400 * DAY
    else:
        assert found.pass_over is not None and len(found.fire) == (expression != "0 0 1 1 *")


def test_a_clock_that_is_put_back() -> None:
    """The last tick lies in the future: nothing is fired until the clock is there again."""
    found = plan("0 * * * *", NOON, NOON - 2 * HOUR, catch_up=True)
    assert (found.fire, found.pass_over) == ([], None)
    assert found.next_at == NOON - HOUR


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "*/20 * * * * *"]),
    st.sampled_from(ZONES),
    st.sampled_from([at("2026-03-28T22:00"), at("2026-10-24T22:00"), at("2026-04-04T12:00")]),
    st.lists(st.floats(0.1, 2 * HOUR), min_size=1, max_size=20),
    st.booleans(),
)
def test_a_schedule_over_many_looks(
    expression: str, zone: str, start: float, waits: list[float], catch_up: bool
) -> None:
    """However it is looked at: no tick twice, none from the future, none left out that was to be made up for."""
    schedule, now, last, fired = cron(expression, zone), start, start, []
    for wait in waits:
        now += wait
        found = Plan(schedule, last, now, catch_up)
        assert found.next_at > now
        assert found.pass_over is None or (last < found.pass_over <= now and not catch_up)
        last = max([last, *found.fire, found.pass_over or last])
        fired += found.fire
    assert fired == sorted(set(fired)) and all(start < tick <= now for tick in fired)
    if catch_up and len(fired) < 100:
        assert fired == schedule.last_ticks(start, now, 10_000)


# --- declared schedules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters", ["(a)", "(a: int)", "(*, a)", "(a, /)", "(ctx: Context, a)", "(a=1, *, b)", "(a, *args)"]
)
def test_a_schedule_needs_no_arguments(store: Store, parameters: str) -> None:
    """A task with a required argument cannot be submitted by a clock: every worker says so before it begins."""
    jobs = store.jobs()
    names: dict[str, Any] = {"Context": Context}
    exec(f"def work{parameters}: ...", names)
    jobs.task(cron="* * * * *")(names["work"])
    with pytest.raises(
        BadDeclaration, match="task 'work' has a schedule, so it must need no arguments: wrong"
    ):
        jobs.worker()
    assert asyncio.run(store.is_empty())


@pytest.mark.parametrize(
    "parameters", ["()", "(ctx: Context)", "(a=1)", "(*args)", "(**more)", "(ctx: Context, *, a=1)"]
)
def test_a_schedule_with_defaults(store: Store, parameters: str) -> None:
    """What has a default need not be given."""
    jobs = store.jobs()
    names: dict[str, Any] = {"Context": Context}
    exec(f"def work{parameters}: ...", names)
    jobs.task(cron="* * * * *")(names["work"])
    assert set(crons_of(list(jobs.tasks.values()))) == {"work"}


# --- schedules at work ---------------------------------------------------------------------------------


def scheduled(jobs: Jobs, expression: str = "0 * * * *", **declared: Any) -> Scheduler:
    """The scheduler of a worker, to be run by hand."""

    @jobs.task(cron=expression, **declared)
    async def report() -> str:
        return "done"

    tasks = list(jobs.tasks.values())
    return Scheduler(jobs._client, tasks, crons_of(tasks))


async def created(store: Store) -> list[str | None]:
    """The keys of the jobs there are, the oldest first."""
    return [row.key for row in reversed(await store.rows())]


def key(tick: float) -> str:
    return f"cron {tick:.0f}"


async def test_one_tick_one_job_over_all_workers(store: Store) -> None:
    """Three processes keep the same schedule, and look at the same moment, several times: one job."""
    clock = VirtualClock(wall=NOON - 10)
    many = [store.jobs(clock) for _ in range(3)]
    schedulers = [scheduled(jobs) for jobs in many]
    for jobs in many:
        await jobs.open()
    await asyncio.gather(*(scheduler.run_once() for scheduler in schedulers))
    assert await created(store) == []
    clock.advance(10)
    for _ in range(2):
        await asyncio.gather(*(scheduler.run_once() for scheduler in schedulers))
    assert await created(store) == [key(NOON)]
    clock.advance(HOUR)
    await asyncio.gather(*(scheduler.run_once() for scheduler in schedulers))
    assert await created(store) == [key(NOON), key(NOON + HOUR)]
    overview = await many[0].overview()
    assert [(row.name, row.last_tick) for row in overview.schedules] == [("report", NOON + HOUR)]
    for jobs in many:
        await jobs.close()


async def test_a_new_schedule_begins_with_its_next_tick(store: Store) -> None:
    """Declared at the very moment of a tick, or long after one: what was before is not its business."""
    clock = VirtualClock(wall=NOON)
    jobs = store.jobs(clock)
    scheduler = scheduled(jobs, catch_up=True)
    async with jobs:
        assert await scheduler.run_once() == pytest.approx(60)
        assert await created(store) == []
        clock.advance(HOUR - 1)
        assert await scheduler.run_once() == pytest.approx(1)
        clock.advance(1)
        await scheduler.run_once()
        assert await created(store) == [key(NOON + HOUR)]


@pytest.mark.parametrize("catch_up", [False, True])
async def test_a_schedule_after_a_pause(
    store: Store, catch_up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody ran for five hours: with `catch_up` there are five jobs, without it one line in the log, once."""
    clock = VirtualClock(wall=NOON + 1)
    jobs = store.jobs(clock)
    scheduler = scheduled(jobs, catch_up=catch_up)
    async with jobs:
        await scheduler.run_once()
        clock.advance(5 * HOUR + 100)
        again = scheduled(later := store.jobs(clock), catch_up=catch_up)
        async with later:
            for _ in range(2):
                await again.run_once()
                await scheduler.run_once()
    expected = [key(NOON + n * HOUR) for n in range(1, 6)] if catch_up else []
    assert await created(store) == expected
    told = [record for record in caplog.records if "missed ticks were passed over" in record.getMessage()]
    assert len(told) == (0 if catch_up else 1)


async def test_a_restored_store_does_not_fire_again(store: Store) -> None:
    """The store is a backup in which the last tick is an older one, and its job is there: it is not submitted twice."""
    clock = VirtualClock(wall=NOON - 1)
    jobs = store.jobs(clock)
    scheduler = scheduled(jobs)
    async with jobs:
        await scheduler.run_once()
        task = jobs.task_named("report")
        there = await task.options(key=key(NOON)).submit()
        clock.advance(1)
        await scheduler.run_once()
        assert [row.id for row in await store.rows()] == [there.id]


async def test_the_newest_version_is_scheduled(store: Store) -> None:
    """Two versions of a task are declared with the same schedule: its ticks are jobs of the one declared last."""
    clock = VirtualClock(wall=NOON - 1)
    jobs = store.jobs(clock)
    scheduled(jobs, version="1")
    scheduler = scheduled(jobs, version="2")
    async with jobs:
        await scheduler.run_once()
        clock.advance(1)
        await scheduler.run_once()
        assert [row.version for row in await store.rows()] == ["2"]


async def test_a_tick_is_a_job_like_any_other(store: Store) -> None:
    """It has the queue, the priority and the rest of what was declared."""
    clock = VirtualClock(wall=NOON - 1)
    jobs = store.jobs(clock)
    scheduler = scheduled(jobs, queue="reports", priority=5, retention=60)
    async with jobs:
        await scheduler.run_once()
        clock.advance(1)
        await scheduler.run_once()
        (row,) = await store.rows()
    assert (row.task, row.queue, row.priority, row.status) == ("report", "reports", 5, JobStatus.QUEUED)


async def test_the_store_is_away_at_a_tick(store: Store) -> None:
    """It is away when the tick comes and back within the minute: the tick is fired then, once."""
    clock = VirtualClock(wall=NOON - 1)
    engine = Faulty(store.engine(clock))
    jobs = Jobs(engine)  # type: ignore[arg-type]
    scheduler = scheduled(jobs)
    async with jobs:
        await scheduler.run_once()
        clock.advance(1)
        engine.away |= {"fire", "overview"}
        for away in ("fire", "overview"):
            engine.away = {away}
            assert await scheduler._run_guarded() is not None
        engine.away = set()
        clock.advance(20)
        for _ in range(2):
            await scheduler.run_once()
        assert await created(store) == [key(NOON)]


@pytest.mark.loops("asyncio")
async def test_every_second_with_two_workers(store: Store) -> None:
    """In real time, two workers on one store: each second has one job, and each of them runs."""
    one, two = store.jobs(), store.jobs()
    ran: list[float] = []

    async def beat() -> None:
        ran.append(time.time())

    for jobs in (one, two):
        jobs.task(cron="* * * * * *")(beat)
    async with one.worker(), two.worker():
        await eventually(lambda: len(ran) >= 3, seconds=PATIENCE_SECONDS)
    rows = [row for row in reversed(await store.rows()) if row.status is JobStatus.COMPLETED]
    ticks = [float((row.key or "").removeprefix("cron ")) for row in rows]
    assert len(ticks) >= 3
    assert ticks == [ticks[0] + n for n in range(len(ticks))]
    assert all(0 <= at - tick < 1.5 for at, tick in zip(ran, ticks, strict=False))


def test_cronsim_is_what_we_think() -> None:
    """What the library is trusted with: strictly after, in the zone that it was given, on whole seconds."""
    start = datetime(2026, 6, 1, 12, 0, 0, 1, tzinfo=ZoneInfo(BERLIN))
    assert next(CronSim("* * * * *", start)) == start.replace(microsecond=0) + timedelta(minutes=1)
    exact = start.replace(microsecond=0)
    assert next(CronSim("* * * * *", exact)) == exact + timedelta(minutes=1)
