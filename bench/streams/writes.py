"""Writing streams durably, and how soon a reader has what was written."""

import json
from pathlib import Path
from typing import NamedTuple

from ..jobs.catalog import FULL_FSYNC, OURS
from ..jobs.install_peers import installed, interpreter
from ..jobs.report import progress
from ..jobs.rows import Block, Goal, Row
from .measures import MeasureFailed, answer_of, measure

FLOOR = "rows in batches of 500"
INTERVAL = "the flush interval, 25 ms"
INTERVAL_MS = 25.0
DBOS_SCRIPT = Path(__file__).with_name("dbos_measures.py")


class Sizes(NamedTuple):
    events: int
    seen: int
    peer_events: int
    rounds: int


FULL = Sizes(events=80_000, seen=500, peer_events=500, rounds=3)
QUICK = Sizes(events=4_000, seen=50, peer_events=50, rounds=1)


def rows(sizes: Sizes, peers: Path | None) -> list[Row]:
    written = Block("streams", "Written to the streams of 8 jobs, until stored", "events/s")
    seen = Block("streams", "From write to a reader in the same process, p99 (p50)", "ms")
    _rates(sizes, written)
    _seen(sizes, seen)
    if installed(peers, "dbos") and peers is not None:
        _dbos(sizes, peers, written, seen)
    else:
        written.add_problem(
            "DBOS write_stream", "not installed: bench/jobs/install_peers.py DIR dbos, --peers DIR"
        )
    return written.rows + seen.rows


def _rates(sizes: Sizes, block: Block) -> None:
    floors: list[float] = []
    events: list[float] = []
    tokens: list[float] = []
    for number in range(sizes.rounds):
        progress(f"streams  written, round {number + 1} of {sizes.rounds}")
        floors.append(measure("batched_inserts", count=sizes.events, batch=500)["rate"])
        events.append(measure("events_written", count=sizes.events)["rate"])
        tokens.append(measure("tokens_written", count=sizes.events)["rate"])
    goal = Goal("≥ 0.3×", ratio_at_least=0.3)
    fields = {"floor_name": FLOOR, "durability": FULL_FSYNC, "count": sizes.events, "ours": True}
    block.add(f"{OURS}, an event each", floors, events, goal=goal, **fields)
    block.add(f"{OURS}, tokens (joined)", floors, tokens, **fields)


def _seen(sizes: Sizes, block: Block) -> None:
    for pace, what in ((0.01, "100 tokens/s"), (0.05, "20 tokens/s")):
        found = []
        for number in range(sizes.rounds):
            progress(f"streams  seen at {what}, round {number + 1} of {sizes.rounds}")
            found.append(measure("seen_after", count=sizes.seen, pace_seconds=pace))
        p50 = sorted(answer["p50"] for answer in found)[len(found) // 2]
        block.add(
            f"{OURS}, {what}",
            [INTERVAL_MS] * len(found),
            [answer["p99"] for answer in found],
            floor_name=INTERVAL,
            goal=Goal("≤ 30 ms", value_at_most=INTERVAL_MS + 5),
            durability=FULL_FSYNC,
            count=sizes.seen,
            note=f"p50 {p50:.1f} ms",
            ours=True,
        )


def _dbos(sizes: Sizes, peers: Path, written: Block, seen: Block) -> None:
    python = str(interpreter(peers, "dbos"))
    name = "DBOS write_stream"
    try:
        floors, rates, waits, p50 = [], [], [], []
        for number in range(sizes.rounds):
            progress(f"streams  DBOS, round {number + 1} of {sizes.rounds}")
            floors.append(measure("batched_inserts", count=sizes.events, batch=500)["rate"])
            rates.append(_ask(python, {"count": sizes.peer_events})["rate"])
            paced = _ask(python, {"count": sizes.peer_events // 5, "pace_seconds": 0.05})
            waits.append(paced["p99"])
            p50.append(paced["p50"])
    except MeasureFailed as error:
        written.add_problem(name, str(error), failed=True)
        return
    durability = FULL_FSYNC
    written.add(name, floors, rates, floor_name=FLOOR, durability=durability, count=sizes.peer_events)
    seen.add(
        f"{name}, 20 tokens/s",
        [INTERVAL_MS] * len(waits),
        waits,
        floor_name=INTERVAL,
        durability=durability,
        count=sizes.peer_events // 5,
        note=f"p50 {sorted(p50)[len(p50) // 2]:.0f} ms",
    )


def _ask(python: str, order: dict[str, float]) -> dict[str, float]:
    return answer_of([python, str(DBOS_SCRIPT), "speak", json.dumps(order)])
