"""Whether a claim gets slower when a million jobs are queued: a batch, claimed and given back, again and again."""

from typing import Any

from .catalog import FULL_FSYNC, OURS
from .child import measure
from .report import progress
from .rows import Block, Goal, Row
from .run import PROBLEMS, Run

GROWTH_GOAL = Goal("≤ 1.25×", ratio_at_most=1.25)


def rows(run: Run) -> list[Row]:
    setting = next((setting for setting in run.settings if setting.ours), None)
    if setting is None:
        return []
    sizes = run.sizes
    claim = Block("million", f"One claim of {sizes.batch}, beside raw SQL", "ms")
    growth = Block("million", f"One claim of {sizes.batch}, beside the same with {sizes.few:,} queued", "ms")
    problem = run.problem(setting)
    if problem:
        claim.add_problem(OURS, problem, ours=True)
        return claim.rows
    cases = {
        f"{sizes.few:,} queued": (sizes.few, 0),
        f"{sizes.many:,} queued": (sizes.many, 0),
        f"{sizes.few:,} queued behind {sizes.many:,} of a task that the worker does not know": (
            sizes.few,
            sizes.many,
        ),
    }
    progress(f"million     {', '.join(cases)}")
    try:
        found = measure("ours_claims", cases=list(cases.values()), batch=sizes.batch, rounds=sizes.claims)
    except PROBLEMS as error:
        claim.add_problem(OURS, str(error), failed=True, ours=True)
        return claim.rows
    few = milliseconds(found[0]["values"])
    for (title, (known, unknown)), taken in zip(cases.items(), found, strict=True):
        named: dict[str, Any] = {"durability": FULL_FSYNC, "count": known + unknown, "ours": True}
        name, value = f"{OURS}, {title}", milliseconds(taken["values"])
        claim.add(name, milliseconds(taken["floors"]), value, floor_name="raw SQL", **named)
        if title != next(iter(cases)):
            growth.add(name, few, value, floor_name=next(iter(cases)), goal=GROWTH_GOAL, **named)
    return claim.rows + growth.rows


def milliseconds(seconds: list[float]) -> list[float]:
    return [each * 1e3 for each in seconds]
