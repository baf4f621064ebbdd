"""The phases of a shutdown and their budgets; one shutdown, however often and by whom it is asked for."""

import asyncio

import pytest

from lastcall import (
    InvalidPlan,
    ManagerState,
    NotOpen,
    Outcome,
    Phase,
    ShutdownPlan,
    ShutdownReport,
    StopReason,
    TaskManager,
    current_shutdown,
)
from tests.support.loops import run_checked

virtual = pytest.mark.loops("virtual")
ABOUT = 0.001


def spent(report: ShutdownReport, phase: Phase) -> float:
    return next(p.seconds for p in report.phases if p.phase is phase)


# --- budgets, in virtual time ---


@virtual
async def test_the_drain_ends_the_moment_all_is_done() -> None:
    """Three tasks finish after 1, 2 and 3 s of a drain of 20 s, which therefore takes 3 s."""
    manager = TaskManager(plan=ShutdownPlan(drain=20))
    async with manager:
        for seconds in (1, 3, 2):
            manager.create_task(asyncio.sleep(seconds))
    assert manager.report is not None and manager.report.clean
    assert manager.report.seconds == pytest.approx(3, abs=ABOUT)
    assert manager.report.counts[Outcome.FINISHED] == 3
    assert [p.phase for p in manager.report.phases] == [Phase.DRAIN, Phase.CANCEL, Phase.CLOSE]


