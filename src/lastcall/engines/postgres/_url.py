"""From an engine's URL to the engine. Nothing is connected here."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ...exceptions import BadDeclaration, UnknownEngine
from ...jobs._engine import Engine
from ._driver import Address
from ._engine import PostgresEngine

_FORM = "postgresql://user:password@host:5432/database"
_POOLERS = {"auto": None, "transaction": True, "none": False}


def from_url(url: str) -> Engine:
    """The engine for a URL, not opened yet: `from_url("postgresql://ann@db/shop?schema=jobs")`.

    Options of ours: `schema` (default `lastcall`), `pool` (the most connections at once, 4; there are two more, for
    leases and to listen), `pooler` (`transaction`: a pooler stands in between; `none`; default `auto`: found out). All
    others, like `sslmode`, are the driver's. Several hosts, for a failover:
    `postgresql://db1,db2/shop?target_session_attrs=read-write`.
    Raises `UnknownEngine` for another scheme, `BadDeclaration` for what cannot be a URL or an option.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in ("postgresql", "postgres"):
        raise UnknownEngine(f"the PostgreSQL engine has no scheme {scheme!r}; write {_FORM}")
    try:
        parts = urlsplit(url)
        if "," not in parts.netloc:  # several hosts, which the driver tries in turn
            parts.port  # noqa: B018  # it is read here to be checked
    except ValueError as error:
        raise BadDeclaration(f"the engine URL {_shown(url)!r} is no URL ({error}); write {_FORM}") from None
    if not url.startswith(f"{scheme}://"):
        raise BadDeclaration(f"the engine URL {_shown(url)!r} is not complete; write {_FORM}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = options.pop("schema", "lastcall")
    size = _pool_size(url, options.pop("pool", "4"))
    pooler = options.pop("pooler", "auto")
    if pooler not in _POOLERS:
        raise BadDeclaration(
            f"the engine URL {_shown(url)!r}: pooler is auto, transaction or none, not {pooler!r}"
        )
    plain = urlunsplit(parts._replace(query=urlencode(options)))
    return PostgresEngine(Address(plain, _shown(url)), schema=schema, pool_size=size, pooled=_POOLERS[pooler])


def _pool_size(url: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise BadDeclaration(f"the engine URL {_shown(url)!r}: pool is a number from 1 to 1000, not {text!r}")
    return int(text)


def _shown(url: str) -> str:
    """The URL without its password, for messages and logs."""
    head, at, tail = url.rpartition("@")
    if not at:
        return url.partition("?")[0]
    scheme, _, who = head.partition("://")
    return f"{scheme}://{unquote(who.partition(':')[0])}@{tail.partition('?')[0]}"
