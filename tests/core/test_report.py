"""The report: every outcome, the stack of whoever would not end, JSON and text that say the same."""

import asyncio
import json
import logging
import threading
from typing import Any

import pytest

from lastcall import (
    Kind,
    Outcome,
    Phase,
    ShutdownPlan,
    ShutdownReport,
    StopReason,
    TaskManager,
    current_shutdown,
)

PLAN = ShutdownPlan(drain=0.3, cancel=0.3, close=0.3)


async def stubborn(release: asyncio.Event) -> None:
    """Swallows every cancel until it is released."""
    while not release.is_set():
        try:
            await stands_here(release)
        except asyncio.CancelledError:
            pass


async def stands_here(release: asyncio.Event) -> None:
    await release.wait()


def by_name(report: ShutdownReport) -> dict[str, Outcome]:
    return {task.name: task.outcome for task in report.tasks}


async def everything_at_once() -> ShutdownReport:
    """One shutdown with every outcome there is."""
    release, release_thread, in_thread = asyncio.Event(), threading.Event(), threading.Event()
    manager = TaskManager(plan=PLAN, name="all of it", on_error=lambda info, error: None)
    await manager.open()

    async def stops() -> None:
        await current_shutdown().wait()

    async def fails() -> None:
        await current_shutdown().wait()
        raise ValueError("a bad row")

    async def swallows() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return

    def stuck() -> None:
        in_thread.set()
        release_thread.wait(60)

    group = manager.group("group", on_error="isolate")
    manager.create_task(asyncio.sleep(0.05), name="finishes")
    group.create_task(stops(), name="stops")
    group.create_task(fails(), name="fails")
    manager.create_task(asyncio.sleep(3600), name="overstays", labels={"to": "ann"})
    manager.create_task(swallows(), name="swallows")
    task = manager.create_task(stubborn(release), name="refuses", id="my-id")
    manager.run_in_thread(stuck, name="stuck thread")
    manager.create_task(asyncio.sleep(3600), name="daemon", daemon=True)
    await asyncio.to_thread(in_thread.wait, 30)
    report = await manager.shutdown()
    release.set()
    release_thread.set()
    await asyncio.wait({task})
    return report


async def test_every_outcome_is_named() -> None:
    """Finished, stopped, failed, cancelled, refused, a thread left: each task under its own word."""
    report = await everything_at_once()
    assert by_name(report) == {
        "finishes": Outcome.FINISHED,
        "stops": Outcome.STOPPED,
        "fails": Outcome.FAILED,
        "overstays": Outcome.CANCELLED,
        "swallows": Outcome.FINISHED,
        "refuses": Outcome.REFUSED,
        "stuck thread": Outcome.THREAD_LEFT,
        "daemon": Outcome.CANCELLED,
    }
    assert sum(report.counts.values()) == len(report.tasks) == 8
    assert not report.clean and report.exit_code == 1
    task = {task.name: task for task in report.tasks}
    assert task["fails"].error == "ValueError: a bad row"
    assert task["fails"].group == task["stops"].group == "group"
    assert task["refuses"].id == "my-id" and task["refuses"].reason is StopReason.SHUTDOWN
    assert task["swallows"].swallowed_cancel and not task["overstays"].swallowed_cancel
    assert task["overstays"].cut_off and not task["finishes"].cut_off
    assert task["stuck thread"].kind is Kind.THREAD and task["daemon"].daemon
    assert {t.name for t in report.left_behind} == {"refuses", "stuck thread"}
    assert {phase.phase for phase in report.phases} == {Phase.DRAIN, Phase.CANCEL, Phase.CLOSE}
    assert all(0 <= t.seconds <= report.seconds for t in report.tasks)


async def test_stacks_show_where_it_really_stands() -> None:
    """The innermost frame of the await chain, and the frame inside the thread, not lastcall's own."""
    report = await everything_at_once()
    stacks = {task.name: task.stack for task in report.tasks if task.stack}
    assert set(stacks) == {"refuses", "stuck thread"}
    chain = [line.rsplit(" in ", 1)[-1] for line in stacks["refuses"]]
    assert chain[:3] == ["stubborn", "stands_here", "Event.wait"]
    assert "waiting for" in stacks["refuses"][-1]
    assert any("stuck" in line for line in stacks["stuck thread"])
    assert not any("ThreadLane" in line for line in stacks["stuck thread"])
    assert __file__ in stacks["refuses"][0]


async def test_the_text_tells_what_went_wrong_and_only_that() -> None:
    """Verdict first, then phases, counts and each bad end; what went well gets no line."""
    text = str(await everything_at_once())
    first = text.splitlines()[0]
    assert "all of it" in first and "NOT clean" in first
    for words in (
        "'fails'",
        "ValueError: a bad row",
        "'overstays'",
        "'refuses'",
        "stands_here",
        "'stuck thread'",
    ):
        assert words in text
    for words in ("'finishes'", "'stops'", "'daemon'"):
        assert words not in text
    assert "group 'group'" in text


async def test_json_has_all_of_it() -> None:
    """What to_json() writes can be read back and says the same as the report."""
    report = await everything_at_once()
    data: dict[str, Any] = json.loads(report.to_json())
    assert data == json.loads(report.to_json(indent=2))
    assert data["clean"] is False and data["exit_code"] == 1
    assert data["name"] == "all of it" and data["reason"] == "shutdown"
    assert data["counts"] == {str(outcome): count for outcome, count in report.counts.items()}
    assert {task["name"]: task["outcome"] for task in data["tasks"]} == by_name(report)
    assert [tuple(task["stack"]) for task in data["tasks"]] == [task.stack for task in report.tasks]
    assert [phase["phase"] for phase in data["phases"]] == [phase.phase for phase in report.phases]
    assert not any(key.startswith("_") for key in data)


