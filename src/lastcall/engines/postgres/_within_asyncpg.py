"""A user's asyncpg connection, as `_within` uses it. Its errors are told by `_driver`, the file that knows asyncpg."""

from __future__ import annotations

from typing import Any

from ...exceptions import BadConnection
from ._driver import StatementFailed, told_by_server


async def understood(given: Any) -> AsyncpgConnection | None:
    """None: it is something else of asyncpg, a pool for instance."""
    return AsyncpgConnection(given) if hasattr(given, "is_in_transaction") else None


class AsyncpgConnection:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def check(self) -> None:
        try:
            closed, within = self._connection.is_closed(), self._connection.is_in_transaction()
        except Exception as error:  # one that was given back to its pool says so like this
            raise BadConnection(f"the connection given to submit cannot be used: {error}") from error
        if closed:
            raise BadConnection("the connection given to submit is closed; open another one")
        if not within:
            raise BadConnection(
                "the asyncpg connection given to submit is in no transaction, so there is nothing that the job"
                " could be committed with; submit inside `async with connection.transaction():`"
            )

    async def execute(self, query: str) -> object:
        try:
            return await self._connection.execute(query)
        except Exception as error:
            raise _failed(error) from error

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        try:
            rows: list[Any] = await self._connection.fetch(query, *values)
            return rows
        except Exception as error:
            raise _failed(error) from error


def _failed(error: Exception) -> StatementFailed:
    state, constraint, detail = told_by_server(error)
    return StatementFailed(str(error) or type(error).__name__, state, constraint, detail)
