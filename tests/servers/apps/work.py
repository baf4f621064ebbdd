"""The work the applications do: every piece says in the ledger how it began and how it ended.

Work that has to be in flight when the signal comes waits for the marker, a file the test makes just before it
sends the signal; only then does it take its seconds. So no run depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from ..ledger import Ledger

ledger = Ledger(os.environ["SERVERS_LEDGER"])
_marker = Path(os.environ["SERVERS_MARKER"])

# What each kind still needs after the signal. The plan below gives 2 s.
SECONDS = {"slow": 0.8, "background-async": 1.0, "background-sync": 1.0, "task": 1.2, "thread": 1.0}
_WAIT_FOR_SIGNAL = 60.0


async def finite(kind: str) -> None:
    """Async work that needs its seconds, and knows nothing of any shutdown."""
    ledger.write("started", kind=kind)
    try:
        await _signal_sent()
        await asyncio.sleep(SECONDS[kind])
    except asyncio.CancelledError:
        ledger.write("cancelled", kind=kind)
        raise
    ledger.write("finished", kind=kind)


def finite_sync(kind: str) -> None:
    """The same in a thread."""
    ledger.write("started", kind=kind)
    deadline = time.monotonic() + _WAIT_FOR_SIGNAL
    while not _marker.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(SECONDS[kind])
    ledger.write("finished", kind=kind)


async def endless_events(kind: str) -> AsyncIterator[bytes]:
    """A server-sent event stream as one writes it by hand, without an end."""
    ledger.write("started", kind=kind)
    number = 0
    try:
        while True:
            number += 1
            yield b'data: {"n": %d}\n\n' % number
            await asyncio.sleep(0.05)
    finally:
        ledger.write("closed", kind=kind)


async def endless_tokens(kind: str) -> AsyncIterator[dict[str, int]]:
    """The same as a source of plain values, as a model's client gives them."""
    ledger.write("started", kind=kind)
    number = 0
    try:
        while True:
            number += 1
            yield {"n": number}
            await asyncio.sleep(0.05)
    finally:
        ledger.write("closed", kind=kind)


async def _signal_sent() -> None:
    deadline = time.monotonic() + _WAIT_FOR_SIGNAL
    while not _marker.exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
