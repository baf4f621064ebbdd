"""One measurement in a process of its own: `python -m bench.child '{"measure": "spawn", ...}'`, answer as JSON.

A process for each contender, because CPython specialises byte code by what it has seen and keeps the heap it once
grew: in a shared process, whoever comes later pays for, or gains by, whoever came before.
The garbage collector stays on, as users have it; every timing starts from a collected heap.
Spawning never waits, so its time is the process's CPU time, which other work on the machine disturbs less; stopping
could wait, so its time is the clock's.
"""

import asyncio
import gc
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from .catalog import FLOOR, entry
from .contenders.base import Body, Contender

BATCH = 1000
LONG_SECONDS = 3600.0


async def sleep0() -> None:
    await asyncio.sleep(0)


async def return1() -> int:
    return 1


BODIES: dict[str, Body] = {"sleep0": sleep0, "return1": return1}


def new_loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop's factory by the name used on the command line."""
    if loop == "uvloop":
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        return factory
    if loop == "eager":

        def new_eager_loop() -> asyncio.AbstractEventLoop:
            made = asyncio.new_event_loop()
            made.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 (3.12 and later)
            return made

        return new_eager_loop
    return asyncio.new_event_loop


async def time_spawn(make: type[Contender], body: Body, count: int) -> float:
    """CPU seconds for `count` tasks from their start to their collected end, in batches."""
    contender = make()
    await contender.open()
    gc.collect()
    started = time.process_time()
    for _ in range(count // BATCH):
        await contender.batch(body, BATCH)
    seconds = time.process_time() - started
    await contender.close()
    return seconds


async def spawn(
    make: type[Contender], floor: type[Contender], body: Body, count: int, rounds: int
) -> dict[str, list[float]]:
    """Paired rounds; who goes first changes from round to round. The first pair only warms up."""
    floors, values = [], []
    for number in range(rounds + 1):
        if number % 2:
            value = await time_spawn(make, body, count)
            base = await time_spawn(floor, body, count)
        else:
            base = await time_spawn(floor, body, count)
            value = await time_spawn(make, body, count)
        if number:
            floors.append(base)
            values.append(value)
    return {"floors": floors, "values": values}


def resident_bytes() -> int:
    """Resident memory now; where there is no /proc, its peak, which is the same while memory only grows."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


async def hold(make: type[Contender], count: int) -> dict[str, float]:
    """Memory of `count` waiting tasks, and the time it takes to cancel them all and see them end."""
    started = 0

    async def waiter() -> None:
        nonlocal started
        started += 1
        await asyncio.sleep(LONG_SECONDS)

    contender = make()
    await contender.open()
    before_tasks = len(asyncio.all_tasks())
    gc.collect()
    before = resident_bytes()
    await contender.hold(waiter, count)
    for _ in range(count):
        if started == count:
            break
        await asyncio.sleep(0)
    else:
        raise RuntimeError(f"only {started} of {count} tasks have started")
    gc.collect()
    grown = resident_bytes() - before
    begun = time.perf_counter()
    await contender.stop()
    seconds = time.perf_counter() - begun
    await contender.close()
    left = len(asyncio.all_tasks()) - before_tasks
    if left > 0:
        raise RuntimeError(f"{left} tasks were still running after the stop")
    return {"bytes": grown / count, "stop": seconds / count}


async def measure(order: dict[str, Any]) -> Any:
    make = entry(order["contender"]).load()
    if order["measure"] == "hold":
        return await hold(make, order["count"])
    floor = entry(FLOOR).load()
    return {
        body: await spawn(make, floor, BODIES[body], order["count"], order["rounds"])
        for body in order["bodies"]
    }


def main() -> None:
    order = json.loads(sys.argv[1])
    with asyncio.Runner(loop_factory=new_loop_factory(order["loop"])) as runner:
        answer = runner.run(measure(order))
    print(json.dumps(answer), flush=True)
    # The figures are out; taking a hundred thousand tasks apart at interpreter exit would only cost time.
    os._exit(0)


if __name__ == "__main__":
    main()
