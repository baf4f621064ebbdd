"""The places that a program passes, counted; at the chosen one it sends itself a signal.

- `commit`, `committed`: before and after a COMMIT, also one of the schema's migration.
- `turn`: before a callback of the event loop, and so before every resumption of every task.
- `write`, `written`: before and after a line of the ledger, that is, in the middle of a step's effect.

Nothing of this is in the product: sqlite3 and asyncio are wrapped in the program that is attacked.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

PLACES = ("commit", "committed", "turn", "write", "written")


class Trap:
    """Counts from the moment it is set; `sprung` is called at the `nth` place of the kind `place`."""

    def __init__(self, place: str | None, nth: int, sprung: Callable[[], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.is_set = False
        self._place = place
        self._nth = nth
        self._sprung = sprung

    def passes(self, place: str) -> None:
        if not self.is_set:
            return
        self.counts[place] += 1
        if place == self._place and self.counts[place] == self._nth:
            self._sprung()

    def install(self) -> None:
        """Wrap what passes the places, for the rest of this process' life."""
        _wrap_commits(self)
        _wrap_turns(self)


def to_itself(name: str) -> Callable[[], None]:
    """What sends this process a signal, by the signal's name."""
    return lambda: os.kill(os.getpid(), signal.Signals[name])


def _wrap_commits(trap: Trap) -> None:
    class Connection(sqlite3.Connection):
        writing = False

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql.startswith("BEGIN"):
                self.writing = sql == "BEGIN IMMEDIATE"
            if sql != "COMMIT" or not self.writing:
                return super().execute(sql, *parameters)
            trap.passes("commit")
            cursor = super().execute(sql, *parameters)
            trap.passes("committed")
            return cursor

    sqlite3.connect = partial(sqlite3.connect, factory=Connection)


def _wrap_turns(trap: Trap) -> None:
    handle: Any = asyncio.Handle
    run = handle._run

    def running(self: asyncio.Handle) -> None:
        trap.passes("turn")
        run(self)

    handle._run = running
