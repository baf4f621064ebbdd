"""What readers over HTTP cost: idle ones by the thousand, and entries that are sent to all of them."""

import json
import sys
from importlib.util import find_spec
from typing import NamedTuple

from ..jobs.report import progress
from ..jobs.rows import Block, Row
from .http_serving import CONTENDERS
from .measures import MeasureFailed, answer_of

FLOOR = "bare"
FLOOR_NAME = "a bare ASGI call with a queue"
NAMES = {
    "starlette": "Starlette StreamingResponse",
    "sse-starlette": "sse-starlette EventSourceResponse",
    "fastapi": "FastAPI EventSourceResponse",
    "lastcall": "lastcall LogResponse, a stream in memory",
    "lastcall-job": "lastcall LogResponse, a job's log on disk",
}


class Sizes(NamedTuple):
    idle: int
    idle_seconds: float
    fan_out: tuple[tuple[int, int], ...]
    """How many readers, and how many entries for each."""
    rounds: int


FULL = Sizes(10_000, 45.0, ((1, 20_000), (100, 2_000), (1000, 400)), 3)
QUICK = Sizes(50, 0.3, ((5, 200),), 1)


def rows(sizes: Sizes) -> list[Row]:
    found: list[Row] = []
    memory = Block("readers", f"{sizes.idle:,} idle SSE readers, resident memory of the server", "B each")
    cpu = Block("readers", f"{sizes.idle:,} idle SSE readers, CPU time of the server", "µs/s each")
    for name in _others(memory, cpu):
        order = {"readers": sizes.idle, "seconds": sizes.idle_seconds}
        pairs = _pairs("idle", name, order, sizes.rounds, memory, cpu)
        for block, key in ((memory, "bytes"), (cpu, "cpu_us")):
            _add(block, name, pairs, key, sizes.idle)
    found += memory.rows + cpu.rows
    for readers, count in sizes.fan_out:
        block = Block("readers", f"Entries sent to {readers:,} readers, until the last has all", "entries/s")
        for name in _others(block):
            pairs = _pairs("fan_out", name, {"readers": readers, "count": count}, sizes.rounds, block)
            _add(block, name, pairs, "rate", count)
        found += block.rows
    return found


Pairs = list[tuple[dict[str, float], dict[str, float]]]


def _others(*blocks: Block) -> list[str]:
    """Who is installed; the others get their line."""
    there = []
    for name, (_, package) in CONTENDERS.items():
        if name == FLOOR:
            continue
        if find_spec(package) is None:
            for block in blocks:
                block.add_problem(NAMES[name], "not installed, not measured")
        else:
            there.append(name)
    return there


def _pairs(what: str, name: str, order: dict[str, float], rounds: int, *blocks: Block) -> Pairs:
    """Floor and contender in turns; who goes first alternates."""
    found: Pairs = []
    try:
        for number in range(rounds):
            progress(f"readers  {what} {order['readers']:,}: {name}, round {number + 1} of {rounds}")
            taken = {}
            for who in (FLOOR, name) if number % 2 == 0 else (name, FLOOR):
                given = json.dumps({"contender": who, **order})
                taken[who] = answer_of([sys.executable, "-m", "bench.streams.http_crowd", what, given])
            found.append((taken[FLOOR], taken[name]))
    except MeasureFailed as error:
        for block in blocks:
            block.add_problem(NAMES[name], str(error), failed=True, ours=name.startswith("lastcall"))
        return []
    return found


def _add(block: Block, name: str, pairs: Pairs, key: str, count: int) -> None:
    if not pairs:
        return
    # What cannot be told from nothing is the smallest that could be.
    floors = [max(floor[key], 0.01) for floor, _ in pairs]
    values = [max(value[key], 0.01) for _, value in pairs]
    note = ""
    if key == "bytes":
        note = f"{sorted(values)[len(values) // 2] - sorted(floors)[len(floors) // 2]:+,.0f} B"
    block.add(
        NAMES[name],
        floors,
        values,
        floor_name=FLOOR_NAME,
        count=count,
        note=note,
        ours=name.startswith("lastcall"),
    )
