"""A step that commits together with the user's own rows, in the same file.

The user's code runs in the writer thread, alone in its transaction, while everybody else waits; it should be short.
It is handed the engine's own connection, so an authorizer stands guard: whoever ends the transaction, or writes
into lastcall's tables, would break the promise that the rows and the step are one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

from ...exceptions import BadDeclaration
from ...jobs._rows import StepRecord
from ...jobs._state import StepStatus
from ._steps import Step, fenced, record_steps
from ._store import CallersError, Store

_RECORDED = "SELECT value FROM lastcall_step WHERE job = ? AND key = ? AND status = 'completed'"

_REFUSED = {
    sqlite3.SQLITE_TRANSACTION: "begin or end a transaction (the engine commits it together with the step)",
    sqlite3.SQLITE_SAVEPOINT: "use savepoints",
    sqlite3.SQLITE_ATTACH: "attach a database",
    sqlite3.SQLITE_DETACH: "detach a database",
    sqlite3.SQLITE_PRAGMA: "use PRAGMA",
}
_READING = frozenset(
    {sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


class Transact(NamedTuple):
    """A call of `transact`."""

    job_id: str
    attempt: int
    step: StepRecord
    work: Callable[[Any], str]


def transact(store: Store, call: Transact) -> str | None:
    n = fenced(store, call.job_id, call.attempt)
    if n is None:
        return None
    recorded: tuple[str] | None = store.execute(_RECORDED, (n, call.step.key)).fetchone()
    if recorded is not None:
        return recorded[0]  # a completed step never runs again
    value = _guarded(store.connection, call.work, call.job_id)
    step = call.step._replace(status=StepStatus.COMPLETED, value=value)
    record_steps(store, [Step(call.job_id, call.attempt, step)])
    return value


def _guarded(connection: sqlite3.Connection, work: Callable[[Any], str], job_id: str) -> str:
    refused: list[str] = []

    def authorize(action: int, first: str | None, second: str | None, *where: str | None) -> int:
        what = _REFUSED.get(action)
        if what is None and action not in _READING:
            ours = [name for name in (first, second) if name is not None and name.startswith("lastcall_")]
            what = f"write into {ours[0]}" if ours else None
        if what is None:
            return sqlite3.SQLITE_OK
        refused.append(what)
        return sqlite3.SQLITE_DENY

    connection.set_authorizer(authorize)
    try:
        return work(connection)
    except BaseException as error:
        if refused and isinstance(error, sqlite3.DatabaseError):
            told = BadDeclaration(
                f"the code of a transaction of job {job_id} must not {refused[0]}; nothing was written"
            )
            told.__cause__ = error
            raise CallersError(told) from error
        raise CallersError(error) from error
    finally:
        _give_back(connection)


def _give_back(connection: sqlite3.Connection) -> None:
    """The connection as it was. One that the code has closed is opened anew by the writer."""
    try:
        connection.set_authorizer(None)
        connection.row_factory = None
        connection.text_factory = str
    except sqlite3.ProgrammingError:
        return
