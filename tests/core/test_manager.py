"""What a manager promises of one task: it is a real one, it is kept, its end is counted, its error is told once."""

import asyncio
import contextvars
import gc
import logging
import sys
import weakref
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any

import pytest

from lastcall import (
    CancelAnswer,
    Kind,
    ShutdownPlan,
    StopReason,
    TaskInfo,
    TaskManager,
    TaskStatus,
    current_shutdown,
)
from tests.support.loops import LoopErrors, LoopFactory

virtual = pytest.mark.loops("virtual")
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outer")


class Boom(Exception):
    pass


async def fail(text: str = "boom") -> None:
    raise Boom(text)


async def value(result: object) -> object:
    return result


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- a real task ---


async def test_it_is_a_task_of_the_loops_own_kind() -> None:
    """A plain loop's task is an asyncio.Task, running on this loop, and gives its result to whoever awaits it."""
    async with TaskManager() as manager:
        task = manager.create_task(value(42), name="answer")
        assert type(task) is asyncio.Task
        assert task.get_name() == "answer"
        assert task.get_loop() is asyncio.get_running_loop()
        assert await task == 42


@pytest.mark.loops("asyncio")  # uvloop itself passes `context=` to every factory
async def test_a_custom_task_factory_makes_the_task() -> None:
    """A tracing tool has put a factory of its own, which knows nothing of `context=`, on the loop."""

    class Traced(asyncio.Task[Any]):
        pass

    def factory(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any]) -> Traced:
        return Traced(coro, loop=loop)

    asyncio.get_running_loop().set_task_factory(factory)  # type: ignore[arg-type]
    async with TaskManager() as manager:
        task = manager.create_task(value(1), name="traced")
        in_group = manager.group(limit=1).create_task(value(2))
        in_thread = manager.run_in_thread(lambda: 3)
        assert {type(task), type(in_group), type(in_thread)} == {Traced}
        assert [await task, await in_group, await in_thread] == [1, 2, 3]
        assert task.get_name() == "traced"
        assert manager.info(task).status is TaskStatus.COMPLETED


@pytest.mark.loops("asyncio")
async def test_a_factory_that_refuses_leaves_nothing_behind() -> None:
    """The loop's factory raises: the caller gets that error, the coroutine is closed, no ghost is counted."""

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        if coro.__qualname__ == "value":
            raise Boom("no")
        return asyncio.Task(coro, loop=loop, **options)

    async with TaskManager() as manager:
        asyncio.get_running_loop().set_task_factory(factory)
        group = manager.group(limit=1)
        with pytest.raises(Boom):
            manager.create_task(value(1), id="mine")
        with pytest.raises(Boom):
            group.create_task(value(1))
        asyncio.get_running_loop().set_task_factory(None)
        manager.create_task(value(1), id="mine")
        assert await group.create_task(value(2)) == 2
        assert manager.stats().completed == 2 and not group.tasks


async def test_the_task_knows_itself_in_its_first_step() -> None:
    """Eagerly or not: in the very first step current_task is the task and current_shutdown speaks for it."""
    seen: list[tuple[object, object]] = []

    async def work() -> None:
        seen.append((asyncio.current_task(), current_shutdown()._record))

    async with TaskManager() as manager:
        task = manager.create_task(work(), name="work")
        record = manager._roster.find(task)
        await task
        assert seen == [(task, record)]


async def test_told_alone_in_its_first_step() -> None:
    """A task that waits for the stop at once, eagerly maybe, can be stopped alone."""
    async with TaskManager() as manager:

        async def work() -> StopReason | None:
            await current_shutdown().wait()
            return current_shutdown().reason

        alone, other = manager.create_task(work()), manager.create_task(work())
        assert manager.stop_task(alone)
        assert await alone is StopReason.USER
        assert not other.done()
        assert manager.stop_task(other, reason=StopReason.DISCONNECT)
        assert await other is StopReason.DISCONNECT
        assert not manager.stop_task(other) and not manager.stop_task("nobody")


