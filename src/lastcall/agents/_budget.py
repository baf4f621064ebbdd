"""What one run may use: time, tokens, tool calls. A plain value, and the count against it.

Who calls it: `AgentQueue.submit` takes a `Budget`; each run counts in a `Spending`. What can go wrong: a budget that is
none (`ValueError`, before anything is queued), and one that is used up (`BudgetExceeded`, in the run).
"""

from __future__ import annotations

from typing import NamedTuple, Self

from .._core._clock import check_count, check_seconds
from ..exceptions import BudgetExceeded


class _Most(NamedTuple):
    seconds: float | None
    tokens: int | None
    tool_calls: int | None


class Budget(_Most):
    """The most that one run may use; None: as much as it likes.

    `seconds`: of running; neither the time in the queue counts nor what the run waits for a message (an approval).
    `tokens`: what the agent reports with `turn.spend(tokens=...)`; checked after each report, so a run may overshoot by
    its last call. `tool_calls`: checked before each call.

    A run over its budget fails with `BudgetExceeded`. Raises ValueError for impossible numbers.

        await queue.submit("Analyse ...", budget=Budget(seconds=600, tokens=200_000, tool_calls=50))
    """

    __slots__ = ()

    def __new__(
        cls, seconds: float | None = None, tokens: int | None = None, tool_calls: int | None = None
    ) -> Self:
        if seconds is not None:
            seconds = check_seconds("Budget.seconds", seconds, zero=False)
        for name, count in (("tokens", tokens), ("tool_calls", tool_calls)):
            if count is not None:
                check_count(f"Budget.{name}", count, 0)
        return super().__new__(cls, seconds, tokens, tool_calls)


class Spending:
    """What a run has used so far."""

    __slots__ = ("_budget", "tokens", "tool_calls")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.tokens = 0
        self.tool_calls = 0

    def add(self, tokens: int, tool_calls: int) -> None:
        """Count it. Raises `BudgetExceeded`, and ValueError for less than nothing."""
        self.tokens += check_count("spend(tokens)", tokens, 0)
        self.tool_calls += check_count("spend(tool_calls)", tool_calls, 0)
        budget = self._budget
        if budget.tokens is not None and self.tokens > budget.tokens:
            raise BudgetExceeded(f"the run has used {self.tokens} tokens of the {budget.tokens} it may use")
        if budget.tool_calls is not None and self.tool_calls > budget.tool_calls:
            raise BudgetExceeded(
                f"the run wants to call a tool for the {self.tool_calls}th time, and may "
                f"{budget.tool_calls} times"
            )


def out_of_time(budget: Budget) -> BudgetExceeded:
    """The error of a run that has run for longer than it may."""
    return BudgetExceeded(f"the run has run for the {budget.seconds:g} s that it may run")
