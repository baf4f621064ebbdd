"""Bounded memory of what ended, and cancelling: once, with a reason, waited for, answered honestly."""

import asyncio
import gc
import logging
import threading
import weakref

import pytest

from lastcall import (
    CancelAnswer,
    DuplicateTask,
    StopReason,
    TaskManager,
    TaskStatus,
    UnknownTask,
    current_shutdown,
)

virtual = pytest.mark.loops("virtual")


class Big:
    """Something that can be seen to go."""


async def value(result: object) -> object:
    return result


async def fail(error: BaseException) -> None:
    raise error


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def silent(info: object, error: BaseException) -> None:
    """Somebody who has been told."""


# --- memory ---


async def test_the_count_of_records_is_bounded() -> None:
    """A hundred tasks end where ten are kept: the last ten are there, the counts know all hundred."""
    async with TaskManager(keep_ended=10) as manager:
        for number in range(100):
            await manager.create_task(value(number), id=f"job {number}" if number % 2 else None)
        assert [info.result for info in manager.tasks()] == list(range(90, 100))
        assert manager.stats().completed == 100
        with pytest.raises(UnknownTask, match="job 1"):
            manager.info("job 1")
        assert manager.info("job 91").result == 91
        assert set(manager._roster.memory.ids) == {f"job {n}" for n in range(91, 100, 2)}


async def test_the_id_of_a_dropped_record_is_free_again() -> None:
    """An id is taken as long as its record is remembered, and not longer."""
    async with TaskManager(keep_ended=2) as manager:
        await manager.create_task(value(1), id="mine")
        with pytest.raises(DuplicateTask, match="mine"):
            manager.create_task(value(2), id="mine")
        await manager.create_task(value(3))
        await manager.create_task(value(4))
        assert await manager.create_task(value(5), id="mine") == 5


@virtual
async def test_the_age_of_records_is_bounded() -> None:
    """Records go when they are an hour old, each at its own time, without anybody asking."""
    async with TaskManager(keep_ended_seconds=3600) as manager:
        for number in range(3):
            await manager.create_task(value(number), id=f"n{number}")
            await asyncio.sleep(1000)
        assert len(manager.tasks()) == 3
        await asyncio.sleep(599)
        assert [info.id for info in manager.tasks()] == ["n0", "n1", "n2"]
        await asyncio.sleep(2)
        assert [info.id for info in manager.tasks()] == ["n1", "n2"]
        await asyncio.sleep(2001)
        assert manager.tasks() == [] and not manager._roster.memory.ids
        assert manager.stats().completed == 3


@virtual
async def test_records_stay_readable_after_the_shutdown() -> None:
    """The manager is closed: infos and counts are still there, and no timer keeps the loop awake."""
    async with TaskManager() as manager:
        task = manager.create_task(value(1), id="x")
    assert manager.info(task).result == 1
    assert manager.stats().completed == 1
    assert [info.id for info in manager.tasks()] == ["x"]


async def test_keep_nothing() -> None:
    """keep_ended=0: an ended task is unknown at once, counted, and its id is free."""
    async with TaskManager(keep_ended=0) as manager:
        for _ in range(2):
            task = manager.create_task(value(1), id="again")
            await task
            assert manager.tasks() == []
            with pytest.raises(UnknownTask):
                manager.info(task)
        assert await manager.cancel_task(task) is CancelAnswer.UNKNOWN
        assert manager.stats().completed == 2


async def test_results_that_are_not_kept_are_freed() -> None:
    """keep_results=False: the record stays, the result goes with the last of the caller's own references."""
    async with TaskManager(keep_results=False) as manager:
        big = Big()
        ref = weakref.ref(big)
        await manager.create_task(value(big), id="big")
        await manager.run_in_thread(lambda: ref(), id="threaded")
        await manager.group().create_task(value(big), id="grouped")
        await manager.group(limit=1).create_task(value(big), id="limited")
        del big
        await turns()
        gc.collect()
        assert ref() is None
        for id in ("big", "threaded", "grouped", "limited"):
            assert manager.info(id).status is TaskStatus.COMPLETED and manager.info(id).result is None


