"""Whatever happens in whatever order: the books balance, the planner is bounded, a plan stays within its total."""

import asyncio
import math
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lastcall import ShutdownPlan, TaskManager, TaskStatus, current_shutdown
from lastcall._core._plan import Deadlines
from lastcall._core._planner import cancel_due, decide, groups_to_tell
from lastcall._core._state import MANAGER_TRANSITIONS, TRANSITIONS, ManagerState
from tests.support.loops import run_checked

seconds = st.floats(0, 1e5).map(lambda number: round(number, 3))
plans = st.builds(
    ShutdownPlan,
    notice=seconds,
    drain=seconds,
    cancel=seconds,
    close=seconds,
    total=st.one_of(st.none(), seconds),
)
ALMOST = 1e-6


# --- a manager, with random lives in it ---

VERBS = [
    "create",
    "create in group",
    "create limited",
    "create daemon",
    "finish",
    "fail",
    "cancel",
    "ask cancel",
    "stop",
    "turn",
]
lives = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 50)), max_size=50)


class Trouble(Exception):
    pass


@dataclass
class World:
    """A manager, its tasks, and what was seen of each."""

    manager: TaskManager
    told: list[BaseException]
    tasks: list[asyncio.Task[int]] = field(default_factory=list)
    orders: list[asyncio.Future[int]] = field(default_factory=list)
    asked: list[asyncio.Task[object]] = field(default_factory=list)
    statuses: dict[str, TaskStatus] = field(default_factory=dict)

    async def work(self, order: "asyncio.Future[int]") -> int:
        return await order

    def create(self, verb: str) -> None:
        order: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.orders.append(order)
        coro = self.work(order)
        if verb == "create in group":
            self.tasks.append(self.isolated.create_task(coro))
        elif verb == "create limited":
            self.tasks.append(self.limited.create_task(coro))
        else:
            self.tasks.append(self.manager.create_task(coro, daemon=verb == "create daemon"))

    def __post_init__(self) -> None:
        self.isolated = self.manager.group("isolated", on_error="isolate")
        self.limited = self.manager.group("limited", limit=2, on_error="isolate")

    async def do(self, verb: str, number: int) -> None:
        if verb.startswith("create"):
            self.create(verb)
        elif not self.tasks or verb == "turn":
            await asyncio.sleep(0)
        else:
            index = number % len(self.tasks)
            task, order = self.tasks[index], self.orders[index]
            if verb == "cancel":
                task.cancel()
            elif verb == "ask cancel":
                self.asked.append(asyncio.create_task(self.ask(task)))
            elif verb == "stop":
                self.manager.stop_task(task)
            elif not order.done():
                order.set_exception(Trouble(number)) if verb == "fail" else order.set_result(number)

    async def ask(self, task: "asyncio.Task[int]") -> object:
        return await self.manager.cancel_task(task, timeout=60)

    def check(self) -> None:
        """What is true at every moment."""
        manager, roster = self.manager, self.manager._roster
        stats, infos = manager.stats(), manager.tasks()
        assert sum(stats[:5]) == len(self.tasks) == len(infos) == len({info.id for info in infos})
        for status in TaskStatus:
            assert getattr(stats, status) == len(manager.tasks(status=status))
        assert len(roster.live) == stats.pending + stats.running
        assert roster.daemons == sum(record.daemon for record in roster.live.values())
        assert 0 <= self.limited._slots.running <= 2
        assert len(self.isolated.tasks) == sum(r.group is self.isolated for r in roster.live.values())
        for info in infos:
            before = self.statuses.get(info.id, info.status)
            assert info.status is before or info.status in steps_from(before), (before, info.status)
            self.statuses[info.id] = info.status
            ended = not TRANSITIONS[info.status]
            assert (info.ended_at is not None) is ended
            assert info.error is None or info.status is TaskStatus.FAILED


def steps_from(status: TaskStatus) -> set[TaskStatus]:
    """All that may follow, also over several steps."""
    found: set[TaskStatus] = set()
    todo = [status]
    while todo:
        for following in TRANSITIONS[todo.pop()] - found:
            found.add(following)
            todo.append(following)
    return found