@virtual
async def test_an_empty_manager_closes_at_once() -> None:
    """Nothing runs, so nothing is waited for."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with TaskManager() as manager:
        pass
    assert loop.time() == began
    assert manager.report is not None and manager.report.clean and manager.report.tasks == ()


@virtual
async def test_what_overstays_the_drain_is_cancelled_at_its_end() -> None:
    """A task that sleeps for ever is cancelled exactly when the drain is over, and nothing waits longer."""
    manager = TaskManager(plan=ShutdownPlan(drain=7, cancel=5, close=5))
    async with manager:
        manager.create_task(asyncio.sleep(3600), name="long")
    report = manager.report
    assert report is not None and not report.clean and report.exit_code == 1
    assert report.seconds == pytest.approx(7, abs=ABOUT)
    assert [(t.name, t.outcome, t.reason) for t in report.tasks] == [
        ("long", Outcome.CANCELLED, StopReason.SHUTDOWN)
    ]


@virtual
@pytest.mark.parametrize(
    ("total", "drain_seconds", "cancel_seconds"),
    [(None, 20.0, 5.0), (12.0, 2.0, 5.0), (10.0, 0.0, 5.0), (7.0, 0.0, 2.0), (0.0, 0.0, 0.0)],
)
async def test_the_total_cuts_the_drain_first(
    total: float | None, drain_seconds: float, cancel_seconds: float
) -> None:
    """Under a total below the sum, cancel and close keep their budgets as long as the drain has anything to give."""
    release = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(drain=20, cancel=5, close=5, total=total))
    await manager.open()
    task = manager.create_task(_stubborn(release))
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert spent(report, Phase.DRAIN) == pytest.approx(drain_seconds, abs=ABOUT)
    assert spent(report, Phase.CANCEL) == pytest.approx(cancel_seconds, abs=ABOUT)
    assert report.counts[Outcome.REFUSED] == 1
    assert report.seconds <= manager.plan.total_seconds + ABOUT
    release.set()
    await asyncio.wait({task})


@virtual
async def test_never_later_than_the_plan() -> None:
    """A task that will not end, in a resource that will not close: all phases are used up, and then it is over."""
    release = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(notice=1, drain=4, cancel=2, close=3))
    await manager.open()
    stubborn = manager.create_task(_stubborn(release))
    manager.on_close(lambda: asyncio.sleep(3600), name="endless")
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert report.seconds == pytest.approx(10, abs=0.5)
    assert report.seconds <= 10 + ABOUT
    release.set()
    await asyncio.wait({stubborn})


@virtual
async def test_what_is_left_of_a_phase_is_not_given_to_the_next() -> None:
    """The drain ends early; cancel still has its own budget only."""
    release = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(drain=20, cancel=3, close=0))
    await manager.open()
    stubborn = manager.create_task(
        _stubborn(release), daemon=True
    )  # not waited for, so the drain ends at once
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert spent(report, Phase.DRAIN) == pytest.approx(0, abs=ABOUT)
    assert spent(report, Phase.CANCEL) == pytest.approx(3, abs=ABOUT)
    release.set()
    await asyncio.wait({stubborn})


@virtual
async def test_notice_keeps_taking_work() -> None:
    """In the notice phase readiness is down, work is taken, nobody is told; then the drain tells them."""
    loop = asyncio.get_running_loop()
    manager = TaskManager(plan=ShutdownPlan(notice=5, drain=10))
    await manager.open()
    assert manager.ready
    manager.begin_shutdown()
    assert manager.state is ManagerState.NOTICE and not manager.ready
    began = loop.time()
    told_at: list[float] = []

    async def late() -> None:
        assert not current_shutdown().requested
        await current_shutdown().wait()
        told_at.append(loop.time() - began)

    await asyncio.sleep(4)
    manager.create_task(late())
    manager.group("late").create_task(late())
    report = await manager.shutdown()
    assert told_at == [pytest.approx(5, abs=ABOUT)] * 2
    assert report.clean and report.counts[Outcome.STOPPED] == 2
    assert spent(report, Phase.NOTICE) == pytest.approx(5, abs=ABOUT)


@virtual
async def test_skip_notice_ends_a_notice_that_has_begun() -> None:
    """Whoever sends requests has gone: the drain begins at once although the notice has time left."""
    loop = asyncio.get_running_loop()
    manager = TaskManager(plan=ShutdownPlan(notice=50, drain=10))
    await manager.open()
    began = loop.time()
    manager.begin_shutdown()
    await asyncio.sleep(2)
    manager.begin_shutdown(skip_notice=True)
    await manager.shutdown()
    assert loop.time() - began == pytest.approx(2, abs=ABOUT)


@virtual
async def test_leaving_the_block_has_no_notice() -> None:
    """After the block nobody is left who could be given notice."""
    async with TaskManager(plan=ShutdownPlan(notice=50)) as manager:
        pass
    assert manager.report is not None and manager.report.seconds == pytest.approx(0, abs=ABOUT)


@virtual
async def test_daemons_are_never_waited_for() -> None:
    """A daemon that beats for ever costs no time, is cancelled, and does not make the report unclean."""
    async with TaskManager() as manager:
        manager.create_task(asyncio.sleep(3600), name="beat", daemon=True)
        manager.create_task(asyncio.sleep(2))
    report = manager.report
    assert report is not None and report.clean
    assert report.seconds == pytest.approx(2, abs=ABOUT)
    assert {t.name: t.outcome for t in report.tasks if t.daemon} == {"beat": Outcome.CANCELLED}


# --- asked several times ---


async def test_concurrent_callers_share_one_report() -> None:
    """Ten callers, a begin_shutdown and a block that is left: one shutdown, one report object."""
    async with TaskManager() as manager:
        manager.create_task(current_shutdown().wait())
        manager.begin_shutdown()
        reports = await asyncio.gather(*(manager.shutdown() for _ in range(10)))
    assert {id(report) for report in reports} == {id(manager.report)}
    assert await manager.shutdown() is manager.report
    manager.begin_shutdown()
    manager.force()
    assert manager.state is ManagerState.CLOSED


async def test_the_first_reason_stays() -> None:
    """A shutdown that was begun for one reason is not renamed by the next caller."""
    manager = TaskManager()
    await manager.open()
    manager.begin_shutdown(StopReason.USER)
    report = await manager.shutdown(StopReason.SHUTDOWN)
    assert report.reason is StopReason.USER


async def test_a_manager_never_opened_cannot_shut_down() -> None:
    """A clear error, no half state, and the manager can still be opened."""
    manager = TaskManager()
    with pytest.raises(NotOpen):
        await manager.shutdown()
    with pytest.raises(NotOpen):
        manager.begin_shutdown()
    manager.force()
    async with manager:
        pass


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), True, "5"])
def test_impossible_plans_are_refused(seconds: object) -> None:
    """Every number of a plan is checked when it is made, by name."""
    for name in ("notice", "drain", "cancel", "close", "total"):
        with pytest.raises(InvalidPlan, match=name):
            ShutdownPlan(**{name: seconds})  # type: ignore[arg-type]


@virtual
async def test_a_cancelled_caller_forces_finishes_and_stays_cancelled() -> None:
    """The task that waits in shutdown() is cancelled: the drain is cut, all is closed, then it ends cancelled."""
    closed: list[str] = []
    manager = TaskManager(plan=ShutdownPlan(drain=100, cancel=5, close=5))
    await manager.open()
    cleaned = manager.create_task(_cleans_up_for(2, closed))
    manager.on_close(lambda: closed.append("resource"))
    caller = asyncio.create_task(manager.shutdown())
    await asyncio.sleep(3)
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    assert manager.state is ManagerState.CLOSED and manager.report is not None
    assert manager.report.forced and manager.report.seconds == pytest.approx(5, abs=ABOUT)
    assert closed == ["cleaned", "resource"] and cleaned.cancelled()


@virtual
async def test_force_once_ends_the_drain_twice_ends_the_cancel() -> None:
    """The first force cancels now; the second gives up now on what is still cleaning up."""
    loop = asyncio.get_running_loop()
    release = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(drain=100, cancel=50, close=5))
    await manager.open()
    stubborn = manager.create_task(_stubborn(release), name="stubborn")
    began = loop.time()
    manager.begin_shutdown()
    loop.call_later(3, manager.force)
    loop.call_later(7, manager.force)
    report = await manager.shutdown()
    assert report.forced
    assert spent(report, Phase.DRAIN) == pytest.approx(3, abs=ABOUT)
    assert spent(report, Phase.CANCEL) == pytest.approx(4, abs=ABOUT)
    assert loop.time() - began == pytest.approx(7, abs=ABOUT)
    release.set()
    await asyncio.wait({stubborn})


@virtual
async def test_force_ends_the_notice_too() -> None:
    """Forced while it only gives notice, the shutdown goes straight to cancel."""
    manager = TaskManager(plan=ShutdownPlan(notice=100, drain=100))
    await manager.open()
    task = manager.create_task(asyncio.sleep(3600))
    manager.begin_shutdown()
    await asyncio.sleep(1)
    manager.force()
    report = await manager.shutdown()
    assert report.seconds == pytest.approx(1, abs=ABOUT) and task.cancelled()


@virtual
async def test_two_forces_do_not_spare_a_critical_section() -> None:
    """Even a critical section is cancelled, not only given up, when somebody insists."""
    loop = asyncio.get_running_loop()

    async def writes() -> None:
        with current_shutdown().critical(max=40):
            await asyncio.sleep(3600)

    manager = TaskManager(plan=ShutdownPlan(drain=100, cancel=50, close=5))
    await manager.open()
    task = manager.create_task(writes())
    await asyncio.sleep(0)
    manager.begin_shutdown()
    loop.call_later(1, manager.force)
    loop.call_later(2, manager.force)
    report = await manager.shutdown()
    assert report.seconds == pytest.approx(2, abs=ABOUT)
    assert [t.outcome for t in report.tasks] == [Outcome.CANCELLED] and task.cancelled()


# --- asked from inside ---


async def test_begun_inside_a_task_it_is_not_that_tasks_child() -> None:
    """A task begins the shutdown, is told itself, and ends; the shutdown goes on without it."""
    manager = TaskManager()
    seen: list[object] = []

    async def ends_it_all() -> None:
        manager.begin_shutdown(StopReason.USER)
        seen.append(current_shutdown().reason)

    async with manager:
        manager.create_task(ends_it_all())
        await current_shutdown().wait()
    assert seen == [StopReason.USER]
    assert manager.report is not None and manager.report.clean and manager.report.reason is StopReason.USER


@virtual
async def test_a_task_that_waits_for_the_shutdown_of_itself_is_told_so() -> None:
    """The shutdown waits for the task and the task for the shutdown: an error says so, and nobody waits 25 s."""
    manager = TaskManager(on_error=lambda info, error: errors.append(error))
    errors: list[BaseException] = []

    async def ends_it_all() -> None:
        await manager.shutdown()

    async with manager:
        manager.create_task(ends_it_all(), name="suicide")
        await asyncio.sleep(1)
    assert [type(error) for error in errors] == [RuntimeError]
    assert "begin_shutdown" in str(errors[0]) and "suicide" in str(errors[0])


async def test_begin_shutdown_returns_before_anything_is_closed() -> None:
    """It only begins: resources are not closed inside the call, even where tasks start eagerly."""
    closed: list[str] = []
    manager = TaskManager()
    await manager.open()
    manager.on_close(lambda: closed.append("resource"))
    manager.begin_shutdown()
    assert closed == [] and manager.state is ManagerState.DRAINING
    await manager.shutdown()
    assert closed == ["resource"]


async def test_begin_shutdown_from_another_thread() -> None:
    """The documented way from a thread: call_soon_threadsafe."""
    async with TaskManager() as manager:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(loop.call_soon_threadsafe, manager.begin_shutdown)
        await current_shutdown().wait()
    assert manager.report is not None and manager.report.clean


# --- again, and many ---


def test_a_closed_manager_opens_again_on_another_loop(loop_flavour: str) -> None:
    """The second life knows nothing of the first: new loop, new report, no old tasks, no old stop."""
    manager = TaskManager()
    reports = []

    async def life() -> None:
        async with manager:
            assert manager.report is None and manager.tasks() == [] and manager.ready
            assert not current_shutdown().requested
            manager.create_task(current_shutdown().wait(), id="same id")
        reports.append(manager.report)

    run_checked(life, loop_flavour)
    run_checked(life, loop_flavour)
    assert len({id(report) for report in reports}) == 2
    assert all(report.counts[Outcome.STOPPED] + report.counts[Outcome.FINISHED] == 1 for report in reports)


async def test_ten_thousand_tasks_end_as_planned() -> None:
    """Ten thousand tasks: a third finish, a third stop when told, a third are cancelled; each is counted."""
    manager = TaskManager(plan=ShutdownPlan(drain=1, cancel=30))

    async def stops() -> None:
        await current_shutdown().wait()

    async with manager:
        for _ in range(3_333):
            manager.create_task(asyncio.sleep(0.01))
            manager.create_task(stops())
            manager.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
    report = manager.report
    assert report is not None
    assert (
        report.counts[Outcome.FINISHED] + report.counts[Outcome.STOPPED] + report.counts[Outcome.CANCELLED]
        == 9_999
    )
    assert report.counts[Outcome.STOPPED] == report.counts[Outcome.CANCELLED] == 3_333
    assert manager.stats().running == 0


# --- order between groups ---


@virtual
async def test_groups_stop_in_their_order() -> None:
    """Writers are told only when the workers are done, and the workers only after the readers."""
    loop = asyncio.get_running_loop()
    told: list[tuple[str, float]] = []
    manager = TaskManager(plan=ShutdownPlan(drain=20))
    await manager.open()
    readers = manager.group("readers")
    workers = manager.group("workers", stop_after=[readers])
    writers = manager.group("writers", stop_after=["workers"])

    async def member(name: str) -> None:
        await current_shutdown().wait()
        told.append((name, loop.time() - began))
        await asyncio.sleep(1)

    for group in (writers, workers, readers):
        assert group.name is not None
        group.create_task(member(group.name))
        group.create_task(member(group.name))
    await asyncio.sleep(0)
    began = loop.time()
    report = await manager.shutdown()
    assert [name for name, _ in told] == ["readers"] * 2 + ["workers"] * 2 + ["writers"] * 2
    assert [at for _, at in told] == pytest.approx([0, 0, 1, 1, 2, 2], abs=ABOUT)
    assert report.clean


@virtual
async def test_order_between_groups_yields_to_the_deadline() -> None:
    """The first group never empties: at the end of the drain the others are told and cancelled like everybody."""
    manager = TaskManager(plan=ShutdownPlan(drain=3, cancel=5))
    await manager.open()
    first = manager.group("first")
    second = manager.group("second", stop_after=[first])
    first.create_task(asyncio.sleep(3600))
    second.create_task(asyncio.sleep(3600))
    report = await manager.shutdown()
    assert report.seconds == pytest.approx(3, abs=ABOUT)
    assert report.counts[Outcome.CANCELLED] == 2


async def test_order_between_groups_that_empty_in_the_same_turn() -> None:
    """The first group's last task ends at once when told; the second is still told, and not only at the deadline."""
    manager = TaskManager(plan=ShutdownPlan(drain=30))
    await manager.open()
    first = manager.group("first")
    second = manager.group("second", stop_after=[first])

    async def member() -> None:
        await current_shutdown().wait()

    first.create_task(member())
    second.create_task(member())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        report = await manager.shutdown()
    assert report.clean and report.counts[Outcome.STOPPED] == 2


# --- helpers ---


async def _stubborn(release: asyncio.Event) -> None:
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            pass


async def _cleans_up_for(seconds: float, ledger: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(seconds)
        ledger.append("cleaned")