async def test_errors_that_are_not_kept_are_freed() -> None:
    """keep_errors=False: the failure was told, its exception, with its traceback and frames, is gone."""

    async def work() -> None:
        raise Trouble(ref())

    class Trouble(Exception):
        pass

    async with TaskManager(keep_errors=False, on_error=silent) as manager:
        big = Big()
        ref = weakref.ref(big)
        await asyncio.wait({manager.create_task(work(), id="bad")})
        del big
        await turns()
        gc.collect()
        assert ref() is None
        info = manager.info("bad")
        assert info.status is TaskStatus.FAILED and info.error is None


@pytest.mark.parametrize("kept", ["results", "errors"])
async def test_one_is_kept_without_the_other(kept: str) -> None:
    """Results without errors, errors without results: what was chosen is there after a collection."""
    async with TaskManager(
        keep_results=kept == "results", keep_errors=kept == "errors", on_error=silent
    ) as manager:
        error = ValueError("kept")
        await asyncio.wait(
            {manager.create_task(value(1), id="good"), manager.create_task(fail(error), id="bad")}
        )
        await turns()
        gc.collect()
        assert manager.info("good").result == (1 if kept == "results" else None)
        assert manager.info("bad").error is (error if kept == "errors" else None)


async def test_a_task_is_found_by_itself_after_its_end() -> None:
    """With and without kept results, the task object leads to its record."""
    for keep in (True, False):
        async with TaskManager(keep_results=keep, keep_errors=keep) as manager:
            task = manager.create_task(value(1), name="found")
            await task
            assert manager.info(task).name == "found"


# --- cancel: the answers ---


async def test_ended() -> None:
    """A task that sleeps is cancelled: it is over when the answer comes."""
    async with TaskManager() as manager:
        task = manager.create_task(asyncio.sleep(3600))
        await turns()
        assert await manager.cancel_task(task) is CancelAnswer.ENDED
        assert task.cancelled()
        info = manager.info(task)
        assert info.status is TaskStatus.CANCELLED and info.reason is StopReason.USER
        assert not info.swallowed_cancel


async def test_already_ended_and_unknown() -> None:
    """Ended tasks, ids nobody gave, and other people's tasks: a clear answer, no exception, nothing cancelled."""
    async with TaskManager() as manager, TaskManager() as other:
        done = manager.create_task(value(1), id="done")
        await done
        assert await manager.cancel_task(done) is CancelAnswer.ALREADY_ENDED
        assert await manager.cancel_task("done") is CancelAnswer.ALREADY_ENDED
        for unknown in ("nobody", "t-999", "t-", "t-x", "", "t-" + "9" * 5000):
            assert await manager.cancel_task(unknown) is CancelAnswer.UNKNOWN
        foreign = other.create_task(asyncio.sleep(0, "untouched"))
        assert await manager.cancel_task(foreign) is CancelAnswer.UNKNOWN
        assert await foreign == "untouched"


