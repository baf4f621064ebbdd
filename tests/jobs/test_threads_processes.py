"""Jobs that are plain functions: in threads, and in processes that can be killed."""

import functools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lastcall.exceptions import BadDeclaration
from lastcall.jobs import Context, Job, Jobs, current_context
from tests.jobs.functions import deaf, ends_badly, heeds, much, process_jobs, stands, whoami, whoami_async
from tests.jobs.running import PATIENCE_SECONDS, ended, eventually, manager, outcomes

# --- threads -------------------------------------------------------------------------------------------


async def test_a_plain_function_runs_in_a_thread_with_its_context(jobs: Jobs) -> None:
    """A blocking job knows which job it is, by its argument and from far below, and does not block the loop."""
    loop_thread = threading.get_ident()

    @jobs.task
    def work(ctx: Context, n: int) -> tuple[bool, bool, int]:
        same_job = current_context().job_id == ctx.job_id
        return same_job, threading.get_ident() != loop_thread, ctx.attempt + n

    async with jobs.worker():
        assert await (await work.submit(4)).result(timeout=20) == (True, True, 5)


async def test_as_many_threads_as_the_worker_has_slots(jobs: Jobs) -> None:
    """Forty blocking jobs wait for each other, and forty blocking steps: more than a manager has threads for by
    itself, and all of them run at once."""
    together = threading.Barrier(40, timeout=PATIENCE_SECONDS)

    @jobs.task
    def work() -> int:
        return together.wait()

    async with jobs.worker(concurrency=40):
        submitted = await jobs.submit_many(work.call() for _ in range(40))
        assert sorted([await job.result(timeout=20) for job in submitted]) == list(range(40))


@pytest.mark.loops("asyncio")
async def test_a_plain_function_that_returns_an_awaitable(jobs: Jobs) -> None:
    """A decorator has made a plain function of a coroutine function: what it returns is awaited."""

    def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return wrapper

    @jobs.task
    @decorated
    async def work(n: int) -> int:
        return n + 1

    async with jobs.worker():
        assert await (await work.submit(4)).result(timeout=20) == 5


# --- processes -------------------------------------------------------------------------------------------