async def test_children_of_a_first_step_belong_to_the_manager() -> None:
    """A task makes another in its first step; both are counted, each under its own id."""
    async with TaskManager() as manager:

        async def parent() -> int:
            return await manager.create_task(child(), id="child")

        async def child() -> int:
            await asyncio.sleep(0)
            return 7

        assert await manager.create_task(parent(), id="parent") == 7
        assert {info.id for info in manager.tasks()} == {"parent", "child"}
        assert manager.stats().completed == 2


# --- kept ---


async def test_nothing_is_collected_in_flight() -> None:
    """Nobody but the manager holds the task, and it waits for something only it refers to."""
    async with TaskManager() as manager:

        async def orphan() -> str:
            waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            woken.append(weakref.ref(waiter))
            return await waiter

        woken: list[weakref.ref[asyncio.Future[str]]] = []
        manager.create_task(orphan(), id="orphan")
        manager.group().create_task(orphan(), id="in a group nobody holds")
        await asyncio.sleep(0)
        gc.collect()
        for ref in woken:
            waiter = ref()
            assert waiter is not None
            waiter.set_result("alive")
            del waiter
        await turns()
        assert {info.result for info in manager.tasks()} == {"alive"}


async def test_a_pending_task_keeps_its_coroutine() -> None:
    """A task behind a limit has not started; a collection between must not take what it will run."""
    async with TaskManager() as manager:
        go = asyncio.Event()
        group = manager.group(limit=1)
        group.create_task(go.wait())
        ref = weakref.ref(group.create_task(value("late"), id="late"))
        del group
        gc.collect()
        assert ref() is not None and manager.info("late").status is TaskStatus.PENDING
        go.set()
        await turns(6)
        assert manager.info("late").result == "late"


# --- names ---


async def test_name_id_labels_and_group_are_shown() -> None:
    """Everything the caller said of a task comes back in its info, by task and by id."""
    async with TaskManager() as manager:
        group = manager.group("mail")
        before = manager.create_task(value(1))
        task = group.create_task(value(2), name="send", id="mail-1", labels={"to": "a@b"})
        info = manager.info(task)
        assert (info.id, info.name, info.group, dict(info.labels)) == (
            "mail-1",
            "send",
            "mail",
            {"to": "a@b"},
        )
        assert info.kind is Kind.TASK and not info.daemon
        assert manager.info("mail-1").id == info.id
        plain = manager.info(before)
        assert plain.name.endswith("value") and plain.id.startswith("t-") and dict(plain.labels) == {}
        assert manager.info(plain.id).id == plain.id
        await asyncio.wait({task, before})
        assert [info.id for info in manager.tasks(group="mail")] == ["mail-1"]
        assert [info.id for info in manager.tasks(group=group, status="completed")] == ["mail-1"]
        assert len(manager.tasks(status=TaskStatus.COMPLETED)) == 2
        assert manager.tasks(kind="thread") == []


async def test_names_need_not_be_unique_and_ids_count_up() -> None:
    """Two tasks of one name have two ids, in order of birth."""
    async with TaskManager() as manager:
        tasks = [manager.create_task(value(n), name="same") for n in range(3)]
        ids = [manager.info(task).id for task in tasks]
        assert len(set(ids)) == 3
        assert [info.id for info in manager.tasks()] == ids


async def test_a_snapshot_does_not_change() -> None:
    """An info taken while running says running for ever, and its labels cannot be used to change the task's."""
    async with TaskManager() as manager:
        task = manager.create_task(asyncio.sleep(0), labels={"k": "v"})
        info = manager.info(task)
        await task
        assert info.status is TaskStatus.RUNNING and info.ended_at is None and info.seconds is None
        with pytest.raises(TypeError):
            info.labels["k"] = "w"  # type: ignore[index]
        after = manager.info(task)
        assert after.labels == {"k": "v"}
        assert (
            after.started_at is not None and after.ended_at is not None and after.ended_at >= after.started_at
        )


# --- context ---


async def test_the_context_is_a_copy() -> None:
    """What the task sets its caller does not see; what the caller sets later the task does not see."""
    async with TaskManager() as manager:

        async def work() -> str:
            await asyncio.sleep(0)
            seen = variable.get()
            variable.set("inner")
            return seen

        variable.set("mine")
        task = manager.create_task(work())
        variable.set("later")
        assert await task == "mine"
        assert variable.get() == "later"


