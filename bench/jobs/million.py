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
    first = None
    for title, (known, unknown) in cases.items():
        progress(f"million     {title}")
        order = {"known": known, "unknown_in_front": unknown, "batch": sizes.batch, "rounds": sizes.claims}
        try:
            floor = measure("floor_claim", **order)["seconds"] * 1e3
            value = measure("ours_claim", **order)["seconds"] * 1e3
        except PROBLEMS as error:
            claim.add_problem(f"{OURS}, {title}", str(error), failed=True, ours=True)
            continue
        named: dict[str, Any] = {"durability": FULL_FSYNC, "count": known + unknown, "ours": True}
        claim.add(f"{OURS}, {title}", [floor], [value], floor_name="raw SQL", **named)
        if first is None:
            first = value
        else:
            growth.add(
                f"{OURS}, {title}",
                [first],
                [value],
                floor_name=f"{sizes.few:,} queued",
                goal=GROWTH_GOAL,
                **named,
            )
    return claim.rows + growth.rows
