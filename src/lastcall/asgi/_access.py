"""Who may look into the process: by default only somebody on this machine.

The face shows results and cancels work, and it knows no users. A loopback address alone is not proof: a
proxy on this machine speaks for the whole world (its forwarding headers tell), and a web page somewhere else
can make a local browser ask (the Host and Origin headers tell).
"""

from __future__ import annotations

import ipaddress

from ._types import Headers, Scope, get_header

_FORWARDING_HEADERS = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"x-forwarded-host", b"via")


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
