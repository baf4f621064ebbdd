"""A row of the table, and the ratio of paired rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One contender in one measurement. A row that could not be measured has a `problem` and no figures."""

    section: str
    contender: str
    loop: str = ""
    body: str = ""
    unit: str = ""
    floor: float | None = None
    value: float | None = None
    ratio_min: float | None = None
    ratio_median: float | None = None
    ratio_max: float | None = None
    extra: float | None = None
    """What the contender adds to the floor, in the same unit, where that is the figure of interest."""
    rounds: int = 0
    goal: str = ""
    goal_met: bool | None = None
    ours: bool = False
    note: str = ""
    problem: str = ""
    failed: bool = False
    """The contender is installed and yet could not be measured."""


@dataclass(frozen=True)
class Paired:
    """Rounds of floor and contender, one after the other, so that a slow moment of the machine hits both."""

    floors: Sequence[float]
    values: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        return [value / floor for floor, value in zip(self.floors, self.values, strict=True)]

    @property
    def floor(self) -> float:
        return median(self.floors)

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios; not the ratio of the medians, which a drift of the machine would bend."""
        return median(self.ratios)

    def as_fields(self, scale: float = 1.0) -> dict[str, Any]:
        """The figures as fields of a `Row`, floor and value multiplied by `scale`."""
        return {
            "floor": self.floor * scale,
            "value": self.value * scale,
            "ratio_min": min(self.ratios),
            "ratio_median": self.ratio,
            "ratio_max": max(self.ratios),
            "rounds": len(self.floors),
        }