@virtual
async def test_refused_is_said_in_time_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A task swallows its cancel and goes on: after the timeout the answer is refused, its stack is in the log."""
    loop = asyncio.get_running_loop()
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    async with TaskManager() as manager:
        task = manager.create_task(stubborn(), name="mule", id="m")
        await turns()
        began = loop.time()
        assert await manager.cancel_task("m", timeout=3) is CancelAnswer.REFUSED
        assert loop.time() - began == pytest.approx(3)
        text = caplog.text
        assert "'mule' (m)" in text and "stubborn" in text and "release.wait" not in text.split("stubborn")[0]
        release.set()
        await task
        await turns()
        info = manager.info("m")
        assert info.status is TaskStatus.COMPLETED and info.swallowed_cancel
        assert manager.stats().swallowed == 1
        assert "swallowed" in caplog.text


@virtual
async def test_a_cancel_is_sent_once() -> None:
    """Asked three times while the task cleans up for ten seconds: the cleaning up is not interrupted."""
    loop = asyncio.get_running_loop()
    interruptions: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                interruptions.append("interrupted")
                raise

    async with TaskManager() as manager:
        task = manager.create_task(tidy())
        await turns()
        began = loop.time()
        answers = await asyncio.gather(
            manager.cancel_task(task, timeout=1),
            manager.cancel_task(task, timeout=2, reason=StopReason.TIMEOUT),
            manager.cancel_task(task, timeout=60),
        )
        assert answers == [CancelAnswer.REFUSED, CancelAnswer.REFUSED, CancelAnswer.ENDED]
        assert loop.time() - began == pytest.approx(10)
        assert interruptions == []
        assert manager.info(task).reason is StopReason.USER


@pytest.mark.parametrize("reason", list(StopReason))
async def test_the_task_can_read_the_reason(reason: StopReason) -> None:
    """Inside the task, while it is being cancelled: the reason is in current_shutdown() and in the exception."""
    seen: list[object] = []

    async def work() -> None:
        shutdown = current_shutdown()
        assert shutdown.reason is None
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            seen.extend((error.args, shutdown.reason, current_shutdown().reason))
            raise

    async with TaskManager() as manager:
        task = manager.create_task(work())
        await turns()
        assert await manager.cancel_task(task, reason=reason) is CancelAnswer.ENDED
        assert seen == [(reason,), reason, reason]
        assert manager.info(task).reason is reason


async def test_others_cancel_has_no_reason_of_ours() -> None:
    """A bare task.cancel() by somebody is counted as cancelled, and no reason is made up."""
    async with TaskManager() as manager:
        task = manager.create_task(asyncio.sleep(3600))
        await turns()
        task.cancel("mine")
        await asyncio.wait({task})
        await turns()
        assert manager.info(task).reason is None
        assert manager.stats().cancelled == 1 and manager.stats().swallowed == 0


# --- cancel: whom ---


async def test_pending_is_cancelled_without_running() -> None:
    """A task that waits behind a limit is cancelled: its coroutine never runs and never warns."""
    ran: list[str] = []

    async def work() -> None:
        ran.append("ran")

    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1)
        first = group.create_task(go.wait())
        waiting = group.create_task(work())
        await turns()
        assert await manager.cancel_task(waiting) is CancelAnswer.ENDED
        info = manager.info(waiting)
        assert info.status is TaskStatus.CANCELLED and info.started_at is None
        assert group.pending == 0
        go.set()
        await first
        assert ran == []


async def test_a_daemon_can_be_cancelled() -> None:
    """Daemons are cancelled like everybody; the count of daemons follows."""
    async with TaskManager() as manager:
        task = manager.create_task(asyncio.sleep(3600), daemon=True)
        assert await manager.cancel_task(task) is CancelAnswer.ENDED
        assert manager._roster.daemons == 0 and manager._roster.busy == 0


async def test_a_task_cancels_itself() -> None:
    """A task asks for its own cancel: it ends there, as cancelled, and nobody hangs."""

    async def work() -> None:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        await manager.cancel_task(task)
        raise AssertionError("it went on")

    async with TaskManager() as manager:
        task = manager.create_task(work())
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled()


async def test_the_asker_is_cancelled() -> None:
    """Whoever waits for the answer is cancelled himself: that is his end, the task has its cancel all the same."""
    go = asyncio.Event()

    async def tidy() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await go.wait()

    async with TaskManager() as manager:
        task = manager.create_task(tidy())
        await turns()
        asker = asyncio.create_task(manager.cancel_task(task))
        await turns()
        asker.cancel()
        await asyncio.wait({asker})
        assert asker.cancelled() and not task.done()
        assert manager._roster.watchers == ()
        go.set()
        await asyncio.wait({task})
        assert task.cancelled()


async def test_a_thread_is_told_and_its_own_stack_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No thread can be cancelled: it is told, the answer is refused, and the log shows where the thread stands."""
    entered, told, release = threading.Event(), threading.Event(), threading.Event()

    def block_in_here() -> None:
        entered.set()
        if current_shutdown().wait_sync(30):
            told.set()
        release.wait(30)

    async with TaskManager() as manager:
        task = manager.run_in_thread(block_in_here, id="stuck")
        while not entered.is_set():
            await asyncio.sleep(0.001)
        assert await manager.cancel_task(task, timeout=0.05) is CancelAnswer.REFUSED
        assert told.wait(30)
        assert "block_in_here" in caplog.text and "release.wait" not in caplog.text
        assert "test_records.py" in caplog.text
        release.set()
        await asyncio.wait({task})
        assert task.cancelled()
        await turns()
        assert manager.info("stuck").status is TaskStatus.CANCELLED


# --- critical sections ---


@virtual
async def test_a_critical_section_holds_the_cancel_back() -> None:
    """Cancelled between two writes that belong together: both are done, then the cancel comes, once."""
    loop = asyncio.get_running_loop()
    done: list[str] = []

    async def work() -> None:
        with current_shutdown().critical(max=4):
            await asyncio.sleep(1)
            done.append("first")
            await asyncio.sleep(1)
            done.append("second")
        await asyncio.sleep(3600)
        done.append("never")

    async with TaskManager() as manager:
        task = manager.create_task(work())
        await asyncio.sleep(0.5)
        began = loop.time()
        assert await manager.cancel_task(task, timeout=10) is CancelAnswer.ENDED
        assert loop.time() - began == pytest.approx(1.5)
        assert done == ["first", "second"]
        assert manager.info(task).status is TaskStatus.CANCELLED


