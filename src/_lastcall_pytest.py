"""Fixtures for pytest, there as soon as lastcall is installed. The only file that imports pytest.

    run_jobs                a program's jobs in a test: see `lastcall.testing.run_jobs`
    assert_survives         a job killed at every place: see `lastcall.testing.assert_survives`
    no_leaked_tasks         the test fails if it leaves tasks pending
    no_swallowed_cancels    the test fails if a task in it swallows its cancellation

The last two are for async tests, whoever runs them (pytest-asyncio, anyio, a conftest of your own); in a synchronous
test they do nothing. For all tests of a folder, in its conftest:

    @pytest.fixture(autouse=True)
    def watched(no_leaked_tasks, no_swallowed_cancels): ...

It is imported at the start of every test run wherever lastcall is installed. So it stands outside the package, whose
import would bring asyncio and more; all of that comes when a test asks.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Generator
from typing import Any

import pytest

_LEAKED = "no_leaked_tasks"
_SWALLOWED = "no_swallowed_cancels"


def _testing(name: str) -> Any:
    # Not before a test asks: it brings pydantic and a database, which most test runs have no use for.
    try:
        return getattr(importlib.import_module("lastcall.testing"), name)
    except ModuleNotFoundError as error:
        raise pytest.UsageError(
            f"lastcall's fixtures for jobs need {error.name}; install it with: pip install 'lastcall[jobs]'"
        ) from None


@pytest.fixture
def run_jobs() -> Any:
    """`lastcall.testing.run_jobs`: run a program's jobs in this test, by a clock of its own."""
    return _testing("run_jobs")


@pytest.fixture
def assert_survives() -> Any:
    """`lastcall.testing.assert_survives`: kill a job at every await and every commit in turn."""
    return _testing("assert_survives")


@pytest.fixture
def no_leaked_tasks() -> None:
    """Fail this async test if it leaves tasks pending."""


@pytest.fixture
def no_swallowed_cancels() -> None:
    """Fail this async test if a task is cancelled in it and ends as if it had not been."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Put the watch around the test's function, inside of whatever runs it on a loop."""
    asked = {_LEAKED, _SWALLOWED} & set(getattr(item, "fixturenames", ()))
    if not asked or not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return (yield)
    original = item.obj
    item.obj = _watched(original, leaked=_LEAKED in asked, swallowed=_SWALLOWED in asked)
    try:
        return (yield)
    finally:
        item.obj = original


def _watched(test: Callable[..., Any], **what: bool) -> Callable[..., Any]:
    watch_tasks = _testing("watch_tasks")

    @functools.wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> None:
        async with watch_tasks(**what):
            await test(*args, **kwargs)

    return watched
