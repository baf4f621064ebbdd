"""ShutdownPlan: how long a shutdown may take, phase by phase, under one total."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Self

from ._clock import check_seconds


class Phase(StrEnum):
    """The phases of a shutdown, in their order."""

    NOTICE = "notice"
    DRAIN = "drain"
    CANCEL = "cancel"
    CLOSE = "close"


class _Budgets(NamedTuple):
    notice: float
    drain: float
    cancel: float
    close: float
    total: float | None


class ShutdownPlan(_Budgets):
    """The budget of a shutdown, in seconds.

    `notice` (default 0): readiness is 503 but work is still accepted, while balancers look away.
    `drain` (20): intake is closed, everybody was told, what runs may finish.
    `cancel` (5): what still runs was cancelled, once, and may clean up.
    `close` (5): resources registered with `on_close` are closed.
    `total` (default: the sum): an upper bound over all four. Where it is smaller than their sum,
    drain is cut first, so that cancel and close keep what they were promised.

    A phase ends the moment nothing is left to do in it; the numbers are bounds, never waiting times
    (`notice` excepted, whose only purpose is to wait).

    Raises `InvalidPlan` for numbers that are negative, NaN, endless or not numbers.

        ShutdownPlan(notice=2, drain=20, cancel=5, close=3)      # below terminationGracePeriodSeconds: 30
    """

    __slots__ = ()

    def __new__(
        cls,
        notice: float = 0.0,
        drain: float = 20.0,
        cancel: float = 5.0,
        close: float = 5.0,
        total: float | None = None,
    ) -> Self:
        return super().__new__(
            cls,
            check_seconds("ShutdownPlan.notice", notice),
            check_seconds("ShutdownPlan.drain", drain),
            check_seconds("ShutdownPlan.cancel", cancel),
            check_seconds("ShutdownPlan.close", close),
            None if total is None else check_seconds("ShutdownPlan.total", total),
        )

    @property
    def total_seconds(self) -> float:
        """The longest a shutdown by this plan takes."""
        whole = self.notice + self.drain + self.cancel + self.close
        return whole if self.total is None else min(self.total, whole)

    def budget_seconds(self, phase: Phase) -> float:
        """What the plan grants one phase."""
        return {
            Phase.NOTICE: self.notice,
            Phase.DRAIN: self.drain,
            Phase.CANCEL: self.cancel,
            Phase.CLOSE: self.close,
        }[phase]

    def deadlines(self, start: float, *, skip_notice: bool = False) -> Deadlines:
        """The latest moment for the end of each phase, for a shutdown that began at `start`."""
        end = start + self.total_seconds
        cancel_latest = max(start, end - self.close)
        drain_latest = max(start, cancel_latest - self.cancel)
        drain_start = start if skip_notice else min(start + self.notice, drain_latest)
        drain_end = min(drain_start + self.drain, drain_latest)
        return Deadlines(start, drain_start, drain_end, min(drain_end + self.cancel, cancel_latest), end)


class Deadlines(NamedTuple):
    """The latest times of one shutdown, on the manager's clock. What begins early also ends early."""

    start: float
    drain_start: float
    drain_end: float
    cancel_end: float
    end: float

    def drain_from(self, now: float, plan: ShutdownPlan) -> Deadlines:
        """The same shutdown, whose drain begins `now` (notice over, or cut short)."""
        drain_end = max(now, min(now + plan.drain, self.drain_end))
        cancel_end = max(drain_end, min(drain_end + plan.cancel, self.cancel_end))
        return Deadlines(self.start, now, drain_end, cancel_end, self.end)

    def cancel_from(self, now: float, plan: ShutdownPlan) -> Deadlines:
        """The same shutdown, whose cancel phase begins `now` (all drained, time over, or forced)."""
        cancel_end = max(now, min(now + plan.cancel, self.cancel_end))
        return Deadlines(self.start, self.drain_start, min(now, self.drain_end), cancel_end, self.end)

    def close_end(self, now: float, plan: ShutdownPlan) -> float:
        """When the close phase that begins `now` must be over."""
        return max(now, min(now + plan.close, self.end))
