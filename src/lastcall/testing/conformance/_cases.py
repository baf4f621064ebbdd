"""Gathers the cases: every public coroutine function of the files listed here is one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any, NamedTuple

from . import (
    _cancel,
    _claim,
    _end,
    _events,
    _find,
    _lease,
    _life,
    _limits,
    _listen,
    _loss,
    _retry,
    _schedule,
    _send,
    _steps,
    _submit,
    _suspects,
    _table,
    _told,
    _transact,
    _wait,
    _within,
)
from ._harness import Harness

_FILES = (
    _life,
    _submit,
    _claim,
    _limits,
    _end,
    _cancel,
    _wait,
    _send,
    _steps,
    _events,
    _told,
    _lease,
    _loss,
    _suspects,
    _retry,
    _schedule,
    _find,
    _listen,
    _table,
)


class Case(NamedTuple):
    """One situation that an engine must master; its name is that of a function in this package."""

    name: str
    function: Callable[[Harness], Coroutine[Any, Any, None]]

    def __str__(self) -> str:
        return self.name

    async def run(self, harness: Harness) -> None:
        """Open the harness, play the case, close it. AssertionError: the engine breaks a rule of the port."""
        await harness.open()
        try:
            await self.function(harness)
        finally:
            await harness.close()


def cases() -> list[Case]:
    """What every engine must pass."""
    return [case for file in _FILES for case in _cases_of(file)]


def transaction_cases() -> list[Case]:
    """What an engine with `transact` must pass besides."""
    return _cases_of(_transact)


def connection_cases() -> list[Case]:
    """What an engine with `submit_within` must pass besides."""
    return _cases_of(_within)


def _cases_of(file: ModuleType) -> list[Case]:
    group = file.__name__.rpartition(".")[2].strip("_")
    return [
        Case(f"{group}.{name}", function)
        for name, function in vars(file).items()
        if inspect.iscoroutinefunction(function)
        and function.__module__ == file.__name__
        and not name.startswith("_")
    ]
