"""What can be declared of a task, and what is refused with the option's name."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.exceptions import BadDeclaration
from lastcall.jobs import Backoff, Jobs, Rate
from tests.engines.model import ModelEngine

NAN, INF = float("nan"), float("inf")

WRONG = [
    ("name", ["", "a\nb", "\x00", "caf\udce9", "x" * 201, 5, b"a"]),
    ("version", [None, 1, "\x00", "a\nb", "\ud800", "x" * 201]),
    ("queue", ["", None, 5, "\x00", "\ud800", "a\tb", "x" * 201]),
    ("priority", [1.0, NAN, "1", None, True, -1_000_001, 10**9 + 1, 10**30]),
    ("retries", [-1, 1.5, "3", None, True, NAN, 10**30]),
    ("backoff", [0, 5, "1 s", (1, 2), {}]),
    ("give_up_on", ["ValueError", ValueError("x"), BaseException, (ValueError, 5), 5, None]),
    ("timeout", [0, -1, NAN, INF, "5", True, 10**400]),
    ("concurrency", [0, -1, 1.5, "2", True, NAN, 10**30]),
    ("concurrency_key", [5, b"a", ["a"]]),
    ("concurrency_per_key", [0, -1, 1.5, None, True, 10**30]),
    ("rate", [5, (1, 1), "1/s", Rate(0), Rate(-1), Rate(1, 0), Rate(1, NAN), Rate(1, INF), Rate(1.5)]),  # type: ignore[arg-type]
    ("retention", [-1, NAN, INF, "7 days", True, 10**400]),
    ("max_lost", [0, -1, None, 1.5, True, 10**30]),
    ("max_attempts", [0, -1, None, 1.5, True, 10**30]),
    ("run", ["async", "", None, 5]),
    ("cron", ["", "* * * *", "x", "61 * * * *", "0 0 30 2 *", "@daily", "* * * * * * *", "\ud800", 5]),
]


def decorate(**declared: Any) -> Jobs:
    jobs = Jobs(ModelEngine())

    @jobs.task(**declared)
    async def work() -> None: ...

    return jobs


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in WRONG for value in values],
    ids=lambda each: repr(each)[:30],
)
def test_an_impossible_option_is_refused(option: str, value: Any) -> None:
    """Each option, given what makes no sense: the error names the task and the option, and nothing is declared."""
    jobs = Jobs(ModelEngine())

    async def work() -> None: ...

    with pytest.raises(BadDeclaration) as caught:
        jobs.task(**{option: value})(work)
    assert "task " in str(caught.value)
    assert option in str(caught.value) or repr(value) in str(caught.value)
    assert not jobs.tasks
    jobs.task(work)


@pytest.mark.parametrize("timezone", ["", "Europe", "Europe/Nowhere", "../zone", "\x00", "\ud800", None, 5])
def test_a_time_zone_that_does_not_exist(timezone: Any) -> None:
    """The error names the task and the zone."""
    with pytest.raises(BadDeclaration, match=r"task 'work': there is no time zone") as caught:
        decorate(cron="* * * * *", timezone=timezone)
    assert repr(timezone) in str(caught.value)


@pytest.mark.parametrize("option", ["timeout_seconds", "retention_seconds", "retry", "fn", "", "self"])
def test_an_option_that_does_not_exist(option: str) -> None:
    """A misspelt option is an error and not silently without effect."""
    with pytest.raises(BadDeclaration, match=f"no option '{option}'"):
        decorate(**{option: 1})


@pytest.mark.parametrize(
    "declared",
    [
        {"timeout": 1e-9, "retention": 0, "retries": 0, "priority": -1_000_000},
        {"timeout": 1e300, "retention": 10**9, "retries": 10**9, "priority": 10**9},
        {"name": "häß 𝒳", "version": "2026-11 β", "queue": "x" * 200},
        {"rate": Rate(1, 1e-6), "concurrency": 1, "max_lost": 1, "max_attempts": 1},
        {"give_up_on": ValueError},
        {"give_up_on": (ValueError, KeyError)},
        {"cron": "*/5 9-17 * * MON-FRI", "timezone": "America/New_York", "catch_up": True},
        {"cron": "0 0 29 2 *"},
        {"cron": "* * * * * *"},
    ],
    ids=str,
)
def test_what_is_just_possible(declared: dict[str, Any]) -> None:
    """The limits themselves are taken."""
    (task,) = decorate(**declared).tasks.values()
    for name in ("name", "version", "queue", "priority", "retries", "rate", "max_lost", "cron"):
        if name in declared:
            assert getattr(task.settings, name) == declared[name]


def test_options_of_the_decorator_without_parentheses() -> None:
    """`jobs.task(fn, retries=3)` is no documented form, but what it says must not be lost."""
    jobs = Jobs(ModelEngine())

    async def work() -> None: ...

    assert jobs.task(work, retries=3).settings.retries == 3  # type: ignore[call-overload]


# --- backoff -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Backoff(-1),
        lambda: Backoff(NAN),
        lambda: Backoff(INF),
        lambda: Backoff("1"),  # type: ignore[arg-type]
        lambda: Backoff(factor=0.5),
        lambda: Backoff(factor=NAN),
        lambda: Backoff(factor=INF),
        lambda: Backoff(factor="2"),  # type: ignore[arg-type]
        lambda: Backoff(max_seconds=-1),
        lambda: Backoff(max_seconds=INF),
        lambda: Backoff(jitter=-0.1),
        lambda: Backoff(jitter=1.1),
        lambda: Backoff(jitter=NAN),
        lambda: Backoff(jitter=None),  # type: ignore[arg-type]
    ],
)
def test_an_impossible_backoff_is_refused(make: Callable[[], Backoff]) -> None:
    """Where it is made, with the name of the number."""
    with pytest.raises(BadDeclaration, match=r"Backoff\.(first_seconds|factor|max_seconds|jitter) "):
        make()


def test_the_default_backoff_is_the_documented_one() -> None:
    """1, 2, 4, ... seconds, at most 300, 20 % up or down."""
    backoff = Backoff()
    assert [backoff.delay_seconds(n, 0) for n in range(1, 12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert backoff.delay_seconds(1, 1) == pytest.approx(1.2)
    assert backoff.delay_seconds(1, -1) == pytest.approx(0.8)


@given(
    st.floats(0, 1e300),
    st.floats(1, 100),
    st.floats(0, 1e300),
    st.floats(0, 1),
    st.integers(0, 10**9),
    st.floats(-1, 1),
)
def test_a_backoff_is_always_a_time(
    first: float, factor: float, most: float, jitter: float, failures: int, spread: float
) -> None:
    """Whatever was declared and however often a job has failed: a finite time, and not above what was declared."""
    wait = Backoff(first, factor, most, jitter).delay_seconds(failures, spread)
    assert math.isfinite(wait) and 0 <= wait <= most * (1 + jitter)


@given(st.floats(0, 1000), st.floats(1, 100), st.floats(0, 10_000), st.integers(1, 100))
def test_a_backoff_never_shrinks(first: float, factor: float, most: float, failures: int) -> None:
    """A later failure waits as long as an earlier one or longer."""
    backoff = Backoff(first, factor, most, 0)
    assert backoff.delay_seconds(failures + 1, 0) >= backoff.delay_seconds(failures, 0)


# --- Jobs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lease_seconds": 0}, "lease_seconds"),
        ({"lease_seconds": -1}, "lease_seconds"),
        ({"lease_seconds": NAN}, "lease_seconds"),
        ({"lease_seconds": "15"}, "lease_seconds"),
        ({"max_payload_bytes": 0}, "max_payload_bytes"),
        ({"max_payload_bytes": 1.5}, "max_payload_bytes"),
        ({"max_payload_bytes": None}, "max_payload_bytes"),
    ],
    ids=str,
)
def test_impossible_numbers_of_jobs(settings: dict[str, Any], told: str) -> None:
    """The error names the number."""
    with pytest.raises(BadDeclaration, match=told):
        Jobs(ModelEngine(), **settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"queues": []}, "names no queue"),
        ({"queues": "mail"}, r"give \['mail'\]"),
        ({"queues": ["mail", ""]}, "a queue must be"),
        ({"queues": [5]}, "a queue must be"),
        ({"queues": ["\x00"]}, "a queue must be"),
    ],
    ids=str,
)
def test_impossible_workers(settings: dict[str, Any], told: str) -> None:
    """The error names what is wrong; no worker is made."""
    with pytest.raises(BadDeclaration, match=told):
        Jobs(ModelEngine()).worker(**settings)
