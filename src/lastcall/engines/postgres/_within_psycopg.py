"""A user's psycopg connection, as `_within` uses it. The only file that imports psycopg."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ...exceptions import BadConnection
from ._driver import StatementFailed


async def understood(given: Any) -> PsycopgConnection | None:
    """None: it is something else of psycopg."""
    if isinstance(given, psycopg.Connection):
        raise BadConnection(
            "the connection given to submit is psycopg's Connection, which blocks the event loop; give an"
            " AsyncConnection"
        )
    return PsycopgConnection(given) if isinstance(given, psycopg.AsyncConnection) else None


class PsycopgConnection:
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        # Whatever row factory and cursor class the user has chosen; and `$1` for values, as our statements have it.
        self._cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)

    async def check(self) -> None:
        connection = self._connection
        if connection.closed:
            raise BadConnection("the connection given to submit is closed; open another one")
        if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            raise BadConnection(
                "the psycopg connection given to submit is in autocommit mode and in no transaction, so there is"
                " nothing that the job could be committed with; submit inside `async with connection.transaction():`"
            )

    async def execute(self, query: str) -> object:
        return await self.fetch(query)

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        try:
            await self._cursor.execute(query.encode(), values or None)
            return await self._cursor.fetchall() if self._cursor.description else []
        except psycopg.Error as error:
            diag = error.diag
            constraint = diag.constraint_name or diag.column_name or ""
            raise StatementFailed(
                str(error), error.sqlstate, constraint, diag.message_detail or ""
            ) from error