@virtual
async def test_a_critical_section_cannot_hold_it_for_ever() -> None:
    """The section takes an hour; the cancel comes when its `max` is over."""
    loop = asyncio.get_running_loop()

    async def work() -> None:
        with current_shutdown().critical(max=4):
            await asyncio.sleep(3600)

    async with TaskManager() as manager:
        task = manager.create_task(work())
        await asyncio.sleep(1)
        began = loop.time()
        assert await manager.cancel_task(task, timeout=1) is CancelAnswer.REFUSED
        assert await manager.cancel_task(task, timeout=10) is CancelAnswer.ENDED
        assert loop.time() - began == pytest.approx(3)


@virtual
async def test_nested_critical_sections_end_together() -> None:
    """The inner section ends; the cancel waits for the outer one."""
    done: list[str] = []

    async def work() -> None:
        with current_shutdown().critical(max=10):
            with current_shutdown().critical(max=1):
                await asyncio.sleep(1)
            await asyncio.sleep(1)
            done.append("outer")
        await asyncio.sleep(3600)

    async with TaskManager() as manager:
        task = manager.create_task(work())
        await turns()
        assert await manager.cancel_task(task, timeout=10) is CancelAnswer.ENDED
        assert done == ["outer"]


@virtual
async def test_cancelled_in_a_section_that_is_its_end() -> None:
    """The section is the task's last act: it is cancelled when it leaves, and nothing counts as swallowed."""

    async def work() -> None:
        with current_shutdown().critical(max=4):
            await asyncio.sleep(1)

    async with TaskManager() as manager:
        task = manager.create_task(work())
        await turns()
        assert await manager.cancel_task(task, timeout=10) is CancelAnswer.ENDED
        assert manager.stats().swallowed == 0


# --- many at once ---


async def test_ten_thousand_cancels_do_not_watch_each_other() -> None:
    """Ten thousand callers cancel one task each; the work per end does not grow with their number."""
    async with TaskManager(keep_ended=0) as manager:
        tasks = [manager.create_task(asyncio.sleep(3600)) for _ in range(10_000)]
        await turns()
        asking = [asyncio.ensure_future(manager.cancel_task(task, timeout=60)) for task in tasks]
        await turns(1)
        assert len(manager._roster.watchers) <= 1
        assert set(await asyncio.gather(*asking)) == {CancelAnswer.ENDED}
        assert manager.stats().cancelled == 10_000


async def test_stop_task_asks_only() -> None:
    """A task that does not look runs on to its end and is completed, with the reason in its record."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        task = manager.create_task(go.wait(), id="deaf")
        await turns()
        assert manager.stop_task("deaf")
        await turns()
        assert not task.done()
        go.set()
        await task
        await turns()
        info = manager.info("deaf")
        assert info.status is TaskStatus.COMPLETED and info.reason is StopReason.USER
        assert manager.stats().swallowed == 0


async def test_the_first_reason_stays() -> None:
    """Stopped for one reason and cancelled for another: the task was ended for the first."""
    async with TaskManager() as manager:
        task = manager.create_task(asyncio.sleep(3600))
        manager.stop_task(task, reason=StopReason.DISCONNECT)
        await manager.cancel_task(task, reason=StopReason.TIMEOUT)
        assert manager.info(task).reason is StopReason.DISCONNECT
        assert manager.info(task).status is TaskStatus.CANCELLED


async def test_a_swallowed_cancel_that_fails_instead(caplog: pytest.LogCaptureFixture) -> None:
    """Cleaning up raises: the task has failed, the error is told once, and the cancel is named as swallowed."""
    caplog.set_level(logging.WARNING)

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError("while tidying") from None

    async with TaskManager() as manager:
        task = manager.create_task(work(), name="untidy")
        await turns()
        assert await manager.cancel_task(task) is CancelAnswer.ENDED
        info = manager.info(task)
        assert info.status is TaskStatus.FAILED and info.swallowed_cancel
        assert sum("while tidying" in record.getMessage() for record in caplog.records) == 1
