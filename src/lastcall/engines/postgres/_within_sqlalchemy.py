"""SQLAlchemy's async sessions and connections, as `_within` uses them. The only file that imports sqlalchemy.

The statements go to the driver's connection beneath, which is asyncpg's or psycopg's. SQLAlchemy begins a transaction
there only with its own first statement, so one is made through it before: what went to the driver alone would be
committed at once.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection as SyncConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import scoped_session

from ...exceptions import BadConnection
from . import _within
from ._driver import StatementFailed


async def understood(given: Any) -> _within.Connection | None:
    """None: it is something else of SQLAlchemy, an engine for instance."""
    if isinstance(given, SyncConnection | SyncSession | scoped_session):
        raise BadConnection(
            f"the connection given to submit is SQLAlchemy's {type(given).__name__}, which blocks the event loop;"
            " give an AsyncSession or AsyncConnection"
        )
    if not isinstance(given, AsyncConnection | AsyncSession | async_scoped_session):
        return None
    try:
        connection = given if isinstance(given, AsyncConnection) else await given.connection()
        if connection.dialect.name != "postgresql":
            raise BadConnection(
                f"the connection given to submit is to {connection.dialect.name}, and these jobs are kept in"
                " PostgreSQL; give one to their own database"
            )
        await connection.execute(text("SELECT 1"))
        beneath = (await connection.get_raw_connection()).driver_connection
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        raise StatementFailed(str(error.orig), None if error.connection_invalidated else state) from error
    except SQLAlchemyError as error:  # closed, or waiting to be rolled back
        raise BadConnection(f"the connection given to submit cannot be used: {error}") from error
    understood_beneath = await _within.understood(beneath)
    try:
        await understood_beneath.check()
    except BadConnection as error:
        raise BadConnection(
            f"the {type(given).__name__} given to submit commits each statement by itself (AUTOCOMMIT), so there is"
            " nothing that the job could be committed with; use another isolation level"
        ) from error
    return understood_beneath
