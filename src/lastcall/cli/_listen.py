"""A listening socket, made before anything else begins: so a port in use is one clear line and not half a start."""

from __future__ import annotations

import socket

from lastcall.cli._say import Unusable, one_line


def listen(host: str, port: int) -> socket.socket:
    """Raises `Unusable`."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    listener = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unusable(
            f"cannot listen on {one_line(shown)}: {why}. Choose another --port, or 0 for a free one"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Where it can be reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
