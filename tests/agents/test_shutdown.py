"""A queue in memory is told to stop: what waits, what runs, what will not end, and whoever waits for any of it."""

import asyncio
import logging

import pytest

from lastcall import ManagerState, ShutdownPlan, TaskManager, current_shutdown
from lastcall.agents import AgentQueue, RunStatus, Turn
from lastcall.exceptions import ManagerClosed, NotOpen, RunCancelled, ShuttingDown, UnknownRun
from tests.agents.places import Gated

pytestmark = pytest.mark.loops("virtual")

PLAN = ShutdownPlan(notice=0, drain=20, cancel=5, close=5)


async def test_what_waits_is_cancelled_at_once_and_what_runs_may_finish() -> None:
    """Four run and six wait when the app shuts down: the six hear of it at once, the four have the drain to finish."""
    heard: list[object] = []

    async def agent(prompt: int) -> str:
        shutdown = current_shutdown()
        await shutdown.wait()
        heard.append(shutdown.reason)
        await asyncio.sleep(3)
        return f"{prompt} is done"

    loop = asyncio.get_running_loop()
    async with TaskManager(plan=PLAN) as manager:
        queue = AgentQueue(agent, manager=manager, concurrency=4)
        runs = [await queue.submit(number) for number in range(10)]
        waiting = asyncio.gather(*(run.wait() for run in runs[4:]))
        await asyncio.sleep(1)
        began = loop.time()
        manager.begin_shutdown()
        infos = await waiting
        assert loop.time() == began
        assert {(info.status, info.reason) for info in infos} == {("cancelled", "shutdown")}
        with pytest.raises(ShuttingDown):
            await queue.submit(11)
        assert [await run.result() for run in runs[:4]] == [f"{number} is done" for number in range(4)]
        assert loop.time() == began + 3
    assert heard == ["shutdown"] * 4
    report = manager.report
    assert report is not None
    assert report.seconds == pytest.approx(3)
    with pytest.raises(RunCancelled, match="shutdown"):
        await runs[9].result()
    assert (await queue.stats())[RunStatus.COMPLETED] == 4


async def test_what_does_not_finish_is_cancelled_at_the_deadline_and_reported() -> None:
    """An agent needs longer than the drain: it is cancelled once, cleans up, and is in the report; its text stays."""
    cleaned = []

    async def agent(turn: Turn, prompt: str) -> str:
        await turn.write("so far")
        try:
            await asyncio.sleep(1000)
        finally:
            cleaned.append(current_shutdown().reason)
        return "never"

    async with AgentQueue(agent, manager=None, name="slow") as queue:
        run = await queue.submit("a")
        await asyncio.sleep(1)
    assert cleaned == ["shutdown"]
    assert queue.report is not None and not queue.report.clean
    assert run.id in str(queue.report)
    info = await run.info()
    assert (info.status, info.reason) == ("cancelled", "shutdown")
    assert await run.text() == "so far"
    events = [(event.type, event.data) async for event in run.events()]
    assert events[-1] == ("status", {"status": "cancelled", "reason": "shutdown"})


async def test_one_that_will_not_end_is_told_of_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """An agent swallows its cancellation: the shutdown goes on, whoever waits for the run is told, nothing hangs."""
    free = asyncio.Event()

    async def stubborn(prompt: str) -> str:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                pass
        return "at last"

    manager = TaskManager(plan=ShutdownPlan(notice=0, drain=1, cancel=1, close=1))
    with caplog.at_level(logging.CRITICAL):
        async with manager, AgentQueue(stubborn, manager=manager) as queue:
            run = await queue.submit("a")
            await asyncio.sleep(1)
            waiter = asyncio.create_task(run.result())
            await asyncio.sleep(0)
            await manager.shutdown()
            with pytest.raises(RunCancelled, match="shutdown"):
                await waiter
    info = await run.info()
    assert info.status is RunStatus.CANCELLED
    assert info.error is not None and "swallowed" in info.error["message"]
    free.set()
    await asyncio.sleep(1)
    assert await run.status() is RunStatus.CANCELLED


async def test_a_queue_stops_alone_and_the_manager_goes_on() -> None:
    """`shutdown(timeout)` ends one queue; other work of the manager is not touched, and a new queue can be opened."""
    agent = Gated()
    async with TaskManager(plan=PLAN) as manager:
        other = manager.create_task(asyncio.sleep(100), name="other")
        queue = AgentQueue(agent, manager=manager, concurrency=1)
        running, waiting = await queue.submit("a"), await queue.submit("b")
        await asyncio.sleep(1)
        report = await queue.shutdown(timeout=2)
        assert report is not None and not report.clean
        assert [await run.status() for run in (running, waiting)] == ["cancelled", "cancelled"]
        assert (await running.info()).reason == (await waiting.info()).reason == "shutdown"
        with pytest.raises(ShuttingDown):
            await queue.submit("c")
        assert await queue.shutdown() is not None
        assert manager.state is ManagerState.OPEN and not other.done()
        again = AgentQueue(agent, manager=manager)
        agent.let_all()
        assert await (await again.submit("d")).result() == "answer to d"
        other.cancel()


