"""The shutdown of a manager, step by step. The order is text, in one place, with its reasons.

notice   readiness is 503, work goes on: balancers need time to look away before anything is refused
drain    intake closes first, so that the set of work only shrinks; then all are told; then they may finish
cancel   one cancel each, with its reason: a second one would interrupt the cleaning up after the first
close    resources after the work that uses them, last opened first
report   last, so that it can tell of all before
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ._drain import Drain, Threads
from ._group import TaskGroup
from ._plan import Deadlines, Phase, ShutdownPlan
from ._planner import groups_to_tell
from ._record import Record
from ._report import ShutdownReport
from ._resources import Resources
from ._roster import Intake, Roster
from ._state import ManagerState, StopReason


class ShutdownRunner:
    """One shutdown. `begin()` tells everybody at once, synchronously; `run()` carries the rest out.

    `deadlines`: by when each phase ends; from `begin` on.
    """

    def __init__(
        self,
        *,
        name: str,
        roster: Roster,
        threads: Threads,
        resources: Resources,
        late_groups: Callable[[], Mapping[str, TaskGroup]],
        plan: ShutdownPlan,
        reason: StopReason,
        enter: Callable[[ManagerState], None],
    ) -> None:
        self._roster = roster
        self._resources = resources
        self._late_groups = late_groups
        self._plan = plan
        self._reason = reason
        self._enter = enter
        self._told: set[str] = set()
        self._skip_notice = False
        self.deadlines: Deadlines
        self._drain = Drain(roster, _Everything(roster), reason, name, threads)

    def begin(self, *, skip_notice: bool) -> None:
        """Called once, on the loop. After it, readiness is down, and without a notice phase everybody knows."""
        self._skip_notice = skip_notice or self._plan.notice == 0
        self.deadlines = self._plan.deadlines(self._roster.clock(), skip_notice=self._skip_notice)
        if self._skip_notice:
            self._begin_drain()
        else:
            self._enter(ManagerState.NOTICE)

    def skip_notice(self) -> None:
        """Whoever sent requests has stopped doing so (the server closes): waiting on has no use."""
        self._skip_notice = True
        self._drain.poke()

    def force(self) -> None:
        self._drain.force()

    def report_so_far(self) -> ShutdownReport:
        """What has ended until now: phases that are over, work, resources."""
        return self._drain.report(self._plan, tuple(self._resources.outcomes))

    async def run(self) -> ShutdownReport:
        drain, plan = self._drain, self._plan
        if not self._skip_notice:
            await drain.timed(Phase.NOTICE, plan, self._notice())
        if not self._told_root:
            self._begin_drain()
        await drain.timed(Phase.DRAIN, plan, self._wait_idle())

        self._enter(ManagerState.CANCELLING)
        self._roster.intake = Intake.CLOSED
        self._tell_late_groups(drain_over=True)
        now = self._roster.clock()
        self.deadlines = self.deadlines.cancel_from(now, plan)
        self._roster.node.stop(self._reason, now)
        await drain.timed(Phase.CANCEL, plan, drain.cancel_rest(self.deadlines))

        self._enter(ManagerState.CLOSING)
        close_end = self.deadlines.close_end(self._roster.clock(), plan)
        resources = await drain.timed(Phase.CLOSE, plan, self._resources.close(close_end))
        drain.close()
        report = drain.report(plan, resources)
        drain.log(report)
        return report

    # --- the steps -------------------------------------------------------------------------------------

    @property
    def _told_root(self) -> bool:
        return self._roster.node.reason is not None

    async def _notice(self) -> None:
        while not self._skip_notice and not self._drain.forced:
            if self._roster.clock() >= self.deadlines.drain_start:
                return
            await self._drain.pause(self.deadlines.drain_start)

    def _begin_drain(self) -> None:
        self.deadlines = self.deadlines.drain_from(self._roster.clock(), self._plan)
        self._roster.intake = Intake.CHILDREN
        self._enter(ManagerState.DRAINING)
        for record in self._roster.holds.values():
            if record.grace_seconds is not None:
                self._drain.grace_told(record, self.deadlines)
        self._roster.node.stop(self._reason, self.deadlines.drain_end)
        self._roster.deadlines = self.deadlines
        self._tell_late_groups(drain_over=False)

    async def _wait_idle(self) -> None:
        self._roster.watch(self._on_ended)
        self._roster.replan = self._drain.poke
        try:
            await self._drain.wait_idle(self.deadlines)
        finally:
            self._roster.replan = None
            self._roster.unwatch(self._on_ended)

    def _on_ended(self, record: Record) -> None:
        if record.group is not None and not record.group._tasks:
            self._tell_late_groups(drain_over=False)

    def _tell_late_groups(self, *, drain_over: bool) -> None:
        groups = self._late_groups()
        waits_for = {
            name: group._stop_after
            for name, group in groups.items()
            if group._stop_after and name not in self._told
        }
        busy = {name for name, group in groups.items() if group._is_busy()} if waits_for else set()
        for name in groups_to_tell(waits_for, busy, drain_over):
            self._told.add(name)
            groups[name]._node.stop(self._reason, self.deadlines.drain_end)


class _Everything:
    """All work of a roster, as something that can be drained."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def records(self) -> Iterable[Record]:
        return self._roster.records()

    def includes(self, record: Record) -> bool:
        return True

    def busy(self) -> int:
        return self._roster.busy

    def size(self) -> int:
        return len(self._roster.live) + len(self._roster.holds)
