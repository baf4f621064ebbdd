"""`python -m bench.jobs.peers MODULE VERB [COUNT [PER_SECOND]]`: one part of a measurement, answer as JSON.

The module is imported under its own name, as the library's worker imports it: jobs declared in a `__main__` have
another name in every process.
"""

import asyncio
import importlib
import json
import sys
import time
from typing import Any

from .base import Peer

FILL_AT_ONCE = 1000


async def enqueue(peer: Peer, count: int) -> dict[str, Any]:
    """One after another, each waited for."""
    await peer.open()
    began = time.perf_counter()
    for number in range(count):
        await peer.submit(number, time.monotonic())
    seconds = time.perf_counter() - began
    await peer.close()
    return {"rate": count / seconds}


async def pace(peer: Peer, count: int, per_second: float) -> dict[str, Any]:
    """At an even pace, whether or not the worker keeps up. The answer: by how much we fell behind it at the worst."""
    await peer.open()
    late = 0.0
    began = time.monotonic()
    for number in range(count):
        wait = began + number / per_second - time.monotonic()
        await asyncio.sleep(max(0.0, wait))
        late = max(late, -wait)
        await peer.submit(number, time.monotonic())
    await peer.close()
    return {"late": late}


async def fill(peer: Peer, count: int, at_once: int) -> dict[str, Any]:
    """By the many, where the library can."""
    await peer.open()
    began = time.perf_counter()
    for first in range(0, count, at_once):
        here = min(at_once, count - first)
        if hasattr(peer, "fill"):
            await peer.fill(first, here)
        else:
            for number in range(first, first + here):
                await peer.submit(number, 0.0)
    seconds = time.perf_counter() - began
    await peer.close()
    return {"rate": count / seconds}


async def submit_long(peer: Peer) -> dict[str, Any]:
    """The job of the deploy test."""
    await peer.open()
    await peer.submit_long()
    await peer.close()
    return {}


def main() -> None:
    module, verb, *numbers = sys.argv[1:]
    peer: Peer = importlib.import_module(module).peer
    if verb == "work":
        peer.work()
        return
    if verb == "enqueue":
        answer = asyncio.run(enqueue(peer, int(numbers[0])))
    elif verb == "fill":
        answer = asyncio.run(fill(peer, int(numbers[0]), int((numbers[1:] or [FILL_AT_ONCE])[0])))
    elif verb == "pace":
        answer = asyncio.run(pace(peer, int(numbers[0]), float(numbers[1])))
    elif verb == "long":
        answer = asyncio.run(submit_long(peer))
    else:
        raise SystemExit(f"unknown verb {verb!r}")
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
