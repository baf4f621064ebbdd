"""From an engine's URL to the engine. Nothing is opened here."""

from __future__ import annotations

from urllib.parse import parse_qsl

from ...exceptions import BadDeclaration, UnknownEngine
from ...jobs._engine import Engine
from ._engine import SqliteEngine

_FORMS = "sqlite:///relative.db or sqlite:////absolute/path.db"


def from_url(url: str) -> Engine:
    """The engine for a URL, not opened yet: `from_url("sqlite:///jobs.db?synchronous=normal")`.

    Three slashes and a path below the current folder, four and an absolute one. The option `synchronous` is `full`
    (default: a commit survives a power cut), `normal` (it survives a crash of the process only) or `off`.
    Raises `UnknownEngine` for another scheme, `BadDeclaration` for a URL without a path or with an unknown option.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or scheme != "sqlite":
        raise UnknownEngine(_no_engine(scheme if colon else url))
    if not rest.startswith("//"):
        raise BadDeclaration(f"the engine URL {url!r} is not complete; write {_FORMS}")
    host, slash, tail = rest[2:].partition("/")
    path, _, query = tail.partition("?")
    if host:
        raise BadDeclaration(
            f"the engine URL {url!r} names a host, {host!r}; SQLite has none: write {_FORMS}"
        )
    if not slash or not path or path.endswith("/"):
        raise BadDeclaration(f"the engine URL {url!r} names no file; write {_FORMS}")
    return SqliteEngine(path, synchronous=_synchronous(url, query))


def _no_engine(scheme: str) -> str:
    if scheme.partition("+")[0] in ("postgres", "postgresql"):
        return f"the engine for {scheme!r} comes with the extra lastcall[postgres], which is not installed"
    return f"no engine has the scheme {scheme!r}; there is sqlite: write {_FORMS}"


def _synchronous(url: str, query: str) -> str:
    synchronous = "full"
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "synchronous":
            raise BadDeclaration(
                f"the engine URL {url!r} has an unknown option {name!r}; there is `synchronous`"
            )
        synchronous = value
    return synchronous