async def test_a_clean_report_is_short_and_logged_as_information(caplog: pytest.LogCaptureFixture) -> None:
    """All went well: exit code 0, three lines, one log record that is not a warning."""
    with caplog.at_level(logging.INFO, "lastcall"):
        async with TaskManager(name="good") as manager:
            manager.create_task(asyncio.sleep(0))
    report = manager.report
    assert report is not None and report.clean and report.exit_code == 0
    assert len(str(report).splitlines()) == 3 and "clean" in str(report) and "NOT" not in str(report)
    records = [record for record in caplog.records if "shutdown of good" in record.getMessage()]
    assert [record.levelname for record in records] == ["INFO"]


async def test_an_unclean_report_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the whole text once, as a warning."""
    async with TaskManager(name="bad", plan=ShutdownPlan(drain=0)) as manager:
        manager.create_task(asyncio.sleep(3600), name="cut")
        await asyncio.sleep(0)
    records = [record for record in caplog.records if "shutdown of bad" in record.getMessage()]
    assert [record.levelname for record in records] == ["WARNING"] and "'cut'" in records[0].getMessage()


@pytest.mark.parametrize("keep", [{"keep_ended": 0}, {"keep_errors": False}, {"keep_results": False}])
async def test_errors_are_named_whatever_is_remembered(keep: dict[str, Any]) -> None:
    """The manager keeps no ended tasks, or no errors: the report still says what the error was."""

    async def fails() -> None:
        await current_shutdown().wait()
        raise ValueError("a bad row")

    async with TaskManager(on_error=lambda info, error: None, **keep) as manager:
        manager.create_task(fails(), name="fails")
        await asyncio.sleep(0)
    assert manager.report is not None
    assert [t.error for t in manager.report.tasks] == ["ValueError: a bad row"]


async def test_a_long_list_is_counted_not_listed() -> None:
    """Of 3000 tasks cut off a thousand are listed and twenty are told; every one is counted."""
    async with TaskManager(plan=ShutdownPlan(drain=0, cancel=30)) as manager:
        for _ in range(3000):
            manager.create_task(asyncio.sleep(3600), name="one of many")
        await asyncio.sleep(0)
    report = manager.report
    assert report is not None
    assert report.counts[Outcome.CANCELLED] == 3000 and len(report.tasks) == 1000
    assert str(report).count("'one of many'") == 20 and "and 2980 more cancelled" in str(report)


async def test_all_that_refuse_are_listed_however_many() -> None:
    """Whoever is left behind is named, even beyond the thousand; that is what a person looks for."""
    release = asyncio.Event()
    manager = TaskManager(plan=ShutdownPlan(drain=0, cancel=0.2, close=0))
    await manager.open()
    tasks = {manager.create_task(stubborn(release), name=f"refuses {n}") for n in range(1200)}
    await asyncio.sleep(0)
    report = await manager.shutdown()
    assert len(report.left_behind) == 1200 == report.counts[Outcome.REFUSED]
    release.set()
    await asyncio.wait(tasks)


async def test_what_ended_before_is_not_in_it() -> None:
    """Tasks that ended before the shutdown, well or badly, are history, not part of it."""

    async def fails() -> None:
        raise ValueError

    async with TaskManager(on_error=lambda info, error: None) as manager:
        await asyncio.wait({manager.create_task(fails()), manager.create_task(asyncio.sleep(0))})
    assert manager.report is not None
    assert manager.report.clean and sum(manager.report.counts.values()) == 0


@pytest.mark.loops("asyncio")
async def test_a_report_is_read_back_from_its_json() -> None:
    """What was written to a file is the same report again, also with members of a later version; anything else is
    refused."""
    report = await everything_at_once()
    assert ShutdownReport.from_json(report.to_json()) == report
    later = json.loads(report.to_json()) | {"mood": "good"}
    later["tasks"][0] |= {"colour": "red"}
    del later["late_births_refused"]
    assert ShutdownReport.from_json(json.dumps(later).encode()) == report
    for data in ("", "[]", "7", "null", '"text"', "{}", '{"name": "x"}'):
        with pytest.raises(ValueError):
            ShutdownReport.from_json(data)
    for name, value in (("reason", "boredom"), ("tasks", [{}]), ("tasks", 7), ("counts", {"evaporated": 1})):
        with pytest.raises(ValueError):
            ShutdownReport.from_json(json.dumps({**later, name: value}))


@pytest.mark.loops("asyncio")
async def test_the_report_so_far_is_there_for_what_closes() -> None:
    """A resource that closes reads how all work ended, and what closed before it; there is none outside of one."""

    async def guest() -> None:
        await current_shutdown().wait()

    seen: list[ShutdownReport | None] = []
    async with TaskManager(plan=PLAN) as manager:
        manager.create_task(guest(), name="guest")
        manager.on_close(lambda: seen.append(manager.report_so_far), name="first")
        manager.on_close(lambda: None, name="second")
        assert manager.report_so_far is None
        await asyncio.sleep(0)
    [so_far] = seen
    assert so_far is not None and manager.report is not None and manager.report_so_far is None
    assert [phase.phase for phase in so_far.phases] == [Phase.DRAIN, Phase.CANCEL]
    assert [one.name for one in so_far.resources] == ["second"]
    assert so_far.tasks == manager.report.tasks and by_name(so_far) == {"guest": Outcome.STOPPED}
    assert so_far.started_at == manager.report.started_at and so_far.seconds <= manager.report.seconds
