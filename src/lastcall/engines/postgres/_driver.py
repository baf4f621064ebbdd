"""The only file that imports asyncpg: how a connection is made, and what its errors mean.

Who calls it: the pool (`connect`), the database (`kind_of`, `translated`), the hints (`connect`). What can go wrong on
the way to a server is told here in words that help; everything above knows `Lost`, `Again` and `EngineUnavailable`.
"""

from __future__ import annotations

import asyncio
import ssl
from enum import Enum
from typing import Any, Final, NamedTuple

import asyncpg  # type: ignore[import-untyped]

from ...exceptions import EngineUnavailable

Connection = Any  # an asyncpg.Connection; it has no types of its own

# How long a statement may take, by the server's measure and, a little later, by ours: then the network is gone.
STATEMENT_SECONDS: Final = 30.0
_LOCK_SECONDS: Final = 15.0
_COMMAND_SECONDS: Final = 40.0
_CONNECT_SECONDS: Final = 5.0
_CACHED_STATEMENTS: Final = 256
OLDEST_SERVER: Final = (14, 0)


class Address(NamedTuple):
    """Where the server is: the URL without our own options; `shown` is it without the password."""

    url: str
    shown: str


class StatementFailed(Exception):
    """What a user's connection, of any library, has raised. `state`: the SQLSTATE; None: the connection is lost."""

    def __init__(self, words: str, state: str | None, constraint: str = "", detail: str = "") -> None:
        super().__init__(words)
        self.state = state
        self.constraint = constraint
        self.detail = detail


class Kind(Enum):
    """What an error says about the statement that met it."""

    LOST = "the connection is gone; nobody knows whether the statement was carried out"
    AGAIN = "the server took it back, because others were in its way; it may be tried again"
    REFUSED = "the server does not do it now; nothing was written"
    CALLER = "the call is at fault"


_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
)
_AGAIN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.InvalidSQLStatementNameError,  # a pooler has given the next statement to another server connection
    asyncpg.DuplicatePreparedStatementError,
)
# By SQLSTATE class: trouble that is the server's and not the call's.
_REFUSED_CLASSES = {"53", "54", "55", "57", "58", "25", "28", "3D", "3F", "42", "F0", "P0", "XX"}

_ADVICE = {
    "28P01": "the password is wrong; check the URL",
    "28000": "this user may not log in; check the URL and the server's pg_hba.conf",
    "3D000": "there is no such database; create it, or check the URL",
    "42501": "this user lacks a right; let it create the schema, or grant it everything in it",
    "42P01": "a table of lastcall is missing; was the schema dropped? Restart the process to create it anew",
    "3F000": "the schema of lastcall is missing; was it dropped? Restart the process to create it anew",
    "53300": "it has no connection left; raise max_connections, or put a pooler in front of it",
    "53100": "its disk is full; free some space, and the engine goes on by itself",
    "25006": "it is read-only, a standby perhaps; the engine goes on when it is promoted, or name the primary",
    "55P03": "somebody holds a lock for too long; look into pg_stat_activity for a transaction that is idle",
    "57014": "a statement took too long, or was cancelled; look into pg_stat_activity for what is in its way",
    "57P03": "it is starting or stopping; the engine goes on by itself",
}


def kind_of(error: BaseException) -> Kind:
    """What it means for the statement."""
    if isinstance(error, _AGAIN):
        return Kind.AGAIN
    if isinstance(error, _LOST):
        return Kind.LOST
    state = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and state is not None and state[:2] in _REFUSED_CLASSES:
        return Kind.REFUSED
    return Kind.CALLER


def is_elsewhere(error: BaseException) -> bool:
    """Whether this server is none to write to (any more), so that the way to it should be looked for anew."""
    return getattr(error, "sqlstate", None) in ("25006", "57P03")


