"""Which version of the schema a store has, without changing it: opening one migrates it.

Who calls it: `db`, `doctor`. Raises `Unusable` for what cannot be read, and for stores whose version nobody can ask.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any, NamedTuple
from urllib.parse import quote

from lastcall.cli._say import Unusable
from lastcall.engines.sqlite import SqliteEngine
from lastcall.engines.sqlite import _schema as sqlite_schema
from lastcall.exceptions import EngineUnavailable, JobError, SchemaTooNew
from lastcall.jobs import Engine

_BUSY_SECONDS = 5.0


class Schema(NamedTuple):
    """`found` None: newer than `known`. 0: there is no schema yet; `exists`: whether there is at least the database."""

    found: int | None
    known: int
    exists: bool
    why: str = ""

    @property
    def word(self) -> str:
        if self.found is None:
            return "too new"
        if self.found == 0:
            return "empty" if self.exists else "missing"
        return "current" if self.found == self.known else "old"


def shown(engine: Engine) -> str:
    """A store's name for people: its file, or its address without the password."""
    if isinstance(engine, SqliteEngine):
        return engine.path
    return str(getattr(getattr(engine, "address", None), "shown", None) or repr(engine))


async def schema_of(engine: Engine) -> Schema:
    """The version of a store that is not open."""
    if isinstance(engine, SqliteEngine):
        return _of_sqlite(engine.path)
    # Not at the top: its driver is an extra of its own. Who has such an engine has it.
    if type(engine).__module__.startswith("lastcall.engines.postgres"):
        return await _of_postgres(engine)
    raise Unusable(f"nobody knows which schema {engine!r} has")


def _of_sqlite(path: str) -> Schema:
    known = sqlite_schema.VERSION
    try:
        if os.stat(path).st_size == 0:
            return Schema(0, known, True)
    except FileNotFoundError:
        return Schema(0, known, False)
    except OSError as error:
        raise Unusable(f"the database {path!r} cannot be read: {error.strerror or error}") from None
    try:
        uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)
        try:
            return Schema(sqlite_schema.check_owner(connection, path), known, True)
        finally:
            connection.close()
    except SchemaTooNew as error:
        return Schema(None, known, True, str(error))
    except EngineUnavailable as error:
        raise Unusable(str(error)) from None
    except sqlite3.Error as error:
        raise Unusable(f"the database {path!r} cannot be read: {error}") from None


async def _of_postgres(engine: Any) -> Schema:
    from lastcall.engines.postgres import _driver, _schema, _store

    texts = _store.Texts(engine.schema)
    try:
        try:
            connection = await _driver.connect(engine.address)
        except EngineUnavailable as error:
            if not _driver.refuses_settings(error):
                raise
            connection = await _driver.connect(engine.address, pooled=True)
        try:
            found = await _schema.version_of(connection, texts)
        finally:
            await connection.close()
    except JobError as error:
        raise Unusable(str(error)) from None
    except Exception as error:
        raise Unusable(str(_driver.translated(error, engine.address))) from None
    if found > _schema.VERSION:
        why = f"the schema {engine.schema!r} has version {found}, and this lastcall knows {_schema.VERSION}"
        return Schema(None, _schema.VERSION, True, why)
    return Schema(found, _schema.VERSION, True)