async def test_a_given_context_is_used_itself() -> None:
    """As in asyncio.create_task: the context given is the one the task runs in, and current_shutdown works there."""
    async with TaskManager() as manager:
        context = Context()

        async def work() -> str:
            variable.set("given")
            manager.create_task(value(1))
            return str(current_shutdown().requested)

        assert await manager.create_task(work(), context=context) == "False"
        assert await manager.group().create_task(work(), context=copy_context()) == "False"
        assert context[variable] == "given"
        assert variable.get() == "outer"


async def test_one_context_for_two_tasks() -> None:
    """Two tasks share a given context; each still finds its own stop."""
    async with TaskManager() as manager:
        context = Context()

        async def work() -> StopReason | None:
            await current_shutdown().wait()
            return current_shutdown().reason

        first = manager.create_task(work(), context=context)
        second = manager.create_task(work(), context=context)
        await turns()
        manager.stop_task(second, reason=StopReason.TIMEOUT)
        assert await second is StopReason.TIMEOUT
        assert not first.done()
        manager.stop_task(first, reason=StopReason.USER)
        assert await first is StopReason.USER


# --- daemons ---


@virtual
async def test_a_daemon_is_never_waited_for() -> None:
    """A daemon that sleeps for an hour costs the shutdown no second, and ends with it."""
    loop = asyncio.get_running_loop()
    async with TaskManager(plan=ShutdownPlan(drain=1000)) as manager:
        beat = manager.create_task(asyncio.sleep(3600), daemon=True)
        await asyncio.sleep(1)
        began = loop.time()
    assert loop.time() == began
    assert beat.cancelled()
    assert manager.report is not None and manager.report.clean


# --- errors, exactly once ---


async def test_an_error_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A task fails and nobody awaits it: one log record with its traceback, nothing at garbage collection."""
    async with TaskManager() as manager:
        manager.create_task(fail("lost?"), name="loser", id="l")
        await turns()
        assert manager.stats().failed == 1
    del manager
    gc.collect()
    told = [
        record for record in caplog.records if record.levelno >= logging.WARNING and "loser" in record.message
    ]
    assert len(told) == 1
    assert told[0].exc_info is not None and isinstance(told[0].exc_info[1], Boom)
    assert "'loser' (l)" in told[0].message and "lost?" in told[0].message


async def test_an_error_that_is_awaited_is_told_once_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody awaits the failing task: he gets the exception, and the log has it once."""
    async with TaskManager() as manager:
        task = manager.create_task(fail(), name="loser")
        with pytest.raises(Boom):
            await task
        assert isinstance(manager.info(task).error, Boom)
    assert (
        sum("loser" in record.message and record.levelno >= logging.ERROR for record in caplog.records) == 1
    )


