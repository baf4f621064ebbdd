"""Services: started again when they fail, not for ever, and never in the way of a shutdown."""

import asyncio
import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall import (
    InvalidPlan,
    Kind,
    ManagerState,
    Outcome,
    RestartPolicy,
    ServiceGaveUp,
    ShutdownPlan,
    TaskManager,
    TaskStatus,
    current_shutdown,
)

virtual = pytest.mark.loops("virtual")
STEADY = RestartPolicy(max_restarts=5, within_seconds=60, backoff_seconds=1, max_backoff_seconds=8, jitter=0)


class Boom(Exception):
    pass


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- the policy ---


def test_the_backoff_doubles_up_to_its_maximum() -> None:
    """Failures one after the other wait 1, 2, 4, 8 and 8 seconds, and the sixth is one too many."""
    failures: list[float] = []
    delays: list[float | None] = []
    for number in range(6):
        failures.append(float(number))
        delays.append(STEADY.delay_seconds(failures, float(number), 0.0))
    assert delays == [1, 2, 4, 8, 8, None]


def test_old_failures_are_forgotten() -> None:
    """Failures older than the window count neither for the backoff nor for giving up."""
    failures = [0.0, 1.0, 2.0, 3.0, 4.0, 100.0]
    assert STEADY.delay_seconds(failures, 100.0, 0.0) == 1


def test_no_restart_at_all() -> None:
    """max_restarts=0: the first failure is the last."""
    assert RestartPolicy(max_restarts=0).delay_seconds([5.0], 5.0, 0.0) is None


@given(
    policy=st.builds(
        RestartPolicy,
        max_restarts=st.integers(0, 2000),
        within_seconds=st.floats(0, 1e6),
        backoff_seconds=st.floats(0, 1e6),
        max_backoff_seconds=st.floats(0, 1e6),
        jitter=st.floats(0, 1),
    ),
    ages=st.lists(st.floats(0, 1e6), min_size=1, max_size=1500),
    spread=st.floats(-1, 1),
)
def test_the_policy_is_bounded(policy: RestartPolicy, ages: list[float], spread: float) -> None:
    """Whatever has failed: the wait is finite, not negative, within maximum and jitter; or it gives up, rightly."""
    now = 1e6
    failures = sorted(now - age for age in ages)
    delay = policy.delay_seconds(failures, now, spread)
    recent = sum(1 for at in failures if now - at <= policy.within_seconds)
    if delay is None:
        assert recent > policy.max_restarts
    else:
        assert recent <= policy.max_restarts
        assert (
            math.isfinite(delay) and 0 <= delay <= policy.max_backoff_seconds * (1 + policy.jitter) * 1.0001
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_restarts": -1},
        {"max_restarts": True},
        {"max_restarts": math.nan},
        {"max_restarts": 1.5},
        {"within_seconds": -1},
        {"within_seconds": math.nan},
        {"backoff_seconds": math.inf},
        {"max_backoff_seconds": True},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"jitter": math.nan},
    ],
)
def test_an_impossible_policy_is_named(wrong: dict[str, float]) -> None:
    """The error says which number is wrong, and by which value."""
    (name, number) = next(iter(wrong.items()))
    with pytest.raises((InvalidPlan, ValueError), match=f"{name}.*{number!r}".replace("(", r"\(")):
        RestartPolicy(**wrong)  # type: ignore[arg-type]


# --- the supervisor ---


@virtual
async def test_it_starts_again_after_the_backoff() -> None:
    """Three failures, then it runs: started at 0, 1, 3 and 7 seconds; each failure told once."""
    loop = asyncio.get_running_loop()
    starts: list[float] = []
    told: list[str] = []

    async def consume() -> None:
        starts.append(loop.time() - began)
        if len(starts) <= 3:
            raise Boom(str(len(starts)))
        await current_shutdown().wait()

    async with TaskManager(on_error=lambda info, error: told.append(f"{info.name}: {error}")) as manager:
        began = loop.time()
        task = manager.service(consume, name="consumer", restart=STEADY)
        info = manager.info(task)
        assert info.kind is Kind.SERVICE and info.name == "consumer"
        await asyncio.sleep(100)
        assert manager.stats().running == 1 and manager.stats().failed == 0
    assert starts == [pytest.approx(at) for at in (0, 1, 3, 7)]
    assert told == ["consumer: 1", "consumer: 2", "consumer: 3"]
    assert manager.report is not None and manager.report.clean
    assert manager.report.counts[Outcome.STOPPED] == 1


async def test_it_fails_before_its_first_await() -> None:
    """A service whose first step fails, eagerly maybe, is reported and restarted like any other."""
    told: list[BaseException] = []
    starts = 0

    async def consume() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise Boom(str(starts))

    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        task = manager.service(consume, restart=RestartPolicy(backoff_seconds=0))
        await asyncio.wait({task}, timeout=10)
        assert task.done() and task.exception() is None
        assert [(type(error), str(error)) for error in told] == [(Boom, "1"), (Boom, "2")]