async def test_one_that_waits_for_a_word_hears_of_the_stop() -> None:
    """An agent waits for an approval that will not come any more: it is cancelled at the deadline, and may clean up."""
    cleaned = []

    async def careful(turn: Turn, prompt: str) -> str:
        try:
            return str(await turn.wait_for("approval"))
        finally:
            cleaned.append(turn.shutdown.reason)

    async with AgentQueue(careful, concurrency=1) as queue:
        run = await queue.submit("a")
        await asyncio.sleep(1)
        assert await run.status() is RunStatus.WAITING
    assert cleaned == ["shutdown"]
    assert (await run.info()).reason == "shutdown"


async def test_a_word_that_comes_in_the_drain_is_heard() -> None:
    """The approval comes while the app shuts down: the run takes its place again and finishes within the drain."""

    async def careful(turn: Turn, prompt: str) -> str:
        return str(await turn.wait_for("approval"))

    async with TaskManager(plan=PLAN) as manager:
        queue = AgentQueue(careful, manager=manager, concurrency=1)
        run = await queue.submit("a")
        await asyncio.sleep(1)
        manager.begin_shutdown()
        await asyncio.sleep(5)
        await run.send("approval", "yes")
        assert await run.result() == "yes"
    assert manager.report is not None and manager.report.clean


async def test_a_queue_in_a_task_of_its_manager_drains_with_it() -> None:
    """A service has a queue as a block when the app shuts down: it leaves with its runs, and waits for nobody else."""
    agent = Gated()
    runs = []

    async def service() -> None:
        async with AgentQueue(agent, concurrency=1) as queue:
            runs.extend([await queue.submit("a"), await queue.submit("b")])
            await current_shutdown().wait()
        assert [await run.status() for run in runs] == ["completed", "cancelled"]

    async with TaskManager(plan=PLAN) as manager:
        task = manager.create_task(service())
        await asyncio.sleep(1)
        manager.begin_shutdown()
        await asyncio.sleep(2)
        assert not task.done()
        agent.let_all()
    assert task.exception() is None


async def test_a_queue_needs_a_manager_and_finds_it() -> None:
    """Without a block and without a manager a prompt is refused; inside a manager's block none need be named."""
    agent = Gated()
    agent.let_all()
    queue = AgentQueue(agent)
    with pytest.raises(NotOpen, match="async with queue"):
        await queue.submit("a")
    assert await queue.shutdown() is None
    async with TaskManager() as manager:
        run = await queue.submit("a")
        assert await run.result() == "answer to a"
        assert [task.name for task in manager.tasks(status="completed")] == [f"agent: {run.id}"]
    with pytest.raises(ManagerClosed, match="agent: .* was not started"):
        await queue.submit("b")
    async with manager:
        assert await (await queue.submit("c")).result() == "answer to c"


async def test_what_has_ended_is_remembered_within_bounds() -> None:
    """A queue runs for long: so many ended runs are known, for so long; those that run are never forgotten."""
    agent = Gated()
    async with AgentQueue(agent, concurrency=20, keep_ended=3) as queue:
        living = await queue.submit("stays")
        for number in range(10):
            agent.let(number)
        runs = [await queue.submit(number, key=str(number)) for number in range(10)]
        for run in runs[7:]:
            await run.wait()
        assert [info.prompt for info in await queue.runs(status="completed")] == [9, 8, 7]
        assert await living.status() is RunStatus.RUNNING
        with pytest.raises(UnknownRun):
            await runs[0].status()
        agent.let_all()
        assert (await queue.submit(0, key="0")).id != runs[0].id


async def test_the_list_of_the_manager_tells_pending_from_running() -> None:
    """Prompts that wait are tasks of the manager too, and are shown as what they are."""
    agent = Gated()
    async with TaskManager() as manager:
        queue = AgentQueue(agent, manager=manager, concurrency=2, name="study")
        runs = [await queue.submit(number) for number in range(5)]
        await asyncio.sleep(1)
        assert manager.stats().pending == 3
        assert {task.name for task in manager.tasks(status="pending")} == {
            f"study: {run.id}" for run in runs[2:]
        }
        agent.let_all()
        for run in runs:
            await run.wait()
        assert (manager.stats().pending, manager.stats().completed) == (0, 5)