async def test_the_hook_gets_it_in_place_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """With on_error the log stays silent; the hook sees the ended task's info and the exception itself."""
    told: list[tuple[TaskInfo, BaseException]] = []
    async with TaskManager(on_error=lambda info, error: told.append((info, error))) as manager:
        task = manager.create_task(fail(), id="l")
        await asyncio.wait({task})
        await turns()
    assert [(info.id, info.status, type(error)) for info, error in told] == [("l", TaskStatus.FAILED, Boom)]
    assert told[0][1] is task.exception()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "failure", [ValueError("hook"), asyncio.CancelledError("hook")], ids=["error", "cancelled"]
)
async def test_a_hook_that_fails_loses_nothing(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """on_error itself fails: both failures are in the log, the task is remembered, its group lets go of it."""

    def hook(info: TaskInfo, error: BaseException) -> None:
        raise failure

    async with TaskManager(on_error=hook) as manager:
        group = manager.group(on_error="isolate")
        task = group.create_task(fail("the first"), name="loser")
        await asyncio.wait({task})
        await turns()
        assert not group.tasks
        assert manager.info(task).status is TaskStatus.FAILED
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "on_error" in text and "the first" in text


async def test_the_hook_may_start_work() -> None:
    """on_error hands the failure to a new task of the same manager."""
    async with TaskManager(
        on_error=lambda info, error: manager.create_task(value(str(error)), id="told")
    ) as manager:
        await asyncio.wait({manager.create_task(fail("pass it on"))})
        await turns()
        assert manager.info("told").result == "pass it on"


async def test_an_error_whose_text_cannot_be_made() -> None:
    """`str()` of the exception raises: the end is counted all the same, and the shutdown is not held up."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    async def work(shutting_down: bool) -> None:
        if shutting_down:
            await current_shutdown().wait()
        raise Unspeakable

    told: list[BaseException] = []
    async with TaskManager(on_error=lambda info, error: told.append(error)) as manager:
        await asyncio.wait({manager.create_task(work(False))})
        manager.create_task(work(True))
        await turns()
    assert [type(error) for error in told] == [Unspeakable] * 2
    assert manager.stats().failed == 2
    assert manager.report is not None and manager.report.seconds < 10


@pytest.mark.loops("asyncio", "uvloop")
async def test_cancelled_before_its_first_step() -> None:
    """The task runs no line, yet its end is counted, and its coroutine is not "never awaited"."""
    async with TaskManager() as manager:
        ran: list[str] = []

        async def work() -> None:
            ran.append("ran")

        foreign, ours = manager.create_task(work()), manager.create_task(work())
        foreign.cancel()
        assert await manager.cancel_task(ours) is CancelAnswer.ENDED
        await turns()
        assert ran == []
        assert manager.stats().cancelled == 2
        assert manager.info(foreign).status is TaskStatus.CANCELLED
        assert manager.info(foreign).reason is None
        assert manager.info(ours).reason is StopReason.USER


@pytest.mark.loops("asyncio")
def test_system_exit_in_a_task_leaves_the_loop(loop_factory: LoopFactory) -> None:
    """As in asyncio: SystemExit in a task ends the program, and the manager drains on the way out."""
    manager = TaskManager()

    async def leave() -> None:
        sys.exit(3)

    async def main() -> None:
        async with manager:
            manager.create_task(leave(), id="leaver")
            await asyncio.sleep(60)

    with pytest.raises(SystemExit) as raised:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
    assert raised.value.code == 3
    assert manager.stats().failed == 1 and manager.report is not None


async def test_a_done_callback_that_raises_disturbs_no_book(loop_errors: LoopErrors) -> None:
    """Somebody else's callback on our task raises: asyncio reports that one, our record is complete."""

    def broken(task: asyncio.Task[Any]) -> None:
        raise Boom("callback")

    async with TaskManager() as manager:
        task = manager.create_task(asyncio.sleep(0), id="x")
        task.add_done_callback(broken)
        await task
        await turns()
        assert manager.info("x").status is TaskStatus.COMPLETED
    assert len(loop_errors) == 1 and isinstance(loop_errors[0]["exception"], Boom)


# --- many ---


async def test_ten_thousand_tasks_end_in_ten_thousand_records() -> None:
    """A third returns, a third fails, a third is cancelled; nobody is lost and nothing stays behind."""
    told: list[object] = []
    manager = TaskManager(keep_ended=20_000, on_error=lambda info, error: told.append(error))
    async with manager:
        tasks: list[asyncio.Task[Any]] = []
        for number in range(9_999):
            coro: Coroutine[Any, Any, Any]
            coro = value(number) if number % 3 == 0 else fail() if number % 3 == 1 else asyncio.sleep(3600)
            tasks.append(manager.create_task(coro))
        for task in tasks[2::3]:
            task.cancel()
        await asyncio.wait(tasks)
        stats = manager.stats()
        assert (stats.completed, stats.failed, stats.cancelled) == (3333, 3333, 3333)
        assert stats.pending == stats.running == 0 and len(told) == 3333
        assert len(manager.tasks()) == 9_999
        assert not manager._roster.live


async def test_a_manager_may_be_opened_again() -> None:
    """Closed and opened: the counts begin anew, the old tasks are gone, new work runs."""
    manager = TaskManager(name="twice")
    for _ in range(2):
        async with manager:
            assert manager.stats().completed == 0 and manager.report is None
            assert await manager.create_task(value(1), id="same id") == 1
            assert manager.stats().completed == 1
        assert manager.stats().completed == 1 and manager.report is not None
