"""Who may look into the process, and what they may do and see there: by default only somebody on this machine.

The face shows results and cancels work, and it knows no users. A loopback address alone is not proof: a
proxy on this machine speaks for the whole world (its forwarding headers tell), and a web page somewhere else
can make a local browser ask (the Host and Origin headers tell).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ..exceptions import BadDeclaration
from ._types import Headers, Scope, get_header

_FORWARDING_HEADERS = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"x-forwarded-host", b"via")

# What an HTML form can send, also from another site and without asking first.
_FORM_TYPES = (b"application/x-www-form-urlencoded", b"multipart/form-data", b"text/plain")


class Challenge(NamedTuple):
    """What `allow` answers in place of False, so that a browser asks its user: 401 with this `WWW-Authenticate`."""

    scheme: str = 'Basic realm="lastcall", charset="UTF-8"'


class Shown(NamedTuple):
    """Something that is about to be shown. `task`: whose. `what`: `args`, `result`, `progress`, `error`, `step` (a
    step's value), `step_key` (its identity, in which its arguments stand), `event`. `name`: which step, or what type of
    event. `value`: plain JSON of jobs (an error: an object
    with type, message and traceback); of a task in memory the object itself, whose `repr` would be shown."""

    task: str
    what: str
    name: str | None
    value: Any


Allow = Callable[[Scope], "bool | Challenge | Awaitable[bool | Challenge]"]
Redact = Callable[[Shown], Any]


def allow_local(scope: Scope) -> bool:
    """The default of `allow`: a direct client on the loopback interface, that asks for a local name."""
    client = scope.get("client")
    if not client or not _is_loopback(client[0]):
        return False
    headers: Headers = list(scope.get("headers", ()))
    if any(get_header(headers, name) is not None for name in _FORWARDING_HEADERS):
        return False
    host = (get_header(headers, b"host") or b"").decode("latin-1").lower()
    if not _is_local_name(_without_port(host)):
        return False
    origin = get_header(headers, b"origin")
    return origin is None or origin.decode("latin-1").lower().partition("://")[2] == host


class Access(NamedTuple):
    """Who may use the pages below the prefix, and what they get.

    `allow`: a function of the ASGI scope, sync or async: True lets the client in, False is 403, a `Challenge` 401.
    Default: direct clients on this machine. `read_only`: nothing below the prefix changes anything. `redact`: is given
    every argument, result, progress, error, step value and event before it is shown, and returns what is shown in its
    place; what it raises is logged, and then nothing of the value is shown. `live_readers` (1000),
    `live_readers_per_client` (100): how many streams are open at once, in all and for one address; one more gets 429.

    Raises `BadDeclaration` (when given to an app) for limits below 1 and hooks that cannot be called.

        install(app, jobs=jobs, allow=Access(allow=is_staff, redact=hide_passwords, read_only=True))
    """

    allow: Allow = allow_local
    read_only: bool = False
    redact: Redact | None = None
    live_readers: int = 1000
    live_readers_per_client: int = 100


def access_of(given: Allow | Access | None) -> Access:
    """The same, complete and checked."""
    access = given if isinstance(given, Access) else Access() if given is None else Access(allow=given)
    if not callable(access.allow):
        raise BadDeclaration(f"allow= takes a function of the ASGI scope, or an Access, not {access.allow!r}")
    if access.redact is not None and not callable(access.redact):
        raise BadDeclaration(f"Access(redact=...) takes a function of a Shown, not {access.redact!r}")
    for name in ("live_readers", "live_readers_per_client"):
        limit = getattr(access, name)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise BadDeclaration(f"Access({name}=...) must be a whole number, 1 or more, not {limit!r}")
    return access


# --- actions from elsewhere -----------------------------------------------------------------------------


def is_from_elsewhere(scope: Scope) -> bool:
    """Whether a page of another site makes this request. A browser says so, also of one that it need not ask before:
    by `Sec-Fetch-Site`, and older ones, or over plain HTTP, by `Origin`. No header: no browser."""
    headers: Headers = list(scope.get("headers", ()))
    site = get_header(headers, b"sec-fetch-site")
    if site is not None:
        return site.strip().lower() not in (b"same-origin", b"none")
    origin = get_header(headers, b"origin")
    if origin is None:
        return False
    host = get_header(headers, b"host") or b""
    return origin.lower().partition(b"://")[2] != host.lower()


def is_form(scope: Scope) -> bool:
    """Whether the body is of a type that a form of any site can send, from a browser that tells no origin."""
    content_type = get_header(list(scope.get("headers", ())), b"content-type")
    if content_type is None:
        return False
    return content_type.partition(b";")[0].strip().lower() in _FORM_TYPES


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _is_local_name(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host.strip("[]"))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