@given(lives=lives)
def test_the_books_of_a_manager_balance(lives: list[tuple[str, int]]) -> None:
    """Tasks are made, end, fail and are cancelled in any order: each ends in one record, nothing stays behind."""

    async def main() -> None:
        told: list[BaseException] = []
        async with TaskManager(on_error=lambda info, error: told.append(error), keep_ended=1000) as manager:
            world = World(manager, told)
            for verb, number in lives:
                await world.do(verb, number)
                world.check()
            for order in world.orders:
                if not order.done():
                    order.set_result(0)
            await asyncio.gather(*world.asked)
            for _ in range(2 * len(world.tasks) + 5):
                await asyncio.sleep(0)
            world.check()
            stats = manager.stats()
            assert stats.pending == stats.running == 0
            assert stats.failed == len(told) == sum(isinstance(error, Trouble) for error in told)
            for task in world.tasks:
                status = manager.info(task).status
                expected = "cancelled" if task.cancelled() else "failed" if task.exception() else "completed"
                assert status == expected
            roster = manager._roster
            assert not roster.live and not roster.watchers and not roster.holds
            for group in (world.isolated, world.limited):
                assert not (
                    group.tasks
                    or group._slots.gates
                    or group._slots.gated
                    or group._slots.running
                    or group._errors
                )
            for order in world.orders:  # retrieved, so that a failure nobody was given is not reported late
                order.cancelled() or order.exception()

    run_checked(main, timeout=30)


@given(lives=lives, kind=st.sampled_from(["told", "deaf"]))
def test_a_shutdown_accounts_for_everybody(lives: list[tuple[str, int]], kind: str) -> None:
    """Whatever is alive when the manager shuts down is in its report, exactly once, by its outcome."""

    async def main() -> None:
        manager = TaskManager(
            plan=ShutdownPlan(drain=5, cancel=5), on_error=lambda info, error: None, keep_ended=1000
        )
        await manager.open()
        world = World(manager, [])
        for verb, number in lives:
            await world.do(verb, number)
        if kind == "told":
            manager.create_task(current_shutdown().wait())
        before = manager.stats()
        report = await manager.shutdown()
        assert sum(report.counts.values()) == len(report.tasks) == before.pending + before.running
        assert len({task.id for task in report.tasks}) == len(report.tasks)
        after = manager.stats()
        assert after.pending == after.running == 0
        await asyncio.gather(*world.asked)
        assert report.seconds <= 10 + ALMOST
        for order in world.orders:
            if order.done() and not order.cancelled():
                order.exception()

    run_checked(main, "virtual")


# --- the planner ---


@dataclass(eq=False)
class Made:
    """Made-up work: its grace, and how long it takes to end once it is cancelled; None: never."""

    grace_seconds: float | None
    reaction: float | None
    daemon: bool = False
    cancelled_at: float | None = None

    def ended(self, now: float) -> bool:
        return (
            self.cancelled_at is not None
            and self.reaction is not None
            and now >= self.cancelled_at + self.reaction
        )


works = st.lists(
    st.builds(
        Made,
        grace_seconds=st.one_of(st.none(), seconds),
        reaction=st.one_of(st.none(), st.floats(0, 10)),
        daemon=st.booleans(),
    ),
    max_size=12,
)


@given(plan=plans, works=works, interruptions=st.lists(st.floats(0, 2e5), max_size=5))
def test_deciding_until_the_end(plan: ShutdownPlan, works: list[Made], interruptions: list[float]) -> None:
    """Asked only when it wants to be (and now and then in between): one cancel each, when due, and an end in time."""
    deadlines = plan.deadlines(1000.0)
    now = deadlines.drain_start
    pokes = sorted(1000.0 + at for at in interruptions)
    given_up: list[Made] = []
    for _ in range(3 * len(works) + len(pokes) + 3):
        alive = [work for work in works if not work.ended(now)]
        decision = decide(alive, now, deadlines)
        assert decision.look_again_at > now
        for work in decision.cancel:
            assert work.cancelled_at is None, "cancelled twice"
            assert now >= cancel_due(work, deadlines)
            work.cancelled_at = now
        for work in works:
            if work.cancelled_at is None:
                assert now < cancel_due(work, deadlines), "overdue"
        if decision.give_up:
            assert now >= deadlines.cancel_end
            given_up = decision.give_up
            assert set(map(id, given_up)) == set(map(id, alive))
        if now >= deadlines.cancel_end or math.isinf(decision.look_again_at):
            break
        now = min([at for at in pokes if at > now] + [decision.look_again_at])
    alive = [work for work in works if not work.ended(now)]
    assert set(map(id, given_up)) >= {id(work) for work in alive if work.reaction is None}
    assert now <= max(deadlines.cancel_end, deadlines.drain_start)


