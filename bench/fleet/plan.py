"""What is done to the fleet, and when: drawn from the seed, and nothing else. Pure.

The seed says what is done to whom and for how long; how the processes interleave is the machine's. A plan is part of
every result, and `--replay RESULT` carries the same one out again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

POSTGRES, SQLITE = "postgres", "sqlite"
STORES = (POSTGRES, SQLITE)


class Options(NamedTuple):
    """How long and how hard. The lease is short, but not so short that a busy machine ends one: that is no fault."""

    store: str = POSTGRES
    seed: int = 0
    seconds: float = 3600.0
    workers: int = 8
    concurrency: int = 10
    jobs_per_second: float = 10.0
    attacks_per_second: float = 1.0
    lease_seconds: float = 6.0


class Action(NamedTuple):
    """One attack. `at`: seconds from the beginning; `who`: a number in [0, 1) that picks among those it can be done to;
    `seconds`: how long it lasts, for what lasts."""

    at: float
    what: str
    who: float
    seconds: float


class Kind(NamedTuple):
    """How often a kind comes beside the others, and how long it lasts at least and at most, in leases. `rare`: too long
    for a short play, which need not meet it."""

    weight: float
    shortest: float = 0.0
    longest: float = 0.0
    of_database: bool = False
    rare: bool = False


KINDS = {
    "kill": Kind(30),
    "stop": Kind(20),
    "stop and kill": Kind(10),
    "stall": Kind(15, 0.05, 2.0),
    "deploy": Kind(4),
    "restart": Kind(1.5, of_database=True),
    "crash": Kind(1.5, of_database=True),
    "away": Kind(0.5, 1.1, 2.5, of_database=True, rare=True),
    "terminate": Kind(8, of_database=True),
    "cut a commit": Kind(10, of_database=True),
    "cut a commit's answer": Kind(10, of_database=True),
    "cut a request": Kind(8, of_database=True),
    "cut an answer": Kind(8, of_database=True),
    "idle in transaction": Kind(6, 0.02, 0.3, of_database=True),
    "no connection left": Kind(2, 0.05, 0.2, of_database=True),
}


def actions(options: Options) -> list[Action]:
    """Each kind that is not rare once, in some order, and from then on by weight: a short play meets all of them."""
    generator = random.Random(f"{options.seed} attacks")
    kinds = {name: kind for name, kind in KINDS.items() if options.store == POSTGRES or not kind.of_database}
    first = [name for name, kind in kinds.items() if not kind.rare]
    generator.shuffle(first)
    weights = [kind.weight for kind in kinds.values()]
    found: list[Action] = []
    at = generator.expovariate(options.attacks_per_second)
    while at < options.seconds:
        what = first.pop() if first else generator.choices(list(kinds), weights)[0]
        lasts = options.lease_seconds * generator.uniform(kinds[what].shortest, kinds[what].longest)
        found.append(Action(round(at, 3), what, round(generator.random(), 6), round(lasts, 3)))
        at += generator.expovariate(options.attacks_per_second)
    return found


def to_json(options: Options, plan: Sequence[Action]) -> dict[str, Any]:
    return {"options": options._asdict(), "plan": [list(action) for action in plan]}


def from_json(told: dict[str, Any]) -> tuple[Options, list[Action]]:
    """Raises KeyError and TypeError for what is no result of a play."""
    return Options(**told["options"]), [Action(*action) for action in told["plan"]]
