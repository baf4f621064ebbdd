"""A step that commits together with the user's own rows, in the same database.

The user's code is a plain function; it runs in a thread of its own and is handed a `TransactionConnection`, whose
methods wait for the loop to carry them out. The job's row stays locked meanwhile, so nobody takes the attempt away
between the work and its commit; whoever wants to waits. The code should be short.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from ...exceptions import BadDeclaration
from ...jobs._rows import StepRecord
from ._driver import Connection, is_servers
from ._steps import Step, completed, fenced, record_steps
from ._store import Store
from ._threads import in_thread

_T = TypeVar("_T")

_RECORDED = "SELECT value FROM lastcall.step WHERE job = $1 AND key = $2 AND status = 'completed'"
_REFUSED = re.compile(
    r"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*"
    r"(BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE|SET\s+TRANSACTION|DISCARD|LISTEN|UNLISTEN)\b",
    re.IGNORECASE | re.DOTALL,
)


class Transact(NamedTuple):
    """A call of `transact`."""

    job_id: str
    attempt: int
    step: StepRecord
    work: Callable[[Any], str]


class CallersError(Exception):
    """What the caller's own code raised inside the transaction; to be passed on as it is."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class TransactionConnection:
    """The transaction, as a plain function sees it. Each method runs one statement, with values for `$1`, `$2`, ...

    It must not begin or end a transaction. After a statement has failed nothing more can be done in it.

        connection.execute("UPDATE account SET balance = balance - $1 WHERE name = $2", 5, "ann")
    """

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, job_id: str) -> None:
        self._connection = connection
        self._loop = loop
        self._job_id = job_id
        self._failure: BaseException | None = None

    def execute(self, query: str, *values: Any) -> None:
        """Run it."""
        self.fetch(query, *values)

    def executemany(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run it once for each row of values."""
        self._check(query)
        self._do(self._connection.executemany(query, list(rows)))

    def fetch(self, query: str, *values: Any) -> list[Any]:
        """Its rows, which can be asked by place and by name."""
        self._check(query)
        # Not the driver's own `execute`, which takes many statements in one text, and a COMMIT among them.
        rows: list[Any] = self._do(self._connection.fetch(query, *values))
        return rows

    def fetchrow(self, query: str, *values: Any) -> Any:
        """Its first row, or None."""
        rows = self.fetch(query, *values)
        return rows[0] if rows else None

    def fetchval(self, query: str, *values: Any) -> Any:
        """The first value of its first row, or None."""
        row = self.fetchrow(query, *values)
        return None if row is None else row[0]

    def _check(self, query: str) -> None:
        refused = _REFUSED.match(query)
        if refused:
            raise BadDeclaration(
                f"the code of a transaction of job {self._job_id} must not {refused[1].upper()}: the engine commits it"
                " together with the step"
            )

    def _do(self, doing: Coroutine[Any, Any, _T]) -> _T:
        try:
            return asyncio.run_coroutine_threadsafe(doing, self._loop).result()
        except Exception as error:
            self._failure = error
            raise

    def failed(self, error: BaseException) -> BaseException:
        """What to raise for what the code raised: the server's trouble as such, everything else as the caller's."""
        if error is self._failure and is_servers(error):
            return error
        return CallersError(error)

    def check_unharmed(self) -> None:
        """Raises when the code swallowed a failure, after which the server commits nothing."""
        if self._failure is not None:
            raise self.failed(self._failure)


async def transact(store: Store, call: Transact) -> str | None:
    n = await fenced(store, call.job_id, call.attempt)
    if n is None:
        return None
    recorded: str | None = await store.value(_RECORDED, n, call.step.key)
    if recorded is not None:
        return recorded  # a completed step never runs again
    await store.lend()
    connection = TransactionConnection(store.connection, asyncio.get_running_loop(), call.job_id)
    try:
        value = await in_thread(lambda: call.work(connection))
    except Exception as error:
        raise connection.failed(error) from error
    connection.check_unharmed()
    await record_steps(store, [Step(call.job_id, call.attempt, completed(call.step, value))])
    return value