@given(plan=plans, works=works, late=st.floats(0, 1e6))
def test_nothing_stays_undecided_at_the_end(plan: ShutdownPlan, works: list[Made], late: float) -> None:
    """Asked at or after the end of the cancel phase, however late: all are cancelled and given up, none left over."""
    deadlines = plan.deadlines(0.0)
    decision = decide(works, deadlines.cancel_end + late, deadlines)
    assert set(map(id, decision.give_up)) == set(map(id, works))
    assert set(map(id, decision.cancel)) == set(map(id, works))
    assert math.isinf(decision.look_again_at)


@given(works=works, now=st.floats(0, 3e5), plan=plans)
def test_deciding_changes_nothing(works: list[Made], now: float, plan: ShutdownPlan) -> None:
    """Asked twice, the planner says the same twice."""
    deadlines = plan.deadlines(0.0)
    first, second = decide(works, now, deadlines), decide(works, now, deadlines)
    assert first == second


@given(
    waits_for=st.dictionaries(st.sampled_from("abcde"), st.sets(st.sampled_from("abcdef"))),
    busy=st.sets(st.sampled_from("abcdef")),
    drain_over=st.booleans(),
)
def test_late_groups(waits_for: dict[str, set[str]], busy: set[str], drain_over: bool) -> None:
    """A group is told if, and only if, nobody before it is busy; at the end of the drain all are."""
    told = groups_to_tell(waits_for, busy, drain_over)
    for name, before in waits_for.items():
        assert (name in told) is (drain_over or not (before & busy))


# --- the plan ---


def in_order(deadlines: Deadlines) -> bool:
    times = [deadlines.drain_start, deadlines.drain_end, deadlines.cancel_end]
    return times == sorted(times) and deadlines.start <= deadlines.drain_start


@given(plan=plans, start=st.floats(0, 1e7), skip_notice=st.booleans())
def test_deadlines_are_in_order_and_within_the_total(
    plan: ShutdownPlan, start: float, skip_notice: bool
) -> None:
    """Whatever the budgets: notice, drain, cancel and close end one after the other, the last within the total."""
    deadlines = plan.deadlines(start, skip_notice=skip_notice)
    assert in_order(deadlines)
    assert deadlines.cancel_end <= deadlines.end <= start + plan.total_seconds + ALMOST
    assert deadlines.drain_start - start <= plan.notice + ALMOST
    assert deadlines.drain_end - deadlines.drain_start <= plan.drain + ALMOST
    assert deadlines.cancel_end - deadlines.drain_end <= plan.cancel + ALMOST
    if plan.total is None:
        left = deadlines.end - deadlines.cancel_end
        assert left >= plan.close - ALMOST, "close keeps its budget"


@given(plan=plans, early=st.floats(0, 1), earlier=st.floats(0, 1))
def test_phases_that_end_early_move_the_rest_forward(
    plan: ShutdownPlan, early: float, earlier: float
) -> None:
    """Notice and drain end early: what follows keeps its order and its budget, and nothing ends later than planned."""
    first = plan.deadlines(100.0)
    now = first.start + early * (first.drain_start - first.start)
    second = first.drain_from(now, plan)
    assert in_order(second) and second.drain_end <= first.drain_end + ALMOST
    now = second.drain_start + earlier * (second.drain_end - second.drain_start)
    third = second.cancel_from(now, plan)
    assert third.cancel_end <= second.cancel_end + ALMOST and third.cancel_end - now <= plan.cancel + ALMOST
    close_end = third.close_end(third.cancel_end, plan)
    assert third.cancel_end <= close_end <= first.end + ALMOST


# --- the tables ---


def test_the_tables_are_closed() -> None:
    """Every state is in its table, every follower is a state, ends have no follower, and every end can be reached."""
    assert set(TRANSITIONS) == set(TaskStatus) and set(MANAGER_TRANSITIONS) == set(ManagerState)
    ends = {status for status, following in TRANSITIONS.items() if not following}
    assert ends == {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}
    assert steps_from(TaskStatus.PENDING) == set(TaskStatus) - {TaskStatus.PENDING}