@virtual
async def test_it_gives_up_loudly_and_once() -> None:
    """One failure too many: ServiceGaveUp with the last error as its cause, told once; the manager goes on."""
    told: list[BaseException] = []

    async def broken() -> None:
        raise Boom("always")

    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        task = manager.service(broken, restart=STEADY)
        await asyncio.wait({task})
        await turns()
        assert [type(error) for error in told] == [Boom] * 5 + [ServiceGaveUp]
        assert (
            isinstance(told[-1].__cause__, Boom) and "broken" in str(told[-1]) and "6 times" in str(told[-1])
        )
        assert manager.info(task).status is TaskStatus.FAILED
        assert manager.state is ManagerState.OPEN and manager.stats().failed == 1


@virtual
@pytest.mark.parametrize("eager", [True, False], ids=["at once", "later"])
async def test_giving_up_may_end_the_program(eager: bool) -> None:
    """on_give_up="shutdown": the manager begins to shut down, everybody is told, and the report is not clean."""

    async def broken() -> None:
        if not eager:
            await asyncio.sleep(1)
        raise Boom("always")

    manager = TaskManager(plan=ShutdownPlan(notice=500), on_error=lambda info, error: None)
    await manager.open()
    listener = manager.create_task(current_shutdown_wait())
    manager.service(broken, restart=RestartPolicy(max_restarts=0), on_give_up="shutdown")
    await listener
    report = await manager.shutdown()
    assert report.seconds < 10
    assert manager.state is ManagerState.CLOSED


async def current_shutdown_wait() -> None:
    await current_shutdown().wait()


@virtual
async def test_a_stop_during_the_backoff_ends_it_at_once() -> None:
    """The service waits eight seconds for its next start when the shutdown comes: it costs no second."""
    starts = 0

    async def broken() -> None:
        nonlocal starts
        starts += 1
        raise Boom

    policy = RestartPolicy(backoff_seconds=8, jitter=0)
    async with TaskManager(on_error=lambda info, error: None) as manager:
        task = manager.service(broken, restart=policy)
        await asyncio.sleep(1)
    assert manager.report is not None and manager.report.seconds == pytest.approx(0)
    assert manager.report.clean and starts == 1
    assert manager.info(task).status is TaskStatus.COMPLETED


@virtual
async def test_a_service_is_not_restarted_while_stopping() -> None:
    """It fails when it is told to stop: that failure is its end, and it is told once."""
    told: list[BaseException] = []
    starts = 0

    async def touchy() -> None:
        nonlocal starts
        starts += 1
        await current_shutdown().wait()
        raise Boom("told to stop")

    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        manager.service(touchy)
        await turns()
    assert starts == 1 and [str(error) for error in told] == ["told to stop"]
    assert manager.report is not None and manager.report.counts[Outcome.FAILED] == 1


@virtual
async def test_a_cancelled_service_is_not_restarted() -> None:
    """cancel_task ends a service as it ends any task."""
    starts = 0

    async def endless() -> None:
        nonlocal starts
        starts += 1
        await asyncio.sleep(3600)

    async with TaskManager() as manager:
        task = manager.service(endless)
        await turns()
        assert await manager.cancel_task(task) == "ended"
        await asyncio.sleep(100)
        assert starts == 1


async def test_it_ends_when_its_function_returns(caplog: pytest.LogCaptureFixture) -> None:
    """A service that has nothing left to do is completed, without a word."""
    caplog.set_level(logging.WARNING)

    async def once() -> str:
        return "done"

    async with TaskManager() as manager:
        task = manager.service(once)
        assert await task is None
        assert manager.stats().completed == 1
    assert caplog.records == []


@virtual
async def test_a_service_that_fails_rarely_lives_for_ever() -> None:
    """Once in two minutes for a day: never too often, and the list of failures does not grow."""
    starts = 0

    async def rare() -> None:
        nonlocal starts
        starts += 1
        await asyncio.sleep(120)
        raise Boom

    async with TaskManager(on_error=lambda info, error: None) as manager:
        task = manager.service(rare, restart=STEADY, daemon=True)
        await asyncio.sleep(24 * 3600)
        assert not task.done() and starts > 700


async def test_wrong_services_are_refused_and_nothing_warns() -> None:
    """A coroutine in place of its function, or an unknown choice: a clear error, no coroutine left un-awaited."""

    async def consume() -> None:
        """Never runs."""

    async with TaskManager() as manager:
        with pytest.raises(TypeError, match="function"):
            manager.service(consume())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="restart"):
            manager.service(consume, on_give_up="restart")  # type: ignore[arg-type]
        assert manager.tasks() == []