def translated(error: BaseException, address: Address) -> Exception:
    """`EngineUnavailable` for trouble with the server; the error itself when the call was at fault."""
    if isinstance(error, EngineUnavailable) or kind_of(error) is Kind.CALLER:
        return error if isinstance(error, Exception) else RuntimeError(str(error))
    state = getattr(error, "sqlstate", None)
    words = str(error) or type(error).__name__
    advice = _ADVICE.get(state or "")
    told = f"{advice} ({words})" if advice else words
    unavailable = EngineUnavailable(f"the database {address.shown} cannot be used: {told}")
    unavailable.__cause__ = error
    return unavailable


def violated(error: BaseException) -> tuple[str, str] | None:
    """Which constraint, and the server's details; None: another error."""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return error.constraint_name or error.column_name or "", error.detail or str(error)
    if isinstance(error, StatementFailed) and (error.state or "").startswith("23"):
        return error.constraint, error.detail or str(error)
    return None


def told_by_server(error: BaseException) -> tuple[str | None, str, str]:
    """The SQLSTATE, the constraint and the details of an error; no SQLSTATE: it is not the server's."""
    if not isinstance(error, asyncpg.PostgresError) or isinstance(error, _LOST):
        return None, "", ""
    return error.sqlstate, error.constraint_name or error.column_name or "", error.detail or ""


async def connect(address: Address, *, pooled: bool = False) -> Connection:
    """A connection, with limits on how long a statement may take. `pooled`: through a pooler, which keeps no session.

    Raises `EngineUnavailable`.
    """
    settings = {
        "application_name": "lastcall",
        # To compile a statement of ours would take longer than it runs, and the planner does not know that.
        "jit": "off",
        # Statistics are of another time when work comes at once: of five hundred jobs under one limit, while there are
        # sixty thousand others now. Going through all of them looked cheaper then than the index made for it.
        "enable_seqscan": "off",
        "statement_timeout": f"{STATEMENT_SECONDS:g}s",
        "lock_timeout": f"{_LOCK_SECONDS:g}s",
        "idle_in_transaction_session_timeout": f"{2 * STATEMENT_SECONDS:g}s",
    }
    try:
        connection = await asyncpg.connect(
            address.url,
            timeout=_CONNECT_SECONDS,
            command_timeout=_COMMAND_SECONDS,
            statement_cache_size=0 if pooled else _CACHED_STATEMENTS,
            server_settings=None if pooled else settings,
        )
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    ) as error:
        raise _cannot_connect(error, address) from error
    except (ssl.SSLError, ValueError) as error:
        raise _cannot_connect(error, address) from error
    version = connection.get_server_version()[:2]
    if version < OLDEST_SERVER:
        connection.terminate()
        raise EngineUnavailable(
            f"the database {address.shown} is PostgreSQL {version[0]}.{version[1]}; lastcall needs"
            f" {OLDEST_SERVER[0]} or newer"
        )
    return connection


def refuses_settings(error: EngineUnavailable) -> bool:
    """Whether a pooler refused the parameters of a session, which it cannot keep."""
    return "startup parameter" in str(error.__cause__)


def _cannot_connect(error: BaseException, address: Address) -> EngineUnavailable:
    state = getattr(error, "sqlstate", None)
    words = str(error) or f"it did not answer within {_CONNECT_SECONDS:g} s"
    advice = _ADVICE.get(state or "")
    if advice is None and isinstance(error, OSError | TimeoutError):
        advice = "it cannot be reached; check that it runs, and the host and port in the URL"
    told = f"{advice} ({words})" if advice else words
    return EngineUnavailable(f"the database {address.shown} cannot be used: {told}")


def is_servers(error: BaseException) -> bool:
    """Whether an error that a user's own statement met is the server's trouble, and not the statement's."""
    state = getattr(error, "sqlstate", None) or ""
    return kind_of(error) in (Kind.LOST, Kind.AGAIN) or state[:2] in ("53", "57", "58") or state == "25006"