async def error_of(job: Job[Any]) -> dict[str, str]:
    info = await job.wait(timeout=60)
    assert info.status == "failed" and info.error is not None, info
    return dict(info.error)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def pid_in(path: Path) -> int:
    await eventually(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


processes = [pytest.mark.loops("asyncio"), pytest.mark.slow]


class TestProcesses:
    pytestmark = processes

    async def test_a_job_in_a_process_of_its_own(self) -> None:
        """A plain and an async function run in other processes, and a long answer comes back whole."""
        async with process_jobs.worker():
            plain, other, long = await whoami.submit(1), await whoami_async.submit(2), await much.submit()
            (first, two), (second, three) = await plain.result(timeout=60), await other.result(timeout=60)
            assert (two, three) == (2, 3) and len({first, second, os.getpid()}) == 3
            assert len(await long.result(timeout=60)) == 900_000

    async def test_a_process_that_ends_badly(self) -> None:
        """It raises, exits, answers with what cannot be sent, or dies: each is an error that says so, with the
        traceback from there."""
        async with process_jobs.worker():
            submitted = {
                how: await ends_badly.submit(how)
                for how in ("error", "demanding", "exit", "no pickle", "dies")
            }
            errors = {how: await error_of(job) for how, job in submitted.items()}
        assert (errors["error"]["type"], errors["error"]["message"]) == ("LookupError", "not found")
        assert "in the process:" in errors["error"]["traceback"]
        assert 'raise LookupError("not found")' in errors["error"]["traceback"]
        assert "Demanding: disk: on fire" in errors["demanding"]["message"]
        assert 'raise Demanding("disk", "on fire")' in errors["demanding"]["traceback"]
        assert "SystemExit: 3" in errors["exit"]["message"]
        assert "cannot be sent" in errors["no pickle"]["message"]
        assert errors["dies"]["type"] == "ProcessDied" and "exit code 7" in errors["dies"]["message"]

    async def test_a_process_that_is_killed(self, tmp_path: Path) -> None:
        """Somebody, or the system for want of memory, kills the process: the attempt has failed, and is tried again."""
        async with process_jobs.worker():
            job = await stands.submit(str(tmp_path / "pid"), True)
            os.kill(await pid_in(tmp_path / "pid"), signal.SIGKILL)
            assert await job.result(timeout=60) == "second"
            assert await outcomes(job) == ["failed", "completed"]
            assert "ProcessDied" in ((await job.attempts())[0].error or "")

    async def test_a_cancelled_process_is_asked(self, tmp_path: Path) -> None:
        """The user cancels: the process sees that it is asked to stop, and ends by itself."""
        path = tmp_path / "pid"
        async with process_jobs.worker():
            job = await stands.submit(str(path), False)
            pid = await pid_in(path)
            await job.cancel()
            assert await ended(job) == "cancelled"
            assert path.with_suffix(".asked").exists() and not is_alive(pid)

    async def test_a_process_that_will_not_stop_is_killed(self, tmp_path: Path) -> None:
        """It ignores the request: when its grace is over it is killed, and its slot is free."""
        path = tmp_path / "pid"
        async with manager(cancel=0.5) as mine, process_jobs.worker(manager=mine):
            job = await stands.submit(str(path), True)
            pid = await pid_in(path)
            await job.cancel()
            assert await ended(job) == "cancelled"
            assert not path.with_suffix(".asked").exists() and not is_alive(pid)

    async def test_a_cancel_before_the_process_has_started(self, tmp_path: Path) -> None:
        """The cancel comes in the very moment in which the process is being started: it does not run to its end."""
        path = tmp_path / "pid"
        async with process_jobs.worker() as worker:
            job = await stands.submit(str(path), True)
            await eventually(lambda: worker.running == 1)
            await job.cancel()
            assert await ended(job) == "cancelled"
            await eventually(lambda: not worker.manager.tasks(status="running"))
            assert not path.exists() or not is_alive(int(path.read_text()))

    async def test_a_process_hears_of_the_stop_at_once(self, tmp_path: Path) -> None:
        """The drain begins: the process is told, ends its work in time, and its result counts."""
        path = tmp_path / "pid"
        async with process_jobs:
            async with manager(drain=30) as mine, process_jobs.worker(manager=mine):
                job = await heeds.submit(str(path))
                await pid_in(path)
            assert await job.result(timeout=60) == "told: shutdown"
            assert mine.report is not None and mine.report.clean and mine.report.seconds < 20

    @pytest.mark.parametrize("who", ["the worker", "everybody"])
    async def test_a_process_that_dies_of_the_stop_is_handed_over(self, tmp_path: Path, who: str) -> None:
        """It has only just started and dies of the signal, which its worker sends, or somebody who signals all of the
        program's processes, this one a moment before its worker: no failure, and no attempt charged."""
        path = tmp_path / "pid"
        async with process_jobs:
            async with manager(drain=30) as mine, process_jobs.worker(manager=mine) as worker:
                job = await deaf.submit(str(path))
                pid = await pid_in(path)
                if who == "everybody":
                    os.kill(pid, signal.SIGTERM)
                    await eventually(lambda: not is_alive(pid))
                    assert worker.running == 1
            assert await outcomes(job) == ["handed_over (shutdown)"]
            assert (await job.info()).failures == 0
            assert mine.report is not None and mine.report.clean
            async with process_jobs.worker():
                assert await job.result(timeout=60) == "second"

    async def test_a_process_at_the_deadline(self, tmp_path: Path) -> None:
        """The process does not heed the stop: when its grace after the drain is over it is killed, and its job handed
        over; another worker runs it again."""
        path = tmp_path / "pid"
        async with process_jobs:
            async with manager(drain=0.1, cancel=0.5) as mine, process_jobs.worker(manager=mine):
                job = await stands.submit(str(path), True)
                pid = await pid_in(path)
            assert not is_alive(pid)
            assert await outcomes(job) == ["handed_over (shutdown)"]
            assert mine.report is not None and mine.report.clean
            async with process_jobs.worker():
                assert await job.result(timeout=60) == "second"
            assert (await job.info()).failures == 0


@pytest.mark.loops("asyncio")
async def test_what_cannot_run_in_a_process(jobs: Jobs) -> None:
    """A local function, and one that wants a context: refused where they are declared."""
    with pytest.raises(BadDeclaration, match="module level"):

        @jobs.task(run="process")
        def local() -> None: ...

    def with_context(ctx: Context) -> None: ...

    with_context.__qualname__ = "with_context"
    with pytest.raises(BadDeclaration, match="Context"):
        jobs.task(with_context, run="process")  # type: ignore[call-overload]
