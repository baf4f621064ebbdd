"""The jobs of another engine that move in here: taken in beside the schema they are meant for, and put in its place.

Who calls it: `lastcall move`. What arrives is written into a schema of its own, `NAME move`, where no worker looks, so
that nobody sees half of it and a move that was broken off goes on where it was: rows come in the order of their keys,
many in one transaction, so the last one that is there says how far it is. At the end the schema is renamed, in the one
transaction in which an empty schema that stood at the place is dropped. A comment on it says which move it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

from ...exceptions import EngineUnavailable
from .._carried import TABLES, Key, Row, Table
from ._driver import Address, Connection, connect, refuses_settings, translated, violated
from ._schema import LOCK, migrate, version_of
from ._store import Texts

_COMMENT = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1"
_ANY = "SELECT EXISTS (SELECT FROM lastcall.{table})"
# What a worker leaves behind that has come too early and found no jobs; those that arrive bring their own.
_TRACES = ("lane", "rate", "schedule")
_OCCUPANTS = "SELECT id, host, pid FROM lastcall.worker ORDER BY id"
_FUNCTIONS = """SELECT pg_get_functiondef(pg_proc.oid) FROM pg_proc
    JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE nspname = $1"""
# In place of the word `max`, which would be a whole walk where a key has two parts.
_LAST = "SELECT {key} FROM lastcall.{table} ORDER BY {descending} LIMIT 1"
_SET = "SELECT setval(pg_get_serial_sequence($1, $2), (SELECT max({column}) FROM lastcall.{table}))"


class Place(Enum):
    """What was found at the place."""

    FREE = "nothing is there, or a schema without jobs"
    UNDER_WAY = "a part of this very move"
    ARRIVED = "all of this very move"


class Arrival:
    """One schema of one database. `move_id`: which move it is. Raises `EngineUnavailable`."""

    def __init__(self, address: Address, schema: str, move_id: str) -> None:
        self._address = address
        self._place = Texts(schema)
        self._beside = Texts(f"{schema} move")
        self._mark = f"lastcall: moved here, {move_id}"
        self._connection: Connection = None

    async def connect(self) -> None:
        try:
            self._connection = await connect(self._address)
        except EngineUnavailable as error:
            if not refuses_settings(error):
                raise
            self._connection = await connect(self._address, pooled=True)

    async def leave(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close(timeout=5.0)

    async def look(self) -> Place:
        """What is there. Raises for what must not be touched: jobs, workers, another move."""
        try:
            if await self._value(_COMMENT, self._place.schema) == self._mark:
                return Place.ARRIVED
            await self._check_place()
            mark = await self._value(_COMMENT, self._beside.schema)
            if mark is None and not await version_of(self._connection, self._beside):
                return Place.FREE
        except Exception as error:
            raise self._told(error) from error
        if mark != self._mark:
            raise EngineUnavailable(
                f"another move into the schema {self._place.schema!r} of {self._address.shown} is under way or was"
                f" broken off; end that one, or drop the schema {self._beside.schema!r}"
            )
        return Place.UNDER_WAY

    async def begin(self) -> None:
        """Make the tables beside the place; those that are there are brought to this version."""
        try:
            async with self._connection.transaction():
                await migrate(self._connection, self._beside)
                # Not a parameter: this statement takes none. The id is a UUID.
                await self._connection.execute(f"COMMENT ON SCHEMA {self._beside.quoted} IS '{self._mark}'")
        except Exception as error:
            raise self._told(error) from error

    async def last(self, table: Table) -> Key | None:
        """The key of the last row that has arrived."""
        descending = ", ".join(f"{name} DESC" for name in table.key)
        text = _LAST.format(key=", ".join(table.key), table=table.name, descending=descending)
        try:
            row = await self._connection.fetchrow(self._beside(text))
        except Exception as error:
            raise self._told(error) from error
        return None if row is None else tuple(row)

    async def put(self, table: Table, rows: Sequence[Row]) -> None:
        """Write these rows: all of them, or none."""
        try:
            async with self._connection.transaction():
                await self._connection.copy_records_to_table(
                    table.name, schema_name=self._beside.schema, records=rows, columns=table.columns
                )
        except Exception as error:
            raise self._told(error) from error

    async def rows(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        """So many rows that have arrived, behind this key, in order."""
        key = ", ".join(table.key)
        places = ", ".join(f"${place}" for place in range(2, len(table.key) + 2))
        behind = "" if after is None else f"WHERE ({key}) > ({places})"
        text = (
            f"SELECT {', '.join(table.columns)} FROM lastcall.{table.name} {behind} ORDER BY {key} LIMIT $1"
        )
        try:
            found = await self._connection.fetch(self._beside(text), limit, *(after or ()))
        except Exception as error:
            raise self._told(error) from error
        return [tuple(row) for row in found]

    async def finish(self) -> None:
        """Put what has arrived in its place."""
        try:
            for table in TABLES:
                if table.numbered is not None:
                    name = f"{self._beside.quoted}.{table.name}"
                    text = _SET.format(column=table.numbered, table=table.name)
                    await self._connection.fetchval(self._beside(text), name, table.numbered)
            async with self._connection.transaction():
                await self._connection.fetchval(LOCK, self._place.schema)
                await self._check_place()
                await self._connection.execute(f"DROP SCHEMA IF EXISTS {self._place.quoted} CASCADE")
                await self._connection.execute(
                    f"ALTER SCHEMA {self._beside.quoted} RENAME TO {self._place.quoted}"
                )
                await self._correct_functions()
        except Exception as error:
            raise self._told(error) from error
        await self._tidy()

    async def drop(self) -> None:
        """Delete what has arrived of a move that is given up."""
        try:
            await self._connection.execute(f"DROP SCHEMA IF EXISTS {self._beside.quoted} CASCADE")
        except Exception as error:
            raise self._told(error) from error

    async def _correct_functions(self) -> None:
        """The text of a function is not renamed with its schema."""
        for (text,) in await self._connection.fetch(_FUNCTIONS, self._place.schema):
            corrected = text.replace(f"{self._beside.quoted}.", f"{self._place.quoted}.")
            await self._connection.execute(corrected)

    async def _tidy(self) -> None:
        """The planner knows nothing yet of tables that were filled at once. In time it would learn by itself."""
        with suppress(Exception):
            for table in TABLES:
                await self._connection.execute(self._place(f"ANALYZE lastcall.{table.name}"))

    async def _check_place(self) -> None:
        if not await version_of(self._connection, self._place):
            return await self._check_foreign()
        workers = await self._connection.fetch(self._place(_OCCUPANTS))
        if workers:
            listed = ", ".join(f"{id} (process {pid} on {host})" for id, host, pid in workers)
            raise EngineUnavailable(
                f"workers are at work at {self._address.shown} already: {listed}. Stop them until the move is done"
            )
        for table in TABLES:
            if table.name not in _TRACES and await self._value(self._place(_ANY.format(table=table.name))):
                raise EngineUnavailable(
                    f"there are jobs or streams at {self._address.shown} already, in the schema"
                    f" {self._place.schema!r}; nothing was changed. Name another schema: ?schema=NAME"
                )
        return None

    async def _check_foreign(self) -> None:
        tables = await self._value("SELECT count(*) FROM pg_tables WHERE schemaname = $1", self._place.schema)
        if tables:
            raise EngineUnavailable(
                f"the schema {self._place.schema!r} at {self._address.shown} holds tables of another application;"
                " nothing was changed. Name a schema of lastcall's own: ?schema=NAME"
            )

    async def _value(self, text: str, *values: Any) -> Any:
        return await self._connection.fetchval(text, *values)

    def _told(self, error: Exception) -> Exception:
        if violated(error) is not None:
            return EngineUnavailable(
                f"somebody else writes what is being moved to {self._address.shown}: is `lastcall move` running twice?"
                f" ({error})"
            )
        return translated(error, self._address)
