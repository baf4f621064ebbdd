"""Which settings fit a shutdown plan. Pure.

Who calls it: `serve`, which uses them, and `doctor`, which compares. The order that must hold is

    the plan's total  <  the server's limit  <=  what the orchestrator grants
"""

from __future__ import annotations

import math
from typing import NamedTuple

from lastcall import ShutdownPlan

# From the plan's end to the process' end: the app's own shutdown, the report, the exit guard.
SPARE_SECONDS = 5


class Choice(NamedTuple):
    """A setting, and why it is so."""

    name: str
    value: object
    why: str


def call_limit_seconds(plan: ShutdownPlan) -> int:
    """For a server's limit on calls in flight (uvicorn, hypercorn): a backstop above the plan."""
    return math.ceil(plan.total_seconds) + 1


def kill_after_seconds(plan: ShutdownPlan) -> int:
    """The least that whoever sends SIGKILL has to wait after SIGTERM."""
    return math.ceil(plan.total_seconds) + SPARE_SECONDS


def phases(plan: ShutdownPlan) -> str:
    """The plan in words."""
    parts = f"notice {plan.notice:g} + drain {plan.drain:g} + cancel {plan.cancel:g} + close {plan.close:g}"
    return f"{parts}, at most {plan.total_seconds:g} s"


def choose(plan: ShutdownPlan | None, kill_after: float | None) -> list[Choice]:
    """How `serve` runs uvicorn for an app with this plan; None: an app without lastcall."""
    return [
        *_of_plan(plan),
        Choice("lifespan", "on", "without it the app has neither a beginning nor an end"),
        Choice("workers", 1, "one process: its parent would keep the socket open while workers stop"),
        Choice("reload", "off", "each change of a file would be a stop; to develop, use uvicorn --reload"),
        *([] if plan is None else [_of_killer(plan, kill_after)]),
    ]


def _of_plan(plan: ShutdownPlan | None) -> list[Choice]:
    if plan is None:
        return [Choice("timeout_graceful_shutdown", 25, "the app has no plan; below Kubernetes' 30 s")]
    limit = call_limit_seconds(plan)
    return [
        Choice("plan", phases(plan), "the app's own"),
        Choice("timeout_graceful_shutdown", limit, "above the plan, which ends calls itself: a backstop"),
    ]


def _of_killer(plan: ShutdownPlan, kill_after: float | None) -> Choice:
    least = kill_after_seconds(plan)
    if kill_after is None:
        why = f"set terminationGracePeriodSeconds, stop_grace_period or TimeoutStopSec to {least} or more"
        return Choice("kill_after", "unknown", why)
    if kill_after < least:
        return Choice("kill_after", kill_after, f"too short: the plan needs {least}, or must be smaller")
    return Choice("kill_after", kill_after, f"enough: the plan needs {least}")


def graceful_timeout(choices: list[Choice]) -> int:
    """The one setting that uvicorn is given as a number."""
    return next(
        choice.value
        for choice in choices
        if choice.name == "timeout_graceful_shutdown" and isinstance(choice.value, int)
    )
