"""A row of the tables: a contender beside its floor."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..rows import Paired


@dataclass(frozen=True)
class Row:
    """A row that could not be measured has a `problem` and no figures; `failed` if it could have been."""

    section: str
    block: str
    contender: str
    durability: str = ""
    count: int | None = None
    unit: str = ""
    floor_name: str = ""
    floor: float | None = None
    value: float | None = None
    ratio_min: float | None = None
    ratio_median: float | None = None
    ratio_max: float | None = None
    rounds: int = 0
    goal: str = ""
    goal_met: bool | None = None
    ours: bool = False
    note: str = ""
    problem: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Goal:
    """What ours should reach: a bound on the ratio, on the value, or on both."""

    text: str
    ratio_at_least: float | None = None
    ratio_at_most: float | None = None
    value_at_most: float | None = None

    def met(self, ratio: float, value: float) -> bool:
        return (
            (self.ratio_at_least is None or ratio >= self.ratio_at_least)
            and (self.ratio_at_most is None or ratio <= self.ratio_at_most)
            and (self.value_at_most is None or value <= self.value_at_most)
        )


@dataclass
class Block:
    """One question with one unit: makes the rows of all who answer it."""

    section: str
    title: str
    unit: str
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        contender: str,
        floors: Sequence[float],
        values: Sequence[float],
        *,
        floor_name: str,
        goal: Goal | None = None,
        **fields: Any,
    ) -> None:
        """Floors and values as they were measured, pair by pair."""
        paired = Paired(list(floors), list(values))
        goals: dict[str, Any] = {}
        if goal is not None:
            goals = {"goal": goal.text, "goal_met": goal.met(paired.ratio, paired.value)}
        self.rows.append(
            Row(
                self.section,
                self.title,
                contender,
                unit=self.unit,
                floor_name=floor_name,
                **paired.as_fields(),
                **goals,
                **fields,
            )
        )

    def add_problem(self, contender: str, problem: str, *, failed: bool = False, ours: bool = False) -> None:
        self.rows.append(Row(self.section, self.title, contender, problem=problem, failed=failed, ours=ours))
