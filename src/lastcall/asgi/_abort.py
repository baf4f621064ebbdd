"""Cutting the connection of a client that does not read, where the server lets us.

Who calls it: the live feed, for a reader that is stuck, and at its end. Uvicorn closes a connection only when
everything has been written, which such a client never lets happen: it then waits for it at its shutdown, until the
exit guard ends the process with an error. ASGI has no word for it. Elsewhere nothing is done, and the server's own
timeouts end it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ._types import Send

_WRAPPED = 4
_TURNS = 3
_LOOK_SECONDS = 0.02


async def abort_connection(send: Send) -> None:
    """Cut the connection behind `send`, throwing away what was not written."""
    transport = _transport_of(send)
    if transport is not None:
        transport.abort()
        for _ in range(
            _TURNS
        ):  # the server hears of it in the loop's next turns; or it would complain about our end
            await asyncio.sleep(0)


async def flush_connection(send: Send, seconds: float) -> None:
    """Wait until the client has taken everything, for so long; then cut its connection."""
    transport = _transport_of(send)
    if transport is None:
        return
    end = asyncio.get_running_loop().time() + seconds
    while transport.get_write_buffer_size():
        if asyncio.get_running_loop().time() >= end:
            await abort_connection(send)
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _transport_of(send: Send) -> Any:
    """The transport behind the server's own `send`, which ours may stand around; None where it cannot be found."""
    owner: Any = getattr(send, "__self__", None)
    for _ in range(_WRAPPED):
        inner = getattr(owner, "_app_send", None)
        if inner is None:
            break
        owner = getattr(inner, "__self__", None)
    transport = getattr(owner, "transport", None)
    known = all(callable(getattr(transport, name, None)) for name in ("abort", "get_write_buffer_size"))
    return transport if known else None
